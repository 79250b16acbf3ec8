"""Streams: data to standard output, everything else to standard error, nothing a module wrote raw.

What comes from a module, a device or a file can hold anything, also codes that change a terminal:
it goes through `clean` before it is shown.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final, TextIO

from broch.errors import BrochError, UsageError

DEFAULT_WIDTH: Final = 100  # columns, where there is no terminal


class StandardOutputError(UsageError):
    """Standard output takes nothing more: its disk is full, say."""


def prepare_streams() -> None:
    """Closed streams lead nowhere; characters that an encoding lacks are escaped, not fatal."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (until the end)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Nobody reads any more: Python has nothing to say of that either, when it flushes at exit."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def say(text: str = "") -> None:
    """Data for people, to standard output."""
    with standard_output():
        print(text)


def flush() -> None:
    """Have all that was said leave."""
    with standard_output():
        sys.stdout.flush()


@contextmanager
def standard_output() -> Iterator[None]:
    """Around what writes to standard output.

    Raises:
        StandardOutputError: it cannot be written; :class:`BrokenPipeError` passes as it is.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise StandardOutputError(
            f"cannot be written: {exc.strerror}", place="standard output"
        ) from None


def note(text: str) -> None:
    """Anything else, to standard error."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # nobody reads it, or its disk is full
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)


def print_json(data: object) -> None:
    """One JSON value on one line of standard output."""
    with standard_output():
        print(json.dumps(data, default=_plain, allow_nan=False), flush=True)


def _plain(value: object) -> object:
    """What JSON lacks: bytes as hex, our own types as their content."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


def version(*, as_json: bool) -> None:
    """Which Broch this is."""
    from broch import __version__

    print_json({"version": __version__}) if as_json else say(f"broch {__version__}")


def error_data(error: BrochError) -> dict[str, str | None]:
    """An error as ``--json`` shows it."""
    return {
        "code": error.code,
        "message": error.message,
        "place": error.place,
        "hint": error.hint,
    }


def note_error(error: BrochError) -> None:
    """An error as people see it."""
    note(f"error: {clean(str(error))}")
    if error.hint:
        note(f"hint: {clean(error.hint)}")


def clean(text: str) -> str:
    """``text`` without anything that a terminal would act on; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it, on a screen that can redraw."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether to use colours (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def has_unicode(stream: TextIO) -> bool:
    """Whether it takes any character."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def width() -> int:
    """Columns to fill."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
