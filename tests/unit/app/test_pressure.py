"""Too much, too large, too slow, too circular: nothing is lost, nothing stands still for ever."""

from pathlib import Path

import pytest

from broch.app.home import Home
from broch.app.supervisor import Supervisor

from .apps import run_app, until

APP = """
[app]
name = "{name}"
[nodes.one]
tee = "keystone"
device = "emulated"
[nodes.two]
tee = "keystone"
device = "emulated"
[modules.a]
node = "one"
source = "a.py"
limits = {{seconds = {seconds}}}
[modules.b]
node = "{other}"
source = "b.py"
limits = {{seconds = {seconds}}}
[[connections]]
from = "a.out"
to = "b.into"
[[connections]]
from = "b.out"
to = "a.into"
[[connections]]
from = "a.ask"
to = "b.answer"
[[connections]]
from = "b.ask"
to = "a.answer"
[policy]
emulated = true
"""

CODE = """
import time
from broch import Module, RequestFailed, Struct

class Value(Struct):
    data: bytes
    slow: bool = False
    ask: bool = False

class Question(Struct):
    depth: int

module = Module("x")
out = module.output("out", Value)
ask = module.request("ask", Question, str)
seen = [0, 0]

@module.input
def into(value: Value) -> None:
    if value.slow:
        time.sleep(0.0005)
    if value.ask:
        assert ask(Question(depth=0)) == "end"
    seen[0] += 1
    seen[1] += len(value.data)

@module.handler
def answer(question: Question) -> str:
    if question.depth == 0:
        return "end"
    try:
        return ask(Question(depth=question.depth - 1))
    except RequestFailed as exc:
        return f"failed: {exc}"

@module.entry
def emit(count: int, size: int, slow: bool, ask: bool) -> None:
    for _ in range(count):
        out.emit(Value(data=bytes(size), slow=slow, ask=ask))

@module.entry
def asking(depth: int) -> str:
    try:
        return ask(Question(depth=depth))
    except RequestFailed as exc:
        return f"failed: {exc}"

@module.entry
def count() -> list[int]:
    return seen

@module.entry
def shout(lines: int) -> None:
    for _ in range(lines):
        print("x" * 500)
"""


def app(folder: Path, name: str, *, other: str = "two", seconds: float = 30) -> Path:
    folder.mkdir()
    (folder / "app.toml").write_text(APP.format(name=name, other=other, seconds=seconds))
    (folder / "a.py").write_text(CODE)
    (folder / "b.py").write_text(CODE)
    return folder / "app.toml"


async def all_came(app: Supervisor, module: str, count: int) -> None:
    async def there() -> bool:
        return int((await app.call(module, "count", None))[0]) >= count

    await until(there)
    await app.refresh()
    assert [c["gaps"] for c in app.status()["connections"]] == [0] * 4
    assert [c["refused"] for c in app.status()["connections"]] == [0] * 4
    assert [m["restarts"] for m in app.status()["modules"]] == [0, 0]


@pytest.mark.parametrize("other", ["one", "two"])
def test_a_slow_receiver_holds_the_sender_back(
    shared_home: Home, app_folder: Path, other: str
) -> None:
    path = app(app_folder, "slow", other=other)

    async def work(app: Supervisor) -> None:
        await app.call("a", "emit", [2500, 10, True, False])
        await all_came(app, "b", 2500)

    run_app(path, shared_home, work)


def test_a_receiver_that_asks_back_for_each_event(shared_home: Home, app_folder: Path) -> None:
    path = app(app_folder, "askback")

    async def work(app: Supervisor) -> None:
        await app.call("a", "emit", [1000, 10, False, True])
        await all_came(app, "b", 1000)

    run_app(path, shared_home, work)


def test_large_events(shared_home: Home, app_folder: Path) -> None:
    path = app(app_folder, "large")

    async def work(app: Supervisor) -> None:
        await app.call("a", "emit", [50, 200_000, False, False])
        await all_came(app, "b", 50)
        assert (await app.call("b", "count", None))[1] == 50 * 200_000

    run_app(path, shared_home, work)


def test_requests_may_go_in_depth_but_not_in_a_circle(shared_home: Home, app_folder: Path) -> None:
    path = app(app_folder, "circle", seconds=0.5)

    async def work(app: Supervisor) -> None:
        assert await app.call("a", "asking", [0]) == "end"
        assert "it took too long" in await app.call("a", "asking", [1])
        assert await app.call("a", "asking", [0]) == "end"
        assert await app.call("b", "asking", [0]) == "end"
        assert [m["restarts"] for m in app.status()["modules"]] == [0, 0]

    run_app(path, shared_home, work)


def test_a_module_that_shouts(shared_home: Home, app_folder: Path) -> None:
    path = app(app_folder, "shout")

    async def work(app: Supervisor) -> None:
        queue = app.subscribe()
        await app.call("a", "shout", [20_000])
        assert queue.full(), "a listener that is far behind loses the oldest lines"
        assert await app.call("b", "asking", [0]) == "end"

    run_app(path, shared_home, work)
