"""Where Broch keeps what outlives a command: devices, keys, and what belongs to each app.

    devices/APP/NODE.TEE/   emulated devices (see :mod:`broch.enclave.device_folder`)
    keys/                   deployer.pem (Ed25519), TEE.pem (signing keys), each 0600
    apps/APP/               lock and control.* while it runs; stores/NODE/*.store; failure,
                            if a run in the background ended so

The root is ``$BROCH_HOME``, or ``$XDG_STATE_HOME/broch``, or ``~/.local/state/broch``; all folders
are 0700. A key or folder of another user, or one that others may use, is refused.
"""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.enclave.device_folder import check_private, write_private
from broch.errors import MalformedError, UsageError
from broch.tee.contract import Tee

_SOCKET: Final = "control.sock"
_TOKEN: Final = "control.token"  # noqa: S105 (the name of a file)
_LOCK: Final = "lock"
_FAILURE: Final = "failure"
_MAX_FAILURE: Final = 500  # characters
_LOCK_ATTEMPTS: Final = 5
_HINT: Final = "set BROCH_HOME to a folder of yours"


@dataclass(frozen=True, slots=True)
class Home:
    """The root folder. Folders in it are made when they are first asked for."""

    root: Path

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The home that the environment names; raises :class:`UsageError` if there is none."""
        if named := environ.get("BROCH_HOME"):
            return cls(Path(os.path.abspath(named)))
        if (state := environ.get("XDG_STATE_HOME")) and os.path.isabs(state):
            return cls(Path(state) / "broch")
        if not os.path.isabs(environ.get("HOME", "")):
            raise UsageError("there is no home folder", hint=_HINT)
        return cls(Path(environ["HOME"]) / ".local" / "state" / "broch")

    @property
    def private(self) -> tuple[Path, ...]:
        """The folders that no agent may read."""
        return tuple(self.root / name for name in ("devices", "keys", "apps", "pycache"))

    def folder(self, *parts: str) -> Path:
        """A folder of the user's alone in here; made if it is not there.

        Raises:
            UsageError: it cannot be made.
            UntrustedError: it is another user's, or others may use it.
        """
        path = self.root
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_private(path)
            for part in parts:
                path /= part
                path.mkdir(mode=0o700, exist_ok=True)
                check_private(path)
        except OSError as exc:
            problem = f"cannot make the folder: {exc.strerror}"
            raise UsageError(problem, place=str(path), hint=_HINT) from None
        return path

    def device(self, app: str, node: str, tee: str) -> Path:
        """The folder of a node's emulated device (:func:`broch.enclave.device_folder.make`)."""
        return self.folder("devices", app) / f"{node}.{tee}"

    def app(self, name: str) -> "AppFolder":
        """The folder of an application."""
        return AppFolder(name, self.folder("apps", name))

    def existing_app(self, name: str) -> "AppFolder | None":
        """The folder of an application, if there is one; makes nothing."""
        path = self.root / "apps" / name
        return AppFolder(name, path) if path.is_dir() else None

    def app_names(self) -> list[str]:
        """All applications that have a folder here."""
        folder = self.root / "apps"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def deployer_key(self) -> Ed25519PrivateKey:
        """The deployer's key; made when there is none."""
        key = self._key("deployer", Ed25519PrivateKey.generate)
        if not isinstance(key, Ed25519PrivateKey):
            raise MalformedError("not an Ed25519 key", place=str(self._key_path("deployer")))
        return key

    def signing_key(self, tee: Tee) -> RSAPrivateKey | None:
        """The key that signs images for a TEE; made when there is none, None where none is used."""
        if not tee.needs_signing_key:
            return None
        key = self._key(tee.name, tee.new_signing_key)
        if not isinstance(key, RSAPrivateKey):
            raise MalformedError("not an RSA key", place=str(self._key_path(tee.name)))
        return key

    def _key_path(self, name: str) -> Path:
        return self.root / "keys" / f"{name}.pem"

    def _key(self, name: str, make: Callable[[], Ed25519PrivateKey | RSAPrivateKey]) -> object:
        path = self.folder("keys") / f"{name}.pem"
        with _locked(path.parent):
            if not path.exists():
                pem = make().private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                write_private(path, pem)
        check_private(path)
        try:
            return serialization.load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError):
            raise MalformedError(
                "not a private key in PEM form",
                place=str(path),
                hint="move the file away, and a new key is made",
            ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class AppLock:
    """Held while an application runs; gone with its process, however that ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go, and leave no file behind."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, slots=True)
class AppFolder:
    """What belongs to one application."""

    name: str
    path: Path

    def stores(self, node: str) -> Path:
        """Where a node's agent keeps sealed stores."""
        folder = self.path
        for part in ("stores", node):
            folder /= part
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def lock(self) -> AppLock:
        """Make sure that the application runs once.

        Raises:
            UsageError: it runs already.
        """
        path = self.path / _LOCK
        attempts = _LOCK_ATTEMPTS
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                attempts -= 1
                if attempts:  # somebody may just be looking (is_running)
                    time.sleep(0.01)
                    continue
                raise UsageError(
                    f"app {self.name} runs already", hint="end it first: broch down"
                ) from None
            if _is_same(path, descriptor):
                (self.path / _FAILURE).unlink(missing_ok=True)
                return AppLock(path, descriptor)
            os.close(descriptor)  # its holder removed the file meanwhile

    def is_running(self) -> bool:
        """Whether some process holds the lock."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def listen(self) -> socket.socket:
        """The control socket, listening; for the holder of the lock.

        Whoever connects begins with :meth:`token`. Agents are processes of the same user and can
        reach the socket, since Landlock lets them connect; files of this folder they cannot read.

        The address goes by a descriptor of the folder, because a socket's path has 107 bytes.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.remove_socket()
        write_private(self.path / _TOKEN, secrets.token_hex(32).encode() + b"\n")
        old = os.umask(0o177)
        try:
            with _opened(self.path) as folder:
                sock.bind(f"/proc/self/fd/{folder}/{_SOCKET}")
            sock.listen(16)
        except OSError as exc:
            sock.close()
            problem = f"cannot listen: {exc.strerror}"
            raise UsageError(problem, place=str(self.path / _SOCKET)) from None
        finally:
            os.umask(old)
        return sock

    def remove_socket(self) -> None:
        """Leave no socket behind."""
        (self.path / _SOCKET).unlink(missing_ok=True)
        (self.path / _TOKEN).unlink(missing_ok=True)

    def token(self) -> bytes:
        """The line that whoever may control the application begins with."""
        return (self.path / _TOKEN).read_bytes()

    def connect(self) -> socket.socket:
        """A connection to the application's supervisor.

        Raises:
            UsageError: it does not run.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with _opened(self.path) as folder:
                sock.connect(f"/proc/self/fd/{folder}/{_SOCKET}")
            sock.sendall(self.token())
        except (FileNotFoundError, ConnectionError):
            sock.close()
            hint = self.last_failure() or "start it with: broch up"
            raise UsageError(f"app {self.name} does not run", hint=hint) from None
        return sock

    def note_failure(self, why: str) -> None:
        """Let later commands say why a run in the background failed; the next run forgets it."""
        write_private(self.path / _FAILURE, why.encode())

    def last_failure(self) -> str | None:
        """Why the last run failed, if it was in the background."""
        try:
            text = (self.path / _FAILURE).read_text("utf-8", "replace")
        except OSError:
            return None
        return f"its last run failed: {text[:_MAX_FAILURE]}"


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
