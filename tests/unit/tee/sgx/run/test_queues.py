"""Asynchronous usercalls: the queues by themselves, and an enclave that uses them."""

import os
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.tee.sgx.run import abi
from broch.tee.sgx.run.abi import Number, Result
from broch.tee.sgx.run.ends import EnclaveFaultError, EnclavePanickedError
from broch.tee.sgx.run.queues import Fifo
from broch.tee.sgx.run.user_memory import UserMemory
from broch.tee.sgx.run.usercalls import Call, Usercalls
from broch.tee.sgx.run.waiting import Answer, Blocking

from .conftest import Start
from .test_usercalls import Bench, pipe

LENGTH = 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=60))
def test_a_queue_is_one(pushes: list[bool]) -> None:
    memory = UserMemory(1 << 16)
    queue = Fifo(memory, LENGTH, 8)
    model: list[tuple[int, bytes]] = []
    for number, is_push in enumerate(pushes, 1):
        if is_push:
            was_empty = queue.push(number, number.to_bytes(8, "little"))
            assert was_empty == (None if len(model) == LENGTH else not model)
            if len(model) < LENGTH:
                model.append((number, number.to_bytes(8, "little")))
        else:
            popped = queue.pop()
            was_full = len(model) == LENGTH
            assert popped == ((*model.pop(0), was_full) if model else None)
    del queue
    memory.close()


@pytest.mark.parametrize(
    ("read", "write"), [(0, 5), (8, 0), (0, 8), (2**32 - 1, 0), (0, 2**31), (7, 6)]
)
def test_offsets_that_no_queue_has(read: int, write: int) -> None:
    memory = UserMemory(1 << 16)
    queue = Fifo(memory, LENGTH, 8)
    offsets = struct.unpack("<QQQ", queue.descriptor)[2]
    memory.write(offsets, struct.pack("<II", read, write))
    with pytest.raises(EnclaveFaultError, match="impossible"):
        queue.pop()
    with pytest.raises(EnclaveFaultError, match="impossible"):
        queue.push(1, bytes(8))


def test_an_element_that_is_announced_and_not_yet_written_waits() -> None:
    memory = UserMemory(1 << 16)
    queue = Fifo(memory, LENGTH, 8)
    data, _, offsets = struct.unpack("<QQQ", queue.descriptor)
    memory.write(offsets, struct.pack("<II", 0, 1))
    assert queue.pop() is None
    memory.write(data + 16, struct.pack("<QQ", 9, 7))
    assert queue.pop() == (9, struct.pack("<Q", 7), False)


class Watched(Usercalls):
    """``flush(1)`` lets the test submit and look, in the middle of the enclave's script."""

    def __init__(self, *, stdin: int = 0, stdout: int = 1) -> None:
        super().__init__(stdin=stdin, stdout=stdout)
        self.steps: list[object] = []

    def flush(self, call: Call) -> Answer:
        step = self.steps.pop(0)
        assert callable(step)
        step()
        return 0, 0


