"""Everything that can die, dies, at every step: nothing is left, and a restart works."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from broch.app.agent_messages import FrameKind
from broch.app.home import Home
from broch.app.supervisor import Reason
from broch.enclave.messages import SEALED, Kind
from broch.errors import InternalError

from .wire import Frame, Wire
from .world import PATIENCE, Plan, Stage, World, descendants

NODE = ("agent:a", "device:a", "broch-zygote")  # whoever of them dies, the node is gone
STEPS = {
    "an image is sent": (FrameKind.COMMAND, "down"),
    "a module is loaded": (Kind.READY, "up"),
    "a challenge is sent": (Kind.CHALLENGE, "down"),
    "evidence comes": (Kind.EVIDENCE, "up"),
    "a grant is sent": (Kind.GRANT, "down"),
    "a grant is confirmed": (Kind.CONFIRM, "up"),
}

REST = [step for step in STEPS if step not in ("a module is loaded", "a grant is sent")]


def kill(stage: Stage, name: str) -> None:
    """Kill one process of this name, node ``a``'s where there is one of each node."""
    found = descendants(stage.launcher_pid)
    pids = [pid for pid, called in found if called == name]
    assert pids, f"there is no {name}: {found}"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGKILL)


@pytest.mark.parametrize(
    "step",
    [
        "a module is loaded",
        "a grant is sent",
        *(pytest.param(step, marks=pytest.mark.slow) for step in REST),
    ],
)
@pytest.mark.parametrize("victim", [*NODE, "enclave:source"])
def test_a_death_while_it_starts_ends_the_start_and_leaves_nothing(
    stage: Stage, victim: str, step: str
) -> None:
    kind, way = STEPS[step]
    done: list[str] = []

    def bend(seen: Frame) -> Iterable[bytes]:
        alive = any(name == victim for _, name in descendants(stage.launcher_pid))
        if not done and alive and seen.kind == kind and seen.way == way and seen.node == "a":
            done.append(victim)
            kill(stage, victim)
        return [seen.message]

    def set_up(wire: Wire) -> None:
        wire.bend = bend

    plan = Plan(name="dies")
    try:
        stage.end(stage.begin(plan, set_up))  # the victim's part was over, or it joined again
        why = "gone"
    except InternalError as error:
        why = error.message
        stage.check_clean(plan.name)
    assert done
    assert "gone" in why or "was killed" in why
    world = stage.begin(plan)
    stage.do(world.marker())
    world.check_promise()
    stage.end(world)


@pytest.mark.parametrize("victim", NODE)
def test_a_death_while_events_flow_ends_the_run_and_leaves_nothing(
    stage: Stage, victim: str
) -> None:
    plan = Plan(name="flow")
    world = stage.begin(plan)

    async def work() -> None:
        running = asyncio.ensure_future(world.supervisor.run())
        await world.feed(200)
        kill(stage, victim)
        ending = await running
        assert ending.reason is Reason.FAILED
        assert ending.error is not None
        assert "is gone: its agent or its device ended" in ending.error.message
        assert ending.error.exit_code == 1

    stage.do(work())
    world.check_promise()
    stage.end(world)
    world = stage.begin(plan)
    stage.do(world.marker())
    stage.end(world)


@pytest.mark.parametrize("module", ["source", "actor"])
def test_an_enclave_that_dies_while_events_flow_joins_anew(stage: Stage, module: str) -> None:
    """No event is acted upon twice, and no key is used again: each epoch is above the last."""
    world = stage.begin(Plan(name=f"dies-{module}"))

    async def work() -> None:
        for _ in range(3):
            await world.feed(100)
            os.kill(int(world.module(module)["pid"]), signal.SIGKILL)
            await world.next(kind="fault", module=module, text="was killed")
            await world.next(kind="restart", module=module)
            await world.marker()

    stage.do(work())
    world.check_promise()
    assert world.connection(1)["epoch"] == 4
    heads = [
        SEALED.unpack_from(seen.message)[1:]
        for seen in world.wire.seen
        if seen.message[0] == Kind.EVENT and seen.role == "forward"
    ]
    assert len(heads) == len(set(heads)), "a counter was used twice under one epoch"
    stage.end(world)


@pytest.fixture
def alone(home: Home, tmp_path: Path) -> Iterator[Stage]:
    """Applications with a launcher of their own."""
    with Stage(home, tmp_path) as made:
        yield made


def test_the_launcher_takes_all_with_it(alone: Stage) -> None:
    world: World = alone.begin(Plan(name="launcher"))

    async def work() -> None:
        running = asyncio.ensure_future(world.supervisor.run())
        await world.feed(50)
        launcher = world.supervisor._launcher
        assert launcher is not None
        os.kill(launcher._child.pid, signal.SIGKILL)
        ending = await running
        assert ending.reason is Reason.FAILED

    alone.do(work())
    world.check_promise()
    alone.do(alone.stop(world))


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.supervisor import Supervisor

async def main():
    supervisor = Supervisor(load(Path(sys.argv[1])), Home(Path(sys.argv[2])))
    await supervisor.start()
    print(supervisor._launcher._child.pid, flush=True)
    await supervisor.run()

asyncio.run(main())
"""


def test_a_supervisor_that_is_killed_leaves_no_process_and_no_lock(stage: Stage) -> None:
    """Its socket stays as a file, which nobody answers, until the next start takes its place."""
    plan = Plan(name="orphans")
    path = plan.write(stage.folder / plan.name)
    command = [sys.executable, "-c", SUPERVISOR, str(path), str(stage.home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        launcher = int(child.stdout.readline())
        pids = [pid for pid, _ in descendants(launcher)]
        assert len(pids) > 6
        ends = [os.pidfd_open(pid) for pid in (launcher, *pids)]
        child.kill()
    for end in ends:
        stage.wait_readable(end, PATIENCE)
        os.close(end)
    assert not stage.home.app(plan.name).is_running()
    world = stage.begin(plan)
    stage.do(world.marker())
    stage.end(world)
