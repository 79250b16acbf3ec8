"""Device trees on disk that answer as a kernel does, for processes that a test cannot reach into.

A file whose content is made when it is read is a FIFO with a thread behind it: the reader's open
wakes the thread, which puts a new FIFO in its place, so that the next reader gets an answer of its
own, and then writes what a read gives now. Instances of reports cannot come into being by mkdir
here, so they are there before, as if left by an earlier run.
"""

import os
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Maker = Callable[[bytes], bytes]


class Live:
    """A file whose content ``make`` gives at each reading."""

    def __init__(self, path: Path, make: Callable[[], bytes]) -> None:
        self._path = path
        self._make = make
        self._is_over = False
        os.mkfifo(path)
        self._thread = threading.Thread(target=self._serve, name=f"live {path.name}")
        self._thread.start()

    def _serve(self) -> None:
        fresh = self._path.with_name(f".{self._path.name}")
        while True:
            descriptor = os.open(self._path, os.O_WRONLY)  # until somebody reads
            try:
                if self._is_over:
                    return
                os.mkfifo(fresh)
                fresh.rename(self._path)
                os.write(descriptor, self._make())
            except BrokenPipeError:
                pass  # the reader is gone
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """End the thread: read once, and take no answer."""
        self._is_over = True
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join()
        os.close(descriptor)


class Instance:
    """One instance of configfs-tsm: counts writes, makes a report when one is asked for."""

    def __init__(self, folder: Path, provider: str, make: Maker) -> None:
        folder.mkdir(parents=True)
        (folder / "provider").write_text(f"{provider}\n")
        os.mkfifo(folder / "inblob")
        self._make = make
        self._lock = threading.Lock()
        self._inblob, self._generation = b"", 0
        self.reports = 0
        # Open for both, so that a writer never waits; what was written is there when it has closed.
        self._written = os.open(folder / "inblob", os.O_RDWR | os.O_NONBLOCK)
        self._files = [
            Live(folder / "generation", self._read_generation),
            Live(folder / "outblob", self._read_outblob),
        ]

    def _drain(self) -> None:
        while True:
            try:
                blob = os.read(self._written, 64)
            except BlockingIOError:
                return
            assert len(blob) == 64, "both providers take 64 bytes"
            self._inblob = blob
            self._generation += 1

    def _read_generation(self) -> bytes:
        with self._lock:
            self._drain()
            return b"%d\n" % self._generation

    def _read_outblob(self) -> bytes:
        with self._lock:
            self._drain()
            self.reports += 1
            return self._make(self._inblob)

    def close(self) -> None:
        for file in self._files:
            file.close()
        os.close(self._written)


@contextmanager
def tsm_tree(root: Path, node: str, provider: str, make: Maker) -> Iterator[Instance]:
    """A root folder with an instance for this node."""
    folder = root / "sys/kernel/config/tsm/report" / f"broch.{node}"
    instance = Instance(folder, provider, make)
    try:
        yield instance
    finally:
        instance.close()


@contextmanager
def gramine_tree(root: Path, make: Maker) -> Iterator[Path]:
    """A root folder with Gramine's /dev/attestation; gives that."""
    folder = root / "dev/attestation"
    (folder / "keys").mkdir(parents=True)
    (folder / "attestation_type").write_text("dcap")
    (folder / "user_report_data").write_bytes(bytes(64))
    (folder / "keys/_sgx_mrenclave").write_bytes(bytes(range(16)))
    quote = Live(folder / "quote", lambda: make((folder / "user_report_data").read_bytes()))
    try:
        yield folder
    finally:
        quote.close()


@contextmanager
def message_device(path: Path, answer: Maker) -> Iterator[None]:
    """A character device that gives one answer to each message: a terminal in raw mode."""
    host, device = os.openpty()
    tty.setraw(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.ttyname(device))

    def serve() -> None:
        while True:
            try:
                message = os.read(host, 4096)
            except OSError:  # nobody has the device open any more
                return
            os.write(host, answer(message))

    thread = threading.Thread(target=serve, name=f"device {path.name}")
    thread.start()
    try:
        yield
    finally:
        os.close(device)
        thread.join()
        os.close(host)
