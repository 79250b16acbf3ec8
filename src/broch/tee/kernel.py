"""What a getter of evidence asks of the kernel under it: a few files and ioctls, and no more.

:class:`Linux` does that below a root folder, ``/`` on a real machine. A :class:`Kernel` that is
none can stand in for it: it then has to keep the kernel's rules itself. All methods raise
:class:`OSError`; :func:`problem` says what that means to the user.

Request numbers are those of ``include/uapi/asm-generic/ioctl.h`` (x86-64 and AArch64): direction in
bits 30-31, size of the argument in 16-29, type in 8-15, number in 0-7.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from broch.errors import BrochError, InternalError, UndecidedError

READ_WRITE: Final = 3  # direction of _IOWR
_SIZE_BITS: Final = 14
_MISSING: Final = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
_BUSY: Final = (errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)

#: Sends a message, gives the answer of at most so many bytes.
Exchange = Callable[[bytes, int], bytes]


class Kernel(Protocol):
    """The kernel, as far as evidence needs it. Paths are absolute, as on the real machine."""

    def exists(self, path: str) -> bool: ...

    def read(self, path: str, limit: int) -> bytes:
        """The whole file, opened anew; EFBIG where it is longer than ``limit`` bytes."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Open the file, which must be there, write once, close."""
        ...

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        """Open the device, have the kernel change ``argument`` in place, close."""
        ...

    def talk(self, path: str) -> AbstractContextManager[Exchange]:
        """Open a device that answers messages, until the end of the context."""
        ...


class Linux:
    """The kernel of this machine; ``root`` stands before every path."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def exists(self, path: str) -> bool:
        """Whether there is something at ``path``."""
        return os.path.exists(self._path(path))  # False, too, where one may not look

    def read(self, path: str, limit: int) -> bytes:
        """See :meth:`Kernel.read`."""
        with open(self._path(path), "rb", buffering=0) as file:
            data = bytearray()
            while part := file.read(limit + 1 - len(data)):
                data += part
                if len(data) > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return bytes(data)

    def write(self, path: str, data: bytes) -> None:
        """See :meth:`Kernel.write`."""
        descriptor = os.open(self._path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(descriptor)

    def mkdir(self, path: str) -> None:
        """Make a folder; EEXIST where there is one."""
        self._path(path).mkdir()

    def rmdir(self, path: str) -> None:
        """Remove a folder; of configfs, with the attributes in it."""
        self._path(path).rmdir()

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        """See :meth:`Kernel.ioctl`."""
        descriptor = os.open(self._path(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            # The structure itself is given, so that the kernel writes into it whatever its size.
            fcntl.ioctl(descriptor, request, argument, True)
        finally:
            os.close(descriptor)

    @contextmanager
    def talk(self, path: str) -> Iterator[Exchange]:
        """See :meth:`Kernel.talk`."""
        descriptor = os.open(self._path(path), os.O_RDWR | os.O_CLOEXEC)

        def exchange(message: bytes, limit: int) -> bytes:
            if os.write(descriptor, message) != len(message):
                raise OSError(errno.EIO, "short write")
            return os.read(descriptor, limit)

        try:
            yield exchange
        finally:
            os.close(descriptor)


def iowr(kind: int, number: int, argument: type[ctypes.Structure]) -> int:
    """``_IOWR(kind, number, argument)``: the request number of an ioctl."""
    size = ctypes.sizeof(argument)
    assert size < 1 << _SIZE_BITS
    return READ_WRITE << 30 | size << 16 | kind << 8 | number


def is_busy(exc: OSError) -> bool:
    """Whether trying again may help."""
    return exc.errno in _BUSY


def problem(exc: OSError, path: str, what: str) -> BrochError:
    """The error of ours for ``exc``, which ``path`` of ``what`` ("AMD SEV-SNP") raised."""
    reason = exc.strerror or type(exc).__name__
    if exc.errno in _MISSING:
        return UndecidedError(
            f"no {what} device: {path} is missing ({reason})",
            hint=f"run this on a machine with {what}; broch doctor shows what is here",
        )
    if exc.errno in _FORBIDDEN:
        return UndecidedError(
            f"{what}: {path} may not be used by this user ({reason})",
            hint="run as a user who may open the device: its group, or root",
        )
    if is_busy(exc):
        return UndecidedError(
            f"{what}: {path} is busy ({reason})", hint="try again; another process may be using it"
        )
    return InternalError(f"{what}: {path} failed: {reason}")
