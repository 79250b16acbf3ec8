"""Updating a module of a running application: what moves, what stays, and what a failure leaves."""

import asyncio
import json
from pathlib import Path

import pytest

from broch.app import module_run
from broch.app.control import ControlClient
from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.module_run import ModuleFailedError, ModuleRun
from broch.app.supervisor import Supervisor
from broch.app.updating import reread
from broch.cli import entry
from broch.enclave.launcher import Launcher
from broch.enclave.messages import Kind
from broch.errors import BrochError, MalformedError, UndecidedError, UsageError
from broch.sdk import DeclarationError

from .apps import processes
from .counted import (
    COUNTER,
    STATE,
    V1,
    V2,
    V3,
    Counted,
    check_connections,
    fails,
    gone,
    module,
)


@pytest.fixture
def counted(app_folder: Path, shared_home: Home) -> Counted:
    return Counted(app_folder, shared_home)


def test_an_update_keeps_state_connections_and_the_others(counted: Counted) -> None:
    counted.write("update", tee="sgx")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        await check_connections(app, 0)
        before, peer = module(app), module(app, "peer")
        counted.code(V2)
        done = await app.update("counter")
        after = module(app)
        assert done == {
            "module": "counter",
            "updated": True,
            "from": before["measurement"],
            "to": after["measurement"],
            "state": True,
        }
        assert done["from"] != done["to"]
        assert await app.call("counter", "version", None) == 2
        await check_connections(app, 2)
        assert module(app, "peer") == peer
        assert after["pid"] != before["pid"]
        assert (after["state"], after["restarts"], after["fault"]) == ("running", 0, None)
        assert after["verdict"] == "accepted"
        assert [c["epoch"] for c in app.status()["connections"]] == [2, 2, 2, 2, 2]
        await gone(app, enclaves=2)
        events = [queue.get_nowait() for _ in range(queue.qsize())]
        assert {event["kind"] for event in events} <= {"event", "state"}
        (told,) = [event for event in events if event["kind"] == "state"]
        assert told["text"] == f"updated from {done['from'][:16]} to {done['to'][:16]}"
        assert (told["module"], told["from"]) == ("counter", done["from"])

        client = ControlClient(counted.home, "update")
        assert (await asyncio.to_thread(client.update, "counter"))["updated"] is False
        assert module(app) == after
        counted.code(V3)
        assert (await app.update("counter"))["state"] is True
        assert await app.call("counter", "version", None) == 3
        await check_connections(app, 4)

    counted.run(work)
    assert processes(counted.home) == []


@pytest.mark.parametrize(("tee", "kept"), [("trustzone", 5), ("sgx", 0)])
def test_without_state_functions_only_a_store_may_stay(
    counted: Counted, tee: str, kept: int
) -> None:
    counted.write("stateless", tee=tee, code=COUNTER)

    async def work(app: Supervisor) -> None:
        await app.call("counter", "keep", [5])
        await check_connections(app, 0)
        counted.code(COUNTER.replace("return 1", "return 2"))
        assert (await app.update("counter"))["state"] is False
        assert await app.call("counter", "version", None) == 2
        assert await app.call("counter", "kept", None) == kept
        assert await app.call("counter", "keep", [6]) == 6
        await check_connections(app, 0)

    counted.run(work)


def test_calls_in_work_are_answered_and_a_crash_restarts_the_new_code(counted: Counted) -> None:
    slow = """
@module.entry
def sum_up(n: int) -> int:
    return sum(range(n))

@module.entry
def crash() -> None:
    raise ValueError
"""
    counted.write("calls", code=COUNTER + slow)

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        counted.code((COUNTER + slow).replace("return 1", "return 2"))
        summing = asyncio.ensure_future(app.call("counter", "sum_up", [10_000_000]))
        await app.update("counter")
        assert await summing == sum(range(10_000_000))
        with pytest.raises(ModuleFailedError):
            await app.call("counter", "crash", None)
        while (await queue.get())["kind"] != "restart":
            pass
        assert await app.call("counter", "version", None) == 2
        assert module(app)["restarts"] == 1
        await check_connections(app, 0)

    counted.run(work)


