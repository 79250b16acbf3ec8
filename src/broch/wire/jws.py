"""JSON Web Signatures in compact form (RFC 7515, 7518): ES256, ES384, ES512, and EdDSA (RFC 8037).

    BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature)

The algorithm follows from the key and is the caller's: a header that names another, asks for
something critical or brings a key of its own is refused. ECDSA signatures are deterministic
(RFC 6979), r and s one after the other. One encoding: base64url without padding or unused bits.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from broch.errors import DecodeError, UntrustedError, UsageError
from broch.wire import base64url, strict_json

MAX_SIZE: Final = 1024 * 1024  # characters
_W: Final = "JWS"
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_ALLOWED: Final = {"alg", "typ", "kid"}

SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
VerifyingKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    alg: str
    size: int  # bytes of r and of s
    digest: hashes.HashAlgorithm


_CURVES: Final[dict[type[ec.EllipticCurve], _Curve]] = {
    ec.SECP256R1: _Curve(alg="ES256", size=32, digest=hashes.SHA256()),
    ec.SECP384R1: _Curve(alg="ES384", size=48, digest=hashes.SHA384()),
    ec.SECP521R1: _Curve(alg="ES512", size=66, digest=hashes.SHA512()),
}


def algorithm(key: SigningKey | VerifyingKey) -> str:
    """The one algorithm that a key is for.

    Raises:
        UsageError: none that is known here.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return "EdDSA"
    return _curve(key).alg


def _curve(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> _Curve:
    found = _CURVES.get(type(key.curve))
    if found is None:
        raise UsageError(f"a key on {key.curve.name}", hint="use P-256, P-384, P-521 or Ed25519")
    return found


def sign(payload: bytes, key: SigningKey, *, typ: str) -> str:
    """A compact JWS.

    Raises:
        UsageError: a key on another curve.
    """
    header = json.dumps({"alg": algorithm(key), "typ": typ}, separators=(",", ":")).encode()
    signed = f"{base64url.encode(header)}.{base64url.encode(payload)}"
    return f"{signed}.{base64url.encode(_signature(key, signed.encode('ascii')))}"


def _signature(key: SigningKey, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    curve = _curve(key)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(curve.digest, deterministic_signing=True)))
    return r.to_bytes(curve.size, "big") + s.to_bytes(curve.size, "big")


def verify(token: str, key: VerifyingKey, *, typ: str) -> bytes:
    """The payload of a JWS that ``key`` signed.

    Raises:
        DecodeError: not a compact JWS.
        UntrustedError: another algorithm or type, or the signature does not hold.
    """
    header, payload, signature, signed = _split(token)
    expected = {"alg": algorithm(key), "typ": typ}
    for name, wanted in expected.items():
        if header.get(name) != wanted:
            raise UntrustedError(f"JWS: {name} {header.get(name)!r:.40}, expected {wanted!r}")
    if unknown := header.keys() - _ALLOWED:
        raise UntrustedError(f"JWS: header parameter {min(unknown)!r:.40} is not understood")
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
            return payload
        curve = _curve(key)
        if len(signature) != 2 * curve.size:
            raise InvalidSignature
        r = int.from_bytes(signature[: curve.size], "big")
        s = int.from_bytes(signature[curve.size :], "big")
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(curve.digest))
    except InvalidSignature:
        raise UntrustedError("JWS: the signature does not hold") from None
    return payload


def peek(token: str) -> tuple[Mapping[str, Any], bytes]:
    """Header and payload, of which nothing has been verified: to look at, not to act upon.

    Raises:
        DecodeError: not a compact JWS.
    """
    header, payload, _, _ = _split(token)
    return header, payload


def _split(token: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    match = _TOKEN.fullmatch(token) if len(token) <= MAX_SIZE else None
    if match is None:
        raise DecodeError(0, "not three parts of base64url", what=_W)
    first, payload, signature = (base64url.decode(part, what=_W) for part in match.groups())
    header = strict_json.decode(first, what=f"header of the {_W}")
    if not isinstance(header, dict):
        raise DecodeError(0, "the header is no object", what=_W)
    return header, payload, signature, token.rpartition(".")[0].encode("ascii")
