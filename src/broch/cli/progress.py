"""What happens while an application starts: one line that changes on a terminal, few lines off it.

Off a terminal nothing is said of what takes less than a second.
"""

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

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


def describe(stage: Stage) -> str:
    """``attest   3/5  gateway``."""
    counts = f"{stage.done}/{stage.total}" if stage.total else ""
    return output.clean(f"{stage.name:<8} {counts:>5}  {stage.text}").rstrip()
