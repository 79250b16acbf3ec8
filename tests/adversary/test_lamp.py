"""Button and lamp on lines that belong to the adversary, and agents that load what they like."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from tests.unit.tee.sancus.c_module import needs_compiler

from broch.app.agent_messages import FrameKind
from broch.app.home import Home
from broch.enclave.messages import SEALED, Kind
from broch.errors import PolicyError, UntrustedError, UsageError

from .lamp import Lamp, LampPlan
from .wire import Frame, flip
from .world import Stage, descendants

Change = Callable[[bytes], Iterable[bytes]]


@pytest.fixture(scope="module")
def lamp_stage(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    needs_compiler()
    with Stage(home, tmp_path_factory.mktemp("lamp")) as made:
        yield made


@pytest.fixture(scope="module")
def lamp(lamp_stage: Stage) -> Lamp:
    return Lamp(lamp_stage.begin(LampPlan(name="lamp")))


def event_of(connection: int) -> Callable[[Frame], bool]:
    def is_mine(seen: Frame) -> bool:
        if seen.message[0] != Kind.EVENT or seen.way != "down":
            return False
        return bool(SEALED.unpack_from(seen.message)[1] == connection)

    return is_mine


def bend_next(lamp: Lamp, connection: int, change: Change) -> list[Frame]:
    """Change the next event of a connection; the wire is straight again then."""
    taken: list[Frame] = []
    is_mine = event_of(connection)

    def bend(seen: Frame) -> Iterable[bytes]:
        if taken or not is_mine(seen):
            return [seen.message]
        taken.append(seen)
        return change(seen.message)

    lamp.world.wire.bend = bend
    return taken


CHANGES: dict[str, Change] = {
    "twice": lambda message: [message, message],
    "its ciphertext altered": lambda message: [flip(message, SEALED.size)],
    "its tag altered": lambda message: [flip(message, -1)],
    "its counter raised": lambda message: [flip(message, SEALED.size - 2)],
    "its epoch altered": lambda message: [flip(message, 8)],
    "cut off": lambda message: [message[:-2]],
    "longer": lambda message: [message + b"\0\0"],
    "empty": lambda message: [message[: SEALED.size] + bytes(16)],
    "dropped": lambda message: [],
}


@pytest.mark.parametrize("connection", [1, 2])
@pytest.mark.parametrize("name", CHANGES)
def test_an_event_that_was_tampered_with_lights_nothing(
    lamp: Lamp, name: str, connection: int
) -> None:
    async def attack() -> None:
        taken = bend_next(lamp, connection, CHANGES[name])
        first = await lamp.press()
        if name == "twice":
            await lamp.until(first)
        second = await lamp.press()
        await lamp.until(second)
        assert len(taken) == 1
        if name != "twice":
            assert first not in lamp.seen
        await lamp.check()

    lamp.world.run(attack())


def test_old_events_of_every_connection_light_nothing(lamp: Lamp) -> None:
    async def attack() -> None:
        await lamp.until(await lamp.press())
        old = [s for s in lamp.world.wire.seen if s.message[0] == Kind.EVENT and s.way == "down"]
        assert len(old) >= 2
        for seen in old:
            lamp.world.wire.inject(seen, seen.message)
        await lamp.until(await lamp.press())
        await lamp.check()

    lamp.world.run(attack())


def test_an_event_of_one_connection_is_none_of_another(lamp: Lamp) -> None:
    async def attack() -> None:
        await lamp.until(await lamp.press())
        first = next(s for s in lamp.world.wire.seen if event_of(1)(s))
        second = next(s for s in lamp.world.wire.seen if event_of(2)(s))
        moved = second.message[: SEALED.size] + first.message[SEALED.size :]
        lamp.world.wire.inject(second, moved)
        lamp.world.wire.inject(second, first.message)
        await lamp.until(await lamp.press())
        await lamp.check()

    lamp.world.run(attack())


def test_whoever_tells_of_an_interrupt_has_pressed_nothing(lamp: Lamp) -> None:
    """A host can call the button's interrupt: the button looks at its pin by its own driver."""

    async def attack() -> None:
        handle = lamp.world.handle("button")
        before = list(lamp.seen)
        for message in (bytes([Kind.TICK]) + b"\0\0", bytes([Kind.EVENT]) + bytes(48)):
            lamp.world.wire.tell_enclave("hall", handle, message)
        await lamp.until(await lamp.press())
        assert lamp.seen == [*before, lamp.presses]
        await lamp.check()

    lamp.world.run(attack())


