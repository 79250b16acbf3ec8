"""What an enclave's file descriptors stand for: standard streams, TCP connections, listeners.

A stream says at once what it can say at once, and else gives a call that waits
(:class:`~broch.tee.sgx.run.waiting.Blocking`); errors of the system are :class:`OSError`.
"""

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from broch.tee.sgx.run.waiting import Interrupt

CHUNK: Final = 1 << 20  # bytes at most in one read or write
_PIPE_BUF: Final = 4096  # bytes that a pipe takes at once if it takes any (POSIX)
_BACKLOG: Final = 128

_T = TypeVar("_T")


class Stream(Protocol):
    """One descriptor of an enclave."""

    def try_read(self, size: int) -> bytes | None:
        """What is there, at most ``size`` bytes; nothing at the end; None if one must wait."""
        ...

    def try_write(self, data: bytes) -> int | None:
        """Take some of ``data``; None if one must wait."""
        ...

    def wait(self, events: int, interrupt: Interrupt) -> None:
        """Wait until it can be read (POLLIN) or written (POLLOUT)."""
        ...

    def close(self) -> None: ...


class FileStream:
    """A descriptor of ours, in one direction."""

    def __init__(self, descriptor: int, *, readable: bool) -> None:
        self._descriptor = descriptor
        self._readable = readable
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            mode = 0  # closed: reads and writes will say so
        self._is_file = stat.S_ISREG(mode)
        self._limit = _PIPE_BUF if stat.S_ISFIFO(mode) else CHUNK

    def try_read(self, size: int) -> bytes | None:
        """See :class:`Stream`."""
        if not self._readable:
            raise BrokenPipeError(errno.EPIPE, "cannot be read")
        if not self._is_ready(select.POLLIN):
            return None
        return os.read(self._descriptor, min(size, CHUNK))

    def try_write(self, data: bytes) -> int | None:
        """See :class:`Stream`."""
        if self._readable:
            raise BrokenPipeError(errno.EPIPE, "cannot be written")
        if not self._is_ready(select.POLLOUT):
            return None
        return os.write(self._descriptor, data[: self._limit])

    def wait(self, events: int, interrupt: Interrupt) -> None:
        """See :class:`Stream`."""
        interrupt.wait(self._descriptor, events)

    def close(self) -> None:
        """Nothing: the descriptor is not ours to close."""

    def _is_ready(self, events: int) -> bool:
        if self._is_file:
            return True
        poller = select.poll()
        poller.register(self._descriptor, events)
        return bool(poller.poll(0))


class _Socket:
    """What a connection and a listener have in common."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    @property
    def local(self) -> str:
        """The address of this end."""
        return show(self._socket.getsockname())

    def wait(self, events: int, interrupt: Interrupt) -> None:
        """See :class:`Stream`."""
        descriptor = self._socket.fileno()
        if descriptor < 0:  # another thread of the enclave has closed it
            raise OSError(errno.EBADF, "closed")
        interrupt.wait(descriptor, events)

    def close(self) -> None:
        """Hang up, or listen no more."""
        self._socket.close()


class SocketStream(_Socket):
    """A connection."""

    @property
    def peer(self) -> str:
        """The address of the other end."""
        return show(self._socket.getpeername())

    def try_read(self, size: int) -> bytes | None:
        """See :class:`Stream`."""
        try:
            return self._socket.recv(min(size, CHUNK))
        except BlockingIOError:
            return None

    def try_write(self, data: bytes) -> int | None:
        """See :class:`Stream`."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return None


class Listener(_Socket):
    """A socket that accepts connections; it cannot be read or written."""

    def try_accept(self) -> SocketStream | None:
        """A new connection; None if one must wait."""
        try:
            return SocketStream(self._socket.accept()[0])
        except BlockingIOError:
            return None

    def try_read(self, size: int) -> bytes | None:
        """See :class:`Stream`."""
        raise BrokenPipeError(errno.EPIPE, "a listener cannot be read")

    def try_write(self, data: bytes) -> int | None:
        """See :class:`Stream`."""
        raise BrokenPipeError(errno.EPIPE, "a listener cannot be written")


def split(address: str) -> tuple[str, int]:
    """``host:port``, ``[v6]:port``.

    Raises:
        OSError: not an address (EINVAL).
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise OSError(errno.EINVAL, "not an address like host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def show(address: tuple[object, ...] | str) -> str:
    """An address of a socket as Rust shows it."""
    if isinstance(address, str):
        return address or "unix"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _resolve(address: str) -> list[tuple[int, tuple[object, ...]]]:
    host, port = split(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        raise OSError(0, f"no such host: {exc}") from None
    except UnicodeError:
        raise OSError(errno.EINVAL, "not the name of a host") from None
    return [(int(family), target) for family, _, _, _, target in found]


def listen(address: str) -> Listener:
    """Listen on ``host:port``; looking the name up may take a while.

    Raises:
        OSError: as the system says.
    """
    return _first(address, _listen)


def _listen(family: int, target: tuple[object, ...]) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return Listener(sock)


def connect(address: str, interrupt: Interrupt) -> SocketStream:
    """Connect to ``host:port``.

    Raises:
        OSError: as the system says.
        InterruptedCallError: called off.
    """
    return _first(address, lambda family, target: _connect(family, target, interrupt))


def _connect(family: int, target: tuple[object, ...], interrupt: Interrupt) -> SocketStream:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        number = sock.connect_ex(target)
        if number == errno.EINPROGRESS:
            interrupt.wait(sock.fileno(), select.POLLOUT)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


def _first(address: str, attempt: Callable[[int, tuple[object, ...]], _T]) -> _T:
    """What the first address that works gives; else what the last one raised."""
    error = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, target in _resolve(address):
        try:
            return attempt(family, target)
        except OSError as exc:
            error = exc
    raise error
