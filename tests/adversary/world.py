"""The application under attack, in real processes, and what the tests look at.

    operator --5--> source --1--> actor --4--> operator
    operator --6--> twin   --2--> actor           source <==3==> actor (a request)

``actor`` is the output device: it reports, sealed to the operator, each number that it acted upon,
and from which input. The promise: these are numbers that the operator fed in, each acted upon at
most once, in their order, and by the way that the descriptor names.
"""

import asyncio
import os
import select
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pytest

from broch.app import leftovers
from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.node_run import NodeRun
from broch.app.supervisor import Supervisor
from broch.enclave.launcher import Launcher
from broch.errors import BrochError
from broch.image import Interface

from .wire import Wire

PATIENCE: Final = 60.0  # seconds until a test that waits in vain fails

_APP: Final = """
[app]
name = "{name}"
[nodes.a]
tee = "{tee}"
device = "emulated"
[nodes.b]
tee = "{tee_b}"
device = "emulated"
[modules.source]
node = "a"
source = "source.py"
{source}
[modules.source.ocalls]
look = "host.py:look"
[modules.twin]
node = "a"
source = "twin.py"
[modules.actor]
node = "b"
source = "actor.py"
{actor}
[[connections]]
from = "source.reading"
to = "actor.act"
[[connections]]
from = "twin.reading"
to = "actor.spare"
[[connections]]
from = "source.ask"
to = "actor.double"
[[connections]]
from = "actor.acted"
to = "operator"
[[connections]]
from = "operator"
to = "source.feed"
[[connections]]
from = "operator"
to = "twin.feed"
[policy]
{policy}
"""
_SOURCE: Final = """
from broch import Module, OcallFailed, RequestFailed, Struct

class Reading(Struct):
    n: int

module = Module("{name}")
reading = module.output("reading", Reading)

@module.input
def feed(r: Reading) -> None:
    reading.emit(r)
"""
_ASK: Final = """
ask = module.request("ask", Reading, Reading)
look = module.ocall("look", int, list[int])

@module.entry
def double(n: int) -> str:
    try:
        return str(ask(Reading(n=n)).n)
    except RequestFailed as exc:
        return f"failed: {exc}"

@module.entry
def sees(n: int) -> str:
    try:
        return str(look(n))
    except OcallFailed as exc:
        return f"failed: {exc}"

@module.entry
def keep(n: int) -> list[int]:
    module.store["kept"] = [*module.store.get("kept", []), n]
    return module.store["kept"]

@module.entry
def kept() -> list[int]:
    return module.store.get("kept", [])
"""
_ACTOR: Final = """
from broch import Module, Struct

class Reading(Struct):
    n: int

class Acted(Struct):
    by: str
    n: int

module = Module("actor")
acted = module.output("acted", Acted)

@module.input
def act(r: Reading) -> None:
    acted.emit(Acted(by="act", n=r.n))

@module.input
def spare(r: Reading) -> None:
    acted.emit(Acted(by="spare", n=r.n))

@module.handler
def double(r: Reading) -> Reading:
    return Reading(n=2 * r.n)

@module.entry
def summary() -> dict[str, int]:
    return {"days": 1}

@module.entry
def ping() -> str:
    return "pong"
"""
_HOST: Final = """
def look(n):
    return [n, n + 1]
"""


@dataclass(slots=True, kw_only=True)
class Plan:
    """What an application is like; the defaults are those of a calm one."""

    name: str
    tee: str = "keystone"
    tee_b: str = "keystone"
    source: str = ""  # more of [modules.source]
    actor: str = ""
    policy: str = "emulated = true"
    source_code: str = ""  # more of source.py
    host: str = _HOST  # the untrusted host's own code

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        text = _APP.format(
            name=self.name,
            tee=self.tee,
            tee_b=self.tee_b,
            source=self.source,
            actor=self.actor,
            policy=self.policy,
        )
        (folder / "app.toml").write_text(text)
        code = _SOURCE.format(name="source") + _ASK + self.source_code
        (folder / "source.py").write_text(code)
        (folder / "twin.py").write_text(_SOURCE.format(name="twin"))
        (folder / "actor.py").write_text(_ACTOR)
        (folder / "host.py").write_text(self.host)
        return folder / "app.toml"


