"""Raw P-256 keys and signatures."""

import pytest

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import UntrustedError
from broch.tee.dcap import ecdsa

KEY = ecdsa.derive_key(b"seed", "label")


def test_keys_are_functions_of_seed_and_label() -> None:
    numbers = KEY.private_numbers()
    assert numbers == ecdsa.derive_key(b"seed", "label").private_numbers()
    assert numbers != ecdsa.derive_key(b"seed", "other").private_numbers()
    assert numbers != ecdsa.derive_key(b"other", "label").private_numbers()


def test_points_round_trip() -> None:
    raw = ecdsa.raw_public_key(KEY.public_key())
    assert len(raw) == 64
    assert ecdsa.public_key(raw, "key") == VerifyingKey(KEY.public_key())


@pytest.mark.parametrize("raw", [bytes(64), b"\xff" * 64, b"\1" * 64, bytes(63), bytes(65), b""])
def test_what_is_no_point(raw: bytes) -> None:
    with pytest.raises(UntrustedError, match="not a point"):
        ecdsa.public_key(raw, "key")


def test_signatures() -> None:
    signature = ecdsa.sign(KEY, b"data")
    assert len(signature) == 64
    key = VerifyingKey(KEY.public_key())
    ecdsa.verify(key, signature, b"data", "x")
    for bad, data in (
        (signature, b"other"),
        (bytes(64), b"data"),
        (b"\xff" * 64, b"data"),
        (signature[:32] + bytes(32), b"data"),
        (bytes(32) + signature[32:], b"data"),
        (signature[:63], b"data"),
        (signature + b"\0", b"data"),
        (b"", b"data"),
    ):
        with pytest.raises(UntrustedError, match=r"does not hold|expected 64"):
            ecdsa.verify(key, bad, data, "x")
