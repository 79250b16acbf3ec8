"""``broch up``: start an application, show it while it runs, say at the end what happened.

At first there is a table of who was believed; while it runs, what modules print and what goes
wrong, and counts; at the end the application's own summary, events by connection, and charts.
"""

import asyncio
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from broch.app.descriptor import Descriptor, load
from broch.app.home import Home
from broch.app.supervisor import Ending, Reason, Supervisor
from broch.cli import output, views
from broch.cli.live import Live, choose
from broch.cli.progress import QUIET_SECONDS, Progress
from broch.cli.table import show
from broch.errors import InternalError, UsageError

T = TypeVar("T")
_TROUBLE: Final = ("fault", "restart", "refused", "gap")
_MAX_TROUBLE: Final = 200  # lines of it in the report


class Interrupted(Exception):  # noqa: N818 (it is what happened, not an error)
    """A signal asked for the end; ``number`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells expect."""
        return 128 + self.number


def up(
    path: Path,
    *,
    detach: bool,
    seconds: float | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Run the application that ``path`` describes; the exit code."""
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError("expected a number of seconds", place="--for")
    if report is not None:
        check_report(report, detach=detach)
    descriptor = load(path)
    home = Home.find()
    if detach:
        return _detached(descriptor, home, seconds, as_json=as_json)
    return asyncio.run(_attached(descriptor, home, seconds, report, as_json=as_json))


def check_report(path: Path, *, detach: bool) -> None:
    """Refuse a report that could not be written at the end, before anything starts."""
    place = f"--report {path}"
    if detach:
        raise UsageError("a report is written by a run in the foreground", place=place)
    if path.is_dir():
        raise UsageError("is a folder", place=place, hint=f"name a file: {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UsageError("its folder does not exist", place=place)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError("cannot be written", place=place)


def _detached(descriptor: Descriptor, home: Home, seconds: float | None, *, as_json: bool) -> int:
    from broch.app import daemon

    progress = Progress()
    try:
        status = daemon.up(descriptor, home, seconds=seconds, progress=progress)
    finally:
        progress.close()
    if as_json:
        output.print_json({"app": descriptor.app.name, "status": status})
        return 0
    show(views.modules(status))
    name = descriptor.app.name
    output.note(f"hint: {name} runs in the background; broch status, events, down {name}")
    return 0


class _Signals:
    """Turns Ctrl-C and requests to end into :class:`Interrupted`, where work can be left."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._came: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take, number)

    def _take(self, number: int) -> None:
        if not self._came.done():
            self._came.set_result(number)

    async def during(self, work: Awaitable[T]) -> T:
        """The outcome of ``work``, unless a signal comes first; then it is cancelled."""
        task = asyncio.ensure_future(work)
        both: set[asyncio.Future[Any]] = {task, self._came}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise Interrupted(self._came.result())
        return task.result()


async def _attached(
    descriptor: Descriptor,
    home: Home,
    seconds: float | None,
    report: Path | None,
    *,
    as_json: bool,
) -> int:
    signals = _Signals()
    progress = Progress()
    supervisor = Supervisor(descriptor, home, progress=progress)
    timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, progress.overdue)
    try:
        try:
            await signals.during(supervisor.start())
        finally:
            timer.cancel()
            progress.close()
        return await _Run(supervisor, descriptor, as_json=as_json).run(signals, seconds, report)
    except Interrupted as exc:
        return exc.exit_code
    finally:
        await supervisor.stop()


class _Run:
    """An application that is up, until it ends."""

    def __init__(self, supervisor: Supervisor, descriptor: Descriptor, *, as_json: bool) -> None:
        self._supervisor = supervisor
        self._descriptor = descriptor
        self._as_json = as_json
        self._trouble: list[dict[str, Any]] = []
        self._drawn = {(c.source.module, c.source.port) for c in descriptor.report.charts}

    async def run(self, signals: _Signals, seconds: float | None, report: Path | None) -> int:
        """Show it until it ends; the exit code. Raises what made it fail."""
        if not self._as_json:
            show(views.modules(self._supervisor.status()))
            output.flush()
        interrupted: Interrupted | None = None
        try:
            ending = await signals.during(self._watched(seconds))
        except Interrupted as exc:
            interrupted = exc
            ending = Ending(reason=Reason.STOPPED)
            self._supervisor.finish(ending)
            await self._supervisor.run()  # takes the summary of what there is
        written = self._write_report(report) if report is not None else None
        self._tell(ending, interrupted, written)
        if interrupted is not None:
            return interrupted.exit_code
        if ending.reason is Reason.FAILED:
            raise ending.error or InternalError("the application failed")
        return 0

    async def _watched(self, seconds: float | None) -> Ending:
        queue = self._supervisor.subscribe()
        with choose(self._supervisor.status, as_json=self._as_json) as live:
            watchers = [
                asyncio.ensure_future(self._follow(queue.get, live)),
                asyncio.ensure_future(_tick(live)),
            ]
            try:
                return await self._supervisor.run(seconds)
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)
                self._supervisor.unsubscribe(queue)
                while not queue.empty():
                    self._take(queue.get_nowait(), live)

    async def _follow(self, get: Callable[[], Awaitable[dict[str, Any]]], live: Live) -> None:
        while True:
            self._take(await get(), live)

    def _take(self, event: dict[str, Any], live: Live) -> None:
        kind = event["kind"]
        if kind in _TROUBLE and len(self._trouble) < _MAX_TROUBLE:
            self._trouble.append(event)
        is_drawn = (event.get("module"), event.get("port")) in self._drawn
        if kind != "state" and not (kind == "event" and is_drawn):
            live.line(views.event_line(event))

    def _write_report(self, path: Path) -> str:
        from broch.app.report import html_report
        from broch.cli import binary

        page = html_report(
            title=self._descriptor.report.title,
            status=self._supervisor.status(),
            summary=self._supervisor.summary(),
            charts=self._supervisor.charts(),
            description=self._descriptor.app.description,
            faults=self._trouble,
        )
        binary.write_file(path, [page.encode()])
        return str(path)

    def _tell(self, ending: Ending, interrupted: Interrupted | None, written: str | None) -> None:
        """What happened."""
        status, summary = self._supervisor.status(), self._supervisor.summary()
        reason = "interrupted" if interrupted is not None else ending.reason.value
        if self._as_json:
            if ending.reason is not Reason.FAILED:
                output.print_json(
                    {
                        "app": self._descriptor.app.name,
                        "reason": reason,
                        "status": status,
                        "summary": summary,
                        "trouble": self._trouble,
                        "report": written,
                    }
                )
            return
        for chart in self._supervisor.charts():
            _draw(chart)
        show(views.connections(status))
        if summary:
            output.say()
            show(views.summary(summary))
        output.flush()
        output.note(f"{self._descriptor.app.name} ended: {_REASONS[reason]}")
        if written is not None:
            output.note(f"report written to {written}")


_REASONS: Final = {
    "until": "the event that it runs until has come",
    "time": "its time is up",
    "stopped": "it was told to",
    "ended": "all its modules ended",
    "failed": "something failed",
    "interrupted": "it was interrupted",
}


async def _tick(live: Live) -> None:
    while True:
        await asyncio.sleep(live.period)
        live.tick()


def _draw(chart: Mapping[str, Any]) -> None:
    from broch.cli.chart import text_chart

    text = text_chart(chart, output.width(), unicode=output.has_unicode(sys.stdout))
    output.say(output.clean(text) + "\n")
