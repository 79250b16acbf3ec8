"""Binary files of commands: ``-`` is a standard stream, and no binary goes to a terminal."""

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from broch.errors import UsageError

STREAM: Final = Path("-")


def read(path: Path, limit: int = -1) -> bytes:
    """A file, or standard input: all of it, or the first ``limit`` bytes.

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


def unreadable(path: Path, exc: OSError) -> UsageError:
    """What to say of a file that cannot be read."""
    return UsageError(f"cannot be read: {exc.strerror}", place=str(path))


def write(path: Path, pieces: Iterable[bytes]) -> int:
    """Write all pieces to a file, whole or not at all, or to standard output; how many bytes.

    Raises:
        UsageError: it cannot be written, or standard output is a terminal.
    """
    if path == STREAM:
        return _write_stdout(pieces)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as exc:
        raise UsageError(f"cannot be written: {exc.strerror}", place=str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = sum(map(file.write, pieces))
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except OSError as exc:
        os.unlink(temporary)
        raise UsageError(f"cannot be written: {exc.strerror}", place=str(path)) from None
    except BaseException:
        os.unlink(temporary)
        raise
    return size


def _write_stdout(pieces: Iterable[bytes]) -> int:
    if sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and this is binary",
            hint="write to a file with -o FILE, or pipe it on",
        )
    sys.stdout.flush()
    size = sum(map(sys.stdout.buffer.write, pieces))
    sys.stdout.buffer.flush()
    return size


def _mode(path: Path) -> int:
    """The rights of the file that is replaced, or those of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
