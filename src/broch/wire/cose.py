"""COSE_Sign1 and COSE_Mac0 (RFC 9052, sections 4.2 and 6.2; algorithms of RFC 9053).

    [ protected: bstr, unprotected: map, payload: bstr, signature or tag: bstr ]

Tag 18 or 17 in front is wanted or refused, as the caller says (a Nitro document has none,
a PSA token has one). The algorithm is the caller's: the header must name the same, so a message
can neither choose nor omit it. Critical headers are refused, since none is understood here;
detached payloads too.
"""

import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from broch.errors import DecodeError, UntrustedError
from broch.wire import cbor

SIGN1_TAG: Final = 18
MAC0_TAG: Final = 17
_ALG: Final = 1  # header label
_CRIT: Final = 2


class Alg(IntEnum):
    """Algorithms (RFC 9053, tables 1 and 3)."""

    ES256 = -7
    ES384 = -35
    ES512 = -36
    HMAC_256 = 5


class Tagging(IntEnum):
    """Whether the tag is in front."""

    UNTAGGED = 0
    TAGGED = 1


# Algorithm -> curve, bytes of r and of s, hash. RFC 9053 leaves the curve free; here it is not.
_CURVES: Final[dict[Alg, tuple[type[ec.EllipticCurve], int, type[hashes.HashAlgorithm]]]] = {
    Alg.ES256: (ec.SECP256R1, 32, hashes.SHA256),
    Alg.ES384: (ec.SECP384R1, 48, hashes.SHA384),
    Alg.ES512: (ec.SECP521R1, 66, hashes.SHA512),
}
_ALGS: Final = {curve: alg for alg, (curve, _, _) in _CURVES.items()}


