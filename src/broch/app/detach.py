"""Running something as a daemon that tells its starter how far it is, and how starting ended.

The child is forked before it starts threads or processes. One JSON line a word goes through a
pipe: ``{"stage": ...}`` as often as wanted, then ``{"ready": data}`` or ``{"error": ...}``.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import msgspec

from broch.app.reports import Stage, error_from_data, error_to_data
from broch.errors import InternalError

_CHUNK: Final = 65536
_encode: Final = msgspec.json.encode


class Starter:
    """The daemon's way to its starter."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def progress(self, stage: Stage) -> None:
        """Say how far it is; may be called from any thread."""
        self._say({"stage": asdict(stage)})

    def ready(self, data: Any) -> None:
        """Say that it runs; the starter goes on with ``data``."""
        self._say({"ready": data})
        self._close()

    def failed(self, error: BaseException) -> None:
        """Say why it does not run."""
        self._say({"error": error_to_data(error)})
        self._close()

    def _say(self, word: dict[str, Any]) -> None:
        if self._pipe >= 0:
            try:
                os.write(self._pipe, _encode(word) + b"\n")
            except BrokenPipeError:
                self._close()  # nobody waits any more

    def _close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def detach(work: Callable[[Starter], None], progress: Callable[[Stage], None]) -> Any:
    """Run ``work`` in a daemon; returns what it is ready with.

    Args:
        work: runs in the daemon, calls :meth:`Starter.ready`, and returns at its end.
        progress: called here with what the daemon says.

    Raises:
        BrochError: what the daemon failed with.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first == 0:
        _become_daemon(reader, writer, work)
    os.close(writer)
    try:
        os.waitpid(first, 0)
        return _listen(reader, progress)
    finally:
        os.close(reader)


def _become_daemon(reader: int, writer: int, work: Callable[[Starter], None]) -> None:
    """In the child: leave the terminal and the parent behind, then work. Returns never."""
    status = 1
    try:
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        starter = Starter(writer)
        try:
            work(starter)
            status = 0
        except BaseException as exc:  # noqa: BLE001 (told to the starter; there is nobody above)
            starter.failed(exc)
    finally:
        os._exit(status)


def _listen(reader: int, progress: Callable[[Stage], None]) -> Any:
    rest = b""
    while part := os.read(reader, _CHUNK):
        *words, rest = (rest + part).split(b"\n")
        for line in words:
            word = msgspec.json.decode(line)
            if "stage" in word:
                progress(Stage(**word["stage"]))
            elif "error" in word:
                raise error_from_data(word["error"])
            else:
                return word["ready"]
    raise InternalError("the application ended while it started")
