"""TOML that knows its lines: find where each key is, and take typed values out of tables.

``tomllib`` gives values and no lines. :func:`find_places` walks the same text once more and gives
a tree of :class:`Place` of the same structure; :func:`parse` joins the two into a :class:`Table`.
Wrong values do not raise where they are found: they are collected in :class:`Problems`, which
raises the one that comes first in the file, so that a person mends a file from the top.

>>> find_places('[nodes.cloud]\\ntee = "sgx"\\n').find("nodes", "cloud", "tee").line
2
"""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from broch.errors import BrochError, MalformedError, UsageError

MAX_FILE: Final = 1024 * 1024  # bytes

Key = str | int  # the name of a key, or an index into an array
Keys = tuple[Key, ...]
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(slots=True, eq=False)
class Place:
    """Where a table, a key or an element of an array is written, and what is inside it.

    A table's line is that of its header; without one, that of the first key that mentions it.
    """

    line: int  # from 1
    inner: dict[Key, "Place"] = field(default_factory=dict)

    def enter(self, key: Key, line: int) -> "Place":
        """The place of ``key`` in here, made with ``line`` if it is new."""
        if key not in self.inner:
            self.inner[key] = Place(line)
        return self.inner[key]

    def find(self, *keys: Key) -> "Place":
        """The place of the path ``keys``, or of as much of it as is written."""
        place = self
        for key in keys:
            if key not in place.inner:
                break
            place = place.inner[key]
        return place

    def end(self) -> int:
        """The last line where something in here begins."""
        last, todo = self.line, [self]
        while todo:
            place = todo.pop()
            last = max(last, place.line)
            todo += place.inner.values()
        return last


def find_places(text: str) -> Place:
    """The places of everything in ``text``, which ``tomllib`` has accepted."""
    return _Scanner(text).document()


_BLANK: Final = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SHORT: Final = re.compile(r"""'[^'\n]*'|"(?:[^"\\\n]|\\.)*"|[^,\]}#\n]*""")  # one-line value
# The end of a multi-line string takes up to two quotes that belong to its content.
_LONG_ENDS: Final = {
    '"""': re.compile(r'\\[\s\S]|(?P<end>"{3,5})'),
    "'''": re.compile(r"(?P<end>'{3,5})"),
}


