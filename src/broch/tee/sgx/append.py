"""Give an unsized enclave its configuration data and its size, as ``sgxs-append`` does.

Data begins on the page after the last one, where CFGDATA_BASE points. Before each file the address
is aligned: not at all if its rights and its measuring are those of the file before, to 256 bytes if
only the rights are, else to a page. Chunks of 256 bytes that a file touches are EEXTEND records if
they are measured and UNMEASRD records if not; what is not touched is not there. Then the size, a
power of two, is written into the first record and to the place in memory that it names.

Upstream has two defects. A page that is full, or followed by other rights, is added with the rights
of the *next* file. And where ``-align`` leaves chunks of a page out, the k-th chunk that is there
gets the bytes of the k-th chunk of the page: data lands too high and its end is lost.
``as_upstream`` repeats both, for measurements that are out in the world already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broch.errors import MalformedError, UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.convert import MAX_SIZE, power_of_two
from broch.tee.sgx.sgxs import CHUNK, PAGE, RECORD, Create, Page, Span

_U64: Final = 8  # bytes
_RIGHTS: Final = {"r": sgxs.R, "w": sgxs.W, "x": sgxs.X}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file to append."""

    flags: int  # SECINFO.flags
    measured: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Align:
    """Begin the next file on a multiple of ``size`` (bytes, a power of two)."""

    size: int

    def __post_init__(self) -> None:
        """Refuse another size; raises :class:`UsageError`."""
        if self.size < 1 or self.size & (self.size - 1) or self.size > MAX_SIZE:
            raise UsageError(
                f"-align {self.size}: not a power of two, or beyond 0x{MAX_SIZE:x}",
                hint="4096 begins the next file on a page",
            )


def parse_mode(mode: str) -> tuple[int, bool]:
    """(SECINFO.flags, measured) of ``-rwxm``, or of ``-`` for neither.

    Raises:
        UsageError: another letter.
    """
    if not mode.startswith("-"):
        raise UsageError(f"{mode!r} where -MODE FILE or -align N is expected")
    flags, measured = sgxs.PT_REG, False
    for letter in mode[1:]:
        if letter == "m":
            measured = True
        elif letter in _RIGHTS:
            flags |= _RIGHTS[letter]
        else:
            raise UsageError(
                f"unable to parse {mode!r}: got {letter!r}, expected 'm', 'r', 'w', or 'x'",
                hint="-MODE is any of m (measured), r, w, x; see broch sgx append --help",
            )
    return flags, measured


def append(
    stream: bytes, operations: Sequence[Part | Align], *, as_upstream: bool = False
) -> bytes:
    """The sized stream with all files appended; with none, the same enclave with its size.

    Raises:
        DecodeError: not a canonical stream.
        MalformedError: it is sized already, or has no measured place for its size.
        UsageError: the enclave would be larger than Broch handles.
    """
    create = sgxs.read_create(stream)
    if create.sized:
        raise MalformedError(
            "the stream is sized already: nothing can be appended",
            place="sgxs",
            hint="convert with --unsized",
        )
    size_at, end = _find_size(stream, create.size)
    writer = _Writer(end, as_upstream=as_upstream)
    for operation in operations:
        if isinstance(operation, Align):
            writer.align(operation.size)
        else:
            writer.add(operation)
    pages, end = writer.finish()
    size = power_of_two(end)
    first = sgxs.create_record(Create(ssaframesize=create.ssaframesize, size=size))
    result = bytearray(first + stream[RECORD:] + b"".join(map(sgxs.page_records, pages)))
    result[size_at : size_at + _U64] = size.to_bytes(_U64, "little")
    return bytes(result)


def _find_size(stream: bytes, offset: int) -> tuple[int, int]:
    """(Position in the stream of the size field at ``offset``, end of the last page)."""
    if offset % _U64:
        raise MalformedError(
            f"the size is to be written to 0x{offset:x}, which is not on an 8-byte boundary",
            place="sgxs",
        )
    found, end = None, 0
    for span in sgxs.scan(stream):
        end = span.offset + PAGE
        if span.offset <= offset < end:
            found = _position_in(span, offset)
    if not end:
        raise MalformedError("the stream has no pages", place="sgxs")
    if found is None:
        raise MalformedError(
            f"the size is to be written to 0x{offset:x}, and no measured chunk is there",
            place="sgxs",
            hint="the enclave must hold ENCLAVE_SIZE in measured memory",
        )
    return found, end


def _position_in(span: Span, offset: int) -> int | None:
    index = (offset - span.offset) // CHUNK
    if index not in span.order:
        return None
    before = span.order.index(index)
    return span.start + RECORD + before * (RECORD + CHUNK) + RECORD + offset % CHUNK


class _Writer:
    """Packs files into pages."""

    def __init__(self, start: int, *, as_upstream: bool) -> None:
        self._as_upstream = as_upstream
        self._address = start
        self._page = start
        self._flags = 0  # of what is in the page
        self._mode: tuple[int, bool] | None = None  # of the last file
        self._data = bytearray(PAGE)
        self._order: dict[int, int] = {}  # chunk -> its code in Page.order
        self._pages: list[Page] = []

    def align(self, size: int) -> None:
        self._address += -self._address % size
        if self._address > MAX_SIZE:
            raise UsageError(f"the enclave would be larger than 0x{MAX_SIZE:x} bytes")

    def add(self, part: Part) -> None:
        mode = (part.flags, part.measured)
        if self._mode is None or self._mode[0] != part.flags:
            self.align(PAGE)
        elif self._mode != mode:
            self.align(CHUNK)
        self._mode = mode
        taken = 0
        while True:
            if self._address >= self._page + PAGE:
                self._flush(part.flags if self._as_upstream else self._flags)
                self._page = self._address - self._address % PAGE
            piece = part.data[taken : taken + PAGE - self._address % PAGE]
            if not piece:
                return
            self._put(piece, part)
            taken += len(piece)

    def _put(self, piece: bytes, part: Part) -> None:
        start = self._address % PAGE
        end = start + len(piece)
        self._data[start:end] = piece
        self._flags = part.flags
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            self._order[chunk] = chunk if part.measured else chunk | sgxs.UNMEASURED
        self._address += len(piece)

    def _flush(self, flags: int) -> None:
        if self._order:
            chunks = sorted(self._order)
            order = bytes(self._order[chunk] for chunk in chunks)
            data = _moved_up(self._data, chunks) if self._as_upstream else bytes(self._data)
            self._pages.append(Page(self._page, flags, order, data))
            self._data, self._order = bytearray(PAGE), {}

    def finish(self) -> tuple[list[Page], int]:
        """All pages, and where the enclave ends."""
        end = self._page + (PAGE if self._order else 0)
        self._flush(self._flags)
        return self._pages, end


def _moved_up(data: bytearray, chunks: Sequence[int]) -> bytes:
    """Upstream's second defect: the k-th chunk that is there gets the k-th 256 bytes."""
    moved = bytearray(PAGE)
    for index, chunk in enumerate(chunks):
        start = index * CHUNK
        moved[chunk * CHUNK : (chunk + 1) * CHUNK] = data[start : start + CHUNK]
    return bytes(moved)
