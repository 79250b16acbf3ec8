"""MRENCLAVE of a stream of any length, at about the speed of SHA-256.

SHA-256 runs without Python's lock, so a thread hashes while the stream is checked to be canonical;
whole blocks of 16 pages are checked at once (:mod:`broch.tee.sgx.block`). A file is read into two
buffers in turn, in constant memory. What fits one buffer needs no thread.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from threading import Thread
from typing import Final, Protocol

from broch.errors import DecodeError
from broch.tee.sgx import block, sgxs
from broch.tee.sgx.sgxs import CHUNK, CHUNKS, PAGE, RECORD, Span

BUFFER: Final = 8 << 20  # bytes; there are two
_LONGEST: Final = RECORD + CHUNKS * (RECORD + CHUNK) + 8  # a page, and the tag after it
_ADD: Final = struct.Struct("<8sQQ")
_CHUNK_TAGS: Final = (sgxs.EEXTEND, sgxs.UNMEASRD)

_Run = tuple[int, int]  # measured bytes of a buffer: from, to


class Source(Protocol):
    """What a binary file offers; it fills the buffer unless the file ends."""

    def readinto(self, buffer: memoryview, /) -> int: ...


def measure(stream: bytes) -> bytes:
    """MRENCLAVE (32 bytes) of a canonical, sized stream.

    Raises:
        DecodeError: not a canonical stream, or its size is open (UNSIZED).
    """
    digest = hashlib.sha256()
    if len(stream) <= BUFFER:
        _update(digest, stream, _Checker().check(stream))
        return digest.digest()
    hashing = Thread(target=digest.update, args=(stream,))
    hashing.start()
    try:
        runs = _Checker().check(stream)
    finally:
        hashing.join()
    if len(runs) > 1:  # not all of it is measured after all
        digest = hashlib.sha256()
        _update(digest, stream, runs)
    return digest.digest()


def measure_file(file: Source) -> bytes:
    """MRENCLAVE (32 bytes) of a canonical, sized stream.

    Raises:
        DecodeError: not a canonical stream, or its size is open (UNSIZED); the offset is that in
            the file.
    """
    digest = hashlib.sha256()
    hashing: Thread | None = None
    checker = _Checker()
    try:
        for buffer in _buffers(file, checker):
            runs = checker.check(buffer)
            if hashing is not None:
                hashing.join()
            hashing = Thread(target=_update, args=(digest, buffer, runs))
            if isinstance(buffer, bytes):  # the last: nothing is left to do meanwhile
                hashing = None
                _update(digest, buffer, runs)
            else:
                hashing.start()
    finally:
        if hashing is not None:
            hashing.join()
    return digest.digest()


def _update(digest: "hashlib._Hash", buffer: bytes | bytearray, runs: Sequence[_Run]) -> None:
    with memoryview(buffer) as view:
        for start, end in runs:
            digest.update(view[start:end])


def _buffers(file: Source, checker: "_Checker") -> Iterator[bytes | bytearray]:
    """The stream in pieces, each beginning with what was left of the one before.

    All are full bytearrays but the last, which is bytes.
    """
    size, left = BUFFER, b""
    spare: list[bytearray] = []
    while True:
        buffer = spare.pop(0) if len(spare) > 1 else bytearray(size)
        buffer[: len(left)] = left
        with memoryview(buffer) as view:
            filled = len(left) + file.readinto(view[len(left) :])
        if filled < size:
            yield bytes(memoryview(buffer)[:filled])
            return
        yield buffer
        left = bytes(memoryview(buffer)[checker.consumed :])
        spare.append(buffer)


class _Checker:
    """Checks pieces of one stream, in order."""

    def __init__(self) -> None:
        self.consumed = 0  # bytes of the last piece that are whole pages
        self._base = 0  # of the piece in the stream
        self._last = -1
        self._count = 0
        self._is_begun = False

    def check(self, buffer: bytes | bytearray) -> list[_Run]:
        """Check as many whole pages as are surely there; what is measured of them.

        Raises:
            DecodeError: the stream is not canonical, or its size is open.
        """
        self._base += self.consumed
        try:
            return self._check(buffer)
        except DecodeError as exc:
            error = DecodeError(self._base + exc.offset, exc.problem, what="sgxs")
            error.hint = exc.hint
            raise error from None

    def _check(self, buffer: bytes | bytearray) -> list[_Run]:
        position = 0
        if not self._is_begun:
            if not sgxs.read_create(buffer).sized:
                raise sgxs.size_is_open()
            self._is_begun, position = True, RECORD
        begin, runs = 0, []
        end = len(buffer) if isinstance(buffer, bytes) else len(buffer) - _LONGEST
        while position < end:
            position_after = self._skip_block(buffer, position)
            if position_after == position:
                span, position_after = sgxs.read_page(buffer, position, self._last)
                self._last = span.offset
                self._count += 1
                if not span.order.isascii():  # a code of 0x80 and above: not measured whole
                    for start, stop in _unmeasured(span):
                        runs.append((begin, start))
                        begin = stop
            if self._count > sgxs.MAX_PAGES:
                raise DecodeError(position, f"more than {sgxs.MAX_PAGES} pages", what="sgxs")
            position = position_after
        self.consumed = position
        runs.append((begin, position))
        return runs

    def _skip_block(self, buffer: bytes | bytearray, position: int) -> int:
        """The position after a block of 16 whole pages, or the same where there is none."""
        after = position + block.STREAM
        if after + 8 > len(buffer):
            return position
        tag, offset, flags = _ADD.unpack_from(buffer, position)
        if (
            tag != sgxs.EADD
            or offset % block.DATA
            or offset <= self._last
            or flags & sgxs.PT_MASK == sgxs.PT_TCS
            or buffer[position + RECORD : position + RECORD + 8] != sgxs.EEXTEND
            or buffer[after : after + 8] in _CHUNK_TAGS
            or not block.is_at(buffer, position, offset, flags)
        ):
            return position
        self._last = offset + block.DATA - PAGE
        self._count += block.PAGES
        return after


def _unmeasured(span: Span) -> Iterator[_Run]:
    """Where the UNMEASRD records of a page are."""
    position = span.start + RECORD
    for code in span.order:
        if code >= sgxs.UNMEASURED:
            yield position, position + RECORD + CHUNK
        position += RECORD + CHUNK
