"""Whole applications in real processes: they run, they fail in part, they leave nothing behind."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from broch.app.home import Home
from broch.app.module_run import ModuleFailedError
from broch.app.supervisor import Reason, Supervisor
from broch.errors import PolicyError, UndecidedError, UsageError

from .apps import SOURCE, processes, run_app, until, write_app


def left_behind(home: Home, app: str) -> list[object]:
    """What a run should not leave."""
    folder = home.app(app).path
    files = [path.name for path in folder.iterdir() if path.name != "stores"]
    return [*processes(home), *files]


async def seen(app: Supervisor) -> int:
    return int((await app.call("sink", "summary", None))["seen"])


async def drain(queue: "asyncio.Queue[dict[str, Any]]", kind: str) -> dict[str, Any]:
    while True:
        event = await queue.get()
        if event["kind"] == kind:
            return event


def test_events_requests_entries_and_the_end(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "whole", cloud="sgx")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        run = asyncio.ensure_future(app.run(50))
        assert await app.call("source", "double", {"n": 21}) == 42
        assert await app.call("source", "try_double", [-1]) == "failed: refused: negative"
        assert await app.call("source", "host", [1]) == "read 1"
        assert await app.call("source", "host", [13]) == "failed: RuntimeError"
        await app.call("source", "emit", [5000])

        async def all_came() -> bool:
            return await seen(app) == 5000

        await until(all_came)
        await app.emit("source", "go", {"n": 3})

        async def more_came() -> bool:
            return await seen(app) == 5003

        await until(more_came)
        await app.call("source", "say", ["hello"])
        assert (await drain(queue, "print"))["text"] == "hello"

        async def ticked() -> bool:
            return int(await app.call("sink", "ticked", None)) > 3

        await until(ticked)
        await app.call("sink", "finish", [7])
        ending = await run
        assert ending.reason is Reason.UNTIL
        event = await drain(queue, "event")
        assert (event["module"], event["port"]) == ("sink", "total")
        assert event["value"] == {"n": 7, "square": 49}

    app = run_app(path, shared_home, work)
    assert app.summary() == {"seen": 5003}
    assert app.charts() == [
        {"title": "Totals", "unit": "points", "x": [7], "series": {"square": [49]}}
    ]
    status = app.status()
    json.dumps(status)
    assert status["state"] == "ended"
    counts = {c["id"]: (c["events"], c["gaps"], c["refused"]) for c in status["connections"]}
    assert counts == {1: (5003, 0, 0), 2: (2, 0, 0), 3: (1, 0, 0), 4: (1, 0, 0)}
    assert [c["epoch"] for c in status["connections"]] == [1, 1, 1, 1]
    source = status["modules"][0]
    assert source["verdict"] == "accepted"
    assert source["emulated"] is True
    assert source["seals_to"] == "code"
    assert len(source["signer"]) == 64
    assert left_behind(shared_home, "whole") == []


def test_a_crash_is_reported_and_restarted_with_fresh_keys(
    shared_home: Home, app_folder: Path
) -> None:
    path = write_app(app_folder, "crash")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        with pytest.raises(ModuleFailedError) as caught:
            await app.call("source", "crash", None)
        assert str(caught.value) == "source.py:49: module source raised ValueError"
        assert "secret" not in str(caught.value)
        fault = await drain(queue, "fault")
        assert (fault["module"], fault["place"]) == ("source", "source.py:49")
        await drain(queue, "restart")
        assert await app.call("source", "double", [4]) == 8
        await app.call("source", "emit", [10])

        async def all_came() -> bool:
            return await seen(app) == 10

        await until(all_came)
        status = app.status()
        assert [m["restarts"] for m in status["modules"]] == [1, 0]
        assert [c["epoch"] for c in status["connections"]] == [2, 2, 1, 2]
        assert status["modules"][0]["fault"]["what"] == "raised ValueError"

    run_app(path, shared_home, work)
    assert left_behind(shared_home, "crash") == []


@pytest.mark.parametrize(
    ("entry", "what"), [("spin", "took longer than 0.5 s"), ("eat", "ran out of memory")]
)
def test_loops_and_hunger_are_ended(
    shared_home: Home, app_folder: Path, entry: str, what: str
) -> None:
    path = write_app(app_folder, entry, source="limits = {seconds = 0.5, memory_mb = 32}")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        with pytest.raises(ModuleFailedError, match=what):
            await app.call("source", entry, None)
        await drain(queue, "restart")
        assert await app.call("source", "double", [4]) == 8

    run_app(path, shared_home, work)


def test_a_handler_that_dies_fails_the_request_and_nothing_else(
    shared_home: Home, app_folder: Path
) -> None:
    path = write_app(app_folder, "handler")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        assert await app.call("source", "try_double", [666]) == "failed: the module ended"
        await drain(queue, "restart")
        assert await app.call("source", "double", [3]) == 6
        assert app.status()["modules"][0]["restarts"] == 0

    run_app(path, shared_home, work)


def test_modules_on_one_node(shared_home: Home, app_folder: Path) -> None:
    path = write_app(
        app_folder, "onenode", change=lambda text: text.replace('node = "field"', 'node = "cloud"')
    )

    async def work(app: Supervisor) -> None:
        assert await app.call("source", "double", [4]) == 8
        await app.call("source", "emit", [3000])

        async def all_came() -> bool:
            return await seen(app) == 3000

        await until(all_came)
        assert await app.call("source", "try_double", [666]) == "failed: the module ended"

    run_app(path, shared_home, work)


def test_a_store_survives_crashes_and_runs(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "store")

    async def first(app: Supervisor) -> None:
        queue = app.subscribe()
        assert await app.call("sink", "keep", ["a", 5]) == 1
        assert await app.call("source", "try_double", [666]) == "failed: the module ended"
        await drain(queue, "restart")
        assert await app.call("sink", "kept", ["a"]) == 5

    async def second(app: Supervisor) -> None:
        assert await app.call("sink", "kept", ["a"]) == 5
        with pytest.raises(PolicyError, match="the module refused: b was not kept"):
            await app.call("sink", "kept", ["b"])

    run_app(path, shared_home, first)
    run_app(path, shared_home, second)


def test_a_module_that_is_not_to_be_restarted_ends_the_run(
    shared_home: Home, app_folder: Path
) -> None:
    path = write_app(app_folder, "never", source='restart = "never"')

    async def work(app: Supervisor) -> None:
        run = asyncio.ensure_future(app.run())
        with pytest.raises(ModuleFailedError):
            await app.call("source", "crash", None)
        ending = await run
        assert ending.reason is Reason.FAILED
        assert str(ending.error) == "source.py:49: module source raised ValueError"
        assert app.status()["modules"][0]["state"] == "failed"

    app = run_app(path, shared_home, work)
    assert app.status()["state"] == "failed"


def test_too_many_restarts_end_the_run(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "toomany", source="max_restarts = 1")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        run = asyncio.ensure_future(app.run())
        for attempt in range(2):
            with pytest.raises(ModuleFailedError):
                await app.call("source", "crash", None)
            if attempt == 0:
                await drain(queue, "restart")
        ending = await run
        assert ending.reason is Reason.FAILED
        assert isinstance(ending.error, ModuleFailedError)
        assert ending.error.hint == "its max_restarts = 1 within 60 s are used up"

    run_app(path, shared_home, work)


def test_rekeying_loses_nothing_at_rest(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "rekey")

    async def work(app: Supervisor) -> None:
        for round_number in range(1, 4):
            await app.rekey()
            await app.call("source", "emit", [100])

            async def all_came(expected: int = 100 * round_number) -> bool:
                return await seen(app) == expected

            await until(all_came)
            assert await app.call("source", "double", [4]) == 8
        assert [c["epoch"] for c in app.status()["connections"]] == [4, 4, 4, 4]
        assert [c["refused"] for c in app.status()["connections"]] == [0, 0, 0, 0]

    run_app(path, shared_home, work)


@pytest.mark.parametrize("victim", ["agent:field", "device:field", "broch-zygote"])
def test_a_node_that_dies_ends_the_run(shared_home: Home, app_folder: Path, victim: str) -> None:
    path = write_app(app_folder, "victim")

    async def work(app: Supervisor) -> None:
        run = asyncio.ensure_future(app.run())
        for number in processes(shared_home, victim):
            os.kill(number, signal.SIGKILL)
        ending = await run
        assert ending.reason is Reason.FAILED
        assert "is gone: its agent or its device ended" in str(ending.error)

    run_app(path, shared_home, work)
    assert left_behind(shared_home, "victim") == []


def test_used_up_keys_are_replaced(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "usedup")

    async def work(app: Supervisor) -> None:
        assert app._connector is not None
        await app.call("source", "emit", [100])

        async def all_came() -> bool:
            return await seen(app) == 100

        await until(all_came)
        await app.refresh()
        await app._counting.rekey_used_up(app._connector, after=101)
        assert [c["epoch"] for c in app.status()["connections"]] == [1, 1, 1, 1]
        await app._counting.rekey_used_up(app._connector, after=100)
        await app._counting.rekey_used_up(app._connector, after=100)
        assert [c["epoch"] for c in app.status()["connections"]] == [2, 1, 1, 1]

    run_app(path, shared_home, work)


def test_time_ends_a_run(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "time")

    async def work(app: Supervisor) -> None:
        assert (await app.run(0.01)).reason is Reason.TIME

    app = run_app(path, shared_home, work)
    assert app.summary() == {"seen": 0}


def test_the_operator_sends_only_where_the_descriptor_says(
    shared_home: Home, app_folder: Path
) -> None:
    path = write_app(app_folder, "operator")

    async def work(app: Supervisor) -> None:
        with pytest.raises(PolicyError, match="the operator has no connection"):
            await app.emit("sink", "reading", {"n": 1})
        with pytest.raises(UsageError, match="there is no input"):
            await app.emit("sink", "nope", {"n": 1})
        with pytest.raises(UsageError, match=r"source\.go\.n is 1\.5, expected int"):
            await app.emit("source", "go", {"n": 1.5})
        with pytest.raises(UsageError, match="there is no entry"):
            await app.call("source", "nope", None)
        with pytest.raises(UsageError, match="there is no module 'nope'"):
            await app.call("nope", "nope", None)

    run_app(path, shared_home, work)


def test_an_agent_cannot_read_its_devices_secret(
    app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the home lies in the application's own folder, which agents may read."""
    home = Home(app_folder / "home")
    path = write_app(app_folder, "secret")
    secret = home.root / "devices" / "secret" / "cloud.keystone" / "secret"
    monkeypatch.setenv("TEST_SECRET", str(secret))

    async def work(app: Supervisor) -> None:
        assert secret.is_file()
        answer = await app.call("source", "host", [14])
        lacks = app.status()["nodes"][0]["lacks"]
        assert answer == "PermissionError" or "Landlock" in str(lacks)

    run_app(path, home, work)


