"""Small applications in real processes, for tests."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.supervisor import Supervisor

APP = """
[app]
name = "{name}"
[nodes.cloud]
tee = "{cloud}"
device = "emulated"
[nodes.field]
tee = "keystone"
device = "emulated"
[modules.source]
node = "cloud"
source = "source.py"
{source}
[modules.source.ocalls]
read = "host.py:read"
[modules.sink]
node = "field"
source = "sink.py"
{sink}
[[connections]]
from = "source.reading"
to = "sink.reading"
[[connections]]
from = "source.ask"
to = "sink.double"
[[connections]]
from = "sink.total"
to = "operator"
[[connections]]
from = "operator"
to = "source.go"
[policy]
emulated = true
[run]
until = "sink.total"
[report]
summary = "sink.summary"
[[report.charts]]
title = "Totals"
from = "sink.total"
x = "n"
y = ["square"]
unit = "points"
"""

SOURCE = """
from broch import Module, OcallFailed, RequestFailed, Struct

class Reading(Struct):
    n: int

class Ask(Struct):
    n: int

module = Module("source")
reading = module.output("reading", Reading)
ask = module.request("ask", Ask, int)
read = module.ocall("read", int, str)

@module.input
def go(order: Reading) -> None:
    for n in range(order.n):
        reading.emit(Reading(n=n))

@module.entry
def double(n: int) -> int:
    return ask(Ask(n=n))

@module.entry
def try_double(n: int) -> str:
    try:
        return str(ask(Ask(n=n)))
    except RequestFailed as exc:
        return f"failed: {exc}"

@module.entry
def host(n: int) -> str:
    try:
        return read(n)
    except OcallFailed as exc:
        return f"failed: {exc}"

@module.entry
def emit(n: int) -> None:
    for i in range(n):
        reading.emit(Reading(n=i))

@module.entry
def say(text: str) -> None:
    print(text)

@module.entry
def crash() -> None:
    raise ValueError("a secret")

@module.entry
def spin() -> None:
    while True:
        pass

@module.entry
def eat() -> None:
    hoard = []
    while True:
        hoard.append(bytes(1 << 20))
"""

SINK = """
from broch import Module, Refused, Struct

class Reading(Struct):
    n: int

class Ask(Struct):
    n: int

class Total(Struct):
    n: int
    square: int

module = Module("sink")
total = module.output("total", Total)
seen = [0]
ticks = [0]

@module.input
def reading(r: Reading) -> None:
    seen[0] += 1

@module.handler
def double(a: Ask) -> int:
    if a.n < 0:
        raise Refused("negative")
    if a.n == 666:
        raise ValueError
    return 2 * a.n

@module.every(0.005)
def tick() -> None:
    ticks[0] += 1

@module.entry
def summary() -> dict[str, int]:
    return {"seen": seen[0]}

@module.entry
def ticked() -> int:
    return ticks[0]

@module.entry
def keep(key: str, value: int) -> int:
    module.store[key] = value
    return len(module.store)

@module.entry
def kept(key: str) -> int:
    if key not in module.store:
        raise Refused(f"{key} was not kept")
    return module.store[key]

@module.entry
def finish(n: int) -> None:
    total.emit(Total(n=n, square=n * n))
"""

HOST = """
import os

def read(n):
    if n == 13:
        raise RuntimeError("not for the module")
    if n == 14:
        try:
            return open(os.environ["TEST_SECRET"], "rb").read().hex()
        except OSError as exc:
            return type(exc).__name__
    return f"read {n}"
"""


def write_app(
    folder: Path,
    name: str,
    *,
    cloud: str = "keystone",
    source: str = "",
    sink: str = "",
    source_code: str = SOURCE,
    sink_code: str = SINK,
    change: Callable[[str], str] = lambda text: text,
) -> Path:
    """Write an application; the path of its descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    text = APP.format(name=name, cloud=cloud, source=source, sink=sink)
    (folder / "app.toml").write_text(change(text))
    (folder / "source.py").write_text(source_code)
    (folder / "sink.py").write_text(sink_code)
    (folder / "host.py").write_text(HOST)
    return folder / "app.toml"


def run_app(
    path: Path,
    home: Home,
    work: Callable[[Supervisor], Awaitable[None]],
    hardware: Path = Path("/"),
) -> Supervisor:
    """Bring an application up, do ``work`` with it, and end it."""

    async def main() -> Supervisor:
        supervisor = Supervisor(load(path), home, hardware=hardware)
        await supervisor.start()
        try:
            async with asyncio.timeout(60):
                await work(supervisor)
        finally:
            await supervisor.stop()
        return supervisor

    return asyncio.run(main())


def processes(home: Home, name: str = "") -> list[int]:
    """Living processes of applications of this home, by the beginning of their names."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                called = (folder / "comm").read_text()
            except OSError:
                continue
            is_ours = f"pycache_prefix={home.root}".encode() in command
            if is_ours and called.startswith(name):
                found.append(int(folder.name))
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again; whoever calls this sets the time limit."""
    while not await condition():
        await asyncio.sleep(0.01)