class _Scanner:
    """One pass over valid TOML, which only looks for where things begin."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._pos = 0
        self._newlines = [match.start() for match in re.finditer("\n", self._text)]

    def document(self) -> Place:
        root = table = Place(1)
        while self._peek():
            if self._text[self._pos] == "[":
                table = self._header(root)
            else:
                self._pair(table)
        return root

    def _header(self, root: Place) -> Place:
        line = self._line()
        brackets = 2 if self._text.startswith("[[", self._pos) else 1
        self._pos += brackets
        *outer, name = self._key()
        self._pos += brackets
        table = root
        for part in outer:
            table = table.enter(part, line)
            if 0 in table.inner:  # an array of tables: its last one is meant
                table = table.inner[len(table.inner) - 1]
        table = table.enter(name, line)
        if brackets == 2:
            return table.enter(len(table.inner), line)
        table.line = line  # a deeper header may have mentioned it before
        return table

    def _pair(self, table: Place) -> None:
        line = self._line()
        *outer, name = self._key()
        for part in outer:
            table = table.enter(part, line)
        self._pos += 1  # the equals sign
        self._skip(_SPACE)
        self._value(table.enter(name, line))

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            parts.append(_unquote(self._skip(_KEY)))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._pos):
                return parts
            self._pos += 1

    def _value(self, place: Place) -> None:
        opening = self._text[self._pos : self._pos + 3]
        if opening.startswith(("[", "{")):
            self._pos += 1
            self._elements(place, is_array=opening[0] == "[")
        elif opening in _LONG_ENDS:
            ends = _LONG_ENDS[opening].finditer(self._text, self._pos + 3)
            self._pos = next(match.end() for match in ends if match["end"])
        else:
            self._skip(_SHORT)

    def _elements(self, place: Place, *, is_array: bool) -> None:
        while (char := self._peek()) not in ("]", "}"):
            if char == ",":
                self._pos += 1
            elif is_array:
                self._value(place.enter(len(place.inner), self._line()))
            else:
                self._pair(place)
        self._pos += 1

    def _peek(self) -> str:
        """The next character after blanks, line ends and comments; empty at the end."""
        self._skip(_BLANK)
        return self._text[self._pos : self._pos + 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._pos)
        assert match is not None, "text that tomllib does not accept"
        self._pos = match.end()
        return match[0]

    def _line(self) -> int:
        return bisect_left(self._newlines, self._pos) + 1


def _unquote(part: str) -> str:
    if part[0] == '"' and "\\" in part:
        return str(tomllib.loads(f"key = {part}")["key"])
    return part[1:-1] if part[0] in "\"'" else part


class Problems:
    """What is wrong with a file: errors with their lines."""

    def __init__(self, file: str, root: Place) -> None:
        self._file = file
        self._root = root
        self._found: list[tuple[int, bool, int, BrochError]] = []

    def place(self, *keys: Key) -> str:
        """``FILE:LINE`` of the path ``keys``, or of as much of it as is written."""
        return f"{self._file}:{self._root.find(*keys).line}"

    def add(
        self,
        keys: Keys,
        message: str,
        *,
        hint: str | None = None,
        kind: type[BrochError] = MalformedError,
        missing_in: Keys | None = None,
    ) -> None:
        """Note a problem with what is at ``keys``.

        That something is missing is known at the end of ``missing_in``: a misspelt key comes first.
        """
        is_late = missing_in is not None
        where = self._root.find(*(keys if missing_in is None else missing_in))
        line = where.end() if is_late else where.line
        hint = None if hint is None else _printable(hint)
        error = kind(_printable(message), place=self.place(*keys), hint=hint)
        self._found.append((line, is_late, len(self._found), error))

    def __len__(self) -> int:
        return len(self._found)

    def raise_first(self) -> None:
        """Raise the problem that comes first in the file, if there is one."""
        if self._found:
            raise min(self._found)[-1]


class Table:
    """A table whose keys are taken one by one, each with the type that it must have.

    A wrong value is noted and replaced by its default; :meth:`close` notes keys that nobody took.
    A default of None means that the key is required.
    """

    def __init__(self, problems: Problems, keys: Keys, values: Mapping[str, Any]) -> None:
        self.problems = problems
        self.keys = keys
        self._values = values
        self._known: list[str] = []

    def has(self, key: str) -> bool:
        """Whether ``key``, which may be there, is written."""
        self._known.append(key)
        return key in self._values

    def names(self) -> tuple[str, ...]:
        """All keys that are written."""
        return tuple(self._values)

    def text(self, key: str, default: str | None = None, example: str = '"..."') -> str:
        """Text; not empty if required. Gives "" where a problem was noted."""
        needed = example if default is None else None
        value = self._take(key, (str,), "text", needed)
        if value == "" and default is None:
            self.wrong(key, f"{key} is empty")
        return (default or "") if value is None else str(value)

    def flag(self, key: str) -> bool:
        """A boolean, false when absent."""
        return self._take(key, (bool,), "true or false") is True

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``."""
        expected = f"an integer from {low} to {high}"
        value = self._take(key, (int,), expected)
        if value is not None and not low <= value <= high:
            self.wrong(key, f"{key} is {describe(value)}, expected {expected}")
            return default
        return default if value is None else int(value)

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """An array of integers from ``low`` to ``high``, none twice."""
        expected = f"an array of integers from {low} to {high}"
        items = self._take(key, (list,), expected) or []
        for index, item in enumerate(items):
            if type(item) is not int or not low <= item <= high:
                problem = f"{key} holds {describe(item)}, expected {expected}"
                self.problems.add((*self.keys, key, index), problem)
            elif item in items[:index]:
                self.problems.add((*self.keys, key, index), f"{key} holds {item} twice")
        return tuple(item for item in items if type(item) is int)

    def seconds(self, key: str, default: float, high: float) -> float:
        """A number above 0, up to ``high``."""
        expected = f"a number above 0, up to {high:g}"
        value = self._take(key, (int, float), expected)
        if value is None:
            return default
        if not 0 < value <= high:  # refuses nan too
            self.wrong(key, f"{key} is {describe(value)}, expected {expected}")
            return default
        return float(value)

    def choice(self, key: str, kind: type[_Choice], default: _Choice | None = None) -> _Choice:
        """One of the values of ``kind``."""
        values = [item.value for item in kind]
        text = self.text(key, default, " or ".join(f'"{value}"' for value in values))
        if text in values:
            return kind(text)
        if text:
            expected = " or ".join(map(repr, values))
            self.wrong(key, f"{key} is {describe(text)}, expected {expected}", near(text, values))
        return next(iter(kind))

    def texts(self, key: str, *, is_required: bool = False) -> tuple[str, ...]:
        """An array of text, no element twice or empty."""
        expected = "an array of text"
        items = self._take(key, (list,), expected, '["..."]' if is_required else None) or []
        if self.has(key) and is_required and items == []:
            self.wrong(key, f"{key} is empty")
        for index, item in enumerate(items):
            if not isinstance(item, str) or not item:
                problem = f"{key} holds {describe(item)}, expected {expected}"
                self.problems.add((*self.keys, key, index), problem)
            elif item in items[:index]:
                problem = f"{key} holds {describe(item)} twice"
                self.problems.add((*self.keys, key, index), problem)
        return tuple(item for item in items if isinstance(item, str))

    def table(self, key: str, *, is_required: bool = False) -> "Table":
        """A table inside this one; an empty one when absent."""
        inner = Table(self.problems, (*self.keys, key), {})
        values = self._take(key, (dict,), "a table", str(inner) if is_required else None)
        return Table(self.problems, inner.keys, values) if values else inner

    def tables(self) -> dict[str, "Table"]:
        """All keys of this table, each of which must hold a table."""
        return {str(key): self.table(key) for key in self._values}

    def array(self, key: str) -> list["Table"]:
        """An array of tables, empty when absent."""
        expected = f"tables that begin with [[{'.'.join(map(str, (*self.keys, key)))}]]"
        tables = []
        for index, item in enumerate(self._take(key, (list,), expected) or []):
            keys = (*self.keys, key, index)
            if not isinstance(item, dict):
                self.problems.add(keys, f"{key} holds {describe(item)}, expected {expected}")
            tables.append(Table(self.problems, keys, item if isinstance(item, dict) else {}))
        return tables

    def close(self) -> Self:
        """Note every key that was not taken as unknown."""
        for key in self._values:
            if key not in self._known:
                problem = f"unknown key {describe(key)} in {self}"
                self.wrong(key, problem, near(key, dict.fromkeys(self._known)))
        return self

    def wrong(
        self,
        key: str,
        message: str,
        hint: str | None = None,
        kind: type[BrochError] = MalformedError,
    ) -> None:
        """Note that the value of ``key`` is wrong."""
        self.problems.add((*self.keys, key), message, hint=hint, kind=kind)

    def __str__(self) -> str:
        path = ".".join(key for key in self.keys if isinstance(key, str))
        if not self.keys:
            return "the file"
        return f"[[{path}]]" if isinstance(self.keys[-1], int) else f"[{path}]"

    def _take(
        self, key: str, types: tuple[type, ...], expected: str, example: str | None = None
    ) -> Any:
        """The value of ``key``, or None; ``example`` is given for what is required."""
        self._known.append(key)
        if key in self._values:
            value = self._values[key]
            if type(value) in types:  # not isinstance: a boolean is no integer
                return value
            self.wrong(key, f"{key} is {describe(value)}, expected {expected}")
        elif example is not None:
            problem = f"missing key {key!r} in {self}"
            hint = f"add {example}" if types == (dict,) else f"add {key} = {example}"
            self.problems.add(self.keys, problem, hint=hint, missing_in=self.keys)
        return None


