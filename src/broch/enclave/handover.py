"""Handing a module's state to its successor, across two enclaves that both were attested.

    deployer --EXPORT--> old   signature over nonce and key of the old one, key of the new one
    old --STATE--> deployer    state under HPKE to the new one's key, signed by the old one
    deployer --IMPORT--> new   signature over nonce and key of the new one, signing key of the old
    new --IMPORTED--> deployer signature over nonce, own key and that order: it was taken over

The deployer says who takes over from whom; it never sees the state. Keys are those of the join. An
author's code signs with the same key: :meth:`broch.Module.sign` refuses what begins like a message
of Broch's own, or whoever may have something signed could make up a state.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from broch.enclave.join import ModuleKeys
from broch.errors import UntrustedError

_EXPORT: Final = b"broch/state/export/1"
_IMPORT: Final = b"broch/state/import/1"
_IMPORTED: Final = b"broch/state/imported/1"
_STATE: Final = b"broch/state/1"
_HPKE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_SIGNATURE: Final = 64
_KEY: Final = 32


def export_order(
    deployer: Ed25519PrivateKey, nonce: bytes, old: ModuleKeys, new: ModuleKeys
) -> bytes:
    """Tell ``old``, whose join had this nonce, to hand its state to ``new`` (96 bytes)."""
    return deployer.sign(_EXPORT + nonce + old.exchange + new.exchange) + new.exchange


def import_order(
    deployer: Ed25519PrivateKey, nonce: bytes, new: ModuleKeys, old: ModuleKeys, state: bytes
) -> bytes:
    """Tell ``new``, whose join had this nonce, to take over what ``old`` sealed."""
    return deployer.sign(_IMPORT + nonce + new.exchange + old.signing) + old.signing + state


def open_export_order(order: bytes, deployer: bytes, nonce: bytes, keys: ModuleKeys) -> bytes:
    """The successor's exchange key; raises :class:`UntrustedError`."""
    target = order[_SIGNATURE:]
    _check(deployer, order[:_SIGNATURE], _EXPORT + nonce + keys.exchange + target, "deployer")
    return target


def seal_state(plain: bytes, target: bytes, module: bytes, signing: Ed25519PrivateKey) -> bytes:
    """Seal state to ``target``; ``module`` is the digest of app and module name.

    Raises:
        UntrustedError: the successor's key is none that a secret can be shared with.
    """
    try:
        receiver = X25519PublicKey.from_public_bytes(target)
        sealed = _HPKE.encrypt(plain, receiver, info=_STATE + module)
    except ValueError:
        raise UntrustedError("the successor's exchange key is not a usable X25519 key") from None
    return signing.sign(_signed(sealed, target, module)) + sealed


def open_import_order(
    order: bytes,
    deployer: bytes,
    nonce: bytes,
    keys: ModuleKeys,
    private: X25519PrivateKey,
    module: bytes,
) -> bytes:
    """The predecessor's state.

    Raises:
        UntrustedError: not ordered by the deployer, not sealed by that predecessor, or not to us.
    """
    old = order[_SIGNATURE : _SIGNATURE + _KEY]
    state = order[_SIGNATURE + _KEY :]
    _check(deployer, order[:_SIGNATURE], _IMPORT + nonce + keys.exchange + old, "deployer")
    signature, sealed = state[:_SIGNATURE], state[_SIGNATURE:]
    _check(old, signature, _signed(sealed, keys.exchange, module), "predecessor")
    try:
        return _HPKE.decrypt(sealed, private, info=_STATE + module)
    except (InvalidTag, ValueError):
        raise UntrustedError("the state is not sealed to this module") from None


def sign_imported(
    order: bytes, nonce: bytes, keys: ModuleKeys, signing: Ed25519PrivateKey
) -> bytes:
    """Proof that the module with these keys, whose join had this nonce, carried ``order`` out."""
    return signing.sign(_imported(order, nonce, keys))


def check_imported(proof: bytes, order: bytes, nonce: bytes, keys: ModuleKeys) -> None:
    """Raise :class:`UntrustedError` unless ``proof`` is of :func:`sign_imported`."""
    _check(keys.signing, proof, _imported(order, nonce, keys), "successor")


def _imported(order: bytes, nonce: bytes, keys: ModuleKeys) -> bytes:
    return _IMPORTED + nonce + keys.exchange + hashlib.sha256(order).digest()


def _signed(sealed: bytes, target: bytes, module: bytes) -> bytes:
    return _STATE + target + module + hashlib.sha256(sealed).digest()


def _check(key: bytes, signature: bytes, text: bytes, who: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        raise UntrustedError(f"not signed by the {who}") from None
