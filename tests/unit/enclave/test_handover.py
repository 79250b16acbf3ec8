"""Handing state over: who orders, who gives, who takes, and everything between them altered."""

from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from broch import Module, ModuleIdentity, Refused
from broch.enclave import handover, join
from broch.errors import UntrustedError

from .test_join import DEPLOYER, DEPLOYER_KEY, NONCE, Party

OLD: Final = Party.numbered(1)
NEW: Final = Party.numbered(2)
OTHER: Final = Party.numbered(3)
EVE: Final = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
NEW_NONCE: Final = b"n" * 32
VALVE: Final = join.module_digest("garden", "valve")
PUMP: Final = join.module_digest("garden", "pump")
PLAIN: Final = b"litres: 12"
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


def export_target(order: bytes, nonce: bytes = NONCE, party: Party = OLD) -> bytes:
    return handover.open_export_order(order, DEPLOYER_KEY, nonce, party.keys)


def state(
    plain: bytes = PLAIN, *, to: Party = NEW, module: bytes = VALVE, by: Party = OLD
) -> bytes:
    return handover.seal_state(plain, to.keys.exchange, module, by.signing)


def taken(
    order: bytes, *, nonce: bytes = NEW_NONCE, by: Party = NEW, module: bytes = VALVE
) -> bytes:
    return handover.open_import_order(order, DEPLOYER_KEY, nonce, by.keys, by.exchange, module)


def import_order(sealed: bytes, **changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "deployer": DEPLOYER,
        "nonce": NEW_NONCE,
        "new": NEW.keys,
        "old": OLD.keys,
        "state": sealed,
    }
    return handover.import_order(**{**fields, **changed})


def test_state_goes_from_old_to_new() -> None:
    target = export_target(handover.export_order(DEPLOYER, NONCE, OLD.keys, NEW.keys))
    assert target == NEW.keys.exchange
    sealed = handover.seal_state(PLAIN, target, VALVE, OLD.signing)
    assert PLAIN not in sealed
    assert taken(import_order(sealed)) == PLAIN


def test_empty_state_goes_too() -> None:
    assert taken(import_order(state(b""))) == b""


# The order to give


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(handover.export_order(EVE, NONCE, OLD.keys, NEW.keys), id="another signer"),
        pytest.param(
            handover.export_order(DEPLOYER, bytes(32), OLD.keys, NEW.keys), id="another join"
        ),
        pytest.param(
            handover.export_order(DEPLOYER, NONCE, OTHER.keys, NEW.keys), id="another giver"
        ),
        pytest.param(
            handover.export_order(DEPLOYER, NONCE, OLD.keys, NEW.keys)[:64] + EVE.sign(b"")[:32],
            id="another taker",
        ),
        pytest.param(handover.export_order(DEPLOYER, NONCE, OLD.keys, NEW.keys)[:-1], id="cut"),
        pytest.param(
            handover.export_order(DEPLOYER, NONCE, OLD.keys, NEW.keys) + b"\0", id="longer"
        ),
        pytest.param(b"", id="nothing"),
        pytest.param(import_order(b"", nonce=NONCE, new=OLD.keys, old=NEW.keys), id="import order"),
    ],
)
def test_an_export_order_that_is_not_the_deployers_is_refused(order: bytes) -> None:
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        export_target(order)


def test_an_export_order_is_for_one_instance_of_a_module() -> None:
    """After a restart the module has another exchange key, and its signing key still."""
    again = Party(OTHER.exchange, OLD.signing)
    order = handover.export_order(DEPLOYER, NONCE, OLD.keys, NEW.keys)
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        export_target(order, party=again)


# State


@pytest.mark.parametrize("key", [bytes(32), bytes(31), b"\1" + bytes(31)])
def test_state_is_not_sealed_to_a_key_that_everyone_shares(key: bytes) -> None:
    with pytest.raises(UntrustedError, match="not a usable X25519 key"):
        handover.seal_state(PLAIN, key, VALVE, OLD.signing)


# The order to take


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(import_order(state(), deployer=EVE), id="another signer"),
        pytest.param(import_order(state(), nonce=bytes(32)), id="another join"),
        pytest.param(import_order(state(), new=OTHER.keys), id="another taker"),
        pytest.param(
            import_order(state())[:64] + OTHER.keys.signing + state(by=OTHER), id="another giver"
        ),
        pytest.param(import_order(b"")[:95], id="cut in the key"),
        pytest.param(b"", id="nothing"),
        pytest.param(
            handover.export_order(DEPLOYER, NEW_NONCE, NEW.keys, OLD.keys) + state(),
            id="export order",
        ),
    ],
)
def test_an_import_order_that_is_not_the_deployers_is_refused(order: bytes) -> None:
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        taken(order)


@pytest.mark.parametrize(
    "sealed",
    [
        pytest.param(state(by=OTHER), id="another giver"),
        pytest.param(state(to=OTHER), id="to another taker"),
        pytest.param(state(module=PUMP), id="another module's"),
        pytest.param(state()[:64] + state()[64:], id="signature of another state"),
        pytest.param(state()[:-1], id="cut"),
        pytest.param(state() + b"\0", id="longer"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_state_that_the_predecessor_did_not_give_is_refused(sealed: bytes) -> None:
    with pytest.raises(UntrustedError, match="not signed by the predecessor"):
        taken(import_order(sealed))


def test_an_operator_with_a_key_of_its_own_cannot_make_state() -> None:
    """The deployer's order names the predecessor's key; whoever carries it cannot change that."""
    order = import_order(state())
    with pytest.raises(UntrustedError, match="not signed by the deployer"):
        taken(order[:64] + OTHER.keys.signing + order[96:])


@pytest.mark.parametrize(
    ("receiver", "info"),
    [
        pytest.param(OTHER, VALVE, id="sealed to another"),
        pytest.param(NEW, PUMP, id="sealed for another module"),
    ],
)
def test_signed_state_that_is_not_sealed_to_this_module_is_refused(
    receiver: Party, info: bytes
) -> None:
    public = X25519PublicKey.from_public_bytes(receiver.keys.exchange)
    sealed = SUITE.encrypt(PLAIN, public, info=b"broch/state/1" + info)
    signature = OLD.signing.sign(handover._signed(sealed, NEW.keys.exchange, VALVE))
    with pytest.raises(UntrustedError, match="not sealed to this module"):
        taken(import_order(signature + sealed))


# A module that signs what others ask for


class Signer:
    """As much of a host as signing needs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def emit(self, port: int, value: Any) -> None: ...
    def request(self, port: int, value: Any) -> Any: ...
    def ocall(self, port: int, value: Any) -> Any: ...
    def load_store(self) -> dict[str, Any]:
        return {}

    def store_changed(self) -> None: ...
    def derive_key(self, label: str) -> bytes:
        return bytes(32)

    def identity(self) -> ModuleIdentity:
        raise NotImplementedError


def test_a_module_that_signs_anything_does_not_sign_state() -> None:
    """Or whoever may call such an entry could make up state for its successor."""
    module = Module("notary")
    module._attach(Signer(OLD.signing))
    public = X25519PublicKey.from_public_bytes(NEW.keys.exchange)
    forged = SUITE.encrypt(b"litres: 0", public, info=b"broch/state/1" + VALVE)
    text = handover._signed(forged, NEW.keys.exchange, VALVE)
    assert taken(import_order(OLD.signing.sign(text) + forged)) == b"litres: 0", "the attack"
    with pytest.raises(Refused, match="begins with broch/"):
        module.sign(text)
    assert module.sign(b"a contract") == OLD.signing.sign(b"a contract")
