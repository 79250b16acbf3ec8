"""Where an emulated device lives on disk: its secret, its non-volatile memory, its public half.

    secret         32 random bytes, mode 0600
    nv/NAME        what the device keeps, mode 0600
    endorsements   CBOR: what verifiers need, public

The folder and what is in it belong to the user, or the device is not used.
"""

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

import cbor2
import msgspec

from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements

SECRET_SIZE: Final = 32  # bytes
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def make(folder: Path) -> None:
    """Make a device with a new secret, unless there is one.

    Raises:
        UntrustedError: the folder is another user's.
        UndecidedError: a device was here, and its secret is gone.
        UsageError: the folder cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder, folder.stat())
        folder.chmod(0o700)
        (folder / "nv").mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"cannot make the folder: {exc.strerror}", place=str(folder)) from None
    if not (folder / "secret").exists():
        _check_new(folder)
        fresh = folder / f".secret-{os.getpid()}"
        write_private(fresh, os.urandom(SECRET_SIZE))
        with contextlib.suppress(FileExistsError):  # somebody else was faster: theirs it is
            os.link(fresh, folder / "secret")
        fresh.unlink()


def _check_new(folder: Path) -> None:
    """A device that ran has sealed and signed under its secret: with a new one it is another."""
    if (folder / "endorsements").exists():
        raise UndecidedError(
            "the device's secret is gone, and what was sealed under it cannot be read",
            place=str(folder / "secret"),
            hint=f"put it back; or move {folder} away, and a device with a new secret is made",
        )


def read_secret(folder: Path) -> bytes:
    """The device's secret.

    Raises:
        UntrustedError: it belongs to another user, or others may read it.
        UndecidedError: it is not there.
        DecodeError: it is not a secret.
    """
    for path in (folder, folder / "nv", folder / "secret"):
        check_private(path)
    secret = (folder / "secret").read_bytes()
    if len(secret) != SECRET_SIZE:
        raise DecodeError(len(secret), f"expected {SECRET_SIZE} bytes", what=f"{folder}/secret")
    return secret


def check_private(path: Path) -> None:
    """Raise :class:`UntrustedError` unless only this user can use ``path``.

    Raises:
        UntrustedError: it belongs to another user, or others may use it.
        UndecidedError: it is not there, or out of reach.
    """
    try:
        status = path.stat()
    except OSError as exc:
        raise UndecidedError(f"{exc.strerror}", place=str(path)) from None
    _check_owner(path, status)
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UntrustedError(
            f"others may use it (mode {stat.S_IMODE(status.st_mode):04o})",
            place=str(path),
            hint=f"chmod go= {path}, and make the device anew if others may have read it",
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UntrustedError(
            f"belongs to user {status.st_uid}, not to you (user {os.geteuid()})",
            place=str(path),
            hint="use a BROCH_HOME of your own",
        )


class FileNonVolatile:
    """A device's non-volatile memory as files; each write is atomic and durable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "nv"

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise DecodeError(0, f"not a name in a device's memory: {name!r:.80}")
        return self._folder / name

    def get(self, name: str) -> bytes | None:
        """What was put under ``name``.

        Raises:
            UntrustedError: the file is another user's, or others may use it.
        """
        path = self._path(name)
        if not path.exists():
            return None
        check_private(path)
        return path.read_bytes()

    def put(self, name: str, value: bytes) -> None:
        """Keep ``value`` under ``name``; a power cut after this does not bring the old one back."""
        write_private(self._path(name), value)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 so that it is there whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def save_endorsements(folder: Path, endorsements: Endorsements) -> None:
    """Put the device's public half where verifiers of this installation find it."""
    path = folder / "endorsements"
    data = cbor2.dumps([list(endorsements.anchors), dict(endorsements.items)], canonical=True)
    # They are the same at every start, which may be ended while it writes.
    if path.exists():
        check_private(path)
    if not path.exists() or path.read_bytes() != data:
        write_private(path, data)


def read_endorsements(folder: Path) -> Endorsements:
    """The public half of a device of this installation.

    Raises:
        UndecidedError: the device never ran.
        UntrustedError: the file is another user's.
        DecodeError: it is not what a device writes.
    """
    path = folder / "endorsements"
    check_private(path)
    data = path.read_bytes()
    try:
        anchors, items = _endorsements(cbor2.loads(data))
    except (cbor2.CBORDecodeError, msgspec.MsgspecError, ValueError, TypeError):
        raise DecodeError(0, "not endorsements", what=str(path)) from None
    if cbor2.dumps([anchors, items], canonical=True) != data:
        raise DecodeError(0, "not as a device writes them", what=str(path))
    return Endorsements(anchors=tuple(anchors), items=items)


def _endorsements(value: object) -> tuple[list[bytes], dict[str, bytes]]:
    """``value``, strictly ``[[bytes, ...], {text: bytes}]``."""
    return msgspec.convert(value, tuple[list[bytes], dict[str, bytes]], builtin_types=[bytes])