def read(path: Path, what: str = "descriptor", example: str = "app.toml") -> str:
    """The text of the file at ``path``; ``what`` it is and an ``example`` are for messages.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        MalformedError: not text, or too much of it.
    """
    try:
        if path.is_dir():
            hint = f"name the file: {path / example}" if (path / example).is_file() else None
            raise UsageError(f"is a folder, not a {what}", place=str(path), hint=hint)
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        problem = f"cannot read the {what}: {reason}"
        hint = f"name an {example}" if example[0] in "aeiou" else f"name a {example}"
        raise UsageError(problem, place=str(path), hint=hint) from None
    if len(data) > MAX_FILE:
        problem = f"longer than {MAX_FILE} bytes"
        raise MalformedError(problem, place=f"{path.name}:1")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        problem = f"not UTF-8: byte 0x{data[exc.start]:02x}"
        raise MalformedError(problem, place=f"{path.name}:{line}") from None


def parse(text: str, file: str) -> tuple[Table, Place]:
    """The top-level table of ``text`` and all places in it; ``file`` is its name in errors.

    Raises:
        MalformedError: not TOML.
    """
    try:
        values = tomllib.loads(text)
        root = find_places(text)
    except RecursionError:
        raise MalformedError("values nest too deeply", place=f"{file}:1") from None
    except ValueError as exc:  # TOMLDecodeError, and plain ones for numbers that are too long
        problem, line = _locate(str(exc), text)
        raise MalformedError(f"not TOML: {problem}", place=f"{file}:{line}") from None
    return Table(Problems(file, root), (), values), root


_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_LONG_NUMBER: Final = re.compile(r"[0-9][0-9_]{4000}")


def _locate(message: str, text: str) -> tuple[str, int]:
    """``message`` without the position that it ends with, and the line."""
    if at := _AT.search(message):
        if at[1]:
            return f"{message[: at.start()]} (column {at[2]})", int(at[1])
        return f"{message[: at.start()]} (end of file)", text.rstrip("\n").count("\n") + 1
    number = _LONG_NUMBER.search(text)
    return "a number that is too long", text.count("\n", 0, number.start() if number else 0) + 1


def _printable(text: str) -> str:
    """``text``, which may quote keys of the file, with control characters escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


_SPELLED: Final = {list: "an array", dict: "a table", int: "a huge integer"}


def describe(value: object) -> str:
    """A value for a message, short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value!r:.80}"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**64):
        return str(value)
    return _SPELLED.get(type(value), "a date or time")


def near(word: str, known: Collection[str]) -> str | None:
    """A hint for a word that is not among ``known``: the nearest one, or else all of them."""
    found = nearest(word, known)
    if found is not None:
        return f"did you mean {found!r}?"
    names = list(known)
    rest = ", ..." if len(names) > _MAX_LISTED else ""
    return f"known: {', '.join(names[:_MAX_LISTED])}{rest}" if names else None


_MAX_LISTED: Final = 12


def nearest(word: str, known: Collection[str]) -> str | None:
    """The one of ``known`` that ``word`` seems to be a slip for."""
    from difflib import get_close_matches  # only errors pay for it

    by_lower = {item.lower(): item for item in known}
    found = get_close_matches(word[:80].lower(), list(by_lower), n=1)
    return by_lower[found[0]] if found else None
