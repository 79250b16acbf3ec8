"""Updating a module of a running application: what moves, what stays, and what a failure leaves."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

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

from .apps import processes, run_app, until

APP = """
[app]
name = "{name}"
[nodes.cloud]
tee = "{tee}"
device = "emulated"
[modules.counter]
node = "cloud"
source = "counter.py"
{counter}
[modules.peer]
node = "cloud"
source = "peer.py"
[[connections]]
from = "peer.add"
to = "counter.add"
[[connections]]
from = "peer.ask"
to = "counter.double"
[[connections]]
from = "counter.count"
to = "peer.count"
[[connections]]
from = "counter.told"
to = "operator"
[[connections]]
from = "operator"
to = "counter.add_too"
[policy]
emulated = true
"""

COUNTER = """
from broch import Module, Struct

class Number(Struct):
    n: int

module = Module("counter")
count = module.output("count", Number)
told = module.output("told", Number)
total = [0]

@module.input
def add(a: Number) -> None:
    total[0] += a.n
    count.emit(Number(n=total[0]))

@module.input
def add_too(a: Number) -> None:
    add(a)

@module.handler
def double(a: Number) -> int:
    return 2 * a.n

@module.entry
def version() -> int:
    return 1

@module.entry
def read() -> int:
    told.emit(Number(n=total[0]))
    return total[0]

@module.entry
def keep(n: int) -> int:
    module.store["n"] = n
    return n

@module.entry
def kept() -> int:
    return module.store.get("n", 0)
"""

STATE = """
@module.export_state
def leave() -> list[int]:
    return [total[0]]

@module.import_state
def take(state: list[int]) -> None:
    total[0] = state[0]
"""

PEER = """
from broch import Module, RequestFailed, Struct

class Number(Struct):
    n: int

module = Module("peer")
add = module.output("add", Number)
ask = module.request("ask", Number, int)
seen = [0]

@module.input
def count(c: Number) -> None:
    seen[0] = c.n

@module.entry
def send(n: int) -> None:
    add.emit(Number(n=n))

@module.entry
def last() -> int:
    return seen[0]

@module.entry
def double(n: int) -> str:
    try:
        return str(ask(Number(n=n)))
    except RequestFailed:
        return "failed"
"""

V1 = COUNTER + STATE
V2 = V1.replace("return 1", "return 2")
V3 = V1.replace("return 1", "return 3")

Work = Callable[[Supervisor], Awaitable[None]]


class Counted:
    """An application with a counter, and its files."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.folder = folder
        self.home = home
        folder.mkdir()

    def write(self, name: str, *, tee: str = "keystone", code: str = V1, counter: str = "") -> None:
        self.path = self.folder / "app.toml"
        self.path.write_text(APP.format(name=name, tee=tee, counter=counter))
        (self.folder / "peer.py").write_text(PEER)
        self.code(code)

    def code(self, text: str) -> None:
        (self.folder / "counter.py").write_text(text)

    def run(self, work: Work) -> None:
        run_app(self.path, self.home, work)


@pytest.fixture
def counted(app_folder: Path, shared_home: Home) -> Counted:
    return Counted(app_folder, shared_home)


async def check_connections(app: Supervisor, total: int) -> None:
    """Events of the peer's and the operator's, answers, requests: all of it gets through."""
    start = await app.call("counter", "read", None)
    assert start == total
    await app.call("peer", "send", [1])
    await app.emit("counter", "add_too", {"n": 1})

    async def came() -> bool:
        return bool(await app.call("peer", "last", None) == total + 2)

    await until(came)
    assert await app.call("peer", "double", [21]) == "42"


def module(app: Supervisor, name: str = "counter") -> dict[str, Any]:
    found: list[dict[str, Any]] = [m for m in app.status()["modules"] if m["name"] == name]
    return found[0]


async def fails(app: Supervisor, kind: type[BrochError], text: str) -> BrochError:
    """An update that fails: the old counter goes on, with its connections and its count."""
    before, peer = module(app), module(app, "peer")
    total = await app.call("counter", "read", None)
    with pytest.raises(kind, match=text) as caught:
        await app.update("counter")
    assert await app.call("counter", "version", None) == 1
    await check_connections(app, total)
    assert module(app) == before
    assert module(app, "peer") == peer
    assert app.status()["state"] == "running"
    await gone(app, enclaves=2)
    return caught.value


async def gone(app: Supervisor, enclaves: int) -> None:
    """Wait until no more enclaves than these are left; others of the home are in other tests."""
    home = app._home

    async def are_gone() -> bool:
        return len(processes(home, "enclave:")) == enclaves

    await until(are_gone)


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
