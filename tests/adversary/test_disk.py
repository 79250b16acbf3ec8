"""A disk that keeps every version of every store, and gives back what it likes."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from broch.app import restarts
from broch.app.agent_messages import FrameKind, Load, command, decode_command
from broch.app.module_run import ModuleFailedError
from broch.enclave.messages import CALL, RESULT, Kind, Status

from .wire import Frame, flip
from .world import Plan, Stage, World

TEES = ("sgx", "trustzone", "keystone")


class Disk:
    """The stores of one application's node ``a``."""

    def __init__(self, stage: Stage, app: str) -> None:
        self._folder = stage.home.root / "apps" / app / "stores" / "a"
        self.versions: list[bytes] = []

    @property
    def file(self) -> Path:
        (found,) = self._folder.glob("source*")
        return found

    def keep(self) -> None:
        """Keep what is there now."""
        self.versions.append(self.file.read_bytes())


def fill(stage: Stage, plan: Plan, count: int = 3) -> Disk:
    """A run that writes its store so often; every version is kept."""
    world, disk = stage.begin(plan), Disk(stage, plan.name)

    async def work() -> None:
        for n in range(count):
            assert (await world.call("source", "keep", n))[-1] == n
            disk.keep()

    stage.do(work())
    stage.end(world)
    return disk


def refused(stage: Stage, plan: Plan) -> str:
    """Why the module does not use its store in a new run."""
    world = stage.begin(plan)

    async def work() -> str:
        with pytest.raises(ModuleFailedError) as caught:
            await world.call("source", "kept")
        assert "cannot use its sealed store" in str(caught.value)
        fault = await world.next(kind="fault", module="source")
        await world.marker("twin")
        return str(fault["text"])

    why: str = stage.do(work())
    world.check_promise()
    stage.end(world)
    return why


@pytest.mark.parametrize("tee", TEES)
@pytest.mark.parametrize("version", [0, 1])
def test_a_store_that_is_rolled_back_is_refused(stage: Stage, tee: str, version: int) -> None:
    plan = Plan(name=f"rollback-{tee}-{version}", tee=tee)
    disk = fill(stage, plan)
    disk.file.write_bytes(disk.versions[version])
    assert "rolled back" in refused(stage, plan)


BENT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "its version": (lambda b: flip(b, 7), "altered|rolled back"),
    "a later version": (lambda b: (int.from_bytes(b[:8]) + 1).to_bytes(8) + b[8:], "altered"),
    "its nonce": (lambda b: flip(b, 9), "altered"),
    "its first byte": (lambda b: flip(b, 20), "altered"),
    "its last byte": (lambda b: flip(b, -1), "altered"),
    "cut off": (lambda b: b[:-1], "altered"),
    "cut short": (lambda b: b[:20], "cut off"),
    "longer": (lambda b: b + b"\x00", "altered"),
    "noise": (lambda b: os.urandom(len(b)), "rolled back"),
    "emptied": (lambda b: b"", "offers no store"),
}


