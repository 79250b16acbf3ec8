"""RATS conceptual message wrappers (draft-ietf-rats-msg-wrap): a message with its type.

    record       [type, value, ?indicator]   CBOR, or JSON with the value in base64url
    tag          TN(value)                   CBOR; the number stands for a CoAP content format
    collection   {label: wrapper, ...}       CBOR or JSON; "__cmwc_t" names its type

A type is a media type, or in CBOR the number of a CoAP content format. In certificates a wrapper is
the value of an extension:

    2.23.133.5.4.9       TCG DICE conceptual message wrapper: the CBOR record or tag as it is, as
                         Gramine and the CCC's interoperable RA-TLS write it
    1.3.6.1.5.5.7.1.35   id-pe-cmw: CHOICE { json UTF8String, cbor OCTET STRING }

Records and tags in CBOR have one encoding, so ``decode(data).to_cbor() == data``. A collection's
members may come in any order, its type is written first; JSON may have white space.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Final, TypeAlias

from broch.errors import DecodeError
from broch.wire import base64url, cbor, strict_json

DICE_OID: Final = "2.23.133.5.4.9"
PKIX_OID: Final = "1.3.6.1.5.5.7.1.35"
COLLECTION_TYPE: Final = "__cmwc_t"
MAX_SIZE: Final = 128 * 1024  # bytes
MAX_DEPTH: Final = 4  # collections in each other
_MAX_FORMAT: Final = 65024  # CoAP content formats that have a tag (RFC 9277, appendix B)
_FIRST_TAG: Final = 0x63740101
_OCTETS, _UTF8 = 0x04, 0x0C
_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
    r"""(?:; ?[A-Za-z0-9!#$&^_.+-]+=(?:[A-Za-z0-9!#$&^_.+-]+|"[ !#-\[\]-~]*"))*""",
    re.ASCII,
)
_W: Final = "CMW"


class Indicator(IntFlag):
    """Which conceptual messages a value holds (section 3.1.1)."""

    REFERENCE_VALUES = 1
    ENDORSEMENTS = 2
    EVIDENCE = 4
    ATTESTATION_RESULTS = 8
    APPRAISAL_POLICY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One message. ``is_tag`` chooses the shorter form of CBOR, which has no indicator."""

    type: str | int  # media type, or number of a CoAP content format
    value: bytes = field(repr=False)
    indicator: Indicator | None = None
    is_tag: bool = False

    def to_cbor(self) -> bytes:
        """Encode as a CBOR record, or a tag."""
        return cbor.encode(self._cbor())

    def to_json(self) -> str:
        """Encode as a JSON record.

        Raises:
            DecodeError: the type is a number, which JSON does not take.
        """
        return json.dumps(self._json(), separators=(",", ":"))

    def _cbor(self) -> Any:
        if self.is_tag and isinstance(self.type, int):
            return cbor.Tag(tag_number(self.type), self.value)
        rest = [] if self.indicator is None else [int(self.indicator)]
        return [self.type, self.value, *rest]

    def _json(self) -> Any:
        if isinstance(self.type, int):
            raise _bad(f"content format {self.type}: JSON takes media types only")
        value = base64url.encode(self.value)
        return [self.type, value, *([] if self.indicator is None else [int(self.indicator)])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Several wrappers by label; numbers as labels only in CBOR."""

    members: Mapping[str | int, "Wrapper"]
    type: str | None = None  # an absolute URI or OID

    def to_cbor(self) -> bytes:
        """Encode as a CBOR map; members in their own order."""
        return cbor.encode(self._cbor())

    def to_json(self) -> str:
        """Encode as a JSON object.

        Raises:
            DecodeError: a label or type is a number.
        """
        return json.dumps(self._json(), separators=(",", ":"))

    def _cbor(self) -> Any:
        named = {} if self.type is None else {COLLECTION_TYPE: self.type}
        return {**named, **{label: member._cbor() for label, member in self.members.items()}}

    def _json(self) -> Any:
        if not all(isinstance(label, str) for label in self.members):
            raise _bad("a label that is a number: JSON takes text only")
        named = {} if self.type is None else {COLLECTION_TYPE: self.type}
        return {**named, **{label: member._json() for label, member in self.members.items()}}


Wrapper: TypeAlias = Record | Collection


def tag_number(content_format: int) -> int:
    """The CBOR tag that stands for a CoAP content format (RFC 9277, appendix B)."""
    return _FIRST_TAG + content_format // 255 * 256 + content_format % 255


def content_format(tag: int) -> int | None:
    """The content format that a tag stands for; None if it is another tag."""
    high, low = divmod(tag - _FIRST_TAG, 256)
    number = high * 255 + low
    return number if tag >= _FIRST_TAG and low < 255 and number <= _MAX_FORMAT else None


def decode(data: bytes) -> Wrapper:
    """A wrapper in CBOR or JSON; the first byte tells which (section 3.4).

    Raises:
        DecodeError: not exactly one wrapper.
    """
    if len(data) > MAX_SIZE:
        raise _bad(f"longer than {MAX_SIZE} bytes")
    if data[:1] in (b"[", b"{"):
        return _wrapper(strict_json.decode(data, what=_W), MAX_DEPTH, is_json=True)
    return _wrapper(cbor.decode(data, what=_W, max_size=MAX_SIZE), MAX_DEPTH, is_json=False)


def from_extension(oid: str, value: bytes) -> Wrapper:
    """The wrapper in the value of an X.509 extension.

    Raises:
        DecodeError: not one of the two extensions, or not a wrapper.
    """
    if oid == DICE_OID:
        return decode(value)
    if oid != PKIX_OID:
        raise _bad(f"extension {oid} holds no wrapper")
    tag, content = _der(value)
    if tag not in (_OCTETS, _UTF8) or (content[:1] in (b"[", b"{")) is not (tag == _UTF8):
        raise _bad("id-pe-cmw is neither JSON as UTF8String nor CBOR as OCTET STRING")
    return decode(content)


def to_extension(oid: str, wrapper: Wrapper) -> bytes:
    """The value of an X.509 extension that holds ``wrapper`` as CBOR; see :func:`from_extension`.

    Raises:
        DecodeError: not one of the two extensions, or a collection in the TCG's.
    """
    encoded = wrapper.to_cbor()
    if oid == DICE_OID and isinstance(wrapper, Record):
        return encoded
    if oid != PKIX_OID:
        raise _bad(f"extension {oid} does not hold a {type(wrapper).__name__.lower()}")
    size = len(encoded)
    if size < 0x80:
        return bytes((_OCTETS, size)) + encoded
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((_OCTETS, 0x80 | len(length))) + length + encoded


def _der(data: bytes) -> tuple[int, bytes]:
    """Tag and content of exactly one primitive value."""
    if len(data) < 2:
        raise _bad("not DER")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        count = size & 0x7F
        start += count
        size = int.from_bytes(data[2:start], "big")
        if not 1 <= count <= 3 or size < 0x80 or data[2:3] == b"\0":
            raise _bad("a length that is not DER")
    if len(data) != start + size:
        raise _bad(f"{len(data)} bytes, the head says {start + size}")
    return tag, data[start:]


def _wrapper(value: Any, depth: int, *, is_json: bool) -> Wrapper:
    if isinstance(value, list):
        return _record(value, is_json=is_json)
    if isinstance(value, cbor.Tag):
        number = content_format(value.number)
        if number is None or not isinstance(value.value, bytes):
            raise _bad(f"tag {value.number} is not that of a message")
        return Record(type=number, value=value.value, is_tag=True)
    if not isinstance(value, dict):
        raise _bad("neither a record, a tag nor a collection")
    return _collection(value, depth, is_json=is_json)


def _record(value: list[Any], *, is_json: bool) -> Record:
    if len(value) not in (2, 3):
        raise _bad(f"a record of {len(value)} members, expected 2 or 3")
    indicator = None
    if len(value) == 3:
        if type(value[2]) is not int or not 1 <= value[2] <= sum(Indicator):
            raise _bad(f"indicator {value[2]!r:.40}, expected 1 to {sum(Indicator)}")
        indicator = Indicator(value[2])
    content = value[1]
    if is_json and isinstance(content, str):
        content = base64url.decode(content, what=_W)
    if not isinstance(content, bytes):
        raise _bad("the value is no byte string")
    return Record(type=_type(value[0], is_json=is_json), value=content, indicator=indicator)


def _type(value: Any, *, is_json: bool) -> str | int:
    if isinstance(value, str) and len(value) <= 512 and _MEDIA_TYPE.fullmatch(value):
        return value
    if not is_json and type(value) is int and 0 <= value <= 0xFFFF:
        return value
    raise _bad(f"type {value!r:.80} is no media type{'' if is_json else ' or content format'}")


def _collection(value: dict[Any, Any], depth: int, *, is_json: bool) -> Collection:
    if depth == 0:
        raise _bad(f"collections nested more than {MAX_DEPTH} deep")
    kind = value.get(COLLECTION_TYPE)
    if COLLECTION_TYPE in value and (
        not isinstance(kind, str) or not 0 < len(kind) <= 512 or not kind.isprintable()
    ):
        raise _bad(f"{COLLECTION_TYPE} is no URI or OID")
    members: dict[str | int, Wrapper] = {}
    for label, member in value.items():
        if label == COLLECTION_TYPE:
            continue
        if not isinstance(label, str | int) or (isinstance(label, str) and not label):
            raise _bad(f"label {label!r:.40} is neither text nor a number")
        members[label] = _wrapper(member, depth - 1, is_json=is_json)
    if not members:
        raise _bad("a collection of nothing")
    return Collection(members=members, type=kind)


def _bad(problem: str) -> DecodeError:
    return DecodeError(0, problem, what=_W)