def test_a_lamp_that_is_started_again_takes_nothing_that_was_said_before(stage: Stage) -> None:
    """Reset the lamp, then play back all that was ever said to it: join, keys, events."""
    needs_compiler()
    lamp = Lamp(stage.begin(LampPlan(name="reset", led='restart = "always"')))

    async def attack() -> None:
        wire = lamp.world.wire
        await lamp.until(await lamp.press())
        said = [
            s.inner
            for s in wire.seen
            if s.node == "lamp" and s.way == "down" and s.kind in (Kind.CHALLENGE, Kind.GRANT)
        ]
        events = [s for s in wire.seen if s.node == "lamp" and event_of(2)(s)]
        assert [message[0] for message in said[:2]] == [Kind.CHALLENGE, Kind.GRANT]
        assert events
        for first in (Kind.CHALLENGE, Kind.GRANT):
            assert await lamp.is_lit() == (first == Kind.CHALLENGE)
            wire.tell_enclave("lamp", lamp.world.handle("led"), bytes([Kind.STOP]))
            await lamp.world.next(kind="restart", module="led")
            assert not await lamp.is_lit(), "a reset leaves the lamp dark"
            for message in said[said.index(next(m for m in said if m[0] == first)) :]:
                wire.tell_enclave("lamp", lamp.world.handle("led"), message)
            for seen in events:
                wire.inject(seen, seen.message)
            assert await lamp.world.call("led", "ping") == 7  # all of that was worked off
            assert not await lamp.is_lit()

    lamp.world.run(attack())
    stage.end(lamp.world)


def test_a_module_that_an_agent_altered_is_not_let_in(stage: Stage) -> None:
    """In flight: the ELF file of a load."""
    needs_compiler()

    def bend(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] != FrameKind.COMMAND or b"input set" not in seen.message:
            return [seen.message]
        return [flip(seen.message, seen.message.index(b"input set") + 8)]

    error = stage.refusal(LampPlan(name="altered"), lambda wire: setattr(wire, "bend", bend))
    assert isinstance(error, UntrustedError)
    assert "its deployer did not say so" in error.message


def test_an_agent_has_no_way_to_the_panel(lamp: Lamp) -> None:
    """It holds one channel of packets, that to its machine; the panel's is the supervisor's."""
    agent, machine = (packet_channels(lamp, f"{who}:hall") for who in ("agent", "device"))
    assert len(agent) == 1
    assert len(machine) == 2, "the test sees the panel where it is"


def packet_channels(lamp: Lamp, name: str) -> set[str]:
    """The sockets of a process on which packets come, by inode."""
    (pid,) = (pid for pid, comm in descendants(os.getpid()) if comm == name)
    table = Path("/proc/net/unix").read_text().splitlines()[1:]
    packets = {line.split()[6] for line in table if line.split()[4] == "0005"}
    try:
        links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except PermissionError:
        pytest.skip("only root may look at what an undumpable process holds")
    return {link[8:-1] for link in links if link.startswith("socket:[")} & packets


def test_an_unknown_peripheral_and_an_unowned_pin_are_named(lamp: Lamp) -> None:
    operate = lamp.world.supervisor.operate
    with pytest.raises(PolicyError, match="no driver owns port 3"):
        lamp.world.run(operate("hall", "press", "3.0", None))
    with pytest.raises(UsageError, match=r"unknown peripheral '9\.9'"):
        lamp.world.run(operate("hall", "press", "9.9", None))
    with pytest.raises(UsageError, match="unknown peripheral 'bell'") as caught:
        lamp.world.run(operate("hall", "press", "bell", None))
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("uart; of node hall: button")
    with pytest.raises(UsageError, match="no peripherals"):
        lamp.world.run(operate("edge", "press", "1.0", None))
    with pytest.raises(UsageError, match="no node 'attic'"):
        lamp.world.run(operate("attic", "press", "1.0", None))
