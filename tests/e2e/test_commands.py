"""A user's session, command by command."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from .conftest import SECONDS, Broch

UNSTEADY: Final = """
from itertools import cycle

values = cycle([20.0, 30.0])  # so that the fan is switched with every reading


def measure(_):
    return next(values)


def turn(on):
    pass
"""


def test_a_session(broch: Broch, project: str) -> None:
    (broch.folder / project / "room.py").write_text(UNSTEADY)
    started = broch("up", f"{project}/app.toml", "--detach", "--json")
    assert started.code == 0, started.err
    status = started.json["status"]
    assert started.json["app"] == project
    assert status["state"] == "running"
    assert [(m["name"], m["tee"], m["emulated"], m["verdict"]) for m in status["modules"]] == [
        ("sensor", "trustzone", True, "accepted"),
        ("controller", "sgx", True, "accepted"),
        ("fan", "trustzone", True, "accepted"),
    ]

    again = broch("up", f"{project}/app.toml")
    assert again.code == 2
    assert again.err.endswith(
        f"error: app {project} runs already\nhint: end it first: broch down\n"
    )

    text = broch("status", project)
    assert text.code == 0
    assert "emulated" in text.out
    assert broch("status", "--json", folder=broch.folder / project).json["app"] == project

    past = broch("events", project)
    assert past.code == 0
    assert past.out.splitlines()[0].endswith("state: running")

    with broch.start("events", project, "--follow", "--json") as events:
        assert events.stdout is not None
        lines = (json.loads(line) for line in events.stdout)
        outputs = (event for event in lines if event["kind"] == "event")
        first, second = next(outputs), next(outputs)
        assert (first["kind"], first["module"], first["port"]) == ("event", "fan", "switched")
        assert {first["value"]["on"], second["value"]["on"]} == {True, False}

        limit = '{"celsius": 19}'
        assert broch("emit", "controller.set_limit", limit, "--app", project).code == 0
        called = broch("call", "controller.limit", "--app", project, "--json")
        assert called.json == {"result": 19}
        for command, code, error in (
            (["call", "fan.nothing"], 2, "there is no entry fan.nothing"),
            (["call", "controller.limit", "[1]"], 2, "controller.limit takes 0 arguments, got 1"),
            (["emit", "controller.set_limit", '{"celsius": "x"}'], 2, "expected float"),
            (["emit", "fan.switch", '{"on": true}'], 5, "the operator has no connection"),
        ):
            refused = broch(*command, "--app", project, "--json")
            assert refused.code == code
            assert error in refused.json["error"]["message"]
            assert refused.err.startswith("error: ")

        assert broch("down", project, "--json").json == {"app": project, "down": True}
        events.stdout.read()
        assert events.wait(SECONDS) == 0
    broch.check_nothing_is_left(project, status)
    gone = broch("status", project)
    assert (gone.code, gone.out) == (2, "")
    assert gone.err.startswith(f"error: app {project} does not run\n")


def test_up_for_a_while(broch: Broch, project: str) -> None:
    report = broch.folder / "report.html"
    done = broch("up", f"{project}/app.toml", "--for", "1", "--json", "--report", str(report))
    assert done.code == 0, done.err
    assert done.json["reason"] == "time"
    assert done.json["report"] == str(report)
    assert done.json["summary"].keys() == {"readings", "switched", "limit"}
    assert done.json["trouble"] == []
    assert report.read_text().startswith("<!DOCTYPE html>")
    broch.check_nothing_is_left(project, done.json["status"])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_signal(broch: Broch, project: str, number: signal.Signals, code: int) -> None:
    with broch.start("up", f"{project}/app.toml") as up:
        assert up.stdout is not None
        lines = iter(up.stdout.readline, "")
        assert any(line.startswith("fan") for line in lines), "it ended before it ran"
        up.send_signal(number)
        out, err = up.communicate(timeout=SECONDS)
    assert up.returncode == code
    assert "sensor.reading" in out
    assert err.endswith(f"{project} ended: it was interrupted\n")
    assert "Traceback" not in err
    broch.check_nothing_is_left(project)


def test_interrupted_while_it_starts(broch: Broch, project: str) -> None:
    Path(broch.folder, project, "modules", "fan.py").write_text("while True: pass\n")
    with broch.start("up", f"{project}/app.toml") as up:
        assert up.stderr is not None
        up.stderr.readline()  # of the stage that takes long
        up.send_signal(signal.SIGINT)
        out, err = up.communicate(timeout=SECONDS)
    assert (up.returncode, out) == (130, "")
    assert "error" not in err
    broch.check_nothing_is_left(project)


def on_a_terminal(broch: Broch, *arguments: str, **environment: str) -> bytes:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    changed = Broch(broch.folder, {**broch.environment, "TERM": "xterm", **environment})
    with changed.start(*arguments, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            written += data
        assert process.wait(SECONDS) == 0
    os.close(ours)
    return written


@pytest.mark.parametrize(("no_color", "has_colours"), [("", True), ("1", False)])
def test_terminal(broch: Broch, project: str, no_color: str, has_colours: bool) -> None:
    written = on_a_terminal(broch, "up", f"{project}/app.toml", "--for", "1", NO_COLOR=no_color)
    assert b"\r\x1b[2K" in written, "no progress line"
    assert b"accepted" in written
    assert (b"\x1b[32m" in written) is has_colours
    assert b"\x1b[?25h" in written.rpartition(b"\x1b[?25l")[2], "the cursor is left hidden"


def test_no_reader(broch: Broch) -> None:
    read, write = os.pipe()
    os.close(read)
    with broch.start("doctor", "--json", stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (141, "")


def test_doctor(broch: Broch) -> None:
    done = broch("doctor", "--json")
    assert done.code == (0 if done.json["ok"] else 6)
    assert {"name", "need", "ok", "found", "means"} == done.json["checks"][0].keys()


@pytest.mark.parametrize(
    ("change", "code", "error"),
    [
        (("[policy]", "[polcy]"), 3, "polcy"),
        (('tee = "sgx"', 'tee = "sgxx"'), 2, "unknown TEE 'sgxx'"),
        (("emulated = true", "emulated = false"), 5, "emulated"),
        (('"controller.set_limit"', '"controller.limit"'), 3, "is an entry, expected an input"),
        (("modules/fan.py", "modules/fun.py"), 2, "there is no file"),
        (("= [", "= "), 3, "app.toml:"),
    ],
    ids=["key", "tee", "policy", "connection", "file", "toml"],
)
def test_wrong(broch: Broch, project: str, change: tuple[str, str], code: int, error: str) -> None:
    path = broch.folder / project / "app.toml"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    done = broch("up", str(path), "--json")
    assert done.code == code, done.err
    assert error in done.json["error"]["message"] + str(done.json["error"]["place"])
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(
        ("error: app.toml:", "error: sensor: ", "error: controller: ", "error: fan: ")
    )
    if (broch.home / "apps" / project).exists():
        broch.check_nothing_is_left(project)


def test_up_without_a_file(broch: Broch) -> None:
    done = broch("up", "nothing.toml", "--json")
    assert done.code == 2
    assert done.json["error"]["place"] == "nothing.toml"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--report", "none/report.html"], "error: --report none/report.html: its folder"),
        (["--report", "."], "error: --report .: is a folder"),
        (["--report", "r.html", "--detach"], "error: --report r.html: a report is written by"),
        (["--for", "inf"], "error: --for: expected a number of seconds"),
    ],
)
def test_options_are_checked_first(broch: Broch, arguments: list[str], error: str) -> None:
    done = broch("up", "nothing.toml", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(error)


def test_image_is_reproducible_and_is_what_up_loads(broch: Broch, project: str) -> None:
    built = []
    for folder in (broch.folder / project, broch.folder / "elsewhere" / "deep"):
        (folder / "modules").mkdir(parents=True, exist_ok=True)
        for name in ("controller.py", "messages.py"):
            source = broch.folder / project / "modules" / name
            (folder / "modules" / name).write_bytes(source.read_bytes())
        done = broch(
            *("image", "build", "modules/controller.py", "--file", "modules/messages.py"),
            *("--tee", "sgx", "--app", project, "--name", "controller", "-o", "x.sgxs", "--json"),
            folder=folder,
        )
        assert done.code == 0, done.err
        built.append((done.json["measurement"], (folder / "x.sgxs").read_bytes()))
        assert len((folder / "x.sgxs.sig").read_bytes()) == 1808
    assert built[0] == built[1]
    up = broch("up", f"{project}/app.toml", "--for", "0", "--json")
    loaded = {m["name"]: m["measurement"] for m in up.json["status"]["modules"]}
    assert loaded["controller"] == built[0][0]


@pytest.mark.parametrize(
    ("code", "status", "place", "error"),
    [
        ("import os", 3, "bad.py:1", "os"),
        ("from .more import f", 3, "bad.py:1", "module.more cannot be imported"),
        ("x = 1", 3, "bad.py:1", "declares no modules"),
        ("def", 3, "bad.py:1", "invalid syntax"),
    ],
    ids=["import", "relative", "module", "syntax"],
)
def test_image_of_wrong_code(broch: Broch, code: str, status: int, place: str, error: str) -> None:
    (broch.folder / "bad.py").write_text(code + "\n")
    done = broch("image", "build", "bad.py", "--tee", "keystone", "--json")
    assert done.code == status
    assert done.json["error"]["place"] == place
    assert error in done.json["error"]["message"]
    assert ("--file" in str(done.json["error"]["hint"])) is code.startswith(("import", "from"))
    assert not (broch.folder / "bad.keystone").exists()


def test_starting_is_quick_to_import(broch: Broch) -> None:
    """`broch --version` as a process of its own; how fast is measured elsewhere."""
    done = subprocess.run(
        broch.command("--version"), capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout.startswith("broch ")


def test_ctrl_c_while_it_is_loaded(tmp_path: Path) -> None:
    """The moment is chosen by a module that is found in the place of one that a command needs."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "difflib.py").write_text("raise KeyboardInterrupt\n")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from broch.cli import main; main()"
    for early in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), "status"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
        if early:  # `entry` itself imports it; the second time it comes as far as the parser
            (tmp_path / "difflib.py").unlink()


@pytest.mark.parametrize(
    ("streams", "arguments", "code", "error"),
    [
        (">/dev/full", ("doctor",), 2, "error: standard output: cannot be written: No space left"),
        (">/dev/full", ("doctor", "--json"), 2, "error: standard output: cannot be written: No "),
        (">/dev/full", ("--help",), 2, "error: standard output: cannot be written: No space left"),
        (">/dev/full", ("up", "--help"), 2, "error: standard output: cannot be written: No "),
        (">&-", ("doctor",), 0, ""),
        ("<&- >&- 2>&-", ("doctor", "--json"), 0, ""),
        ("<&-", ("inspect", "-"), 3, "error: -: evidence: offset 0x0: is empty"),
        ("2>/dev/full", ("dctor",), 2, ""),
    ],
)
def test_streams_that_are_full_or_closed(
    broch: Broch, streams: str, arguments: tuple[str, ...], code: int, error: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {streams}', *broch.command(*arguments)],
        cwd=broch.folder,
        env=broch.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == (1 if error else 0)
