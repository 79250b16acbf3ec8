"""CCA against tokens of others' platforms. Every file there has a verdict here."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from broch.errors import DecodeError, UntrustedError
from broch.tee.cca import VERIFIER
from broch.tee.cca.token import Collection, Platform
from broch.tee.contract import Endorsements
from broch.wire import cbor

AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
FILES: Final = {
    "README.md": "text",
    "ccatoken/CcaPlatformExample.diag": "text",
    "ccatoken/CcaRealmExample.diag": "text",
    "ccatoken/cca_platform.pem": "the private key",
    "ccatoken/cca_platform.pub": "the public key",
    "ccatoken/cca_token.cbor": "authentic",
    "services/cca-endorsements.cbor": "endorsements",
    "services/cca-evidence.cbor": "authentic",
    "services/cca-good.cbor": "authentic",
    "services/cca-realm-endorsements.cbor": "endorsements",
    "services/corim-cca-platform-valid.cbor": "endorsements",
    "services/corim-cca-realm-valid.cbor": "endorsements",
    "services/corim-parsec-cca-valid.cbor": "endorsements",
    "services/parsec-cca-evidence.cbor": "authentic, in an envelope of Parsec's",
}
KEYS: Final = {
    "ccatoken/cca_token.cbor": "ccatoken/cca_platform.pub",
    "services/cca-evidence.cbor": "services/cca-endorsements.cbor",
    "services/cca-good.cbor": "services/corim-cca-platform-valid.cbor",
    "services/parsec-cca-evidence.cbor": "services/corim-parsec-cca-valid.cbor",
}


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence" / "cca"


def token(folder: Path, name: str) -> bytes:
    data = (folder / name).read_bytes()
    if "parsec" in name:
        return cbor.encode(cbor.decode(data, what=name)["pat"])
    return data


def endorsements(folder: Path, name: str) -> Endorsements:
    """The key as it is published; what it was enrolled for is what the (example) token says."""
    text = (folder / KEYS[name]).read_bytes()
    match = re.search(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", text, re.DOTALL)
    assert match
    key = load_pem_public_key(match.group())
    platform = Platform.from_bytes(Collection.from_bytes(token(folder, name)).platform.payload)
    items = {
        "platform_key": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "implementation_id": platform.implementation_id,
        "instance_id": platform.instance_id,
    }
    return Endorsements(anchors=(), items=items)


def test_every_file_has_a_verdict(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == FILES.keys()
    assert {name for name, verdict in FILES.items() if "authentic" in verdict} == KEYS.keys()


@pytest.mark.parametrize("name", sorted(KEYS))
def test_tokens(folder: Path, name: str) -> None:
    data = token(folder, name)
    claims = VERIFIER.verify(data, endorsements(folder, name), at=AT)
    assert claims.details["lifecycle"] == "SECURED"
    assert len(claims.report_data) == 64
    assert not claims.debug
    assert Collection.from_bytes(data).to_bytes() == data


def test_the_oldest_form_has_no_realm_profile(folder: Path) -> None:
    name = "ccatoken/cca_token.cbor"
    claims = VERIFIER.verify(token(folder, name), endorsements(folder, name), at=AT)
    assert claims.realm.profile is None
    assert claims.report_data == b"\xab" * 64
    assert len(claims.realm.key) == 97


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_byte_counts(folder: Path, name: str) -> None:
    data, made = token(folder, name), endorsements(folder, name)
    for offset in range(0, len(data), 3):
        bent = bytearray(data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), made, at=AT)


def test_the_key_of_another_platform(folder: Path) -> None:
    other = endorsements(folder, "ccatoken/cca_token.cbor")
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        VERIFIER.verify(token(folder, "services/cca-good.cbor"), other, at=AT)


def test_an_envelope_is_not_a_token(folder: Path) -> None:
    with pytest.raises(DecodeError, match="not tagged 399"):
        Collection.from_bytes((folder / "services/parsec-cca-evidence.cbor").read_bytes())
