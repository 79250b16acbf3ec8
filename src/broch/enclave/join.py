"""The join protocol: how a deployer and a module come to share connection keys. Sans-IO.

    deployer                        module (its image holds the deployer's Ed25519 key)
       | 1  nonce (32 bytes)  --------->  |
       | <---------  2  evidence, X25519 public key (32), Ed25519 public key (32)
       | 3  verify, compare, appraise     |
       | 4  Grant: HPKE ciphertext, Ed25519 signature  --->  |
       | <---------  5  confirmation: HMAC-SHA256 (32 bytes)

The report carries ``SHA-512("broch/join/1" || nonce || X25519 key || Ed25519 key || SHA-256(app,
module))`` cut to the TEE's size. A grant replaces the connections that it names and leaves the
others; its serial number rises with every grant of a join, so that none can be replayed, and its
signature covers nonce and receiver, so that none fits another join or another module.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from broch.errors import DecodeError, UntrustedError

NONCE_SIZE: Final = 32  # bytes
_REPORT: Final = b"broch/join/1"
_GRANT: Final = b"broch/join/grant/1"
_CONFIRM: Final = b"broch/join/confirm/1"
_HPKE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_SIGNATURE_SIZE: Final = 64
_CONFIRM_KEY_SIZE: Final = 32


class Connection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A module's end of one connection."""

    id: int  # 1 .. 2**32 - 1
    role: Literal["output", "input", "request", "handler"]
    port: str
    peer: str  # "module.port" or "operator", for people
    cipher: str
    key: bytes  # 16 bytes
    epoch: int  # 1 .. 2**32 - 1

    def __repr__(self) -> str:
        return f"Connection(id={self.id}, {self.role} {self.port}, epoch={self.epoch})"


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a grant holds, once open."""

    serial: int  # 1 for the first grant of a join
    confirm_key: bytes  # 32 bytes
    connections: list[Connection]

    def __repr__(self) -> str:
        return f"Terms(serial={self.serial}, {len(self.connections)} connections)"


@dataclass(frozen=True, slots=True)
class ModuleKeys:
    """The public keys that a module made at start and puts under its report."""

    exchange: bytes  # X25519, 32 bytes
    signing: bytes  # Ed25519, 32 bytes


def module_digest(app: str, module: str) -> bytes:
    """SHA-256 over both names, each after its length (2 bytes, big-endian): 32 bytes."""
    names = (app.encode(), module.encode())
    return hashlib.sha256(b"".join(struct.pack(">H", len(n)) + n for n in names)).digest()


def report_data(nonce: bytes, keys: ModuleKeys, app: str, module: str, size: int) -> bytes:
    """What the report must carry (step 2), ``size`` bytes, at most 64."""
    text = _REPORT + nonce + keys.exchange + keys.signing + module_digest(app, module)
    return hashlib.sha512(text).digest()[:size]


def _signed(nonce: bytes, keys: ModuleKeys, sealed: bytes) -> bytes:
    return _GRANT + nonce + keys.exchange + hashlib.sha256(sealed).digest()


def grant(terms: Terms, nonce: bytes, keys: ModuleKeys, deployer: Ed25519PrivateKey) -> bytes:
    """Step 4, the deployer's: seal ``terms`` to the module and sign them.

    Raises:
        UntrustedError: the module's key is none that a secret can be shared with.
    """
    plain = msgspec.msgpack.encode(terms)
    try:
        receiver = X25519PublicKey.from_public_bytes(keys.exchange)
        sealed = _HPKE.encrypt(plain, receiver, info=_GRANT + nonce)
    except ValueError:
        raise UntrustedError("the module's exchange key is not a usable X25519 key") from None
    return deployer.sign(_signed(nonce, keys, sealed)) + sealed


def open_grant(
    data: bytes, nonce: bytes, keys: ModuleKeys, private: X25519PrivateKey, deployer: bytes
) -> Terms:
    """Step 4, the module's: check the deployer's signature, then open.

    Raises:
        UntrustedError: not signed by the deployer for this join, or not sealed to this module.
        DecodeError: signed and sealed, yet not terms.
    """
    signature, sealed = data[:_SIGNATURE_SIZE], data[_SIGNATURE_SIZE:]
    try:
        Ed25519PublicKey.from_public_bytes(deployer).verify(signature, _signed(nonce, keys, sealed))
        plain = _HPKE.decrypt(sealed, private, info=_GRANT + nonce)
    except InvalidSignature:
        raise UntrustedError("the grant is not signed by the deployer for this join") from None
    except (InvalidTag, ValueError):
        raise UntrustedError("the grant is not sealed to this module") from None
    try:
        terms = _terms.decode(plain)
    except msgspec.MsgspecError as exc:
        raise DecodeError(0, f"not terms of a grant: {exc}") from None
    if not 0 < terms.serial < 2**64 or len(terms.confirm_key) != _CONFIRM_KEY_SIZE:
        raise DecodeError(0, "a grant's serial number or confirmation key is out of range")
    for connection in terms.connections:
        if len(connection.key) != 16 or not 0 < connection.epoch < 2**32 > connection.id > 0:
            raise DecodeError(0, f"connection {connection.id} is out of range")
    return terms


_terms: Final = msgspec.msgpack.Decoder(Terms)


def confirmation(terms: Terms, nonce: bytes, keys: ModuleKeys) -> bytes:
    """Step 5: proof that the module opened these terms (32 bytes)."""
    text = _CONFIRM + nonce + keys.exchange + keys.signing + struct.pack(">Q", terms.serial)
    return hmac.digest(terms.confirm_key, text, "sha256")


def check_confirmation(given: bytes, terms: Terms, nonce: bytes, keys: ModuleKeys) -> None:
    """Raise :class:`UntrustedError` unless ``given`` confirms ``terms``."""
    if not hmac.compare_digest(given, confirmation(terms, nonce, keys)):
        raise UntrustedError("the module did not confirm its connections")
