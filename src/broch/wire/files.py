"""Files that others made: read whole, and never more than was meant."""

from typing import BinaryIO, Final

from broch.errors import MalformedError

_PIECE: Final = 1 << 26  # bytes at once: a device or a pipe does not say how much is to come


def read_whole(file: BinaryIO, limit: int) -> bytes:
    """All that is left of ``file``, at most ``limit`` bytes.

    Raises:
        MalformedError: there is more.
        OSError: it cannot be read.
    """
    pieces, size = [], 0
    while piece := file.read(min(_PIECE, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
    if size > limit:
        raise MalformedError(f"longer than {limit} bytes")
    return b"".join(pieces)
