"""Sixteen pages of a stream at once: what makes reading and writing long streams quick.

A block is 16 pages that begin on a 64 KiB boundary, follow each other without a gap, have one
SECINFO.flags, and are measured whole in natural order. Of its 272 headers (an EADD and 16 EEXTENDs
a page, 64 bytes each) only these bytes vary from block to block: the flags, and in each header the
upper six bytes of its offset. So all headers are one ``join`` of constants on those six bytes.
"""

import struct
from functools import lru_cache
from typing import Final

PAGES: Final = 16
DATA: Final = PAGES * 4096  # bytes of memory in a block
STREAM: Final = PAGES * (64 + 16 * (64 + 256))  # bytes of stream in a block

_EADD: Final = b"EADD\0\0\0\0"
_EEXTEND: Final = b"EEXTEND\0"
_HEADERS: Final = struct.Struct("<" + ("64s" + "64s256x" * 16) * PAGES)
_BEFORE_CHUNK: Final = struct.Struct("<" + ("128s" + "64s" * 15) * PAGES)
_CHUNKS: Final = struct.Struct("<" + "256s" * (PAGES * 16))


@lru_cache(maxsize=64)
def _constants(flags: int) -> tuple[bytes, ...]:
    """What stands between the upper halves of the 272 offsets."""
    pieces, tail = [], b""
    for page in range(PAGES):
        pieces.append(tail + _EADD + bytes((0, page << 4)))
        tail = flags.to_bytes(8, "little") + bytes(40)
        for chunk in range(16):
            pieces.append(tail + _EEXTEND + bytes((0, page << 4 | chunk)))
            tail = bytes(48)
    return (*pieces, tail)


def headers(offset: int, flags: int) -> bytes:
    """The 272 headers of the block at ``offset``, a multiple of 64 KiB, without its data."""
    return (offset >> 16).to_bytes(6, "little").join(_constants(flags))


def is_at(stream: bytes | bytearray, position: int, offset: int, flags: int) -> bool:
    """Whether the bytes at ``position`` are the whole block at ``offset``."""
    found = b"".join(_HEADERS.unpack_from(stream, position))
    return found == headers(offset, flags)


def write(offset: int, flags: int, data: bytes | bytearray | memoryview, start: int = 0) -> bytes:
    """The records of the block at ``offset`` whose memory is ``data[start : start + DATA]``."""
    records = [b""] * (2 * PAGES * 16)
    records[0::2] = _BEFORE_CHUNK.unpack(headers(offset, flags))
    records[1::2] = _CHUNKS.unpack_from(data, start)
    return b"".join(records)
