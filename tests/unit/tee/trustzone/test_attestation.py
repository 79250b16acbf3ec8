"""What the pseudo-TA signs, how it travels, how its key is kept."""

from typing import Final
from uuid import UUID

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from broch.errors import DecodeError, InternalError, UntrustedError
from broch.tee.trustzone import attestation
from broch.tee.trustzone.attestation import Envelope, attest, key_from_object, key_to_object

from .conftest import signing_key

TA: Final = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51b")
NONCE: Final = bytes(range(64))
HASH: Final = b"h" * 32


@pytest.fixture(scope="module")
def envelope() -> Envelope:
    return attest(signing_key(), TA, HASH, NONCE)


def test_the_signature_is_over_the_digest_of_nonce_and_hash(envelope: Envelope) -> None:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(NONCE + HASH)
    signing_key().public_key().verify(
        envelope.signature,
        digest.finalize(),
        padding.PSS(padding.MGF1(hashes.SHA256()), 32),
        Prehashed(hashes.SHA256()),
    )


def test_the_envelope_says_what_was_asked(envelope: Envelope) -> None:
    assert cbor2.loads(envelope.to_bytes()) == {
        "broch-optee-attestation": 1,
        "command": 2,
        "nonce": NONCE,
        "output": HASH + envelope.signature,
        "uuid": TA.bytes,
    }


def test_round_trip(envelope: Envelope) -> None:
    again = Envelope.from_bytes(envelope.to_bytes())
    assert again == envelope
    again.verify(signing_key().public_key())


def test_another_key_is_refused(envelope: Envelope) -> None:
    with pytest.raises(UntrustedError):
        envelope.verify(signing_key(1).public_key())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"command": 1}, id="GET_TA_SHDR_DIGEST"),
        pytest.param({"command": 3}, id="HASH_TEE_MEMORY"),
        pytest.param({"command": True}, id="command a bool"),
        pytest.param({"command": 2.0}, id="command a float"),
        pytest.param({"broch-optee-attestation": 2}, id="format"),
        pytest.param({"nonce": NONCE[:-1]}, id="nonce short"),
        pytest.param({"nonce": NONCE + b"h"}, id="nonce long"),
        pytest.param({"nonce": "n" * 64}, id="nonce text"),
        pytest.param({"output": HASH}, id="no signature"),
        pytest.param({"output": bytes(545)}, id="output long"),
        pytest.param({"uuid": TA.bytes[:-1]}, id="uuid short"),
        pytest.param({"uuid": str(TA)}, id="uuid text"),
        pytest.param({"extra": 1}, id="another field"),
        pytest.param({"uuid": None}, id="no uuid"),
    ],
)
def test_each_rule_of_the_envelope(envelope: Envelope, changes: dict[str, object]) -> None:
    fields = {**cbor2.loads(envelope.to_bytes()), **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    with pytest.raises(DecodeError):
        Envelope.from_bytes(cbor2.dumps(fields, canonical=True))


def test_there_is_one_encoding(envelope: Envelope) -> None:
    good = envelope.to_bytes()
    backwards = dict(reversed(cbor2.loads(good).items()))
    for wrong in (good + b"\0", cbor2.dumps(backwards), b"", b"\xff", bytes(3000)):
        with pytest.raises(DecodeError):
            Envelope.from_bytes(wrong)


def test_the_split_of_nonce_and_hash_cannot_move(envelope: Envelope) -> None:
    """nonce || hash is signed without lengths: only one length of nonce is ever accepted."""
    moved = {
        **cbor2.loads(envelope.to_bytes()),
        "nonce": NONCE[:-1],
        "output": NONCE[-1:] + HASH[:-1] + envelope.signature,
    }
    with pytest.raises(DecodeError, match="nonce has 63 bytes"):
        Envelope.from_bytes(cbor2.dumps(moved, canonical=True))


def test_the_key_is_stored_as_optee_stores_it() -> None:
    key = signing_key()
    private, public = key.private_numbers(), key.public_key().public_numbers()
    data = key_to_object(key)
    assert data[:5] == b"\x00\x03\x01\x00\x01"
    assert data[-256:] == public.n.to_bytes(256, "big")
    assert data[-258:-256] == b"\x01\x00"
    d_size = int.from_bytes(data[5:7], "big")
    assert int.from_bytes(data[7 : 7 + d_size], "big") == private.d
    assert key_from_object(data).private_numbers().d == private.d


def test_a_key_with_another_private_exponent_is_read() -> None:
    """Modulo phi(n) instead of its divisor: mbedTLS and LibTomCrypt differ there."""
    numbers = signing_key().private_numbers()
    public = numbers.public_numbers
    d = pow(public.e, -1, (numbers.p - 1) * (numbers.q - 1))
    data = b"\x00\x03\x01\x00\x01" + b"\x01\x00" + d.to_bytes(256, "big")
    read = key_from_object(data + b"\x01\x00" + public.n.to_bytes(256, "big"))
    assert {read.private_numbers().p, read.private_numbers().q} == {numbers.p, numbers.q}


def test_the_long_way_finds_the_same_primes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestation, "_MAX_G", 1)
    numbers = signing_key().private_numbers()
    read = key_from_object(key_to_object(signing_key())).private_numbers()
    assert {read.p, read.q} == {numbers.p, numbers.q}


@pytest.mark.parametrize("data", [b"", b"\0", bytes(20), b"\x00\x01\x03\x00\x01\x05\x00\x01\x23"])
def test_a_damaged_key_is_our_error(data: bytes) -> None:
    with pytest.raises(InternalError, match="damaged"):
        key_from_object(data)
