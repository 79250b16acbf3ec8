"""The sealed store against a host that keeps every blob, offers any of them, and runs it twice.

Runs of a module take their steps one at a time, in any order, and end between any two. What the
module saw or was told is safe stays so: a run that reads without an error reads what was last
read or acknowledged, or a write that was attempted right after that and cut off.
"""

import random
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broch import StoreError
from broch.enclave.sealed import SealedStore

KEY: Final = bytes(range(32))
SCHEDULES: Final = 800
STEPS: Final = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 20, 20, 20])
PLAIN: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


class Device:
    """Counters, a key, and the host's blobs."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.blobs: list[bytes] = []

    def seal_key(self, label: bytes) -> bytes:
        return KEY

    def counter(self, name: str) -> int:
        return self.counters.get(name, 0)

    def increment(self, name: str) -> int:
        self.counters[name] = self.counter(name) + 1
        return self.counters[name]


def session(device: Device, offered: bytes) -> SealedStore:
    return SealedStore(device, lambda: offered, device.blobs.append)


@settings(derandomize=True, max_examples=50)
@given(items=st.dictionaries(st.text(max_size=8), PLAIN, max_size=4))
def test_round_trip(items: dict[str, Any]) -> None:
    device = Device()
    session(device, b"").write(items)
    assert session(device, device.blobs[-1]).read() == items


def test_every_bit_of_a_blob_counts() -> None:
    device = Device()
    session(device, b"").write({"litres": 12})
    blob = device.blobs[-1]
    for bit in range(len(blob) * 8):
        altered = bytearray(blob)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError):
            session(device, bytes(altered)).read()
    assert session(device, blob).read() == {"litres": 12}


def test_every_truncation_is_refused() -> None:
    device = Device()
    session(device, b"").write({"litres": 12})
    blob = device.blobs[-1]
    for size in range(len(blob)):
        with pytest.raises(StoreError):
            session(device, blob[:size]).read()


@settings(derandomize=True)
@given(counter=st.integers(0, 3), rest=st.binary(max_size=80), version=st.integers(0, 4))
def test_anything_at_all_is_refused(counter: int, version: int, rest: bytes) -> None:
    device = Device()
    device.counters["store"] = counter
    with pytest.raises(StoreError):
        session(device, struct.pack(">Q", version) + rest).read()


class KilledError(BaseException):
    """The run ended here."""


class Run:
    """One run of the module, in a thread that moves only when it is told to."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._go = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._is_killed = False
        self._result: dict[str, Any] | None = None
        self._error: Exception | None = None
        self._done: Callable[[dict[str, Any] | None], None] | None = None
        self._has_finished = False
        self.back = 0  # which blob the host gives: the last, or so many before it
        self.base = -1  # the observation that it builds on; -1: it has not read
        self.is_dead = False
        self.store = SealedStore(self, self._load, self._save)

    @property
    def is_idle(self) -> bool:
        return not self.is_dead and self._done is None

    # What the store sees: each of these is one step.

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self._is_killed:
            raise KilledError

    def seal_key(self, label: bytes) -> bytes:
        return KEY

    def counter(self, name: str) -> int:
        self._pause()
        return self._world.device.counter(name)

    def increment(self, name: str) -> int:
        self._pause()
        return self._world.device.increment(name)

    def _save(self, blob: bytes) -> None:
        self._pause()
        self._world.device.blobs.append(blob)

    def _load(self) -> bytes:
        self._pause()
        blobs = self._world.device.blobs
        return blobs[-1 - self.back] if self.back < len(blobs) else b""

    # What the scheduler does.

    def begin(
        self,
        work: Callable[[], dict[str, Any] | None],
        done: Callable[[dict[str, Any] | None], None],
    ) -> None:
        """Start an operation, up to its first step."""
        self._done, self._has_finished = done, False

        def body() -> None:
            try:
                self._result = work()
            except StoreError as exc:
                self._error = exc
            except KilledError:
                pass
            self._has_finished = True
            self._paused.release()

        self._thread = threading.Thread(target=body)
        self._thread.start()
        self._paused.acquire()
        self._settle()

    def advance(self, steps: int) -> None:
        """So many steps, or fewer if the operation ends before."""
        for _ in range(steps):
            if self._done is None:
                return
            self._go.release()
            self._paused.acquire()
            self._settle()

    def kill(self) -> None:
        self._is_killed = True
        if self._done is not None:
            self._go.release()
            self._paused.acquire()
            self._thread.join()
        self._done = None
        self.is_dead = True

    def _settle(self) -> None:
        if not self._has_finished:
            return
        self._thread.join()
        done, self._done = self._done, None
        if self._error is not None:
            self.is_dead = True
        elif done is not None:
            done(self._result)


