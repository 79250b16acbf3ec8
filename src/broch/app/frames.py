"""Framing of what agents, and deployer and agent, say to each other over TCP. Sans-IO.

    offset  size  field
    0       4     length of the rest (big-endian), 1 to the limit of the connection
    4       1     kind
    5       ...   body

What an enclave says travels as it is, its kind being that of :mod:`broch.enclave.messages`; kinds
from 0x80 are commands and reports (:mod:`broch.app.agent_messages`).
"""

import struct
from typing import Final

from broch.enclave.ring import MAX_MESSAGE
from broch.errors import DecodeError

HEAD: Final = struct.Struct(">I")
MAX_PEER_FRAME: Final = MAX_MESSAGE  # bytes; what agents send each other
MAX_CONTROL_FRAME: Final = 72 * 1024 * 1024  # bytes; holds a packed image


def frame(message: bytes) -> bytes:
    """One frame around a message: its kind and body."""
    return HEAD.pack(len(message)) + message


class FrameParser:
    """Turns a stream of bytes into messages.

    Args:
        limit: bytes that a message may have; raise it with :attr:`limit` when the peer is known.
    """

    __slots__ = ("_parts", "_size", "_wanted", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._parts: list[bytes] = []  # of a message that is not whole yet
        self._size = 0
        self._wanted = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes; each is copied once.

        Raises:
            DecodeError: a length of zero or above the limit; the stream is of no more use.
        """
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        messages: list[bytes] = []
        append, unpack, limit = messages.append, HEAD.unpack_from, self.limit
        at, size = 0, len(data)
        wanted = 4
        while size - at >= 4:
            (length,) = unpack(data, at)
            if not 0 < length <= limit:
                raise DecodeError(at, f"frame of {length} bytes, expected 1 to {limit}")
            end = at + 4 + length
            if end > size:
                wanted = 4 + length
                break
            append(data[at + 4 : end])
            at = end
        if at < size:
            self._parts.append(data[at:])
            self._size = size - at
            self._wanted = wanted
        return messages

    @property
    def is_clean(self) -> bool:
        """Whether the stream stands between two messages."""
        return not self._parts
