"""What evidence binds, and the messages that ask for it and carry it.

Report data, cut to the size that the TEE's report has (at most 64 bytes):

    key       SHA-512("broch/attested-tls/key/1" || SHA-256(SPKI))
    channel   SHA-512("broch/attested-tls/channel/1" || role || SHA-256(SPKI) || exporter || nonce)

    SPKI      SubjectPublicKeyInfo (DER) of the certificate's key
    role      1 byte: which end attests, so that neither can be given its own evidence back
    exporter  32 bytes, TLS exporter (RFC 8446, section 7.5), label :data:`LABEL`, no context
    nonce     32 random bytes of the end that asks

After the handshake, before anything else, each message after its length (4 bytes, big-endian):

    client -> server   [1, nonce]
    server -> client   [1, evidence, nonce or null]    null: the client need not attest
    client -> server   [1, evidence]                   only if it was asked for

in deterministic CBOR; evidence is a CMW record (:mod:`broch.wire.cmw`).
"""

import hashlib
from enum import Enum
from typing import Any, Final

from broch.errors import DecodeError
from broch.wire import cbor, cmw

ALPN: Final = b"broch-attested/1"
LABEL: Final = b"EXPERIMENTAL broch attested TLS 1"  # RFC 5705, section 4: private use
EXPORTER_SIZE: Final = 32
NONCE_SIZE: Final = 32
MAX_MESSAGE: Final = cmw.MAX_SIZE  # bytes
VERSION: Final = 1
_MAX_REPORT_DATA: Final = 64
_KEY: Final = b"broch/attested-tls/key/1"
_CHANNEL: Final = b"broch/attested-tls/channel/1"
_TYPE: Final = "application/vnd.broch.{}-evidence"
_W: Final = "attested TLS message"


class Role(Enum):
    """Which end of a connection."""

    CLIENT = b"c"
    SERVER = b"s"


def report_data_size(tee: str) -> int:
    """Bytes of report data that bind something, for a TEE; at most 64.

    Raises:
        UsageError: no verifier for it is installed.
    """
    from broch.tee import registry

    return min(registry.find_verifier(tee).report_data_size, _MAX_REPORT_DATA)


def key_data(spki: bytes, size: int) -> bytes:
    """Report data that binds a certificate's key."""
    return hashlib.sha512(_KEY + hashlib.sha256(spki).digest()).digest()[:size]


def channel_data(role: Role, spki: bytes, exporter: bytes, nonce: bytes, size: int) -> bytes:
    """Report data that binds a key, a connection and a challenge."""
    assert len(exporter) == EXPORTER_SIZE
    assert len(nonce) == NONCE_SIZE
    text = _CHANNEL + role.value + hashlib.sha256(spki).digest() + exporter + nonce
    return hashlib.sha512(text).digest()[:size]


def wrap(tee: str, evidence: bytes) -> cmw.Record:
    """Evidence of ``tee`` with its media type."""
    return cmw.Record(type=_TYPE.format(tee), value=evidence, indicator=cmw.Indicator.EVIDENCE)


def unwrap(wrapper: cmw.Wrapper) -> tuple[str, bytes]:
    """TEE and evidence.

    Raises:
        DecodeError: not evidence, or of a type that is not known here.
    """
    from broch.tee import registry

    if isinstance(wrapper, cmw.Record):
        for tee in registry.verifier_names():
            if wrapper == wrap(tee, wrapper.value):
                return tee, wrapper.value
    kind = wrapper.type if isinstance(wrapper, cmw.Record) else "a collection"
    raise DecodeError(0, f"{kind!r:.80} is not evidence that is known here", what="CMW")


def challenge_message(nonce: bytes) -> bytes:
    """The client's challenge."""
    return cbor.encode([VERSION, nonce])


def read_challenge(data: bytes) -> bytes:
    """The nonce.

    Raises:
        DecodeError: not a challenge.
    """
    (nonce,) = _fields(data, 1)
    return _nonce(nonce)


def answer_message(record: cmw.Record, nonce: bytes | None) -> bytes:
    """The server's evidence, and its own challenge if it has one."""
    return cbor.encode([VERSION, record.to_cbor(), nonce])


def read_answer(data: bytes) -> tuple[tuple[str, bytes], bytes | None]:
    """TEE and evidence, and the nonce.

    Raises:
        DecodeError: not an answer.
    """
    record, nonce = _fields(data, 2)
    return _evidence(record), None if nonce is None else _nonce(nonce)


def proof_message(record: cmw.Record) -> bytes:
    """The client's evidence."""
    return cbor.encode([VERSION, record.to_cbor()])


def read_proof(data: bytes) -> tuple[str, bytes]:
    """TEE and evidence.

    Raises:
        DecodeError: not a proof.
    """
    (record,) = _fields(data, 1)
    return _evidence(record)


def _fields(data: bytes, count: int) -> list[Any]:
    value = cbor.decode(data, what=_W, max_size=MAX_MESSAGE)
    if not isinstance(value, list) or len(value) != count + 1:
        raise DecodeError(0, f"not a list of {count + 1}", what=_W)
    if type(value[0]) is not int or value[0] != VERSION:
        raise DecodeError(0, f"version {value[0]!r:.20}, expected {VERSION}", what=_W)
    return value[1:]


def _nonce(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != NONCE_SIZE:
        raise DecodeError(0, f"a nonce that is not {NONCE_SIZE} bytes", what=_W)
    return value


def _evidence(value: Any) -> tuple[str, bytes]:
    if not isinstance(value, bytes):
        raise DecodeError(0, "evidence that is no byte string", what=_W)
    return unwrap(cmw.decode(value))
