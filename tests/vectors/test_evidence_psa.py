"""PSA against tokens of TF-M. Every file there has a verdict here."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.psa import VERIFIER
from broch.wire.cose import MAC0_TAG, SIGN1_TAG, Message, Tagging

AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
IMPLEMENTATION: Final = bytes.fromhex("aa" * 8 + "bb" * 8 + "cc" * 8 + "dd" * 8)
FILES: Final = {
    "README.md": "text",
    "psatoken/key.pem": "the private key",
    "psatoken/public.pem": "the public key",
    "psatoken/psa-2_0_0_claims.diag": "text",
    "psatoken/psa-2_0_0_mac0.bin": "not verifiable: its key is not published",
    "psatoken/psa-iot-1_mac0.bin": "not verifiable: its key is not published",
    "psatoken/psa-2_0_0_sign1.bin": "authentic",
    "psatoken/psa-iot-1_sign1.bin": "authentic",
}
AUTHENTIC: Final = [name for name, verdict in FILES.items() if verdict == "authentic"]
MACS: Final = [name for name in FILES if "mac0" in name]


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence" / "psa"


@pytest.fixture(scope="module")
def endorsements(folder: Path) -> Endorsements:
    key = load_pem_public_key((folder / "psatoken/public.pem").read_bytes())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    items = {"implementation_id": IMPLEMENTATION, "attestation_key": der}
    return Endorsements(anchors=(), items=items)


def test_every_file_has_a_verdict(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == FILES.keys()


@pytest.mark.parametrize("name", AUTHENTIC)
def test_tokens(folder: Path, endorsements: Endorsements, name: str) -> None:
    """Their instance id is the hash of the key, so it need not be enrolled."""
    data = (folder / name).read_bytes()
    claims = VERIFIER.verify(data, endorsements, at=AT)
    assert claims.report_data == bytes(64)
    assert claims.details["lifecycle"] == "SECURED"
    assert claims.token.client_id == 3002
    assert claims.token.certification == "0604565272829-10010"
    assert [item.type for item in claims.token.components] == ["SPE", "NSPE"]
    message = Message.from_bytes(data, tag=SIGN1_TAG, tagging=Tagging.TAGGED, what="test")
    assert message.to_bytes() == data


@pytest.mark.parametrize("name", AUTHENTIC)
def test_every_byte_counts(folder: Path, endorsements: Endorsements, name: str) -> None:
    data = (folder / name).read_bytes()
    for offset in range(len(data)):
        bent = bytearray(data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError, UndecidedError)):
            VERIFIER.verify(bytes(bent), endorsements, at=AT)


@pytest.mark.parametrize("name", MACS)
def test_macs_are_not_affirmed(folder: Path, endorsements: Endorsements, name: str) -> None:
    data = (folder / name).read_bytes()
    Message.from_bytes(data, tag=MAC0_TAG, tagging=Tagging.TAGGED, what="test")
    with pytest.raises(UndecidedError, match="lack mac_key"):
        VERIFIER.verify(data, endorsements, at=AT)
    items = {**endorsements.items, "mac_key": bytes(32), "instance_id": b"\x01" * 33}
    with pytest.raises(UntrustedError, match="does not hold"):
        VERIFIER.verify(data, Endorsements(anchors=(), items=items), at=AT)
