"""Streams: what is shown cannot harm, and fits what shows it."""

import io
import json
import sys
from enum import StrEnum

import pytest

from broch.cli import output
from broch.errors import DecodeError, PolicyError


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain text, größer", "plain text, größer"),
        ("two\nlines", "two\nlines"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\rb"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x07", "\\x07"),
    ],
)
def test_clean_leaves_nothing_that_a_terminal_acts_on(hostile: str, shown: str) -> None:
    assert output.clean(hostile) == shown


class Colour(StrEnum):
    RED = "red"


def test_json_of_what_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"bytes": b"\x01\xff", "enum": Colour.RED, "tuple": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {"bytes": "01ff", "enum": "red", "tuple": [1, 2]}


def test_json_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"text": "two\nlines, größer"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()


def test_error_data() -> None:
    error = PolicyError("emulated", place="app.toml:3", hint="use real hardware")
    assert output.error_data(error) == {
        "code": "refused",
        "message": "emulated",
        "place": "app.toml:3",
        "hint": "use real hardware",
    }
    assert output.error_data(DecodeError(4, "cut off"))["code"] == "malformed"


def test_a_dumb_terminal_cannot_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert output.is_terminal(Screen())
    assert not output.is_terminal(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not output.is_terminal(Screen())


@pytest.mark.parametrize(("value", "expected"), [("", True), ("1", False)])
def test_no_color(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", value)
    assert output.has_colour(Screen()) is expected


def test_unicode_by_encoding() -> None:
    assert output.has_unicode(io.TextIOWrapper(io.BytesIO(), encoding="UTF-8"))
    assert not output.has_unicode(io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))


def test_a_stream_gets_what_its_encoding_lacks_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.prepare_streams()
    output.say("größer")
    sys.stdout.flush()
    assert raw.getvalue() == b"gr\\xf6\\xdfer\n"