# Nothing half started stays.


def fails(path: Path, home: Home, app: str) -> Exception:
    async def nothing(app: Supervisor) -> None:
        raise AssertionError("it started")

    with pytest.raises(Exception) as caught:
        run_app(path, home, nothing)
    assert left_behind(home, app) == []
    return caught.value


def test_emulated_devices_need_a_policy_that_says_so(shared_home: Home, app_folder: Path) -> None:
    path = write_app(
        app_folder,
        "strict",
        change=lambda text: text.replace("emulated = true", "emulated = false"),
    )
    error = fails(path, shared_home, "strict")
    assert isinstance(error, PolicyError)
    assert "emulated Keystone device; the policy accepts real devices only" in str(error)


def test_native_devices_are_not_here(shared_home: Home, app_folder: Path) -> None:
    path = write_app(
        app_folder, "native", change=lambda text: text.replace('"emulated"', '"native"', 1)
    )
    error = fails(path, shared_home, "native")
    assert isinstance(error, UndecidedError)
    assert str(error) == ("app.toml:6: this version of Broch cannot use Keystone devices")
    assert error.hint


def test_a_port_in_use(shared_home: Home, app_folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        path = write_app(
            app_folder,
            "port",
            change=lambda text: text.replace(
                'device = "emulated"', f'device = "emulated"\nport = {port}', 1
            ),
        )
        error = fails(path, shared_home, "port")
    assert isinstance(error, UsageError)
    assert f"node cloud cannot listen on 127.0.0.1:{port}: Address already in use" in str(error)
    assert str(error).startswith("app.toml:4: ")


def test_an_app_runs_once(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "once")

    async def work(app: Supervisor) -> None:
        other = Supervisor(app.descriptor, shared_home)
        with pytest.raises(UsageError, match="app once runs already"):
            await other.start()
        assert await app.call("source", "double", [2]) == 4, "the first one is not disturbed"

    run_app(path, shared_home, work)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os\n" + SOURCE, "source.py:1: os cannot be imported inside an enclave"),
        (SOURCE.replace("n: int", "n: object", 1), "source.py:"),
        ("raise ValueError(5)", "source.py:1: ValueError: 5"),
        ("def f(:", "source.py:1: invalid syntax"),
        ("import math", "source.py:1: declares no modules, expected one"),
    ],
)
def test_wrong_modules(shared_home: Home, app_folder: Path, code: str, message: str) -> None:
    path = write_app(app_folder, "wrong", source_code=code)
    assert str(fails(path, shared_home, "wrong")).startswith(message)


