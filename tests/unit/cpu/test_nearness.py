"""Where the native engine lets itself and the code run."""

import os
import threading
from collections.abc import Iterator

import pytest

from broch.cpu import native
from broch.cpu.native.engine import NativeEngine
from broch.cpu.native.nearness import STOPS
from broch.cpu.x86_64 import EXECUTE, PAGE, READ, Memory, Region

CODE = 0x1000_0000_0000
ENCLU = b"\x0f\x01\xd7"
SPIN = CODE + len(ENCLU)
EVERYWHERE = os.sched_getaffinity(0)


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(PAGE)
    made.view[:5] = ENCLU + b"\xeb\xfe"  # a stop; then a jump to itself
    yield made
    made.close()


def start(memory: Memory, threads: int) -> NativeEngine:
    if problem := native.missing():
        pytest.skip(problem)
    code = Region(address=CODE, size=PAGE, rights=READ | EXECUTE, memory=memory, offset=0)
    return NativeEngine([code], threads, forbid_tsc=True)


@pytest.fixture
def engine(memory: Memory) -> Iterator[NativeEngine]:
    if len(EVERYWHERE) < 2:
        pytest.skip("there is but one CPU")
    made = start(memory, 1)
    yield made
    made.close()


def talk(engine: NativeEngine, stops: int) -> None:
    for _ in range(stops):
        engine.registers(0).rip = CODE
        engine.resume(0)
        engine.wait()


def cpus(engine: NativeEngine) -> tuple[set[int], set[int]]:
    """Of the tracer, and of what it traces."""
    return os.sched_getaffinity(0), os.sched_getaffinity(engine._ids[0])


def test_who_talks_a_lot_is_kept_near(engine: NativeEngine) -> None:
    talk(engine, STOPS - 1)
    assert cpus(engine) == (EVERYWHERE, EVERYWHERE)
    talk(engine, 1)
    ours, its = cpus(engine)
    assert ours == its
    assert len(its) == 1


def test_who_computes_may_go_anywhere(engine: NativeEngine) -> None:
    talk(engine, STOPS)
    traced = engine._ids[0]

    def wake_when_apart() -> None:
        while os.sched_getaffinity(traced) != EVERYWHERE:
            pass
        engine.wake()

    engine.registers(0).rip = SPIN
    engine.resume(0)
    watcher = threading.Thread(target=wake_when_apart)
    watcher.start()
    assert engine.wait() is None
    watcher.join()
    assert cpus(engine) == (EVERYWHERE, EVERYWHERE)


def test_our_thread_may_go_anywhere_when_it_is_over(engine: NativeEngine) -> None:
    talk(engine, STOPS)
    engine.close()
    assert os.sched_getaffinity(0) == EVERYWHERE


def test_many_threads_are_left_to_the_kernel(memory: Memory) -> None:
    engine = start(memory, 2)
    try:
        talk(engine, 2 * STOPS)
        assert cpus(engine) == (EVERYWHERE, EVERYWHERE)
    finally:
        engine.close()
