"""Whatever goes wrong in a command ends as one error line, an exit code, and JSON on demand."""

import json
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

from broch.cli import commands, entry
from broch.errors import (
    BrochError,
    DecodeError,
    InternalError,
    MalformedError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)

Fails = Callable[[BaseException], None]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Let ``broch doctor`` fail."""
    monkeypatch.delenv("BROCH_DEBUG", raising=False)

    def set_up(exc: BaseException) -> None:
        def doctor(*, as_json: bool) -> NoReturn:
            raise exc

        monkeypatch.setattr("broch.cli.doctor.doctor", doctor)

    return set_up


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (InternalError("x"), 1, "internal"),
        (UsageError("x"), 2, "usage"),
        (MalformedError("x"), 3, "malformed"),
        (DecodeError(0, "x"), 3, "malformed"),
        (UntrustedError("x"), 4, "untrusted"),
        (PolicyError("x"), 5, "refused"),
        (UndecidedError("x"), 6, "undecided"),
    ],
)
def test_exit_codes(
    fails: Fails, capsys: pytest.CaptureFixture[str], error: BrochError, code: int, name: str
) -> None:
    fails(error)
    assert entry.run(["doctor", "--json"]) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == name
    assert shown.err == f"error: {error}\n"


def test_place_and_hint(fails: Fails, capsys: pytest.CaptureFixture[str]) -> None:
    fails(PolicyError("\x1b[31mno", place="app.toml:7", hint="ask\x07"))
    assert entry.run(["doctor"]) == 5
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: app.toml:7: \\x1b[31mno\nhint: ask\\x07\n"


def test_a_defect_shows_no_traceback(fails: Fails, capsys: pytest.CaptureFixture[str]) -> None:
    fails(ZeroDivisionError("division by zero"))
    assert entry.run(["doctor", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["place"] == "internal"
    first, second = shown.err.splitlines()
    assert first == "error: internal: ZeroDivisionError: division by zero"
    assert second.startswith("hint: this is a defect of Broch: report it")


def test_debug_shows_it(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(ZeroDivisionError("division by zero"))
    monkeypatch.setenv("BROCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        entry.run(["doctor"])


def test_debug_shows_where_an_error_came_from(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(UsageError("x"))
    monkeypatch.setenv("BROCH_DEBUG", "1")
    assert entry.run(["doctor"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupted(fails: Fails, capsys: pytest.CaptureFixture[str]) -> None:
    fails(KeyboardInterrupt())
    assert entry.run(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_broken_pipe_is_silent(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(BrokenPipeError())
    given_up: list[bool] = []
    monkeypatch.setattr("broch.cli.output.give_up_stdout", lambda: given_up.append(True))
    assert entry.run(["doctor"]) == 141
    assert given_up == [True]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ([], "broch: missing command", "see broch --help"),
        (["dctor"], "broch: no such command 'dctor'", "did you mean 'doctor'?"),
        (["qqqqq"], "broch: no such command 'qqqqq'", "see broch --help"),
        (["doctor", "--jsn"], "broch doctor: no such option: --jsn", "did you mean '--json'?"),
        (["image", "buld"], "broch image: no such command 'buld'", "did you mean 'build'?"),
        (["call"], "broch call: missing argument 'MODULE.ENTRY'", "see broch call --help"),
    ],
)
def test_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str], error: str, hint: str
) -> None:
    assert entry.run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err == f"error: {error}\nhint: {hint}\n"
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["up", "a", "b"], "error: broch up: got unexpected extra argument"),
        (["up", "a", "--for", "soon"], "error: broch up: invalid value for '--for': "),
        (["up", "a", "--for", "-1"], "error: broch up: invalid value for '--for': "),
        (["up", "a", "--for"], "error: broch up: option '--for' requires an argument"),
    ],
)
def test_usage_in_the_words_of_the_parser(
    capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert entry.run(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.lower().startswith(error)
    assert second == "hint: see broch up --help"


@pytest.mark.parametrize(
    "group",
    ["", "image", "sgx", "evidence", "serve", "import", "sancus", "device", "endorsements"],
)
def test_the_list_of_commands_says_each_in_whole(
    group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert entry.run([*group.split(), "--help"]) == 0
    _, _, commands = capsys.readouterr().out.partition("Commands:")
    assert commands
    assert "..." not in commands


def test_usage_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["dctor", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": {
            "code": "usage",
            "message": "no such command 'dctor'",
            "place": "broch",
            "hint": "did you mean 'doctor'?",
        }
    }


def test_what_comes_after_two_dashes_is_for_the_enclave(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert entry.run(["run", "nowhere.sgxs", "--", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: nowhere.sgxs: cannot be read")


@pytest.mark.parametrize(
    ("source", "option", "error"),
    [
        ("m.c", ["--app", "x"], "error: --app: a module in C is of no application"),
        ("m.py", ["--library"], "error: --library: is for modules in C"),
    ],
)
def test_options_of_modules_in_the_other_language(
    capsys: pytest.CaptureFixture[str], source: str, option: list[str], error: str
) -> None:
    assert entry.run(["image", "build", source, "--tee", "sgx", *option]) == 2
    assert capsys.readouterr().err.startswith(error)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import broch

    assert entry.run(["--version"]) == 0
    assert capsys.readouterr().out == f"broch {broch.__version__}\n"
    assert entry.run(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": broch.__version__}


def test_main_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["--version"])
    assert caught.value.code == 0


@pytest.mark.parametrize(
    "arguments",
    [[], *([name] for name in "up status call emit events down doctor new".split()),
     ["image"], ["image", "build"]],
)  # fmt: skip
def test_every_command_has_help_and_json(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert entry.run([*arguments, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert arguments == ["image"] or "--json" in shown.out


def test_starting_imports_little() -> None:
    """``--help`` and ``--version`` are fast because of this."""
    import subprocess

    code = (
        "import sys, broch.cli; from broch.cli import entry; entry.run(['--help']);"
        "print(*[m for m in ('rich', 'asyncio', 'cryptography') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == ""


def test_commands_say_what_they_do() -> None:
    assert all(
        command.callback.__doc__ for command in commands.app.registered_commands if command.callback
    )