def test_a_device_of_others(app_folder: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    path = write_app(app_folder, "foreign")

    async def nothing(app: Supervisor) -> None:
        return

    run_app(path, home, nothing)
    secret = home.root / "devices" / "foreign" / "field.keystone" / "secret"
    secret.chmod(0o644)
    error = fails(path, home, "foreign")
    assert "others may use it" in str(error)
    assert getattr(error, "exit_code", 0) == 4


def test_a_host_function_that_does_not_load(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "host")
    (app_folder / "host.py").write_text("def other(n): pass")
    error = fails(path, shared_home, "host")
    assert isinstance(error, UsageError)
    assert str(error) == "app.toml:15: host.py has no function read"
    assert error.hint == "known: other"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from host2 import *", "host.py: has no function read"),
        ("globals()['rea' + 'ds'] = len", "host.py: has no function read"),
        ("read = 5", "host.py: has no function read"),
    ],
)
def test_a_host_function_that_only_running_its_file_would_show(
    shared_home: Home, app_folder: Path, code: str, message: str
) -> None:
    path = write_app(app_folder, "host")
    (app_folder / "host.py").write_text(code)
    (app_folder / "host2.py").write_text("other = 5")
    assert str(fails(path, shared_home, "host")) == message


def test_a_file_of_host_functions_that_is_not_python(shared_home: Home, app_folder: Path) -> None:
    path = write_app(app_folder, "host")
    (app_folder / "host.py").write_text("def other(n): pass\ndef read(:\n")
    error = fails(path, shared_home, "host")
    assert str(error) == "host.py:2: invalid syntax"
    assert getattr(error, "exit_code", 0) == 3
