"""The SGX extension of PCK certificates, OID 1.2.840.113741.1.13.1, as DER.

Source: Intel, "SGX PCK Certificate and CRL Specification", section 1.3.5. A SEQUENCE of
(OID, value) pairs below the extension's own OID:

    .1 PPID 16 bytes   .2 TCB: .1-.16 component SVNs, .17 PCESVN, .18 CPUSVN 16 bytes
    .3 PCE-ID 2 bytes  .4 FMSPC 6 bytes       .5 SGX type: 0 standard, 1 scalable, 2 with integrity
    .6 platform instance 16 bytes, .7 configuration: .1 dynamic, .2 cached keys, .3 SMT (booleans)

Items .6 and .7 are on multi-package platforms only. One certificate is read with a strict reader of
the few DER types that occur here, because ``cryptography`` hands the extension out undecoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from broch.errors import DecodeError

OID: Final = "1.2.840.113741.1.13.1"
_BASE: Final = bytes.fromhex("2a864886f84d010d01")  # contents octets of OID
SEQUENCE: Final = 0x30
INTEGER: Final = 0x02
OCTETS: Final = 0x04
OBJECT: Final = 0x06
ENUMERATED: Final = 0x0A
BOOLEAN: Final = 0x01
COMPONENTS: Final = 16

Value = tuple[int, bytes]  # tag, contents


@dataclass(frozen=True, slots=True, kw_only=True)
class PckExtension:
    """What a PCK certificate says of its platform."""

    ppid: bytes  # 16
    components: tuple[int, ...]  # 16 SVNs, 0..255
    pcesvn: int
    cpusvn: bytes  # 16
    pceid: bytes  # 2
    fmspc: bytes  # 6
    sgx_type: int
    platform_instance: bytes | None = None  # 16
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the value of the extension.

        Raises:
            DecodeError: not DER, or not the fields of the specification.
        """
        items = _pairs(_only(data, SEQUENCE), ())
        tcb = _pairs(_expect(items, 2, SEQUENCE), (2,))
        config = _pairs(_expect(items, 7, SEQUENCE), (7,)) if 7 in items else {}
        return cls(
            ppid=_octets(items, 1, 16),
            components=tuple(_integer(tcb, index, 255) for index in range(1, COMPONENTS + 1)),
            pcesvn=_integer(tcb, 17, 65535),
            cpusvn=_octets(tcb, 18, 16),
            pceid=_octets(items, 3, 2),
            fmspc=_octets(items, 4, 6),
            sgx_type=_small(items, 5, ENUMERATED, 2),
            platform_instance=_octets(items, 6, 16) if 6 in items else None,
            dynamic_platform=_boolean(config, 1),
            cached_keys=_boolean(config, 2),
            smt_enabled=_boolean(config, 3),
        )

    def to_bytes(self) -> bytes:
        """Encode as Intel's certificates do; the inverse of :meth:`from_bytes` on those."""
        tcb = [
            _pair((2, index), INTEGER, _integer_bytes(svn))
            for index, svn in enumerate(self.components, 1)
        ]
        tcb.append(_pair((2, 17), INTEGER, _integer_bytes(self.pcesvn)))
        tcb.append(_pair((2, 18), OCTETS, self.cpusvn))
        items = [
            _pair((1,), OCTETS, self.ppid),
            _pair((2,), SEQUENCE, b"".join(tcb)),
            _pair((3,), OCTETS, self.pceid),
            _pair((4,), OCTETS, self.fmspc),
            _pair((5,), ENUMERATED, bytes([self.sgx_type])),
        ]
        if self.platform_instance is not None:
            items.append(_pair((6,), OCTETS, self.platform_instance))
        flags = (self.dynamic_platform, self.cached_keys, self.smt_enabled)
        config = [
            _pair((7, index), BOOLEAN, b"\xff" if flag else b"\0")
            for index, flag in enumerate(flags, 1)
            if flag is not None
        ]
        if config:
            items.append(_pair((7,), SEQUENCE, b"".join(config)))
        return _tlv(SEQUENCE, b"".join(items))


def _tlv(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:
        return bytes([tag, size]) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + contents


def _pair(arcs: tuple[int, ...], tag: int, contents: bytes) -> bytes:
    return _tlv(SEQUENCE, _tlv(OBJECT, _BASE + bytes(arcs)) + _tlv(tag, contents))


def _integer_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _values(data: bytes) -> Iterator[Value]:
    """The DER values that ``data`` is made of."""
    offset = 0
    while offset < len(data):
        tag = data[offset]
        size, start = _length(data, offset + 1)
        if start + size > len(data):
            raise _bad(offset, "a value that goes beyond its container")
        yield tag, data[start : start + size]
        offset = start + size


def _length(data: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(data):
        raise _bad(offset, "ends where a length is expected")
    first = data[offset]
    if first < 0x80:
        return first, offset + 1
    octets = data[offset + 1 : offset + 1 + (first & 0x7F)]
    size = int.from_bytes(octets, "big")
    if not 1 <= len(octets) <= 4 or len(octets) != first & 0x7F or size < 0x80 or not octets[0]:
        raise _bad(offset, "not the shortest form of a length")
    return size, offset + 1 + len(octets)


def _only(data: bytes, tag: int) -> bytes:
    values = list(_values(data))
    if len(values) != 1 or values[0][0] != tag:
        raise _bad(0, f"expected one value with tag 0x{tag:02x}")
    return values[0][1]


def _pairs(contents: bytes, arcs: tuple[int, ...]) -> dict[int, Value]:
    """Last arc of the OID -> value, of a sequence of (OID below ``arcs``, value) pairs."""
    prefix = _BASE + bytes(arcs)
    found: dict[int, Value] = {}
    for tag, pair in _values(contents):
        values = list(_values(pair))
        if tag != SEQUENCE or len(values) != 2 or values[0][0] != OBJECT:
            raise _bad(0, "an item that is not a pair of OID and value")
        oid = values[0][1]
        if oid[:-1] != prefix:
            raise _bad(0, f"OID {oid.hex()} is not where it belongs below {OID}")
        if oid[-1] in found:
            raise _bad(0, f"item {oid[-1]} comes twice")
        found[oid[-1]] = values[1]
    return found


def _expect(items: dict[int, Value], item: int, tag: int) -> bytes:
    if item not in items or items[item][0] != tag:
        raise _bad(0, f"item {item} is missing or has another type")
    return items[item][1]


def _octets(items: dict[int, Value], item: int, size: int) -> bytes:
    contents = _expect(items, item, OCTETS)
    if len(contents) != size:
        raise _bad(0, f"item {item} has {len(contents)} bytes, expected {size}")
    return contents


def _integer(items: dict[int, Value], item: int, limit: int) -> int:
    return _small(items, item, INTEGER, limit)


def _small(items: dict[int, Value], item: int, tag: int, limit: int) -> int:
    contents = _expect(items, item, tag)
    value = int.from_bytes(contents, "big")
    if not 1 <= len(contents) <= 4 or value > limit or contents != _integer_bytes(value):
        raise _bad(0, f"item {item} is not a number of 0 to {limit}")
    return value


def _boolean(items: dict[int, Value], item: int) -> bool | None:
    if item not in items:
        return None
    contents = _expect(items, item, BOOLEAN)
    if contents not in (b"\0", b"\xff"):
        raise _bad(0, f"item {item} is not a boolean")
    return contents == b"\xff"


def _bad(offset: int, problem: str) -> DecodeError:
    return DecodeError(offset, problem, what="SGX extension of the PCK certificate")
