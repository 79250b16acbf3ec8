"""The attestation document of a Nitro enclave (AWS, attestation_process.md).

An untagged COSE_Sign1 with ES384 whose payload is a CBOR map:

    module_id     text, not empty
    digest        text, "SHA384"
    timestamp     unsigned, milliseconds since 1970
    pcrs          map, index 0 to 31 -> 48 bytes (what SHA384 gives)
    certificate   bytes, DER, 1 to 1024
    cabundle      array of bytes, DER, 1 to 1024 each; the root first
    public_key    bytes, 1 to 1024, or null      these three may be absent
    user_data     bytes, 0 to 1024, or null
    nonce         bytes, 0 to 1024, or null

AWS's text limits user_data and nonce to 512 bytes; genuine documents have 1024.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from broch.errors import DecodeError
from broch.wire import cbor
from broch.wire.cose import SIGN1_TAG, Message, Tagging

MAX_SIZE: Final = 32 * 1024  # bytes; genuine ones have 4 to 8 KiB
MAX_FIELD: Final = 1024
MAX_CHAIN: Final = 8
PCR_SIZE: Final = 48
PCRS: Final = 32
_W: Final = "Nitro document"
_REQUIRED: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL: Final = ("public_key", "user_data", "nonce")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document taken apart. Nothing in it has been verified."""

    message: Message
    module_id: str
    timestamp: int  # milliseconds since 1970
    pcrs: MappingProxyType[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one document.

        Raises:
            DecodeError: a rule of this module does not hold.
        """
        if len(data) > MAX_SIZE:
            raise DecodeError(MAX_SIZE, f"longer than {MAX_SIZE} bytes", what=_W)
        message = Message.from_bytes(data, tag=SIGN1_TAG, tagging=Tagging.UNTAGGED, what=_W)
        if message.unprotected:
            raise _bad("the unprotected header is not empty")
        fields = cbor.decode(message.payload, what=_W)
        if not isinstance(fields, dict):
            raise _bad("the payload is not a map")
        missing = [name for name in _REQUIRED if name not in fields]
        unknown = fields.keys() - {*_REQUIRED, *_OPTIONAL}
        if missing or unknown:
            raise _bad(f"missing fields {missing}, unknown fields {sorted(map(repr, unknown))}")
        if fields["digest"] != "SHA384":
            raise _bad(f"digest {fields['digest']!r:.40}, expected 'SHA384'")
        return cls(
            message=message,
            module_id=_module_id(fields["module_id"]),
            timestamp=_timestamp(fields["timestamp"]),
            pcrs=_pcrs(fields["pcrs"]),
            certificate=_certificate(fields["certificate"]),
            cabundle=_cabundle(fields["cabundle"]),
            public_key=_optional(fields, "public_key", least=1),
            user_data=_optional(fields, "user_data"),
            nonce=_optional(fields, "nonce"),
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return self.message.to_bytes()

    def __reduce__(self) -> tuple[Callable[[bytes], "Document"], tuple[bytes]]:
        # A mapping that cannot be changed cannot be pickled either.
        return Document.from_bytes, (self.to_bytes(),)


def _bad(problem: str) -> DecodeError:
    return DecodeError(0, problem, what=_W)


def _module_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_FIELD:
        raise _bad("module_id is empty, too long or no text")
    return value


def _timestamp(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 47:  # year 6429
        raise _bad("timestamp is not a number of milliseconds")
    return value


def _pcrs(value: Any) -> MappingProxyType[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= PCRS:
        raise _bad("pcrs is not a map of 1 to 32 entries")
    for index, pcr in value.items():
        if type(index) is not int or not 0 <= index < PCRS:
            raise _bad(f"PCR {index!r:.40} is not one of 0 to 31")
        if not isinstance(pcr, bytes) or len(pcr) != PCR_SIZE:
            raise _bad(f"PCR {index} is not {PCR_SIZE} bytes")
    for index in range(3):
        if index not in value:
            raise _bad(f"PCR {index} is missing")
    return MappingProxyType(dict(sorted(value.items())))


def _certificate(value: Any) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_FIELD:
        raise _bad("a certificate is not 1 to 1024 bytes")
    return value


def _cabundle(value: Any) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CHAIN:
        raise _bad(f"cabundle is not an array of 1 to {MAX_CHAIN} certificates")
    return tuple(_certificate(item) for item in value)


def _optional(fields: dict[Any, Any], name: str, least: int = 0) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes) or not least <= len(value) <= MAX_FIELD:
        raise _bad(f"{name} is not {least} to {MAX_FIELD} bytes")
    return value