class World(RuleBasedStateMachine):
    """The host, and what the module may believe."""

    reads = 0  # of something, over all examples: or the rules below prove nothing

    def __init__(self) -> None:
        super().__init__()
        self.device = Device()
        self.runs: list[Run] = []
        self.current: dict[str, Any] = {}  # what was last read or acknowledged
        self.observations = 0
        self.attempts: list[tuple[int, dict[str, Any]]] = []  # (built on, value)
        self.numbers = 0

    def observed(self, run: Run, value: dict[str, Any]) -> None:
        self.current = value
        self.observations += 1
        run.base = self.observations

    @property
    def idle(self) -> list[Run]:
        return [run for run in self.runs if run.is_idle]

    @property
    def busy(self) -> list[Run]:
        return [run for run in self.runs if not run.is_dead and not run.is_idle]

    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 3, 5]))
    def restart(self, back: int) -> None:
        """All runs end, wherever they are; another one reads."""
        self.teardown()
        self.start(back, 20)

    @precondition(lambda self: len(self.idle + self.busy) < 3)
    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 3]), steps=STEPS)
    def start(self, back: int, steps: int) -> None:
        """One more run begins to read."""
        run = Run(self)
        run.back = back
        self.runs.append(run)

        def done(value: dict[str, Any] | None) -> None:
            assert value is not None
            possible = [w for base, w in self.attempts if base == self.observations]
            assert value in (self.current, *possible)
            if value:
                World.reads += 1
                self.observed(run, value)
            else:
                run.base = self.observations

        run.begin(run.store.read, done)
        run.advance(steps)

    @precondition(lambda self: self.idle)
    @rule(index=st.integers(0, 2), steps=STEPS)
    def write(self, index: int, steps: int) -> None:
        run = self.idle[index % len(self.idle)]
        self.numbers += 1
        value = {"n": self.numbers}
        self.attempts.append((run.base, value))
        run.begin(lambda: run.store.write(value), lambda _: self.observed(run, value))
        run.advance(steps)

    @precondition(lambda self: self.idle)
    @rule(index=st.integers(0, 2), steps=STEPS)
    def write_again(self, index: int, steps: int) -> None:
        self.write(index, steps)

    @precondition(lambda self: self.busy)
    @rule(index=st.integers(0, 2), steps=STEPS)
    def advance(self, index: int, steps: int) -> None:
        self.busy[index % len(self.busy)].advance(steps)

    def teardown(self) -> None:
        for run in self.runs:
            if not run.is_dead:
                run.kill()


def test_what_was_read_or_acknowledged_stays() -> None:
    World.reads = 0
    run_state_machine_as_test(
        World,
        settings=settings(derandomize=True, max_examples=60, stateful_step_count=30, deadline=None),
    )
    assert World.reads > 50, "the property was vacuous"


def act(world: World, chance: random.Random) -> None:
    """One of the rules, at random: many more of them in the same time than hypothesis tries."""
    index, back = chance.randrange(3), chance.choice((0, 0, 0, 1, 1, 2, 3))
    steps = chance.choice((0, 1, 2, 3, 4, 5, 20, 20))
    kind = chance.random()
    if kind < 0.2 or not world.runs:
        world.restart(back)
    elif kind < 0.35 and len(world.idle + world.busy) < 3:
        world.start(back, steps)
    elif kind < 0.7 and world.idle:
        world.write(index, steps)
    elif world.busy:
        world.advance(index, steps)


def test_it_stays_whatever_the_order_of_steps() -> None:
    World.reads = 0
    for seed in range(SCHEDULES):
        world, chance = World(), random.Random(seed)
        try:
            for _ in range(14):
                act(world, chance)
        finally:
            world.teardown()
    assert World.reads > SCHEDULES, "the property was vacuous"
