"""Commands to a running application: which one is meant, what is asked, what is shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broch.app.home import AppLock, Home
from broch.cli import entry, running
from broch.cli.target import find_app
from broch.errors import BrochError, MalformedError, PolicyError, UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of our own, and a folder without a descriptor to stand in."""
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return Home.find()


@pytest.fixture
def run(home: Home) -> Iterator[Any]:
    """Lets applications look as if they ran."""
    locks: list[AppLock] = []
    yield lambda *names: locks.extend(home.app(name).lock() for name in names)
    for lock in locks:
        lock.release()


def describe(path: Path, name: str) -> None:
    path.write_text(f'[app]\nname = "{name}"\n[wrong]\n')


def test_a_name_is_a_name(home: Home) -> None:
    assert find_app(home, "anything") == "anything"


def test_a_descriptor_or_its_folder_names_it(home: Home) -> None:
    describe(Path("my.toml"), "garden")
    describe(Path("app.toml"), "house")
    assert find_app(home, "my.toml") == "garden"
    assert find_app(home, ".") == "house"
    assert find_app(home, str(Path.cwd())) == "house"


def test_the_app_here_comes_first(home: Home, run: Any) -> None:
    describe(Path("app.toml"), "house")
    assert find_app(home, None) == "house"
    run("house", "other")
    assert find_app(home, None) == "house"


def test_the_only_one_that_runs_is_meant(home: Home, run: Any) -> None:
    run("other")
    home.app("ended")
    assert find_app(home, None) == "other"
    describe(Path("app.toml"), "house")
    assert find_app(home, None) == "other"


def test_of_several_one_must_be_said(home: Home, run: Any) -> None:
    run("b", "a")
    with pytest.raises(UsageError, match="2 apps run") as caught:
        find_app(home, None)
    assert caught.value.hint == "these run: a, b"


def test_none_runs(home: Home) -> None:
    with pytest.raises(UsageError, match="no app runs"):
        find_app(home, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[app", MalformedError),
        ("", MalformedError),
        ("app = 3", MalformedError),
        ("[app]\nname = 3", MalformedError),
        ('[app]\nname = "../up"', MalformedError),
        (None, UsageError),
    ],
)
def test_descriptors_that_name_nothing(
    home: Home, text: str | None, error: type[BrochError]
) -> None:
    if text is not None:
        Path("my.toml").write_text(text)
    with pytest.raises(error) as caught:
        find_app(home, "./my.toml")
    assert caught.value.place == "my.toml"


class Client:
    """A supervisor that answers, and remembers what it was asked."""

    asked: list[tuple[Any, ...]]

    def __init__(self, home: Home, app: str) -> None:
        Client.asked = [("app", app)]

    def call(self, module: str, name: str, value: Any = None) -> Any:
        Client.asked.append((module, name, value))
        if name == "never":
            raise PolicyError("no", place="fan.never")
        return {"on": True}

    def emit(self, module: str, name: str, value: Any) -> None:
        Client.asked.append((module, name, value))

    def down(self) -> None:
        Client.asked.append(("down",))

    def events(self, *, follow: bool) -> Iterator[dict[str, Any]]:
        Client.asked.append(("events", follow))
        for number in range(3):
            text = f"line {number}\x1b[2J"
            yield {"time": "noon", "kind": "print", "module": "fan", "text": text}


@pytest.fixture
def client(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run("house")
    monkeypatch.setattr(running, "ControlClient", Client)


def test_call(client: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["call", "fan.status"]) == 0
    assert Client.asked == [("app", "house"), ("fan", "status", None)]
    assert json.loads(capsys.readouterr().out) == {"on": True}
    assert entry.run(["call", "fan.set", '{"speed": 3}', "--app", "house", "--json"]) == 0
    assert Client.asked[1] == ("fan", "set", {"speed": 3})
    assert json.loads(capsys.readouterr().out) == {"result": {"on": True}}


def test_a_refused_call(client: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["call", "fan.never", "[]", "--json"]) == 5
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "refused"
    assert shown.err == "error: fan.never: no\n"


def test_emit(client: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["emit", "fan.set", "3"]) == 0
    assert Client.asked[1] == ("fan", "set", 3)
    assert capsys.readouterr() == ("", "sent to fan.set\n")
    assert entry.run(["emit", "fan.set", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"app": "house", "sent": "fan.set"}


def test_events(client: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["events"]) == 0
    assert Client.asked[-1] == ("events", False)
    assert capsys.readouterr().out.startswith("noon  fan | line 0\\x1b[2J\n")
    assert entry.run(["events", "--follow", "--json"]) == 0
    assert Client.asked[-1] == ("events", True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"][:6] for line in lines] == ["line 0", "line 1", "line 2"]


def test_down(client: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["down", "house"]) == 0
    assert Client.asked == [("app", "house"), ("down",)]
    assert capsys.readouterr().err == "house is down\n"
    assert entry.run(["down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"app": "house", "down": True}


def test_an_app_that_does_not_run(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("garden")
    assert entry.run(["status", "house"]) == 2
    assert capsys.readouterr().err == "error: app house does not run\nhint: these run: garden\n"


@pytest.mark.parametrize("text", ["fan", "fan.", ".set", "a.b.c", ""])
def test_ports_have_two_names(home: Home, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert entry.run(["call", text]) == 2
    assert "MODULE.ENTRY: expected MODULE.ENTRY" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{x}", "NaN", "[1", "[" * 100_000])
def test_arguments_are_json(home: Home, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert entry.run(["emit", "fan.set", text]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: JSON: not JSON: ")
    assert second.startswith("hint: quote it for the shell")


def test_why_a_run_in_the_background_failed_is_said(
    home: Home, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home.app("house").note_failure("soil.py:7: module soil raised ValueError")
    run("garden")
    for command in ("status", "down"):
        assert entry.run([command, "house"]) == 2
        assert capsys.readouterr().err == (
            "error: app house does not run\n"
            "hint: its last run failed: soil.py:7: module soil raised ValueError\n"
        )
    home.app("house").lock().release()
    assert entry.run(["status", "house"]) == 2
    assert "these run: garden" in capsys.readouterr().err, "a later run did not fail"
