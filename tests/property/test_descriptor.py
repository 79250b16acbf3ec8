"""Properties of the descriptor: places agree with tomllib, and only our errors come out."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broch.app.descriptor import Descriptor, load
from broch.app.wiring import ConnectionKind, End, wire
from broch.errors import BrochError, MalformedError
from broch.image import Interface, Port, PortKind, Shape, fits
from broch.wire.toml_places import Place, find_places, parse

calm = settings(deadline=None)  # a busy machine is no failure

FULL = """\
[app]
name = "irrigation"
[nodes.cloud]
tee = "sgx"
device = "emulated"
port = 7001
[modules.controller]
node = "cloud"
source = "m.py"
files = ["m.py"]
restart = "always"
[modules.controller.limits]
memory_mb = 128
seconds = 0.5
[modules.controller.ocalls]
now = "m.py:now"
[modules.valve]
node = "cloud"
source = "m.py"
[[connections]]
from = "controller.command"
to = "valve.set"
[[connections]]
from = "valve.opened"
to = "operator"
[run]
until = "valve.opened"
[policy]
emulated = true
[report]
summary = "controller.summary"
[[report.charts]]
title = "Openings"
from = "valve.opened"
x = "day"
y = ["litres"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app")
    (path / "m.py").touch()
    return path


# --- documents whose every key is a word of its own, so that its line can be told by searching ---


class _Writer:
    """Writes a random document out of choices that hypothesis makes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._count = 0
        self.headers: dict[str, list[str]] = {}  # word -> path of a table that has a header

    def word(self) -> str:
        self._count += 1
        return f"k{self._count}"

    def key(self) -> str:
        """A new key, bare, quoted, or dotted with blanks."""
        parts = [self._quoted(self.word()) for _ in range(self._draw(st.integers(1, 3)))]
        return self._draw(st.sampled_from([".", " . ", "\t."])).join(parts)

    def _quoted(self, word: str) -> str:
        return self._draw(st.sampled_from([word, f'"{word}"', f"'{word}'"]))

    def value(self, depth: int = 2) -> str:
        kinds = ["plain", "array", "inline"] if depth else ["plain"]
        kind = self._draw(st.sampled_from(kinds))
        if kind == "plain":
            return self._draw(st.sampled_from(_PLAIN))
        if kind == "array":
            gap = self._draw(st.sampled_from(["", " ", "\n", " # ], {\n\n  "]))
            items = [self.value(depth - 1) for _ in range(self._draw(st.integers(0, 3)))]
            end = self._draw(st.sampled_from(["", ","])) if items else ""
            return f"[{gap}{f'{gap},{gap}'.join(items)}{gap}{end}{gap}]"
        pairs = [f"{self.key()} = {self.value(0)}" for _ in range(self._draw(st.integers(0, 3)))]
        return "{ " + " , ".join(pairs) + " }"

    def header(self) -> str:
        outer: list[str] = []
        if self._draw(_BOOLEANS) and self.headers:
            outer = self.headers[self._draw(st.sampled_from(sorted(self.headers)))]
        new = [self.word() for _ in range(self._draw(st.integers(1, 2)))]
        path = [*outer, *new]
        self.headers[path[-1]] = path
        spelled = " . ".join(self._quoted(part) for part in path)
        if self._draw(_BOOLEANS):
            return f"[{spelled}]"
        times = self._draw(st.integers(1, 3))
        return "\n".join(f"[[{spelled}]]\n{self.word()} = 1" for _ in range(times))

    def document(self) -> str:
        lines = []
        for _ in range(self._draw(st.integers(0, 12))):
            kind = self._draw(st.sampled_from(["blank", "header", "pair", "pair"]))
            if kind == "blank":
                lines.append(self._draw(st.sampled_from(["", "# [x] = '\"", "  \t"])))
            elif kind == "header":
                lines.append(self.header())
            else:
                lines.append(f" {self.key()} = {self.value()} # x = [")
        return self._draw(st.sampled_from(["\n", "\r\n"])).join(lines)


_BOOLEANS = st.sampled_from([False, True])
_PLAIN = [
    "1",
    "-1.5e3",
    "true",
    "nan",
    "1979-05-27 07:32:00Z",
    '""',
    "''",
    '"# \\" ] }"',
    "'\\'",
    '"""\n[x]\na = 1\n"""',
    '"""""x"""""',
    '"""\\"""\\\\\n  """',
    "'''\n\\'''",
    "''''''",
    "''''x'''''",
]