class Client:
    """The enclave's side of the queues, played by the test through shared memory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.places = [bench.put(bytes(24)) for _ in range(3)]

    def descriptor(self, index: int) -> tuple[int, int, int]:
        data, length, offsets = struct.unpack(
            "<QQQ", self.bench.memory.read(self.places[index], 24)
        )
        return data, length, offsets

    def push(self, index: int, ident: int, content: bytes) -> None:
        data, length, offsets = self.descriptor(index)
        memory = self.bench.memory
        read, write = struct.unpack("<II", memory.read(offsets, 8))
        assert read ^ write != length, "full"
        write = write + 1 & 2 * length - 1
        element = struct.pack("<Q", ident) + content
        memory.write(data + write % length * len(element), element)
        memory.write(offsets + 4, struct.pack("<I", write))

    def submit(self, ident: int, *registers: int) -> object:
        self.push(0, ident, struct.pack("<5Q", *registers, *[0] * (5 - len(registers))))

        return None

    def cancel(self, ident: int) -> object:
        self.push(2, ident, b"")
        return None

    def returned(self) -> dict[int, tuple[int, int]]:
        data, length, offsets = self.descriptor(1)
        memory = self.bench.memory
        found = {}
        read, write = struct.unpack("<II", memory.read(offsets, 8))
        while read != write:
            read = read + 1 & 2 * length - 1
            ident, first, second = struct.unpack("<QQQ", memory.read(data + read % length * 24, 24))
            found[ident] = (first, second)
        memory.write(offsets, struct.pack("<I", read))
        return found


FLUSH = (Number.FLUSH, abi.STDOUT)


def test_calls_through_queues(start: Start, scripted: bytes, engine: str) -> None:
    with pipe() as (stdin, to), pipe() as (out, stdout):
        host = Watched(stdin=stdin, stdout=stdout)
        bench = Bench(start(scripted, engine, host))
        client = Client(bench)
        place = bench.put(b"async".ljust(16))
        seen: list[dict[int, tuple[int, int]]] = []

        def submit() -> None:
            client.submit(1, Number.WRITE, abi.STDOUT, place, 5)
            client.submit(2, Number.READ, abi.STDIN, place, 16)  # there is nothing yet
            client.submit(3, Number.WAIT, abi.EV_UNPARK, 0)  # only threads can
            client.submit(4, Number.ALLOC, 8, 8)

        def look() -> None:
            seen.append(client.returned())
            os.write(to, b"late")

        host.steps = [submit, look, lambda: seen.append(client.returned())]
        found = bench.run(
            (Number.ASYNC_QUEUES, *client.places),
            FLUSH,
            (Number.WAIT, abi.EV_RETURNQ_NOT_EMPTY, abi.WAIT_INDEFINITE),
            FLUSH,
            (Number.WAIT, abi.EV_RETURNQ_NOT_EMPTY, abi.WAIT_INDEFINITE),
            FLUSH,
        )
        assert found[0] == (0, 0)
        assert found[2] == found[4] == (0, abi.EV_RETURNQ_NOT_EMPTY)
        assert os.read(out, 16) == b"async"
        assert set(seen[0]) == {1, 3, 4}
        assert seen[0][1] == (0, 5)
        assert seen[0][3] == (Result.INVALID_INPUT, 0)
        assert seen[1] == {2: (0, 4)}
        assert bench.memory.read(place, 4) == b"late"
        lengths = [client.descriptor(index)[1] for index in range(3)]
        assert lengths == [16, 1024, 32]


def test_a_call_that_waits_can_be_cancelled(start: Start, scripted: bytes, engine: str) -> None:
    with pipe() as (stdin, _):
        host = Watched(stdin=stdin)
        bench = Bench(start(scripted, engine, host))
        client = Client(bench)
        place = bench.put(bytes(16))
        host.steps = [
            lambda: client.submit(7, Number.READ, abi.STDIN, place, 16),
            lambda: (client.cancel(7), client.cancel(8)),
        ]
        found = bench.run(
            (Number.ASYNC_QUEUES, *client.places),
            FLUSH,
            FLUSH,
            (Number.WAIT, abi.EV_RETURNQ_NOT_EMPTY, abi.WAIT_INDEFINITE),
        )
        assert found[3] == (0, abi.EV_RETURNQ_NOT_EMPTY)
        assert client.returned() == {7: (Result.INTERRUPTED, 0)}


def test_a_queue_that_was_full_has_room_again(start: Start, scripted: bytes, engine: str) -> None:
    host = Watched()
    bench = Bench(start(scripted, engine, host))
    client = Client(bench)
    host.steps = [
        lambda: [client.submit(ident, Number.INSECURE_TIME) for ident in range(1, 17)],
        lambda: None,
    ]
    found = bench.run(
        (Number.ASYNC_QUEUES, *client.places),
        FLUSH,
        (Number.WAIT, abi.EV_USERCALLQ_NOT_FULL, abi.WAIT_INDEFINITE),
    )
    assert found[2] == (0, abi.EV_USERCALLQ_NOT_FULL)
    assert set(client.returned()) == set(range(1, 17))


def test_returns_wait_for_room(start: Start, scripted: bytes, engine: str) -> None:
    host = Watched()
    bench = Bench(start(scripted, engine, host))
    client = Client(bench)
    seen: list[int] = []

    def fill(base: int) -> None:
        for ident in range(base, base + 16):
            client.submit(ident, Number.INSECURE_TIME)

    rounds = 1024 // 16 + 1
    host.steps = [
        *(lambda base=n * 16 + 1: fill(base) for n in range(rounds)),
        lambda: seen.append(len(client.returned())),
        lambda: seen.append(len(client.returned())),
    ]
    bench.run((Number.ASYNC_QUEUES, *client.places), *[FLUSH] * (rounds + 2))
    assert seen == [1024, 16]


def test_the_queues_are_asked_for_once(bench_of_watched: Bench) -> None:
    client = Client(bench_of_watched)
    with pytest.raises(EnclavePanickedError):
        bench_of_watched.run(
            (Number.ASYNC_QUEUES, *client.places), (Number.ASYNC_QUEUES, *client.places)
        )


def test_the_queue_of_cancels_is_optional(bench_of_watched: Bench) -> None:
    client = Client(bench_of_watched)
    found = bench_of_watched.run((Number.ASYNC_QUEUES, *client.places[:2], 0))
    assert found == [(0, 0)]
    assert bench_of_watched.memory.read(client.places[2], 24) == bytes(24)


@pytest.fixture
def bench_of_watched(start: Start, scripted: bytes, engine: str) -> Bench:
    return Bench(start(scripted, engine, Watched()))


def test_what_a_worker_raises_ends_the_enclave(start: Start, scripted: bytes, engine: str) -> None:
    class Broken(Usercalls):
        def read(self, call: Call) -> Blocking:
            def work(_: object) -> Answer:
                raise ZeroDivisionError(threading.current_thread().name)

            return Blocking(work)

    bench = Bench(start(scripted, engine, Broken()))
    with pytest.raises(ZeroDivisionError, match="broch-usercall"):
        bench.run((Number.READ, abi.STDIN, bench.put(bytes(8)), 8))
