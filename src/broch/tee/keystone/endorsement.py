"""Who says that a Keystone device key belongs to a device: a COSE_Sign1 statement (RFC 9052).

Keystone defines no certificate, and X.509 has no name for a key of Ed25519 with SHA3. So the
holder of a root, an ordinary P-256 certificate, signs a statement that carries the raw key:

    18([ << {1: -7} >>, {}, << payload >>, signature ])       ES256, no external data

    payload, a map in deterministic encoding (RFC 8949, section 4.2.1):
    "broch-keystone-endorsement"  1
    "device"                      text, the device's name
    "from", "until"               unsigned, seconds since 1970: when the statement holds
    "key"                         32 bytes, the device public key

An emulated device has a root of its own, named so that nobody mistakes it for a maker's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.wire.x509 import Window, read_certificate

ROOT_NAME: Final = "Broch Emulated Keystone Root"
_PROTECTED: Final = cbor2.dumps({1: -7}, canonical=True)  # alg: ES256
_SIGN1_TAG: Final = 18
_MAX_SIZE: Final = 4096  # bytes of a statement
_WHAT: Final = "Keystone endorsement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the payload says."""

    device: str
    key: bytes  # 32 bytes
    start: int  # seconds since 1970
    end: int  # seconds since 1970, inclusive

    def to_payload(self) -> bytes:
        """The deterministic encoding."""
        return cbor2.dumps(
            {
                "broch-keystone-endorsement": 1,
                "device": self.device,
                "from": self.start,
                "until": self.end,
                "key": self.key,
            },
            canonical=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsed:
    """A statement whose signature holds, and who signed it."""

    statement: Statement
    root: str  # common name of the anchor
    window: Window  # of the anchor

    @property
    def emulated(self) -> bool:
        """Whether the chain ends in the root of an emulated device."""
        return roots.is_emulated(self.root)

    def check_time(self, at: datetime) -> None:
        """Refuse what does not hold at that moment.

        Raises:
            UntrustedError: statement or root has not begun or has ended.
        """
        self.window.check(at)
        if not self.statement.start <= at.timestamp() <= self.statement.end:
            raise UntrustedError(
                f"endorsement of device {self.statement.device!r} does not hold at {at.isoformat()}"
            )


def endorse(key: ec.EllipticCurvePrivateKey, statement: Statement) -> bytes:
    """Sign a statement with a root key; deterministic (RFC 6979)."""
    payload = statement.to_payload()
    der = key.sign(_to_be_signed(payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = decode_dss_signature(der)
    return _encode(payload, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def check_endorsement(data: bytes, anchors: tuple[bytes, ...]) -> Endorsed:
    """Find the anchor that signed the statement. Time is left to :meth:`Endorsed.check_time`.

    Raises:
        DecodeError: not a statement, or an anchor is not a certificate.
        UndecidedError: there is no anchor at all.
        UntrustedError: no anchor signed it.
    """
    statement, payload, signature = _decode(data)
    if not anchors:
        raise UndecidedError("no anchor is given to check a Keystone endorsement with")
    for root in [read_certificate(der, "anchor") for der in anchors]:
        if _is_signed(root.key, payload, signature):
            return Endorsed(statement=statement, root=root.name, window=root.window)
    raise UntrustedError("no anchor signed the endorsement of this Keystone device")


def _is_signed(public: object, payload: bytes, signature: bytes) -> bool:
    if not isinstance(public, ec.EllipticCurvePublicKey):
        return False
    if not isinstance(public.curve, ec.SECP256R1):
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public.verify(encode_dss_signature(r, s), _to_be_signed(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _to_be_signed(payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", _PROTECTED, b"", payload], canonical=True)


def _encode(payload: bytes, signature: bytes) -> bytes:
    return cbor2.dumps(
        cbor2.CBORTag(_SIGN1_TAG, [_PROTECTED, {}, payload, signature]), canonical=True
    )


def _decode(data: bytes) -> tuple[Statement, bytes, bytes]:
    outer = _load(data)
    parts = outer.value if isinstance(outer, cbor2.CBORTag) and outer.tag == _SIGN1_TAG else None
    if not isinstance(parts, list | tuple) or len(parts) != 4:
        raise DecodeError(0, "not a COSE_Sign1", what=_WHAT)
    protected, unprotected, payload, signature = parts
    if protected != _PROTECTED or unprotected != {}:
        raise DecodeError(0, "the headers are not those of ES256 alone", what=_WHAT)
    if type(payload) is not bytes or type(signature) is not bytes or len(signature) != 64:
        raise DecodeError(0, "payload and signature are not bytes of their sizes", what=_WHAT)
    statement = _decode_payload(payload)
    if _encode(payload, signature) != data:
        raise DecodeError(0, "not the deterministic encoding", what=_WHAT)
    return statement, payload, signature


def _decode_payload(payload: bytes) -> Statement:
    fields = _load(payload)
    kinds = {"broch-keystone-endorsement": int, "device": str, "from": int, "until": int}
    if not isinstance(fields, dict) or fields.keys() != {*kinds, "key"}:
        raise DecodeError(0, "the payload does not have the fields of a statement", what=_WHAT)
    for name, kind in {**kinds, "key": bytes}.items():
        if type(fields[name]) is not kind:
            raise DecodeError(0, f"{name} is a {type(fields[name]).__name__}", what=_WHAT)
    if len(fields["key"]) != 32:
        raise DecodeError(0, f"key has {len(fields['key'])} bytes, expected 32", what=_WHAT)
    statement = Statement(
        device=fields["device"], key=fields["key"], start=fields["from"], end=fields["until"]
    )
    if statement.to_payload() != payload:
        raise DecodeError(0, "not the deterministic encoding of format 1", what=_WHAT)
    return statement


def _load(data: bytes) -> Any:
    if len(data) > _MAX_SIZE:
        raise DecodeError(_MAX_SIZE, f"{len(data)} bytes; at most {_MAX_SIZE}", what=_WHAT)
    try:
        return cbor2.loads(data, max_depth=8, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise DecodeError(0, f"not CBOR: {exc}", what=_WHAT) from None
