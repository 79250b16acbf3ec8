"""Packets over a SOCK_SEQPACKET pair, with file descriptors beside them.

A packet is one byte and then the message itself (0), or nothing (1): a longer message travels in a
memfd, the first of the descriptors.
"""

import array
import fcntl
import os
import socket
from collections.abc import Sequence
from typing import Final

from broch.errors import DecodeError

MAX_INLINE: Final = 32768  # bytes
MAX_MESSAGE: Final = 64 * 1024 * 1024  # bytes
_MAX_FDS: Final = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here."""
    if len(message) <= MAX_INLINE:
        _send(sock, b"\x00" + message, descriptors)
        return
    memory = memory_file("broch-packet", message)
    try:
        _send(sock, b"\x01", (memory, *descriptors))
    finally:
        os.close(memory)


def _send(sock: socket.socket, packet: bytes, descriptors: Sequence[int]) -> None:
    rights = array.array("i", descriptors)
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    sock.sendmsg([packet], extra)


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """Take one message and its descriptors; None when the other side hung up.

    An empty packet looks like the end, and is taken for it.

    Raises:
        DecodeError: not a packet; whatever came with it is closed.
    """
    size = array.array("i").itemsize
    try:
        packet, extra, flags, _ = sock.recvmsg(
            MAX_INLINE + 1, socket.CMSG_SPACE(_MAX_FDS * size), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:  # it hung up with messages of ours unread
        return None
    descriptors = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % size])
    fds = list(descriptors)
    if not packet:
        close_all(fds)
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise DecodeError(0, "packet cut off")
        if packet[0] == 0:
            return packet[1:], fds
        if packet != b"\x01" or not fds:
            raise DecodeError(0, "not a packet")
        return read_memory(fds.pop(0), MAX_MESSAGE), fds
    except DecodeError:
        close_all(fds)
        raise


def memory_file(name: str, data: bytes) -> int:
    """A memfd that holds ``data`` and can no longer be changed."""
    memory = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(memory, view) :]
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _ALL_SEALS)
    return memory


def read_memory(descriptor: int, limit: int) -> bytes:
    """A private copy of a memfd's content; closes it. Raises :class:`DecodeError`."""
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise DecodeError(limit, f"{size} bytes; the limit is {limit}")
        parts = []
        offset = 0
        while part := os.pread(descriptor, size - offset, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)
    except OSError as exc:
        raise DecodeError(0, f"not a file in memory: {exc.strerror}") from None
    finally:
        os.close(descriptor)


def close_all(descriptors: Sequence[int]) -> None:
    """Close them all."""
    for descriptor in descriptors:
        os.close(descriptor)


_ALL_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