@pytest.mark.parametrize(
    ("code", "kind", "text", "place"),
    [
        pytest.param(
            V2 + "\nmodule.output('x', object)\n",
            DeclarationError,
            "object",
            "counter.py:51",
            id="declared",
        ),
        pytest.param(
            V2 + "\nimport socket\n", DeclarationError, "socket", "counter.py:51", id="import"
        ),
        pytest.param(
            V2.replace('output("count", Number)', 'output("count", int)'),
            MalformedError,
            "counter.count sends int, but peer.count takes",
            "app.toml:22",
            id="interface",
        ),
        pytest.param(
            COUNTER, UsageError, "the new code does not import it", "counter.py", id="exports only"
        ),
        pytest.param(
            V2.replace("    total[0] = state[0]", "    raise ValueError"),
            ModuleFailedError,
            "module counter raised ValueError",
            "counter.py:49",
            id="import raises",
        ),
    ],
)
def test_a_new_version_that_is_wrong_leaves_the_old_one(
    counted: Counted, code: str, kind: type[BrochError], text: str, place: str
) -> None:
    counted.write("wrong")

    async def work(app: Supervisor) -> None:
        await check_connections(app, 0)
        counted.code(code)
        error = await fails(app, kind, text)
        assert error.place is not None
        assert place in error.place
        counted.code(V2)
        await app.update("counter")
        await check_connections(app, 4)

    counted.run(work)


def test_state_that_nobody_gives_is_not_waited_for(counted: Counted) -> None:
    counted.write("one-sided", code=COUNTER)

    async def work(app: Supervisor) -> None:
        counted.code(V2)
        error = await fails(app, UsageError, "the one that runs does not export any")
        assert error.hint is not None

    counted.run(work)


def test_an_old_module_that_cannot_export_is_restarted_by_its_rule(counted: Counted) -> None:
    counted.write("torn", code=V1.replace("    return [total[0]]", "    raise ValueError"))

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        counted.code(V2)
        with pytest.raises(ModuleFailedError, match="raised ValueError"):
            await app.update("counter")
        while (await queue.get())["kind"] != "restart":
            pass
        assert await app.call("counter", "version", None) == 1
        await check_connections(app, 0)

    counted.run(work)