@st.composite
def documents(draw: st.DrawFn) -> str:
    return _Writer(draw).document()


def _check_same_structure(place: Place, value: Any) -> None:
    if isinstance(value, dict):
        assert place.inner.keys() == value.keys()
        for key, inner in value.items():
            _check_same_structure(place.inner[key], inner)
    elif isinstance(value, list):
        assert list(place.inner) == list(range(len(value)))
        for index, inner in enumerate(value):
            _check_same_structure(place.inner[index], inner)
    else:
        assert place.inner == {}


def _named(place: Place) -> Iterator[tuple[str, Place]]:
    for key, inner in place.inner.items():
        if isinstance(key, str):
            yield key, inner
        yield from _named(inner)


@calm
@given(documents())
def test_places_have_the_structure_and_the_lines_of_the_text(text: str) -> None:
    values = tomllib.loads(text)
    root = find_places(text)
    _check_same_structure(root, values)
    lines = text.split("\n")
    for word, place in _named(root):
        mentions = [n for n, line in enumerate(lines, 1) if re.search(rf"\b{word}\b", line)]
        # A word is written once, unless it names a table that others are inside of: a table with
        # a header is there, another one where it is mentioned first.
        assert place.line in mentions
        header = re.compile(rf"^\[[^\[]*\b{word}\b['\"]?\]")
        headers = [n for n in mentions if header.search(lines[n - 1])]
        assert place.line == (headers or mentions)[0]


@calm
@given(documents())
def test_lines_lie_in_the_file_and_rise_inwards(text: str) -> None:
    root = find_places(text)
    last = text.count("\n") + 1
    assert 1 <= root.end() <= last
    for _, place in _named(root):
        assert 1 <= place.line <= place.end() <= last


# --- damaged descriptors ---

_PIECES = [
    "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "#", '"', "'", '"""', "'''", "\\", "\n", "\r\n",
    " ", "1", "-1", "nan", "true", "a", "operator", "valve", "x = 1\n", "[x]\n", "[[nodes]]\n",
    "\0", "\x1b", "\ufeff", "é", "\U0001f3f0", "9" * 30, "[" * 40, "../", "a.b.c", "1979-05-27",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = FULL
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 0, 1, 2, 5, 20, 80]))
        piece = draw(st.sampled_from(_PIECES) | st.just("") | st.text(max_size=4))
        text = text[:start] + piece + text[start + length :]
    return text


def _load(folder: Path, data: bytes) -> Descriptor | None:
    """The descriptor that ``data`` is, or None after one of our errors that names a line of it."""
    (folder / "app.toml").write_bytes(data)
    try:
        return load(folder / "app.toml", tees=["sgx"])
    except BrochError as error:
        _check_error(error, data.count(b"\n") + 1)
        return None


def _check_error(error: BrochError, lines: int) -> None:
    assert error.exit_code in (2, 3)
    match = re.fullmatch(r"app\.toml:([0-9]+)", error.place or "")
    assert match, error.place
    assert 1 <= int(match[1]) <= lines
    for text in (error.message, error.hint or "x"):
        assert text
        assert text.isprintable(), f"{text!r} would not be one line"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@calm
@given(text=damaged())
@example(text=FULL)
@example(text=FULL.replace("[nodes.cloud]", '[nodes."\\u001b"]'))
@example(text=FULL.replace("now = ", '"\\n" = '))
@example(text="a = " + "9" * 5000)
@example(text="app = " + "[" * 3000)
@example(text=FULL.replace("7001", "0x" + "f" * 5000))
@example(text=FULL.replace('"m.py"', '"\\u0000"'))
@example(text=FULL.replace('"m.py"', f'"{"m" * 3000}"'))
@example(text=FULL.replace('"m.py:now"', f'"{"é" * 200}.py:now"'))
def test_a_damaged_descriptor_is_refused_with_its_line(folder: Path, text: str) -> None:
    _load(folder, _utf8(text))


@calm
@given(pieces=st.lists(st.sampled_from([*_PIECES, *FULL.splitlines(keepends=True)]), max_size=30))
def test_soup_is_refused_with_its_line(folder: Path, pieces: list[str]) -> None:
    _load(folder, _utf8("".join(pieces)))


@calm
@given(data=st.binary(max_size=60))
def test_bytes_are_refused_with_their_line(folder: Path, data: bytes) -> None:
    _load(folder, data)