def algorithm(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> Alg | None:
    """The one algorithm that a key is for; None if it is on another curve."""
    return _ALGS.get(type(key.curve))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A COSE message taken apart; nothing in it has been verified."""

    protected: bytes  # as it came: this is what is signed
    header: dict[Any, Any]  # the protected header, decoded
    unprotected: dict[Any, Any]
    payload: bytes
    signature: bytes  # or authentication tag
    tag: int  # 18: COSE_Sign1, 17: COSE_Mac0
    tagging: Tagging

    @classmethod
    def from_bytes(cls, data: bytes, *, tag: int, tagging: Tagging, what: str) -> Self:
        """Decode exactly one message.

        Raises:
            DecodeError: not one, not strict CBOR, or the tag is not as wanted.
        """
        outer = cbor.decode(data, what=what)
        if tagging is Tagging.TAGGED:
            if not isinstance(outer, cbor.Tag) or outer.number != tag:
                raise DecodeError(0, f"not tagged {tag}", what=what)
            outer = outer.value
        if not isinstance(outer, list) or len(outer) != 4:
            raise DecodeError(0, "not an array of four", what=what)
        protected, unprotected, payload, signature = outer
        for name, part, kind in (
            ("protected header", protected, bytes),
            ("unprotected header", unprotected, dict),
            ("payload", payload, bytes),
            ("signature", signature, bytes),
        ):
            if not isinstance(part, kind):
                raise DecodeError(0, f"{name} is not of type {kind.__name__}", what=what)
        header = cbor.decode(protected, what=f"{what}: protected header") if protected else {}
        if not isinstance(header, dict) or (protected and not header):
            raise DecodeError(0, "the protected header is not a map with entries", what=what)
        if header.keys() & unprotected.keys():
            raise DecodeError(0, "a header parameter is both protected and not", what=what)
        if _ALG in unprotected or _CRIT in unprotected:
            raise DecodeError(0, "alg or crit in the unprotected header", what=what)
        return cls(
            protected=protected,
            header=header,
            unprotected=unprotected,
            payload=payload,
            signature=signature,
            tag=tag,
            tagging=tagging,
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        parts = [self.protected, self.unprotected, self.payload, self.signature]
        return cbor.encode(cbor.Tag(self.tag, parts) if self.tagging else parts)

    def to_be_signed(self, external: bytes = b"") -> bytes:
        """Sig_structure or MAC_structure (sections 4.4 and 6.3)."""
        context = "Signature1" if self.tag == SIGN1_TAG else "MAC0"
        return cbor.encode([context, self.protected, external, self.payload])

    def check_header(self, alg: Alg, what: str) -> None:
        """The header names ``alg``, and asks for nothing that must be understood.

        Raises:
            UntrustedError: another algorithm or none, or critical parameters.
        """
        found = self.header.get(_ALG)
        if type(found) is not int or found != alg:
            raise UntrustedError(f"{what}: algorithm {found!r:.40}, expected {alg.name}")
        if _CRIT in self.header:
            raise UntrustedError(f"{what}: critical header parameters are not understood")


def verify1(
    message: Message, key: ec.EllipticCurvePublicKey, alg: Alg, what: str, external: bytes = b""
) -> None:
    """Check a COSE_Sign1 with ``key`` under ``alg``, and no other.

    Raises:
        UntrustedError: header, key or signature is not right.
    """
    if message.tag != SIGN1_TAG or alg not in _CURVES:
        raise UntrustedError(f"{what}: not a signature")
    message.check_header(alg, what)
    curve, size, digest = _CURVES[alg]
    if not isinstance(key.curve, curve):
        raise UntrustedError(f"{what}: a key on {key.curve.name} for {alg.name}")
    signature = message.signature
    if len(signature) != 2 * size:
        raise UntrustedError(f"{what}: a signature of {len(signature)} bytes, expected {2 * size}")
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message.to_be_signed(external), ec.ECDSA(digest()))
    except InvalidSignature:
        raise UntrustedError(f"{what}: the signature does not hold") from None


def verify_mac0(message: Message, key: bytes, what: str, external: bytes = b"") -> None:
    """Check a COSE_Mac0 with HMAC 256/256 (a tag of 32 bytes).

    Raises:
        UntrustedError: header or tag is not right, or the key is short.
    """
    if message.tag != MAC0_TAG:
        raise UntrustedError(f"{what}: not a MAC")
    message.check_header(Alg.HMAC_256, what)
    if len(key) < 16:
        raise UntrustedError(f"{what}: a MAC key of {len(key)} bytes, at least 16 expected")
    expected = hmac.digest(key, message.to_be_signed(external), "sha256")
    if not hmac.compare_digest(expected, message.signature):
        raise UntrustedError(f"{what}: the MAC does not hold")


def sign1(
    payload: bytes,
    key: ec.EllipticCurvePrivateKey,
    alg: Alg,
    *,
    tagging: Tagging,
    external: bytes = b"",
) -> bytes:
    """Make a COSE_Sign1 with ``alg`` in the protected header; deterministic (RFC 6979)."""
    _, size, digest = _CURVES[alg]
    unsigned = _message(payload, alg, SIGN1_TAG, tagging)
    algorithm = ec.ECDSA(digest(), deterministic_signing=True)
    r, s = decode_dss_signature(key.sign(unsigned.to_be_signed(external), algorithm))
    return _finish(unsigned, r.to_bytes(size, "big") + s.to_bytes(size, "big"))


def mac0(payload: bytes, key: bytes, *, tagging: Tagging, external: bytes = b"") -> bytes:
    """Make a COSE_Mac0 with HMAC 256/256."""
    unsigned = _message(payload, Alg.HMAC_256, MAC0_TAG, tagging)
    return _finish(unsigned, hmac.digest(key, unsigned.to_be_signed(external), "sha256"))


def _message(payload: bytes, alg: Alg, tag: int, tagging: Tagging) -> Message:
    header = {_ALG: int(alg)}
    return Message(
        protected=cbor.encode(dict(header)),
        header=header,
        unprotected={},
        payload=payload,
        signature=b"",
        tag=tag,
        tagging=tagging,
    )


def _finish(unsigned: Message, signature: bytes) -> bytes:
    parts = [unsigned.protected, unsigned.unprotected, unsigned.payload, signature]
    return cbor.encode(cbor.Tag(unsigned.tag, parts) if unsigned.tagging else parts)


def public_key(value: Any, what: str) -> ec.EllipticCurvePublicKey:
    """The key of an EC2 COSE_Key (RFC 9053, section 7.1.1), on P-256, P-384 or P-521.

    Raises:
        DecodeError: not such a key.
        UntrustedError: not a point of its curve.
    """
    curves: dict[int, tuple[ec.EllipticCurve, int]] = {
        1: (ec.SECP256R1(), 32),
        2: (ec.SECP384R1(), 48),
        3: (ec.SECP521R1(), 66),
    }
    crv = value.get(-1) if isinstance(value, dict) else None
    if type(crv) is not int or crv not in curves or value.get(1) != 2:
        raise DecodeError(0, "not an EC2 key", what=what)
    if not value.keys() <= {1, 2, 3, 4, -1, -2, -3}:
        raise DecodeError(0, "a key with unknown parameters", what=what)
    curve, size = curves[crv]
    x, y = value.get(-2), value.get(-3)
    for part in (x, y):
        if not isinstance(part, bytes) or len(part) != size:
            raise DecodeError(0, f"coordinates are not {size} bytes each", what=what)
    assert isinstance(x, bytes)
    assert isinstance(y, bytes)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError:
        raise UntrustedError(f"{what}: not a point of {curve.name}") from None