def test_a_hostile_agent_cannot_replay_old_state(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.write("replay", code=V1)
    seen: list[bytes] = []
    real = ModuleRun.said
    is_hostile = False

    def said(self: ModuleRun, message: bytes) -> None:
        if message[0] == Kind.STATE:
            seen.append(message)
            message = seen[0] if is_hostile else message
        real(self, message)

    monkeypatch.setattr(ModuleRun, "said", said)

    async def work(app: Supervisor) -> None:
        nonlocal is_hostile
        await check_connections(app, 0)
        counted.code(V2)
        await app.update("counter")
        counted.code(V1)
        await app.update("counter")
        await check_connections(app, 2)
        is_hostile = True
        counted.code(V3)
        await fails(app, ModuleFailedError, "not signed by the predecessor")
        assert len(seen) == 3

    counted.run(work)


@pytest.mark.parametrize("withheld", [Kind.STATE, Kind.IMPORTED])
def test_an_agent_that_withholds_state_stops_the_update_only(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, withheld: Kind
) -> None:
    counted.write("withheld", code=V1)
    real = ModuleRun.said

    def said(self: ModuleRun, message: bytes) -> None:
        if message[0] != withheld:
            real(self, message)

    monkeypatch.setattr(ModuleRun, "said", said)

    async def work(app: Supervisor) -> None:
        await check_connections(app, 0)
        counted.code(V2)
        monkeypatch.setattr(module_run, "_PATIENCE", -4.0)  # and 5 of the module's own limit
        await fails(app, UndecidedError, "did not answer within 1 s")

    counted.run(work)


def test_a_hostile_agent_cannot_swallow_state(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.write("swallow", code=V1)
    real = ModuleRun.send

    def send(self: ModuleRun, message: bytes) -> None:
        if message[0] == Kind.IMPORT:
            self.said(bytes([Kind.IMPORTED]))
        else:
            real(self, message)

    monkeypatch.setattr(ModuleRun, "send", send)

    async def work(app: Supervisor) -> None:
        await check_connections(app, 0)
        counted.code(V2)
        await fails(app, BrochError, "counter")

    counted.run(work)


def test_a_hostile_agent_cannot_give_state_twice(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.write("twice", code=V1)
    orders: list[bytes] = []
    real = ModuleRun.send

    def send(self: ModuleRun, message: bytes) -> None:
        if message[0] == Kind.IMPORT:
            orders.append(message)
        real(self, message)

    monkeypatch.setattr(ModuleRun, "send", send)

    async def work(app: Supervisor) -> None:
        counted.code(V2)
        await app.update("counter")
        await check_connections(app, 0)
        real(app._modules["counter"], orders[0])
        with pytest.raises(ModuleFailedError, match="poisoned"):
            assert await app.call("counter", "read", None) == 2

    counted.run(work)


def test_the_command(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted.write("command", code=V1)
    monkeypatch.setenv("BROCH_HOME", str(counted.home.root))

    async def update(*more: str) -> tuple[int, str, str]:
        arguments = ["update", "counter", "--app", "command", *more]
        code = await asyncio.to_thread(entry.run, arguments)
        return code, *capsys.readouterr()

    async def work(app: Supervisor) -> None:
        first = module(app)["measurement"]
        counted.code(V2)
        code, out, err = await update("--json")
        assert (code, err) == (0, "")
        second = module(app)["measurement"]
        assert json.loads(out) == {
            "app": "command",
            "module": "counter",
            "updated": True,
            "from": first,
            "to": second,
            "state": True,
        }
        counted.code(V3)
        code, out, err = await update()
        third = module(app)["measurement"]
        assert (code, out) == (0, "")
        text = f"counter is updated from {second[:16]}... to {third[:16]}..., with its state\n"
        assert err == text
        assert await update() == (0, "", f"counter is up to date: {third[:16]}...\n")
        counted.code("this is no Python")
        code, out, err = await update("--json")
        assert code == 3
        assert json.loads(out)["error"]["place"] == "counter.py:1"
        assert err.startswith("error: counter.py:1")

    counted.run(work)


def test_a_module_must_run_to_be_updated(counted: Counted) -> None:
    counted.write("ending", counter='restart = "never"')

    async def work(app: Supervisor) -> None:
        with pytest.raises(UsageError, match="there is no module 'nobody'"):
            await app.update("nobody")
        app._modules["counter"].state = "ended"
        with pytest.raises(UndecidedError, match="module counter is ended"):
            await app.update("counter")

    counted.run(work)


def test_only_modules_files_are_read_again(counted: Counted) -> None:
    counted.write("reread")
    first = load(counted.path)
    text = counted.path.read_text()
    other = 'source = "counter.py"\nfiles = ["peer.py"]\nversion = 3'
    counted.path.write_text("\n" + text.replace('source = "counter.py"', other))
    found = reread(first, "counter")
    assert (found.modules["counter"].files, found.modules["counter"].version) == (("peer.py",), 3)
    assert found.place("app") == "app.toml:3"
    assert reread(first, "peer").modules == first.modules
    for old, new, section in (
        ('"reread"', '"other"', "app"),
        ('tee = "keystone"', 'tee = "sgx"', "nodes"),
        ('source = "peer.py"', 'source = "peer.py"\nmax_restarts = 7', "modules"),
        ("emulated = true", "emulated = true\ndebug = true", "policy"),
        ('"operator"\nto = "counter.add_too"', '"operator"\nto = "counter.add"', "connections"),
    ):
        assert old in text
        counted.path.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=rf"changed in \[{section}\]") as caught:
            reread(first, "counter")
        assert caught.value.hint is not None
    counted.path.write_text(text + '[modules.third]\nnode = "cloud"\nsource = "peer.py"\n')
    with pytest.raises(UsageError, match=r"changed in \[modules\]"):
        reread(first, "counter")
    counted.path.unlink()
    with pytest.raises(UsageError):
        reread(first, "counter")


@pytest.mark.parametrize("exports", [False, True])
@pytest.mark.parametrize("imports", [False, True])
def test_state_functions_are_found(shared_home: Home, exports: bool, imports: bool) -> None:
    give, take = STATE.split("@module.import_state")
    code = COUNTER + give * exports + f"@module.import_state{take}" * imports
    launcher = Launcher.start(shared_home.folder("pycache"))
    try:
        found = launcher.state_functions({"m.py": code.encode()}, "m.py")
    finally:
        launcher.close()
    assert (found.exports, found.imports) == (exports, imports)