@pytest.fixture(scope="module")
def kept(calm_stage: Stage) -> Iterator[World]:
    """An application with a store of several versions, whose modules restart at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restarts, "_LONGEST", 0.01)
        yield calm_stage.begin(Plan(name="kept", source="max_restarts = 1000"))


@pytest.mark.parametrize("how", BENT)
def test_a_bent_store_is_refused_and_the_true_one_still_taken(
    kept: World, calm_stage: Stage, how: str
) -> None:
    """The module is killed, the disk lies, the module says so; then the disk tells the truth."""
    change, why = BENT[how]
    disk = Disk(calm_stage, "kept")

    async def restart() -> None:
        os.kill(int(kept.module("source")["pid"]), signal.SIGKILL)
        await kept.next(kind="restart", module="source")

    async def work() -> None:
        before = await kept.call("source", "keep", 1)
        disk.keep()
        disk.file.write_bytes(change(disk.versions[-1]))
        await restart()
        with pytest.raises(ModuleFailedError, match=why):
            await kept.call("source", "kept")
        await kept.next(kind="restart", module="source")
        disk.file.write_bytes(disk.versions[-1])
        assert await kept.call("source", "kept") == before

    kept.run(work())


@pytest.mark.parametrize("tee", TEES)
def test_a_withheld_store_is_missed(stage: Stage, tee: str) -> None:
    plan = Plan(name=f"withheld-store-{tee}", tee=tee)
    disk = fill(stage, plan)
    disk.file.unlink()
    assert "the host offers no store, the device counts" in refused(stage, plan)


@pytest.mark.parametrize("tee", TEES)
def test_the_store_of_another_is_refused(stage: Stage, tee: str) -> None:
    """Of the module of this name in another application, with as many writes."""
    one, other = Plan(name=f"mine-{tee}", tee=tee), Plan(name=f"theirs-{tee}", tee=tee)
    mine, theirs = fill(stage, one), fill(stage, other)
    mine.file.write_bytes(theirs.versions[-1])
    assert "altered, or is another module's" in refused(stage, one)


def test_two_enclaves_of_one_module_do_not_share_a_store(stage: Stage) -> None:
    """The agent loads the module twice, lets both write, and would choose whose word counts."""
    world = stage.begin(Plan(name="fork"))

    async def second(handle: int) -> None:
        order = next(
            found
            for seen in world.wire.seen
            if seen.message[0] == FrameKind.COMMAND
            and isinstance(found := decode_command(seen.message), Load)
            and found.module == "source"
        )
        again = command(msgspec.structs.replace(order, handle=handle))
        world.wire.inject(Frame("a", "deployer", "deployer", "down", b""), again)
        while not any(f.kind == Kind.READY and f.handle == handle for f in world.wire.seen):
            await world.marker("twin")

    async def keep_there(handle: int, n: int) -> None:
        port = world.supervisor._modules["source"].built.interface.number("keep")
        call = CALL.pack(Kind.CALL, n, port) + msgspec.msgpack.encode({"n": n})
        world.wire.tell_enclave("a", handle, call)
        while not any(f.handle == handle and f.kind == Kind.RESULT for f in world.wire.seen):
            await world.marker("twin")
        answer = world.wire.last(Kind.RESULT, handle=handle).inner
        assert RESULT.unpack_from(answer)[2] == Status.OK

    async def work() -> None:
        await world.call("source", "keep", 1)
        await second(77)
        await keep_there(77, 500)  # has read what the first one wrote
        with pytest.raises(ModuleFailedError, match="another run of this module"):
            await world.call("source", "keep", 2)
        await world.next(kind="restart", module="source")
        # The host let the one that lost overwrite the blob: gone, but nothing old is taken for new.
        with pytest.raises(ModuleFailedError, match="rolled back"):
            await world.call("source", "kept")

    stage.do(work())
    world.check_promise()
    stage.end(world)


def test_what_was_acknowledged_survives_a_crash_in_any_write(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enclave is killed while it writes, again and again."""
    monkeypatch.setattr(restarts, "_LONGEST", 0.01)
    plan = Plan(name="killed-writes", source="max_restarts = 1000")
    world = stage.begin(plan)

    async def work() -> None:
        known: list[int] = []
        for n in range(8):
            pid = int(world.module("source")["pid"])
            pending = world.begin_call("source", "keep", n)
            while not any(f.kind == Kind.CALL and f.node == "a" for f in world.wire.seen):
                await world.marker("twin")
            world.wire.seen.clear()
            for _ in range(n):
                await world.marker("twin")  # a little later each time
            os.kill(pid, signal.SIGKILL)
            try:
                await pending
                known.append(n)
            except ModuleFailedError:
                pass
            await world.next(kind="restart", module="source")
            kept = await world.call("source", "kept")
            assert kept in (known, [*known, n])
            known = kept

    stage.do(work())
    world.check_promise()
    stage.end(world)
