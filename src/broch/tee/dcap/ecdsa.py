"""ECDSA on P-256 with SHA-256 in Intel's raw form: r and s, x and y, 32 bytes each, big-endian."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import UntrustedError

_CURVE: Final = SECP256R1()
_ALGORITHM: Final = ECDSA(SHA256())
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2


def derive_key(seed: bytes, label: str) -> EllipticCurvePrivateKey:
    """The key of ``seed`` for one purpose; out of 384 bits, so the modulus leaves no bias."""
    wide = HKDF(algorithm=SHA512(), length=48, salt=None, info=label.encode()).derive(seed)
    return derive_private_key(int.from_bytes(wide, "big") % (_ORDER - 1) + 1, _CURVE)


def public_key(raw: bytes, what: str) -> VerifyingKey:
    """The key of a point (64 bytes).

    Raises:
        UntrustedError: not a point of the curve.
    """
    try:
        key = EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + raw)
    except ValueError:
        raise UntrustedError(f"{what} is not a point of P-256") from None
    return VerifyingKey(key)


def raw_public_key(key: EllipticCurvePublicKey) -> bytes:
    """The point of a key (64 bytes)."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def sign(key: EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Signature of ``data`` (64 bytes)."""
    r, s = decode_dss_signature(key.sign(data, _ALGORITHM))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(key: VerifyingKey, signature: bytes, data: bytes, what: str) -> None:
    """Check a signature (64 bytes).

    Raises:
        UntrustedError: it does not hold.
    """
    if len(signature) != 64:
        raise UntrustedError(f"{what}: a signature of {len(signature)} bytes, expected 64")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(r, s, data, what)
