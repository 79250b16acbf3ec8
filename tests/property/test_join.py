"""Grants, confirmations and state under every bit flip, every truncation, and anything at all."""

from functools import cache
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.enclave import handover, join
from broch.enclave.join import Connection, ModuleKeys, Terms
from broch.errors import DecodeError, UntrustedError

NONCE: Final = bytes(range(32))
MODULE: Final = join.module_digest("garden", "valve")
DEPLOYER: Final = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
DEPLOYER_KEY: Final = DEPLOYER.public_key().public_bytes_raw()
EXCHANGE: Final = X25519PrivateKey.from_private_bytes(b"x" * 32)
SIGNING: Final = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
KEYS: Final = ModuleKeys(
    EXCHANGE.public_key().public_bytes_raw(), SIGNING.public_key().public_bytes_raw()
)

CONNECTIONS: Final = st.builds(
    Connection,
    id=st.integers(1, 2**32 - 1),
    role=st.sampled_from(["output", "input", "request", "handler"]),
    port=st.text(max_size=10),
    peer=st.text(max_size=10),
    cipher=st.text(max_size=10),
    key=st.binary(min_size=16, max_size=16),
    epoch=st.integers(1, 2**32 - 1),
)
TERMS: Final = st.builds(
    Terms,
    serial=st.integers(1, 2**64 - 1),
    confirm_key=st.binary(min_size=32, max_size=32),
    connections=st.lists(CONNECTIONS, max_size=3),
)


def opened(data: bytes) -> Terms:
    return join.open_grant(data, NONCE, KEYS, EXCHANGE, DEPLOYER_KEY)


@cache
def a_grant() -> bytes:
    connection = Connection(1, "input", "set", "a.b", "aes-128-gcm", bytes(16), 1)
    return join.grant(Terms(1, bytes(32), [connection]), NONCE, KEYS, DEPLOYER)


@cache
def an_import_order() -> bytes:
    state = handover.seal_state(b"litres: 12", KEYS.exchange, MODULE, SIGNING)
    return handover.import_order(DEPLOYER, NONCE, KEYS, KEYS, state)


def taken(order: bytes) -> bytes:
    return handover.open_import_order(order, DEPLOYER_KEY, NONCE, KEYS, EXCHANGE, MODULE)


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@settings(derandomize=True, max_examples=50, deadline=None)
@given(terms=TERMS)
def test_terms_come_out_as_they_went_in_and_are_confirmed(terms: Terms) -> None:
    assert opened(join.grant(terms, NONCE, KEYS, DEPLOYER)) == terms
    given = join.confirmation(terms, NONCE, KEYS)
    join.check_confirmation(given, terms, NONCE, KEYS)
    with pytest.raises(UntrustedError):
        join.check_confirmation(flip(given, 0), terms, NONCE, KEYS)


def test_every_bit_of_a_grant_counts() -> None:
    data = a_grant()
    for bit in range(len(data) * 8):
        with pytest.raises(UntrustedError):
            opened(flip(data, bit))
    assert opened(data).serial == 1


def test_every_truncation_of_a_grant_is_refused() -> None:
    data = a_grant()
    for size in range(len(data)):
        with pytest.raises(UntrustedError):
            opened(data[:size])


def test_every_bit_of_an_import_order_counts() -> None:
    order = an_import_order()
    for bit in range(len(order) * 8):
        with pytest.raises(UntrustedError):
            taken(flip(order, bit))
    assert taken(order) == b"litres: 12"


def test_every_truncation_of_an_import_order_is_refused() -> None:
    order = an_import_order()
    for size in range(len(order)):
        with pytest.raises(UntrustedError):
            taken(order[:size])


@settings(derandomize=True, deadline=None)
@given(data=st.binary(max_size=200))
def test_anything_at_all_is_refused(data: bytes) -> None:
    for take in (opened, taken):
        with pytest.raises(UntrustedError):
            take(data)
    with pytest.raises(UntrustedError):
        handover.open_export_order(data, DEPLOYER_KEY, NONCE, KEYS)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(plain=st.binary(max_size=200))
def test_anything_signed_and_sealed_is_terms_or_malformed(plain: bytes) -> None:
    receiver = EXCHANGE.public_key()
    sealed = join._HPKE.encrypt(plain, receiver, info=b"broch/join/grant/1" + NONCE)
    signature = DEPLOYER.sign(join._signed(NONCE, KEYS, sealed))
    with pytest.raises(DecodeError):
        opened(signature + sealed)
