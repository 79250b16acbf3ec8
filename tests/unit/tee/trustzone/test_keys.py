"""OP-TEE's derivations."""

import hashlib
import hmac
from uuid import UUID

import pytest

from broch.errors import UsageError
from broch.tee.trustzone.keys import (
    Usage,
    derive_ssk,
    derive_ta_unique_key,
    derive_tsk,
    subkey,
)

HUK = bytes(range(16))
TA = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51b")
TA_STRUCT = bytes.fromhex("00f2aa8a5024e411abe20002a5d5c51b")


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def test_a_subkey_names_its_usage() -> None:
    assert subkey(HUK, Usage.DIE_ID, b"data") == mac(HUK, b"\x02\0\0\0data")
    assert subkey(HUK, Usage.DIE_ID, b"data", 16) == mac(HUK, b"\x02\0\0\0data")[:16]


def test_the_storage_key_with_and_without_compatibility() -> None:
    text = b"BEEFBEEFBEEFBEEFBEEFBEEFBEEFBEEF" + b"ONLY_FOR_tee_fs_ssk\0"
    assert derive_ssk(HUK) == mac(HUK, text)
    assert derive_ssk(HUK, compat=False) == mac(HUK, b"\x01\0\0\0" + text)


def test_a_tas_storage_key_is_over_its_uuid_in_memory() -> None:
    assert derive_tsk(b"s" * 32, TA) == mac(b"s" * 32, TA_STRUCT)


def test_a_tas_unique_key() -> None:
    expected = mac(HUK, b"\x03\0\0\0" + TA_STRUCT + b"extra")
    assert derive_ta_unique_key(HUK, TA, b"extra") == expected
    assert derive_ta_unique_key(HUK, TA, b"extra", 16) == expected[:16]


@pytest.mark.parametrize(("extra", "size"), [(0, 15), (0, 33), (1025, 32)])
def test_a_tas_unique_key_has_bounds(extra: int, size: int) -> None:
    with pytest.raises(UsageError):
        derive_ta_unique_key(HUK, TA, bytes(extra), size)
