"""SGXS: an SGX enclave as a stream of the instructions that build it (fortanix SGXS.md, SDM 3D).

Every record begins with 64 bytes, little-endian: an 8-byte tag and 56 bytes that depend on it.

    tag         offset  size  field                                   data after
    ECREATE\\0   0x08    4     ssaframesize, pages
                0x0c    8     size of the enclave, bytes               -
    UNSIZED\\0   0x08    4     ssaframesize, pages
                0x0c    8     enclave offset of the size to fill in    -
    EADD        0x08    8     offset of the page
                0x10    8     SECINFO.flags                            -
    EEXTEND\\0   0x08    8     offset of the chunk                      256 bytes, measured
    UNMEASRD    0x08    8     offset of the chunk                      256 bytes, not measured

All bytes not named are zero. The canonical form: exactly one ECREATE or UNSIZED, first; page
offsets on page boundaries and strictly rising; every chunk inside the page before it, on a 256-byte
boundary, at most once; TCS pages without R, W, X. MRENCLAVE is the SHA-256 of all but the
UNMEASRD records, so for most streams of the whole stream.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from broch.errors import DecodeError

PAGE: Final = 4096  # bytes
CHUNK: Final = 256  # bytes
CHUNKS: Final = PAGE // CHUNK  # a page
RECORD: Final = 64  # bytes of a record before its data
MAX_PAGES: Final = 1 << 22  # 16 GiB of enclave: far more than any stream that fits memory

R: Final = 0x1
W: Final = 0x2
X: Final = 0x4
PT_TCS: Final = 0x100
PT_REG: Final = 0x200
PT_MASK: Final = 0xFF00

_ECREATE: Final = b"ECREATE\0"
_UNSIZED: Final = b"UNSIZED\0"
EADD: Final = b"EADD\0\0\0\0"
EEXTEND: Final = b"EEXTEND\0"
UNMEASRD: Final = b"UNMEASRD"

_CREATE: Final = struct.Struct("<8sIQ44x")
_ADD: Final = struct.Struct("<8sQQ40x")
_EXTEND: Final = struct.Struct("<8sQ48x")
_FULL_HEADERS: Final = struct.Struct("<" + "64s256x" * CHUNKS)  # a page whose 16 chunks follow
_FULL_DATA: Final = struct.Struct("<" + "64x256s" * CHUNKS)
_FULL_WRITE: Final = struct.Struct("<" + "8sQ48x256s" * CHUNKS)
_FULL_SIZE: Final = CHUNKS * (RECORD + CHUNK)
_SECOND_BYTES: Final = tuple(
    tuple(bytes([page << 4 | chunk]) for chunk in range(CHUNKS)) for page in range(16)
)

UNMEASURED: Final = 0x80  # flag in Page.order
ALL_MEASURED: Final = bytes(range(CHUNKS))  # Page.order of a page measured whole
NOTHING: Final = b""  # Page.order of a page that is added as zeros and not measured
ZEROS: Final = bytes(PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """The first record. ``size`` is in bytes if ``sized``, else the offset of the size field."""

    ssaframesize: int  # pages
    size: int
    sized: bool = True


class Page(NamedTuple):
    """One page and its chunks.

    ``order`` has a byte a chunk in stream order: its index in the page, plus 0x80 if unmeasured.
    """

    offset: int  # bytes from the enclave's base
    flags: int  # SECINFO.flags
    order: bytes
    data: bytes  # 4096 bytes; chunks that the stream does not carry are zero

    def chunks(self) -> Iterator[tuple[int, bytes, bool]]:
        """(Offset in the enclave, 256 bytes, measured) in stream order."""
        for code in self.order:
            start = (code & ~UNMEASURED) * CHUNK
            yield self.offset + start, self.data[start : start + CHUNK], code < UNMEASURED


class Span(NamedTuple):
    """Where a page is in a stream that was checked."""

    offset: int
    flags: int
    order: bytes
    start: int  # position of its EADD record


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgxs:
    """A canonical stream, taken apart."""

    create: Create
    pages: tuple[Page, ...]

    @classmethod
    def from_bytes(cls, stream: bytes) -> Self:
        """Decode a canonical stream.

        Raises:
            DecodeError: not SGXS, or not canonical.
        """
        create = read_create(stream)
        pages = tuple(
            Page(span.offset, span.flags, span.order, _content(stream, span))
            for span in scan(stream)
        )
        return cls(create=create, pages=pages)

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return b"".join((create_record(self.create), *map(page_records, self.pages)))


def create_record(create: Create) -> bytes:
    """The ECREATE or UNSIZED record (64 bytes)."""
    tag = _ECREATE if create.sized else _UNSIZED
    return _CREATE.pack(tag, create.ssaframesize, create.size)


def add_record(offset: int, flags: int) -> bytes:
    """The EADD record (64 bytes), also what the CPU measures of EADD."""
    return _ADD.pack(EADD, offset, flags)


def extend_record(offset: int) -> bytes:
    """The header of an EEXTEND record (64 bytes), also what the CPU measures before the data."""
    return _EXTEND.pack(EEXTEND, offset)


def chunk_records(page: Page) -> bytes:
    """The EEXTEND and UNMEASRD records of a page."""
    if page.order == ALL_MEASURED:
        fields: list[bytes | int] = []
        for start in range(0, PAGE, CHUNK):
            fields += (EEXTEND, page.offset + start, page.data[start : start + CHUNK])
        return _FULL_WRITE.pack(*fields)
    return b"".join(
        _EXTEND.pack(EEXTEND if measured else UNMEASRD, offset) + data
        for offset, data, measured in page.chunks()
    )


def page_records(page: Page) -> bytes:
    """EADD and all chunks of a page."""
    return add_record(page.offset, page.flags) + chunk_records(page)


def measure(stream: bytes) -> bytes:
    """MRENCLAVE (32 bytes) of a canonical, sized stream; :mod:`broch.tee.sgx.measuring` has more.

    Raises:
        DecodeError: not a canonical stream, or its size is open (UNSIZED).
    """
    from broch.tee.sgx import measuring

    return measuring.measure(stream)


def size_is_open() -> DecodeError:
    """What is wrong with an UNSIZED stream that is to be measured or loaded."""
    error = DecodeError(0, "an UNSIZED stream has no measurement yet", what="sgxs")
    error.hint = "give it its size with: broch sgx append FILE -o SIZED"
    return error


def read_create(stream: bytes | bytearray) -> Create:
    """The first record (64 bytes) of a stream.

    Raises:
        DecodeError: it is not ECREATE or UNSIZED.
    """
    if len(stream) < RECORD:
        raise DecodeError(len(stream), "shorter than its first record", what="sgxs")
    tag, ssaframesize, size = _CREATE.unpack_from(stream)
    create = Create(ssaframesize=ssaframesize, size=size, sized=tag == _ECREATE)
    if tag not in (_ECREATE, _UNSIZED):
        error = DecodeError(0, f"begins with {tag!r}, not ECREATE or UNSIZED", what="sgxs")
        if tag.startswith(b"\x7fELF"):
            error.hint = "an ELF file becomes a stream by: broch sgx convert"
        raise error
    if create_record(create) != stream[:RECORD]:
        raise DecodeError(0x14, "reserved bytes of the first record are not zero", what="sgxs")
    return create


def scan(stream: bytes) -> Iterator[Span]:
    """Check all records after the first and say where each page is.

    Raises:
        DecodeError: the stream is not canonical.
    """
    position, last, count = RECORD, -1, 0
    while position < len(stream):
        span, end = read_page(stream, position, last)
        count += 1
        if count > MAX_PAGES:
            raise DecodeError(position, f"more than {MAX_PAGES} pages", what="sgxs")
        position, last = end, span.offset
        yield span


def read_page(stream: bytes | bytearray, position: int, last: int) -> tuple[Span, int]:
    """One page after the page at ``last``, and where its records end.

    Raises:
        DecodeError: its records are not canonical; offsets are those in ``stream``.
    """
    offset, flags = _read_add(stream, position)
    if offset <= last:
        raise DecodeError(
            position + 8, f"page 0x{offset:x} does not come after 0x{last:x}", what="sgxs"
        )
    start = position
    position += RECORD
    order = ALL_MEASURED
    if _is_full(stream, position, offset):
        position += _FULL_SIZE
        if stream[position : position + 8] in (EEXTEND, UNMEASRD):
            raise DecodeError(position, "a 17th chunk in one page", what="sgxs")
    else:
        order = _read_order(stream, position, offset)
        position += len(order) * (RECORD + CHUNK)
    return Span(offset, flags, order, start), position


def _read_add(stream: bytes | bytearray, position: int) -> tuple[int, int]:
    if len(stream) - position < RECORD:
        raise DecodeError(len(stream), "ends inside a record", what="sgxs")
    tag, offset, flags = _ADD.unpack_from(stream, position)
    if tag != EADD:
        raise DecodeError(position, f"record {tag!r} where EADD is expected", what="sgxs")
    if add_record(offset, flags) != stream[position : position + RECORD]:
        raise DecodeError(position + 0x18, "reserved bytes of EADD are not zero", what="sgxs")
    if offset % PAGE:
        raise DecodeError(position + 8, f"page offset 0x{offset:x} is not aligned", what="sgxs")
    if flags & PT_MASK == PT_TCS and flags & (R | W | X):
        raise DecodeError(position + 0x10, "a TCS page with R, W or X", what="sgxs")
    return offset, flags


def _is_full(stream: bytes | bytearray, position: int, offset: int) -> bool:
    """Whether 16 measured chunks follow in their natural order: nearly every page, so be quick."""
    if len(stream) - position < _FULL_SIZE or stream[position : position + 8] != EEXTEND:
        return False
    # The 16 headers differ in the second byte of their offset only.
    tail = (offset >> 16).to_bytes(6, "little") + bytes(48)
    head = EEXTEND + b"\0"
    expected = head + (tail + head).join(_SECOND_BYTES[offset >> 12 & 0xF]) + tail
    return b"".join(_FULL_HEADERS.unpack_from(stream, position)) == expected


def _read_order(stream: bytes | bytearray, position: int, page: int) -> bytes:
    order = bytearray()
    seen = 0
    while True:
        tag = stream[position : position + 8]
        if tag not in (EEXTEND, UNMEASRD):
            return bytes(order)
        if len(stream) - position < RECORD + CHUNK:
            raise DecodeError(len(stream), "ends inside a record", what="sgxs")
        _, offset = _EXTEND.unpack_from(stream, position)
        if _EXTEND.pack(tag, offset) != stream[position : position + RECORD]:
            raise DecodeError(position + 0x10, "reserved bytes are not zero", what="sgxs")
        if offset % CHUNK or not page <= offset < page + PAGE:
            raise DecodeError(
                position + 8, f"chunk 0x{offset:x} is not one of page 0x{page:x}", what="sgxs"
            )
        index = (offset - page) // CHUNK
        if seen >> index & 1:
            raise DecodeError(position + 8, f"chunk 0x{offset:x} comes twice", what="sgxs")
        seen |= 1 << index
        order.append(index if tag == EEXTEND else index | UNMEASURED)
        position += RECORD + CHUNK


def _content(stream: bytes, span: Span) -> bytes:
    position = span.start + RECORD
    if span.order == ALL_MEASURED:
        return b"".join(_FULL_DATA.unpack_from(stream, position))
    if not span.order:
        return ZEROS
    data = bytearray(PAGE)
    for code in span.order:
        start = (code & ~UNMEASURED) * CHUNK
        data[start : start + CHUNK] = stream[position + RECORD : position + RECORD + CHUNK]
        position += RECORD + CHUNK
    return bytes(data)
