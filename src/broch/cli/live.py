"""What is shown while an application runs: its events as lines, its counts as they grow.

On a terminal the table of connections redraws itself in place, and lines go above it. Off it a
line of counts comes every few seconds, on standard error. With ``--json`` nothing is shown.
"""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from broch.cli import output, table, views

Status = Callable[[], Mapping[str, Any]]
_REDRAW_SECONDS: Final = 0.25
_LINE_SECONDS: Final = 5.0


class Live(Protocol):
    """A view of a running application; entered while it runs."""

    period: float  # seconds between two ticks

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def line(self, text: str) -> None: ...
    def tick(self) -> None: ...


class Plain:
    """Lines, for files and pipes.

    Args:
        status: gives the status now.
        is_quiet: say nothing of counts.
    """

    period: float = _LINE_SECONDS

    def __init__(self, status: Status, *, is_quiet: bool = False) -> None:
        self._status = status
        self._is_quiet = is_quiet
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def line(self, text: str) -> None:
        """Something happened."""
        output.note(text)

    def tick(self) -> None:
        """Time has passed."""
        if not self._is_quiet:
            output.note(views.counts_line(self._status(), time.monotonic() - self._begin))


class Screen:
    """A table of connections that redraws itself."""

    period: float = _REDRAW_SECONDS

    def __init__(self, status: Status) -> None:
        from rich.live import Live as RichLive

        self._status = status
        self._console = table.console()
        self._live = RichLive(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        """Something happened."""
        from rich.text import Text

        self._console.print(Text(text))

    def tick(self) -> None:
        """Time has passed."""
        self._live.update(table.as_rich(views.connections(self._status())), refresh=True)


def choose(status: Status, *, as_json: bool) -> Live:
    """The view that standard output can show."""
    if output.is_terminal(sys.stdout) and not as_json:
        return Screen(status)
    return Plain(status, is_quiet=as_json)