@dataclass(slots=True)
class World:
    """A running application between an honest deployer and a hostile rest."""

    supervisor: Supervisor
    wire: Wire
    journal: "asyncio.Queue[dict[str, Any]]"
    run: Callable[[Awaitable[Any]], Any]  # to completion
    fed: dict[str, list[int]] = field(default_factory=lambda: {"source": [], "twin": []})
    events: list[dict[str, Any]] = field(default_factory=list)  # all of the journal that was read
    _last: int = 0

    async def feed(self, count: int = 1, module: str = "source") -> list[int]:
        """Feed new numbers in; each is fed once in the life of the application."""
        numbers = list(range(self._last + 1, self._last + 1 + count))
        self._last += count
        for n in numbers:
            self.fed[module].append(n)
            await self.supervisor.emit(module, "feed", {"n": n})
        return numbers

    async def next(self, **want: Any) -> dict[str, Any]:
        """The next event of the journal with these fields; ``text`` need only be in its text."""
        text = want.pop("text", "")
        while True:
            event = await self.journal.get()
            self.events.append(event)
            if text in event["text"] and all(event.get(k) == v for k, v in want.items()):
                return event

    @property
    def acted(self) -> list[int]:
        """What the actor acted upon, as far as the journal was read."""
        return [e["value"]["n"] for e in self.events if e["kind"] == "event"]

    async def until_acted(self, n: int) -> list[int]:
        """Read the journal until the actor acted upon ``n``; all that it acted upon."""
        while n not in self.acted:
            await self.next(kind="event")
        return self.acted

    async def marker(self, module: str = "source") -> int:
        """Feed one more number and wait for it: what came before is then through."""
        (n,) = await self.feed(module=module)
        await self.until_acted(n)
        return n

    def connection(self, number: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.supervisor.status()["connections"]
        return found[number - 1]

    def module(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.supervisor.status()["modules"]
        return next(module for module in found if module["name"] == name)

    def handle(self, module: str) -> int:
        return self.supervisor._modules[module].handle

    async def call(self, module: str, entry: str, *arguments: Any) -> Any:
        return await self.supervisor.call(module, entry, list(arguments))

    def begin_call(self, module: str, entry: str, *arguments: Any) -> "asyncio.Task[Any]":
        """Call an entry, and do something else meanwhile."""
        return asyncio.ensure_future(self.call(module, entry, *arguments))

    def check_promise(self) -> None:
        """What was acted upon was fed in, once each, in order (the guarantee, in one place)."""
        for by, module in (("act", "source"), ("spare", "twin")):
            values = [e["value"] for e in self.events if e["kind"] == "event"]
            acted = [value["n"] for value in values if value["by"] == by]
            assert acted == sorted(set(acted)), f"acted twice or out of order: {acted}"
            assert set(acted) <= set(self.fed[module]), f"nobody fed that in: {acted}"


class SharedLauncher:
    """One launcher for many applications, since starting it is most of what a start costs.

    It cannot tell them apart, and does not have to: whatever it forks ends with its node's agent.
    """

    def __init__(self, pycache: Path) -> None:
        self._launcher = Launcher.start(pycache)
        self._interfaces: dict[tuple[tuple[str, bytes], ...], Interface] = {}
        self.runtime = self._launcher.runtime
        self.start_node = self._launcher.start_node
        self.pid = self._launcher._child.pid

    def declare(self, files: Mapping[str, bytes], main: str) -> Interface:
        key = tuple(files.items())
        if key not in self._interfaces:
            self._interfaces[key] = self._launcher.declare(files, main)
        return self._interfaces[key]

    def wait(self) -> Self:
        """As of a launcher that is starting."""
        return self

    def close(self) -> None:
        """An application ends; the launcher stays."""

    def end(self) -> None:
        self._launcher.close()


class Stage:
    """Brings worlds up, on one event loop, in one home; and looks what they leave behind."""

    def __init__(self, home: Home, folder: Path, launcher: SharedLauncher | None = None) -> None:
        self.home = home
        self._launcher = launcher
        self._patch = pytest.MonkeyPatch()
        if launcher is not None:
            self._patch.setattr(leftovers, "end", lambda shared: shared.close())
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self.problems: list[dict[str, Any]] = []  # what would have been a traceback
        self._loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._open: list[World] = []

    @property
    def launcher_pid(self) -> int:
        assert self._launcher is not None
        return int(self._launcher.pid)

    def begin(self, plan: Plan, bend: Callable[[Wire], None] = lambda wire: None) -> World:
        """Bring it up; raises what the user would be told."""
        world: World = self.do(self._begin(plan, bend))
        return world

    async def _begin(self, plan: Plan, bend: Callable[[Wire], None]) -> World:
        wire = Wire()
        bend(wire)
        descriptor = load(plan.write(self.folder / plan.name))
        supervisor = Supervisor(descriptor, self.home)
        world = World(supervisor, wire, supervisor.subscribe(), self.do)
        with pytest.MonkeyPatch.context() as patch:
            honest = NodeRun._first_word

            async def first_word(run: NodeRun) -> Any:
                word = await honest(run)
                if word.error is None:
                    port = await wire.stand_before(run.node.name, word.port)
                    word = msgspec.structs.replace(word, port=port)
                return word

            patch.setattr(NodeRun, "_first_word", first_word)
            if self._launcher is not None:
                patch.setattr(Launcher, "begin", lambda pycache: self._launcher)
            try:
                await supervisor.start()
            except BaseException:
                await self._end(world)
                raise
        self._open.append(world)
        return world

    def refusal(self, plan: Plan, bend: Callable[[Wire], None]) -> BrochError:
        """The error with which the application does not come up; nothing is left of it."""
        with pytest.raises(BrochError) as caught:
            self.begin(plan, bend)
        self.check_clean(plan.name)
        return caught.value

    def do(self, work: Awaitable[Any]) -> Any:
        """Run to completion, within the patience that a test has."""

        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self._loop.run_until_complete(bounded())

    def wait_readable(self, descriptor: int, seconds: float) -> None:
        """Wait for the end of a process, by its pidfd."""
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(seconds * 1000), "a process outlives the application"

    async def stop(self, world: World) -> None:
        """Stop it, and look at nothing."""
        await self._end(world)
        self._open.remove(world)

    def end(self, world: World) -> None:
        """Stop it; nothing is left of it, and nothing was a traceback."""
        self.do(self._end(world))
        self._open.remove(world)
        self.check_clean(world.supervisor.descriptor.app.name)

    async def _end(self, world: World) -> None:
        await world.supervisor.stop()
        await world.wire.close()

    def check_clean(self, app: str) -> None:
        """No process, no socket, no lock; no exception that nobody expected."""
        end = time.monotonic() + PATIENCE
        while (left := self._processes()) and time.monotonic() < end:
            self.do(asyncio.sleep(0.01))
        assert left == []
        assert files_left(self.home, app) == []
        assert not self.problems, self.problems

    def _processes(self) -> list[tuple[int, str]]:
        """Living processes that were started for applications."""
        launcher = self._launcher
        return descendants(os.getpid() if launcher is None else launcher.pid)

    def close(self) -> None:
        for world in list(self._open):
            self.do(self._end(world))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._patch.undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def files_left(home: Home, app: str) -> list[str]:
    """What a run must not leave of its files: socket and lock."""
    folder = home.root / "apps" / app
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [name for name in names if name != "stores"]


def descendants(ancestor: int) -> list[tuple[int, str]]:
    """Living processes below this one, with their names."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            name = stat[stat.index("(") + 1 : stat.rindex(")")]
            state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = (int(parent), name)
    found = []
    for pid, (above, name) in parents.items():
        while above not in (0, 1, ancestor):
            above = parents.get(above, (0, ""))[0]
        if above == ancestor:
            found.append((pid, name))
    return sorted(found)