@calm
@given(text=damaged())
def test_places_of_whatever_tomllib_accepts(text: str) -> None:
    try:
        table, root = parse(text, "app.toml")
    except MalformedError:
        return
    _check_same_structure(root, tomllib.loads(text))
    assert set(table.names()) == set(root.inner)


# --- wiring ---

_DAY = {"type": "struct", "name": "A", "fields": {"day": {"type": "int"}}, "required": ["day"]}
_SHAPES: st.SearchStrategy[Shape] = st.sampled_from([_DAY, {**_DAY, "name": "B"}, {"type": "int"}])
_KINDS = st.sampled_from([*PortKind, PortKind.OUTPUT, PortKind.INPUT, PortKind.HANDLER])
_NAMES = ["a", "b", "c", "dd"]
_ENDS = [f"{module}.{port}" for module in ("one", "two") for port in _NAMES]


@st.composite
def interfaces(draw: st.DrawFn) -> Interface:
    def port(name: str) -> Port:
        return Port(kind=draw(_KINDS), name=name, argument=draw(_SHAPES), result=_DAY)

    return Interface(tuple(port(name) for name in draw(st.permutations(_NAMES))))


@st.composite
def connections(draw: st.DrawFn, modules: dict[str, Interface]) -> list[tuple[str, str]]:
    """Pairs of ends, most of which fit."""
    by_kind: dict[PortKind, list[str]] = {kind: [] for kind in PortKind}
    for module, interface in modules.items():
        for port in interface.ports:
            by_kind[port.kind].append(f"{module}.{port.name}")
    outputs = [output for output in by_kind[PortKind.OUTPUT] if draw(_BOOLEANS)]
    pairs = []
    for source in [*by_kind[PortKind.REQUEST], *outputs, "operator"]:
        is_request = source in by_kind[PortKind.REQUEST]
        targets = (
            by_kind[PortKind.HANDLER] if is_request else [*by_kind[PortKind.INPUT], "operator"]
        )
        others = [target for target in targets if target.partition(".")[0] not in source]
        if others:
            pairs.append((source, draw(st.sampled_from(others))))
    if draw(st.integers(0, 9)) == 0:
        pairs.append((draw(st.sampled_from(_ENDS)), draw(st.sampled_from(_ENDS))))
    return pairs


@calm
@given(
    interfaces=st.fixed_dictionaries({"one": interfaces(), "two": interfaces()}),
    data=st.data(),
)
def test_what_is_wired_fits(
    folder: Path, interfaces: dict[str, Interface], data: st.DataObject
) -> None:
    pairs = data.draw(connections(interfaces))
    chart = data.draw(
        st.none() | st.sampled_from([a for a, b in pairs if b == "operator"] or _ENDS)
    )
    text = '[app]\nname = "a"\n[nodes.n]\ntee = "sgx"\ndevice = "emulated"\n'
    for name in ("one", "two"):
        text += f'[modules.{name}]\nnode = "n"\nsource = "m.py"\n'
        text += f"[modules.{name}.ocalls]\n"
        text += "".join(f'{p.name} = "m.py:f"\n' for p in interfaces[name].of(PortKind.OCALL))
    text += "".join(f'[[connections]]\nfrom = "{a}"\nto = "{b}"\n' for a, b in pairs)
    if chart:
        text += f'[[report.charts]]\ntitle = "t"\nfrom = "{chart}"\nx = "day"\ny = ["day"]\n'
    descriptor = _load(folder, text.encode())
    if descriptor is None:
        return
    try:
        wiring = wire(descriptor, interfaces)
    except MalformedError as error:
        _check_error(error, text.count("\n"))
        return
    assert [connection.id for connection in wiring.connections] == [
        number + 1 for number in range(len(pairs))
    ]
    for connection, (source, target) in zip(wiring.connections, pairs, strict=True):
        assert (str(connection.source), str(connection.target)) == (source, target)
        is_request = connection.kind is ConnectionKind.REQUEST
        for end in (connection.source, connection.target):
            if isinstance(end, End):
                port = interfaces[end.module].ports[end.number]
                assert port.name == end.port
                assert fits(port.argument, connection.argument)
                assert not is_request or fits(port.result, connection.result)
                wanted = ("request", "handler") if is_request else ("output", "input")
                assert port.kind == wanted[end is connection.target]
