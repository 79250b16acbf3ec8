"""Progress: quiet at first, a line for each stage off a terminal, one line on it."""

import io

import pytest

from broch.app.reports import Stage
from broch.cli.progress import Meter, Progress, describe


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def stage(name: str, done: int = 0, total: int = 0, text: str = "") -> Stage:
    return Stage(name=name, text=text, done=done, total=total)


def test_nothing_is_said_of_what_is_quick() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    progress(stage("build", 1, 5))
    clock.now = 0.9
    progress(stage("load", 1, 5))
    progress.close()
    assert stream.getvalue() == ""


def test_each_stage_is_said_once_after_a_second() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    progress(stage("build", 1, 5, "soil"))
    clock.now = 1.5
    progress(stage("build", 2, 5, "valve"))
    progress(stage("build", 3, 5, "gateway"))
    progress(stage("attest", 1, 5, "soil"))
    assert stream.getvalue() == "build      2/5  valve\nattest     1/5  soil\n"


def test_a_stage_that_hangs_is_said_by_the_timer() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    progress.overdue()
    progress(stage("build", 1, 5, "soil"))
    progress.overdue()
    progress.overdue()
    progress.close()
    progress.overdue()
    assert stream.getvalue() == "build      1/5  soil\n"


def test_a_terminal_gets_one_line_that_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Screen(), Clock()
    progress = Progress(stream, clock)
    progress(stage("build", 1, 5))
    progress(stage("build", 2, 5))  # too soon to draw again
    progress(stage("load", 1, 5))
    progress.close()
    progress(stage("late"))
    assert stream.getvalue() == "\r\x1b[2Kbuild      1/5\r\x1b[2Kload       1/5\r\x1b[2K"


def test_text_of_a_stage_is_cleaned() -> None:
    assert describe(stage("load", 0, 0, "\x1b[2J")) == "load            \\x1b[2J"


def test_bytes_are_counted_once_it_takes_long() -> None:
    stream, clock = io.StringIO(), Clock()
    meter = Meter("measure", 900_000_000, Progress(stream, clock))
    meter.add(100_000_000)
    clock.now = 1.5
    meter.add(200_000_000)
    meter.add(300_000_000)
    meter.close()
    assert stream.getvalue() == "measure         300 of 900 MB\n"
