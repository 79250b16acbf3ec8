"""State on its way from one enclave to its successor, and put in again."""

from collections.abc import Callable

import pytest

from broch.enclave.messages import Kind

from .wire import flip
from .world import Plan, Stage, World

STATEFUL = """
number = [0]

@module.export_state
def give() -> dict[str, int]:
    return {"number": number[0]}

@module.import_state
def take(state: dict[str, int]) -> None:
    number[0] = state["number"]

@module.entry
def add() -> int:
    number[0] += 1
    return number[0]
"""


async def order(world: World) -> bytes:
    """An IMPORT of what the module held when it was at 1, in good order."""
    run = world.supervisor._modules["source"]
    assert run.admission is not None
    assert await world.call("source", "add") == 1
    state = await run.ask(run.admission.export_to(run.admission), Kind.STATE)
    return run.admission.import_from(run.admission, state[1:])


def test_a_replayed_handover_brings_no_old_state_back(stage: Stage) -> None:
    world = stage.begin(Plan(name="again", source_code=STATEFUL))

    async def work() -> None:
        message = await order(world)
        await world.supervisor._modules["source"].ask(message, Kind.IMPORTED)
        assert await world.call("source", "add") == 2
        world.wire.tell_enclave("a", world.handle("source"), message)
        await world.next(kind="fault", module="source", text="state was taken over already")
        await world.next(kind="restart", module="source")

    stage.do(work())
    stage.end(world)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: flip(m, 1), id="the order"),
        pytest.param(lambda m: flip(m, 66), id="who it is from"),
        pytest.param(lambda m: flip(m, 100), id="the signature of the state"),
        pytest.param(lambda m: flip(m, -1), id="the state"),
    ],
)
def test_an_altered_handover_is_refused(stage: Stage, change: Callable[[bytes], bytes]) -> None:
    world = stage.begin(Plan(name="bent-state", source_code=STATEFUL))

    async def work() -> None:
        message = await order(world)
        world.wire.tell_enclave("a", world.handle("source"), change(message))
        await world.next(kind="fault", module="source")
        await world.next(kind="restart", module="source")
        assert await world.call("source", "add") == 1

    stage.do(work())
    assert any("not signed by" in e["text"] or "not sealed" in e["text"] for e in world.events)
    stage.end(world)


def test_a_handover_that_another_join_was_told_of_is_refused(stage: Stage) -> None:
    """After a restart the enclave has other keys and another nonce: nothing old fits."""
    world = stage.begin(Plan(name="later", source_code=STATEFUL))

    async def work() -> None:
        message = await order(world)
        run = world.supervisor._modules["source"]
        run.node.link.unload(run.handle)
        await world.next(kind="restart", module="source")
        world.wire.tell_enclave("a", world.handle("source"), message)
        await world.next(kind="fault", module="source", text="not signed by the deployer")
        await world.next(kind="restart", module="source")

    stage.do(work())
    stage.end(world)
