"""Reading files that others wrote: regular ones, bounded, and secrets only if they were kept."""

import os
import stat
from pathlib import Path

from broch.errors import DecodeError, UntrustedError, UsageError


def read(path: Path, limit: int, *, secret: bool = False) -> bytes:
    """All of a regular file of at most ``limit`` bytes.

    Raises:
        UsageError: it cannot be read, or is no regular file.
        DecodeError: it is longer.
        UntrustedError: it is secret, and others may read it.
    """
    try:
        # Not blocking: a named pipe would keep us waiting before anything could be checked.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError("not a regular file", place=str(path))
            if secret and status.st_mode & 0o077:
                raise UntrustedError(
                    f"a secret that others may read (mode {stat.S_IMODE(status.st_mode):04o})",
                    place=str(path),
                    hint="take a new key; keep it with mode 0600",
                )
            data = file.read(limit + 1)
    except OSError as exc:
        raise UsageError(f"cannot be read: {exc.strerror}", place=str(path)) from None
    if len(data) > limit:
        raise DecodeError(limit, f"longer than {limit} bytes", what=str(path))
    return data


def names(folder: Path, limit: int) -> list[str]:
    """Names in a folder, sorted, without hidden ones.

    Raises:
        UsageError: it cannot be read, or holds more than ``limit``.
    """
    try:
        found = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as exc:
        raise UsageError(f"cannot be read: {exc.strerror}", place=str(folder)) from None
    if len(found) > limit:
        raise UsageError(f"more than {limit} files", place=str(folder))
    return found
