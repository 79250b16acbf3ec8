"""What happens while an application starts: one line that changes on a terminal, few lines off it.

Off a terminal nothing is said of what takes less than a second.
"""

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Self, TextIO

from broch.app.reports import Stage
from broch.cli import output

QUIET_SECONDS: Final = 1.0
_REDRAW_SECONDS: Final = 0.05


class Progress:
    """Takes stages as they come; also from other threads, one at a time.

    Args:
        stream: where to; standard error.
        clock: seconds that only rise.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._begin = clock()
        self._redraws = output.is_terminal(self._stream)
        self._drawn = float("-inf")  # when the line was last drawn
        self._said = ""  # the stage that was last said off a terminal
        self._stage: Stage | None = None
        self._is_open = True

    def __call__(self, stage: Stage) -> None:
        """A stage began or went on."""
        is_new = self._stage is None or self._stage.name != stage.name
        self._stage = stage
        if not self._is_open:
            return
        now = self._clock()
        if self._redraws:
            if is_new or now - self._drawn >= _REDRAW_SECONDS:
                self._drawn = now
                self._draw(stage)
        elif now - self._begin >= QUIET_SECONDS and stage.name != self._said:
            self._say(stage)

    def overdue(self) -> None:
        """For a timer: say the stage that is taking long, if nothing was said of it."""
        stage = self._stage
        if self._is_open and not self._redraws and stage and stage.name != self._said:
            self._say(stage)

    def close(self) -> None:
        """Leave a clean line."""
        if self._is_open and self._redraws:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        self._is_open = False

    def _draw(self, stage: Stage) -> None:
        self._stream.write(f"\r\x1b[2K{describe(stage)[: output.width() - 1]}")
        self._stream.flush()

    def _say(self, stage: Stage) -> None:
        self._said = stage.name
        self._stream.write(describe(stage) + "\n")
        self._stream.flush()


class Counted:
    """A binary file that shows how much of it was read; ``total`` in bytes."""

    def __init__(self, file: io.BufferedReader, what: str, total: int) -> None:
        self._file = file
        self._meter = Meter(what, total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.close()

    def readinto(self, buffer: memoryview) -> int:
        """Read, and count."""
        size = self._file.readinto(buffer)
        self._meter.add(size)
        return size


class Meter:
    """Says how many bytes of ``total`` are done; a total of 0 is not known."""

    def __init__(self, what: str, total: int = 0, progress: Progress | None = None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._progress = progress or Progress()

    def add(self, size: int) -> None:
        """So many bytes more are done."""
        self._done += size
        of = f" of {self._total / 1e6:,.0f}" if self._total else ""
        self._progress(Stage(name=self._what, text=f"{self._done / 1e6:,.0f}{of} MB"))

    def close(self) -> None:
        """Leave a clean line."""
        self._progress.close()


def counted(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Pass ``pieces`` on, and show how far it is."""
    meter = Meter(what)
    try:
        for piece in pieces:
            yield piece
            meter.add(len(piece))
    finally:
        meter.close()


def describe(stage: Stage) -> str:
    """``attest   3/5  gateway``."""
    counts = f"{stage.done}/{stage.total}" if stage.total else ""
    return output.clean(f"{stage.name:<8} {counts:>5}  {stage.text}").rstrip()
