"""Nitro against documents of AWS's hypervisor. Every file there has a verdict here."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.nitro import VERIFIER
from broch.tee.nitro.document import Document
from broch.tee.nitro.root import ROOT_G1, ROOT_G1_SHA256
from broch.wire.x509 import read_certificate, to_der

MADE: Final = datetime(2024, 9, 7, 14, 37, 39, 545000, tzinfo=UTC)
MADE_UP: Final = datetime(2024, 4, 17, 18, 51, 46, tzinfo=UTC)
FILES: Final = {
    "README.md": "text",
    "AWS_NitroEnclaves_Root-G1.pem": "root",
    "blocky/AWS_NitroEnclaves_Root-G1.zip": "root, packed",
    "blocky/nitro_attestation.b64": "authentic that afternoon",
    "blocky/selfsigned_attestation.b64": "refused",
    "blocky/selfsigned_cert.der": "no root",
}
GENUINE: Final = Endorsements(anchors=(ROOT_G1,))


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence" / "nitro"


@pytest.fixture(scope="module")
def genuine(folder: Path) -> bytes:
    return base64.b64decode((folder / "blocky/nitro_attestation.b64").read_bytes())


def test_every_file_has_a_verdict(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == FILES.keys()


def test_the_pin(folder: Path) -> None:
    root = to_der((folder / "AWS_NitroEnclaves_Root-G1.pem").read_bytes(), "root")
    assert root == ROOT_G1
    assert hashlib.sha256(root).digest() == ROOT_G1_SHA256


def test_a_genuine_document(genuine: bytes) -> None:
    claims = VERIFIER.verify(genuine, GENUINE, at=MADE)
    assert claims.measurement.hex().startswith("e72a46ca")
    assert claims.timestamp == MADE
    assert not claims.debug
    assert not claims.emulated
    assert claims.signer is None
    sizes = [len(part or b"") for part in (claims.nonce, claims.report_data, claims.public_key)]
    assert sizes == [1024, 1024, 1024]
    assert Document.from_bytes(genuine).to_bytes() == genuine


def test_it_is_valid_for_three_hours(genuine: bytes) -> None:
    begin = datetime(2024, 9, 7, 14, 37, 36, tzinfo=UTC)
    end = datetime(2024, 9, 7, 17, 37, 39, tzinfo=UTC)
    second = timedelta(seconds=1)
    for at in (begin, end):
        VERIFIER.verify(genuine, GENUINE, at=at)
    with pytest.raises(UntrustedError, match="is not valid before"):
        VERIFIER.verify(genuine, GENUINE, at=begin - second)
    with pytest.raises(UntrustedError, match="has expired"):
        VERIFIER.verify(genuine, GENUINE, at=end + second)


def test_bits_all_over_it_count(genuine: bytes) -> None:
    for offset in range(0, len(genuine), 29):
        bent = bytearray(genuine)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), GENUINE, at=MADE)


def test_self_signed(folder: Path) -> None:
    """Even where its certificate is named as an anchor."""
    data = base64.b64decode((folder / "blocky/selfsigned_attestation.b64").read_bytes())
    der = (folder / "blocky/selfsigned_cert.der").read_bytes()
    read_certificate(der, "self-signed")
    for anchors in ((ROOT_G1,), (der,), (ROOT_G1, der)):
        with pytest.raises(BrochError):
            VERIFIER.verify(data, Endorsements(anchors=anchors), at=MADE_UP)
