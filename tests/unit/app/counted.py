"""An application with a counter that is updated: its code in versions, and what must hold."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broch.app.home import Home
from broch.app.supervisor import Supervisor
from broch.errors import BrochError

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
