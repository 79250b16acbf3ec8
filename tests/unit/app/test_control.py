"""The control socket, the daemon, and what an interrupt leaves: nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from broch.app import daemon
from broch.app.control import ControlClient
from broch.app.control_server import check_same_user
from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.reports import Stage
from broch.errors import (
    InternalError,
    PolicyError,
    UntrustedError,
    UsageError,
)

from .apps import processes, write_app


def left_behind(home: Home, app: str) -> list[object]:
    folder = home.app(app).path
    files = [path.name for path in folder.iterdir() if path.name != "stores"]
    return [*processes(home), *files]


def test_a_daemon_from_up_to_down(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "daemon")
    stages: list[Stage] = []
    status = daemon.up(load(path), shared_home, progress=stages.append)
    try:
        assert status["state"] == "running"
        assert stages[-1].name == "running"
        client = ControlClient(shared_home, "daemon")
        assert client.status()["app"] == "daemon"
        assert client.call("source", "double", {"n": 4}) == 8
        told: list[dict[str, Any]] = []
        events = client.events()
        listening = threading.Event()

        def listen() -> None:
            for event in events:
                told.append(event)
                listening.set()

        thread = threading.Thread(target=listen)
        thread.start()
        listening.wait()  # the server has taken the subscription, and told what was before
        client.call("source", "say", ["hello"])
        past = list(client.events(follow=False))
        assert [(event["kind"], event["text"]) for event in past] == [
            ("state", "running"),
            ("print", "hello"),
        ]
        client.emit("source", "go", {"n": 1})
        with pytest.raises(PolicyError, match="the operator has no connection") as refused:
            client.emit("sink", "reading", {"n": 1})
        assert refused.value.exit_code == 5
        with pytest.raises(UsageError, match='parameter n is "x", expected int'):
            client.call("source", "double", {"n": "x"})
        with pytest.raises(UsageError, match="runs already"):
            daemon.up(load(path), shared_home)
        with pytest.raises(InternalError, match="raised ValueError"):
            client.call("source", "crash")
    finally:
        ControlClient(shared_home, "daemon").down()
    thread.join()
    assert left_behind(shared_home, "daemon") == []
    assert told[:2] == past
    assert {"fault", "state"} <= {event["kind"] for event in told}
    with pytest.raises(UsageError, match="does not run"):
        client.status()


def test_a_daemon_that_does_not_start_says_why(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "still", change=lambda t: t.replace("emulated = true", ""))
    with pytest.raises(PolicyError, match="the policy accepts real devices only"):
        daemon.up(load(path), shared_home)
    assert left_behind(shared_home, "still") == []


def test_a_daemon_ends_in_time(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "short")
    daemon.up(load(path), shared_home, seconds=0.05)
    folder = shared_home.app("short")
    while folder.is_running():
        time.sleep(0.01)
    assert left_behind(shared_home, "short") == []


def test_a_daemon_that_fails_later_leaves_word(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "later", source='restart = "never"')
    daemon.up(load(path), shared_home)
    with pytest.raises(InternalError, match="raised ValueError"):
        ControlClient(shared_home, "later").call("source", "crash")
    folder = shared_home.app("later")
    while folder.is_running():
        time.sleep(0.01)
    assert left_behind(shared_home, "later") == ["failure"]
    with pytest.raises(UsageError, match="does not run") as caught:
        ControlClient(shared_home, "later").status()
    hint = "its last run failed: source.py:49: module source raised ValueError"
    assert caught.value.hint == hint
    folder.lock().release()
    assert left_behind(shared_home, "later") == []


def test_unknown_apps_are_named(shared_home: Home) -> None:
    shared_home.app("known")
    with pytest.raises(UsageError, match="there is no app 'nix'") as caught:
        ControlClient(shared_home, "nix")
    assert "known" in str(caught.value.hint)
    with pytest.raises(UsageError, match="app known does not run"):
        ControlClient(shared_home, "known").status()


def test_questions_that_make_no_sense(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "strange")
    daemon.up(load(path), shared_home)
    try:
        for line, code in ((b"{}\n", b"malformed"), (b'{"do": "fly"}\n', b"usage")):
            with shared_home.app("strange").connect() as sock:
                sock.sendall(line)
                assert b'{"error":{"code":"' + code in sock.recv(4096)
        for text in ("\udcff", "\ud800"):  # of a shell's bytes, of half a pair in JSON
            with pytest.raises(UsageError, match="is no character"):
                ControlClient(shared_home, "strange").call("source", text)
    finally:
        ControlClient(shared_home, "strange").down()


def test_another_user_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        check_same_user(ours)
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
        with pytest.raises(UntrustedError, match="may not control"):
            check_same_user(ours)


RUN = """
import asyncio, sys
from pathlib import Path
from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.supervisor import Supervisor

async def main():
    app = Supervisor(load(Path(sys.argv[1])), Home(Path(sys.argv[2])),
                     progress=lambda stage: print(stage.name, flush=True))
    try:
        await app.start()
        await app.run()
    finally:
        await app.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("stage", ["build", "nodes", "attest", "connect", "running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_nothing(
    shared_home: Home, app_folder: Path, stage: str, number: signal.Signals
) -> None:
    name = f"interrupt-{stage}"
    path = write_app(app_folder, name)
    command = [sys.executable, "-c", RUN, str(path), str(shared_home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline().strip() != stage.encode():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert not shared_home.app(name).is_running()
        assert b"KeyboardInterrupt" in errors
        assert b"was never" not in errors
        assert left_behind(shared_home, name) == []
    else:
        while processes(shared_home) or shared_home.app(name).is_running():
            time.sleep(0.01)  # the kernel ends them; there is nobody to wait for
