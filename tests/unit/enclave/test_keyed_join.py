"""The join with a module that shares its key: what is sealed how, and to whom."""

import pytest

from broch.crypto.spongent import SpongeWrap
from broch.enclave.join import Connection
from broch.enclave.keyed_join import MAX_SERIAL, KeyedGrants, check_confirmed
from broch.errors import InternalError, UntrustedError

KEY, NONCE = b"k" * 16, b"n" * 16


def connection(role: str = "input", cipher: str = "spongent-128") -> Connection:
    return Connection(7, role, "set", "a.b", cipher, b"c" * 16, 3)  # type: ignore[arg-type]


def test_a_grant_is_as_documented() -> None:
    """docs/sancus-abi.md, Join."""
    grants = KeyedGrants(KEY, NONCE)
    sealed, confirm = grants.grant(connection(), 5)
    head = bytes.fromhex("02 01 05 00 00000007 00000003 00000001") + NONCE
    assert sealed[:32] == head
    assert SpongeWrap(KEY).unwrap(head, sealed[32:48], sealed[48:]) == b"c" * 16
    assert confirm == SpongeWrap(KEY).mac(bytes.fromhex("0300 00000001") + NONCE)
    assert len(sealed) == 64


def test_serials_rise_and_roles_differ() -> None:
    grants = KeyedGrants(KEY, NONCE)
    heads = [grants.grant(connection(role), 0)[0][:32] for role in ("input", "output", "input")]
    assert [head[1] for head in heads] == [1, 2, 1]
    assert [int.from_bytes(head[12:16], "big") for head in heads] == [1, 2, 3]


def test_what_a_microcontroller_cannot_have() -> None:
    grants = KeyedGrants(KEY, NONCE)
    for wrong in (connection("request"), connection("handler"), connection(cipher="aes-128-gcm")):
        with pytest.raises(InternalError, match="cannot be a microcontroller's"):
            grants.grant(wrong, 0)
    grants._serial = MAX_SERIAL
    with pytest.raises(InternalError, match="used up"):
        grants.grant(connection(), 0)
    for key, nonce in ((b"k", NONCE), (KEY, b"n")):
        with pytest.raises(InternalError, match="16 bytes each"):
            KeyedGrants(key, nonce)


def test_a_confirmation_is_checked() -> None:
    check_confirmed(b"abc", b"abc")
    for wrong in (b"abd", b"ab", b"", b"abcd"):
        with pytest.raises(UntrustedError, match="did not confirm"):
            check_confirmed(wrong, b"abc")
