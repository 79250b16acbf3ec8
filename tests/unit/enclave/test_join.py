"""The join protocol: an honest deployer, an honest module, and everything between them altered."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from broch.enclave import join
from broch.enclave.join import Connection, ModuleKeys, Terms
from broch.errors import DecodeError, UntrustedError

NONCE: Final = bytes(range(32))
APP, MODULE = "garden", "valve"
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


@dataclass(frozen=True)
class Party:
    """A module: its private keys."""

    exchange: X25519PrivateKey
    signing: Ed25519PrivateKey

    @classmethod
    def numbered(cls, seed: int) -> "Party":
        return cls(
            X25519PrivateKey.from_private_bytes(bytes([seed]) * 32),
            Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32),
        )

    @property
    def keys(self) -> ModuleKeys:
        return ModuleKeys(
            self.exchange.public_key().public_bytes_raw(),
            self.signing.public_key().public_bytes_raw(),
        )


DEPLOYER: Final = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
DEPLOYER_KEY: Final = DEPLOYER.public_key().public_bytes_raw()
VALVE: Final = Party.numbered(1)
OTHER: Final = Party.numbered(2)
CONNECTION: Final = Connection(
    id=1, role="input", port="set", peer="controller.valve", cipher="c", key=bytes(16), epoch=1
)
TERMS: Final = Terms(1, b"k" * 32, [CONNECTION])


def opened(
    data: bytes, nonce: bytes = NONCE, party: Party = VALVE, deployer: bytes = DEPLOYER_KEY
) -> Terms:
    return join.open_grant(data, nonce, party.keys, party.exchange, deployer)


def granted(terms: object, *, signer: Ed25519PrivateKey = DEPLOYER) -> bytes:
    """A grant as a deployer with this key would make it, of anything that msgpack can say."""
    plain = terms if isinstance(terms, bytes) else msgspec.msgpack.encode(terms)
    receiver = X25519PublicKey.from_public_bytes(VALVE.keys.exchange)
    sealed = SUITE.encrypt(plain, receiver, info=b"broch/join/grant/1" + NONCE)
    return signer.sign(join._signed(NONCE, VALVE.keys, sealed)) + sealed


# Report data


def test_report_data_is_what_the_docstring_says() -> None:
    names = hashlib.sha256(b"\0\6garden\0\5valve").digest()
    keys = VALVE.keys
    text = b"broch/join/1" + NONCE + keys.exchange + keys.signing + names
    assert join.report_data(NONCE, keys, APP, MODULE, 64) == hashlib.sha512(text).digest()


@pytest.mark.parametrize("size", [0, 32, 64])
def test_report_data_is_cut_to_what_the_tee_carries(size: int) -> None:
    whole = join.report_data(NONCE, VALVE.keys, APP, MODULE, 64)
    assert join.report_data(NONCE, VALVE.keys, APP, MODULE, size) == whole[:size]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"nonce": bytes(32)}, id="nonce"),
        pytest.param(
            {"keys": ModuleKeys(OTHER.keys.exchange, VALVE.keys.signing)}, id="exchange key"
        ),
        pytest.param(
            {"keys": ModuleKeys(VALVE.keys.exchange, OTHER.keys.signing)}, id="signing key"
        ),
        pytest.param({"app": "gardens"}, id="app"),
        pytest.param({"module": "pump"}, id="module"),
    ],
)
def test_every_field_is_in_the_report(changed: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "nonce": NONCE,
        "keys": VALVE.keys,
        "app": APP,
        "module": MODULE,
        "size": 32,
    }
    assert join.report_data(**{**fields, **changed}) != join.report_data(**fields)


def test_a_letter_cannot_move_between_the_names() -> None:
    assert join.module_digest("ab", "c") != join.module_digest("a", "bc")


# A grant


def test_a_grant_opens_as_it_was_given() -> None:
    assert opened(join.grant(TERMS, NONCE, VALVE.keys, DEPLOYER)) == TERMS


def test_two_grants_of_the_same_terms_differ() -> None:
    grants = {join.grant(TERMS, NONCE, VALVE.keys, DEPLOYER) for _ in range(3)}
    assert len(grants) == 3


def test_a_grant_shows_nothing_of_its_terms() -> None:
    connection = msgspec.structs.replace(CONNECTION, key=b"0123456789abcdef")
    data = join.grant(Terms(1, b"k" * 32, [connection]), NONCE, VALVE.keys, DEPLOYER)
    for secret in (b"0123456789abcdef", b"k" * 32, b"controller"):
        assert secret not in data


def test_terms_and_connections_do_not_show_their_keys() -> None:
    connection = msgspec.structs.replace(CONNECTION, key=b"0123456789abcdef")
    shown = repr([Terms(1, b"k" * 32, [connection]), connection])
    assert "0123456789abcdef" not in shown
    assert "kkkk" not in shown


def test_another_deployer_is_refused() -> None:
    eve = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        opened(join.grant(TERMS, NONCE, VALVE.keys, eve))


def test_a_grant_of_another_join_is_refused() -> None:
    with pytest.raises(UntrustedError, match="not signed by the deployer for this join"):
        opened(join.grant(TERMS, bytes(32), VALVE.keys, DEPLOYER))


def test_a_grant_of_another_module_is_refused() -> None:
    with pytest.raises(UntrustedError, match="not signed by the deployer for this join"):
        opened(join.grant(TERMS, NONCE, OTHER.keys, DEPLOYER))


def test_a_ciphertext_of_another_module_is_refused_although_it_is_signed_for_this_one() -> None:
    receiver = X25519PublicKey.from_public_bytes(OTHER.keys.exchange)
    plain = msgspec.msgpack.encode(TERMS)
    sealed = SUITE.encrypt(plain, receiver, info=b"broch/join/grant/1" + NONCE)
    data = DEPLOYER.sign(join._signed(NONCE, VALVE.keys, sealed)) + sealed
    with pytest.raises(UntrustedError, match="not sealed to this module"):
        opened(data)


def test_a_ciphertext_of_another_join_is_refused_although_it_is_signed_for_this_one() -> None:
    other = join.grant(TERMS, bytes(32), VALVE.keys, DEPLOYER)[64:]
    data = DEPLOYER.sign(join._signed(NONCE, VALVE.keys, other)) + other
    with pytest.raises(UntrustedError, match="not sealed to this module"):
        opened(data)


def test_a_signature_does_not_fit_another_ciphertext() -> None:
    one, two = (join.grant(TERMS, NONCE, VALVE.keys, DEPLOYER) for _ in range(2))
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        opened(one[:64] + two[64:])


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 95, 96, 112])
def test_a_grant_cut_short_is_refused(size: int) -> None:
    with pytest.raises(UntrustedError):
        opened(join.grant(TERMS, NONCE, VALVE.keys, DEPLOYER)[:size])


@pytest.mark.parametrize("size", [0, 47])
def test_a_signed_ciphertext_too_short_to_be_one_is_refused(size: int) -> None:
    sealed = bytes(size)
    with pytest.raises(UntrustedError, match="not sealed to this module"):
        opened(DEPLOYER.sign(join._signed(NONCE, VALVE.keys, sealed)) + sealed)


def test_a_deployer_key_that_is_none_signs_nothing() -> None:
    data = join.grant(TERMS, NONCE, VALVE.keys, DEPLOYER)
    for key in (b"\xff" * 32, b"\2" + bytes(31)):
        with pytest.raises(UntrustedError, match="not signed by the deployer"):
            opened(data, deployer=key)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31)], ids=["zero", "one"])
def test_a_deployer_gives_nothing_to_a_key_that_everyone_shares(key: bytes) -> None:
    """A secret with a point of low order is known to all."""
    with pytest.raises(UntrustedError, match="not a usable X25519 key"):
        join.grant(TERMS, NONCE, ModuleKeys(key, VALVE.keys.signing), DEPLOYER)


def test_a_deployer_gives_nothing_to_a_key_of_another_size() -> None:
    with pytest.raises(UntrustedError, match="not a usable X25519 key"):
        join.grant(TERMS, NONCE, ModuleKeys(bytes(31), VALVE.keys.signing), DEPLOYER)


# What a grant holds

PLAIN: Final[list[Any]] = [1, b"k" * 32, [[1, "input", "set", "a.b", "c", bytes(16), 1]]]


def with_terms(index: int, value: object) -> list[Any]:
    return [*PLAIN[:index], value, *PLAIN[index + 1 :]]


def with_connection(index: int, value: object) -> list[Any]:
    connection = [*PLAIN[2][0]]
    connection[index] = value
    return [*PLAIN[:2], [connection]]


def test_the_plain_form_is_accepted() -> None:
    """Or the refusals below would say nothing."""
    assert opened(granted(PLAIN)).serial == 1


@pytest.mark.parametrize("serial", [0, -1, -(2**63)])
def test_a_serial_number_out_of_range_is_refused(serial: int) -> None:
    with pytest.raises(DecodeError, match="serial number"):
        opened(granted(with_terms(0, serial)))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_confirmation_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(DecodeError, match="confirmation key is out of range"):
        opened(granted(with_terms(1, bytes(size))))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param(0, 0, id="id 0"),
        pytest.param(0, -1, id="id below 0"),
        pytest.param(0, 2**32, id="id of 33 bits"),
        pytest.param(5, bytes(15), id="key too short"),
        pytest.param(5, bytes(32), id="key too long"),
        pytest.param(6, 0, id="epoch 0"),
        pytest.param(6, -1, id="epoch below 0"),
        pytest.param(6, 2**32, id="epoch of 33 bits"),
    ],
)
def test_a_connection_out_of_range_is_refused(index: int, value: object) -> None:
    with pytest.raises(DecodeError, match="out of range"):
        opened(granted(with_connection(index, value)))


@pytest.mark.parametrize(("index", "value"), [(0, 2**32 - 1), (6, 2**32 - 1)])
def test_the_last_of_a_range_is_accepted(index: int, value: int) -> None:
    terms = opened(granted(with_connection(index, value)))
    assert value in (terms.connections[0].id, terms.connections[0].epoch)


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="not msgpack"),
        pytest.param(msgspec.msgpack.encode(PLAIN) + b"\0", id="bytes after it"),
        pytest.param({}, id="a map"),
        pytest.param(PLAIN[:2], id="too few fields"),
        pytest.param([*PLAIN, 0], id="too many fields"),
        pytest.param(with_terms(0, "1"), id="serial as text"),
        pytest.param(with_terms(2, None), id="no connections"),
        pytest.param(with_connection(1, "entry"), id="unknown role"),
        pytest.param(with_connection(2, 5), id="port as number"),
        pytest.param([*PLAIN[:2], [[*PLAIN[2][0], 0]]], id="connection with too many fields"),
        pytest.param([*PLAIN[:2], [PLAIN[2][0][:6]]], id="connection with too few fields"),
    ],
)
def test_what_is_signed_and_sealed_yet_not_terms_is_refused(terms: object) -> None:
    with pytest.raises(DecodeError, match="not terms of a grant"):
        opened(granted(terms))


# Confirmation


def test_a_confirmation_is_accepted_once_given() -> None:
    given = join.confirmation(TERMS, NONCE, VALVE.keys)
    assert len(given) == 32
    join.check_confirmation(given, TERMS, NONCE, VALVE.keys)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(32), id="zeros"),
        pytest.param(join.confirmation(TERMS, NONCE, VALVE.keys)[:31], id="cut"),
        pytest.param(join.confirmation(TERMS, NONCE, VALVE.keys) + b"\0", id="longer"),
        pytest.param(
            join.confirmation(Terms(2, TERMS.confirm_key, []), NONCE, VALVE.keys), id="serial"
        ),
        pytest.param(
            join.confirmation(Terms(1, bytes(32), []), NONCE, VALVE.keys), id="confirmation key"
        ),
        pytest.param(join.confirmation(TERMS, bytes(32), VALVE.keys), id="nonce"),
        pytest.param(
            join.confirmation(TERMS, NONCE, ModuleKeys(OTHER.keys.exchange, VALVE.keys.signing)),
            id="exchange key",
        ),
        pytest.param(
            join.confirmation(TERMS, NONCE, ModuleKeys(VALVE.keys.exchange, OTHER.keys.signing)),
            id="signing key",
        ),
    ],
)
def test_a_forged_or_other_confirmation_is_refused(given: bytes) -> None:
    with pytest.raises(UntrustedError, match="did not confirm its connections"):
        join.check_confirmation(given, TERMS, NONCE, VALVE.keys)
