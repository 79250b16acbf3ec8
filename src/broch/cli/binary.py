"""Binary files of commands: ``-`` is a standard stream, and no binary goes to a terminal."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from broch.cli import output
from broch.errors import MalformedError, UsageError
from broch.wire.files import read_whole

STREAM: Final = Path("-")
MAX_IMAGE: Final = 1 << 30  # bytes of an ELF file, or of a stream that is read whole
MAX_SMALL: Final = 1 << 16  # bytes of a key or a signature


def read(path: Path, limit: int) -> bytes:
    """The first ``limit`` bytes of a file, or of standard input.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if path == STREAM:
            return sys.stdin.buffer.read(limit)
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as exc:
        raise unreadable(path, exc) from None


def read_all(path: Path, most: int = MAX_IMAGE) -> bytes:
    """A file, or standard input.

    Raises:
        UsageError: it cannot be read.
        MalformedError: it is longer than ``most`` bytes.
    """
    try:
        if path == STREAM:
            return read_whole(sys.stdin.buffer, most)
        with path.open("rb") as file:
            return read_whole(file, most)
    except OSError as exc:
        raise unreadable(path, exc) from None
    except MalformedError as exc:
        exc.place = "stdin" if path == STREAM else str(path)
        raise


def unreadable(path: Path, exc: OSError) -> UsageError:
    """What to say of a file that cannot be read."""
    return UsageError(f"cannot be read: {exc.strerror}", place=str(path))


def write(path: Path, pieces: Iterable[bytes]) -> int:
    """Write all pieces to a file (:func:`write_file`) or to standard output; how many bytes.

    Raises:
        UsageError: it cannot be written, or standard output is a terminal.
    """
    return _write_stdout(pieces) if path == STREAM else write_file(path, pieces)


def write_file(path: Path, pieces: Iterable[bytes]) -> int:
    """Write all pieces to a file, which is there whole or not at all; how many bytes.

    A device or a pipe (``/dev/stdout``) is written to as it is; a link is followed.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        if is_special(path):
            with path.open("wb") as file:
                return _put(file, pieces)
        real = path.resolve()
        descriptor, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                size = _put(file, pieces)
            os.chmod(temporary, _mode(real))
            os.replace(temporary, real)
        except BaseException:
            os.unlink(temporary)
            raise
        return size
    except OSError as exc:
        raise UsageError(f"cannot be written: {exc.strerror}", place=str(path)) from None


def _put(file: BinaryIO, pieces: Iterable[bytes]) -> int:
    return sum(map(file.write, pieces))


def is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket is there: nothing to be replaced, or read again."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_stdout(pieces: Iterable[bytes]) -> int:
    if sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and this is binary",
            hint="write to a file with -o FILE, or pipe it on",
        )
    output.flush()
    size = 0
    for piece in pieces:
        with output.standard_output():
            size += sys.stdout.buffer.write(piece)
    output.flush()
    return size


def _mode(path: Path) -> int:
    """The rights of the file that is replaced, or those of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
