"""`broch device`: what is asked of the supervisor, and what is shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broch.app.home import Home
from broch.cli import entry, running
from broch.errors import PolicyError

SEEN: dict[str, Any] = {
    "node": "field",
    "named": {"button": "1.0", "valve": "2.3", "line": "uart"},
    "ports": [
        {"port": 1, "owner": "button", "in": 5, "out": 0, "outputs": 0, "changed_ns": None},
        {"port": 2, "owner": "tap\x1b[2J", "in": 0, "out": 8, "outputs": 9, "changed_ns": 7},
        {"port": 3, "owner": None, "in": 0, "out": 0, "outputs": 0, "changed_ns": None},
    ],
    "uart": {"owner": "echo", "said": "hello\x1b]0;"},
    "modules": ["button", "tap"],
}


class Client:
    asked: list[tuple[Any, ...]]
    seen = SEEN

    def __init__(self, home: Home, app: str) -> None:
        Client.asked = []

    def operate(self, node: str, action: str, target: str = "", value: Any = None) -> Any:
        Client.asked.append((node, action, target, value))
        if target == "9.9":
            raise PolicyError("no driver owns port 9", hint="load one")
        return self.seen


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "ControlClient", Client)
    lock = Home.find().app("house").lock()
    yield
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (
            ["press", "field.button"],
            [("field", "press", "button", None), ("field", "release", "button", None)],
        ),
        (["hold", "field.1.0"], [("field", "hold", "1.0", None)]),
        (["release", "field.1.0"], [("field", "release", "1.0", None)]),
        (["set", "field.2", "90"], [("field", "set", "2", 90)]),
        (["send", "field.uart", "hi"], [("field", "send", "uart", "hi")]),
        (["show", "field"], [("field", "show", "", None)]),
    ],
)
def test_what_is_asked(arguments: list[str], asked: list[tuple[Any, ...]]) -> None:
    assert entry.run(["device", *arguments]) == 0
    assert Client.asked == [
        (node, "press" if action == "hold" else action, target, value)
        for node, action, target, value in asked
    ]


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["device", "show", "field"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "\x1b" not in said.out
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["node", "field", "(emulated)"]
    assert lines[1] == ["port", "owner", "in", "out", "names"]
    assert lines[2] == ["1", "button", "00000101", "--------", "button", "high"]
    assert lines[3][2:] == ["00000000", "----1--0", "valve", "high"]
    assert said.out.splitlines()[4].startswith("uart (echo): hello")
    assert len(lines) == 5, "what nobody owns is not shown"


def test_nothing_to_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = {**SEEN, "ports": [], "uart": {"owner": None, "said": ""}}
    monkeypatch.setattr(Client, "seen", bare)
    assert entry.run(["device", "show", "field"]) == 0
    assert capsys.readouterr().out == "node field (emulated)\nno module owns a port\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["device", "press", "field.button", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**SEEN, "emulated": True}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["press", "field"], 2, "expected NODE.PERIPHERAL, got 'field'"),
        (["press", ".button"], 2, "expected NODE.PERIPHERAL"),
        (["press", "field."], 2, "expected NODE.PERIPHERAL"),
        (["set", "field.2", "x"], 2, "not a valid int"),
        (["press", "field.9.9"], 5, "error: no driver owns port 9\nhint: load one"),
        (["press", "field.button", "--app", "elsewhere"], 2, "app elsewhere does not run"),
        (["kick", "field.button"], 2, "kick"),
    ],
)
def test_what_is_wrong(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["device", *arguments]) == code
    assert text in capsys.readouterr().err
