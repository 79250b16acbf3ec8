"""All usercalls, from inside an enclave, on both engines: what they return and refuse."""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from broch.tee.sgx.run import abi
from broch.tee.sgx.run.abi import BYTE_BUFFER, Number, Result
from broch.tee.sgx.run.ends import EnclaveFaultError, EnclavePanickedError
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.usercalls import Call, Usercalls, Waiting
from broch.tee.sgx.run.waiting import Answer, Blocking

from . import programs
from .conftest import Start

PIPE = Result.BROKEN_PIPE
INVALID = Result.INVALID_INPUT


class Bench:
    """A runner of the scripted enclave, and user memory for its steps."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.memory = runner.memory

    def put(self, data: bytes) -> int:
        address = self.memory.alloc(max(len(data), 8), 8)
        assert address is not None
        self.memory.write(address, data or bytes(8))
        return address

    def buffer(self, data: int = 0, size: int = 0) -> int:
        return self.put(BYTE_BUFFER.pack(data, size))

    def text(self, buffer: int) -> str:
        """What a ByteBuffer points to."""
        address, size = BYTE_BUFFER.unpack(self.memory.read(buffer, BYTE_BUFFER.size))
        return self.memory.read(address, size).decode()

    def run(self, *steps: Sequence[int]) -> list[Answer]:
        """Let the main thread make these calls and exit; what came back."""
        script = programs.script(self.memory, steps)
        programs.follow(self.runner, script)
        return programs.answers(self.memory, script, len(steps))


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def bench(start: Start, scripted: bytes, engine: str) -> Bench:
    return Bench(start(scripted, engine))


def test_read_and_write(start: Start, scripted: bytes, engine: str) -> None:
    with pipe() as (stdin, to), pipe() as (out, stdout):
        os.write(to, b"abc")
        bench = Bench(start(scripted, engine, Usercalls(stdin=stdin, stdout=stdout)))
        place = bench.put(b"\0" * 16)
        found = bench.run(
            (Number.READ, abi.STDIN, place, 0),
            (Number.READ, abi.STDIN, place, 16),
            (Number.WRITE, abi.STDOUT, place, 3),
            (Number.WRITE, abi.STDOUT, place, 0),
            (Number.FLUSH, abi.STDOUT),
            (Number.READ, abi.STDOUT, place, 16),
            (Number.WRITE, abi.STDIN, place, 3),
            (Number.READ, 77, place, 16),
            (Number.FLUSH, 77),
        )
        assert found == [(0, 0), (0, 3), (0, 3), (0, 0), (0, 0)] + [(PIPE, 0)] * 4
        assert os.read(out, 16) == b"abc"


def test_a_read_waits_and_ends(start: Start, scripted: bytes, engine: str) -> None:
    with pipe() as (stdin, to):
        writer = os.dup(to)

        class Late(Usercalls):
            def write(self, call: Call) -> Answer:
                """Where the enclave says that it is about to read."""
                threading.Timer(0.05, lambda: os.write(writer, b"late")).start()
                return 0, 0

        bench = Bench(start(scripted, engine, Late(stdin=stdin)))
        place = bench.put(bytes(16))
        found = bench.run((Number.WRITE, abi.STDOUT, place, 1), (Number.READ, abi.STDIN, place, 16))
        assert found[1] == (0, 4)
        assert bench.memory.read(place, 4) == b"late"
        os.close(writer)


def test_read_alloc(start: Start, scripted: bytes, engine: str) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"what the host allocates")
    os.close(writer)
    bench = Bench(start(scripted, engine, Usercalls(stdin=reader)))
    first, second, taken = bench.buffer(), bench.buffer(1, 2), bench.buffer()
    found = bench.run(
        (Number.READ_ALLOC, abi.STDIN, first),
        (Number.READ_ALLOC, abi.STDIN, second),
        (Number.READ_ALLOC, abi.STDIN, taken),
    )
    assert found == [(0, 0), (INVALID, 0), (0, 0)]
    assert bench.text(first) == "what the host allocates"
    assert bench.memory.read(taken, 16) == bytes(16), "the end is an empty buffer"
    os.close(reader)


def test_close(bench: Bench) -> None:
    place = bench.put(b"x")
    found = bench.run(
        (Number.CLOSE, abi.STDERR), (Number.WRITE, abi.STDERR, place, 1), (Number.CLOSE, 99)
    )
    assert found == [(0, 0), (PIPE, 0), (0, 0)]


def test_streams_connect_and_accept(start: Start, scripted: bytes, engine: str) -> None:
    """The enclave listens, a client of ours connects; and it connects to a server of ours."""
    server = socket.create_server(("127.0.0.1", 0))
    ours = f"127.0.0.1:{server.getsockname()[1]}"
    talked: list[bytes] = []

    class Watched(Usercalls):
        def flush(self, call: Call) -> Answer:
            """Where the enclave says that it listens."""
            port = int(bench.text(local).rpartition(":")[2])
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"ping")
            clients.append(client)
            return 0, 0

    clients: list[socket.socket] = []
    bench = Bench(start(scripted, engine, Watched()))
    local, accepted_local, accepted_peer = (bench.buffer() for _ in range(3))
    connected_local, connected_peer = bench.buffer(), bench.buffer()
    anywhere, there = bench.put(b"127.0.0.1:0"), bench.put(ours.encode())
    place = bench.put(b"pong".ljust(16))

    def serve() -> None:
        sock, _ = server.accept()
        with sock:
            talked.append(sock.recv(16))

    thread = threading.Thread(target=serve)
    thread.start()
    found = bench.run(
        (Number.BIND_STREAM, anywhere, 11, local),
        (Number.FLUSH, abi.STDOUT),
        (Number.ACCEPT_STREAM, 3, accepted_local, accepted_peer),
        (Number.READ, 4, place + 8, 4),
        (Number.WRITE, 4, place, 4),
        (Number.CLOSE, 4),
        (Number.CONNECT_STREAM, there, len(ours), connected_local, connected_peer),
        (Number.WRITE, 5, place, 4),
        (Number.READ, 3, place, 4),
        (Number.WRITE, 3, place, 4),
        (Number.ACCEPT_STREAM, 5, 0, 0),
        (Number.READ, 4, place, 4),
    )
    thread.join()
    assert found[0] == (0, 3), "descriptors rise by one and are not used again"
    assert found[2:8] == [(0, 4), (0, 4), (0, 4), (0, 0), (0, 5), (0, 4)]
    assert found[8:] == [(PIPE, 0)] * 4
    assert bench.memory.read(place, 16) == b"pong    ping    "
    assert clients[0].recv(16) == b"pong"
    assert bench.text(accepted_peer) == "{}:{}".format(*clients[0].getsockname())
    assert bench.text(accepted_local) == bench.text(local)
    assert bench.text(connected_peer) == ours
    assert talked == [b"pong"]
    clients[0].close()
    server.close()


def test_addresses_that_lead_nowhere(bench: Bench) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    taken = "{}:{}".format(*sock.getsockname())
    closed = socket.create_server(("127.0.0.1", 0))
    refused = "{}:{}".format(*closed.getsockname())
    closed.close()
    cases = [
        (Number.CONNECT_STREAM, refused.encode(), Result.CONNECTION_REFUSED),
        (Number.CONNECT_STREAM, b"\xff\xff", Result.CONNECTION_REFUSED),
        (Number.BIND_STREAM, b"\xff\xff", Result.CONNECTION_REFUSED),
        (Number.BIND_STREAM, taken.encode(), Result.ADDR_IN_USE),
        (Number.BIND_STREAM, b"no port", INVALID),
        (Number.CONNECT_STREAM, b"127.0.0.1:70000", INVALID),
        (Number.CONNECT_STREAM, b"x" * 5000, INVALID),
        (Number.CONNECT_STREAM, b"..:1", INVALID),
    ]
    found = bench.run(*((number, bench.put(text), len(text)) for number, text, _ in cases))
    assert found == [(int(result), 0) for _, _, result in cases]
    sock.close()


def test_alloc_and_free(bench: Bench) -> None:
    found = bench.run(
        (Number.ALLOC, 0, 1),
        (Number.ALLOC, 8, 3),
        (Number.ALLOC, 8, 0),
        (Number.ALLOC, 1 << 62, 8),
        (Number.ALLOC, 100, 4096),
        (Number.ALLOC, 100, 64),
        (Number.FREE, 0, 0, 1),
    )
    assert found[:4] == [(INVALID, 0)] * 3 + [(Result.OTHER, 0)]
    (page, other), rest = found[4:6], found[6]
    assert page[0] == other[0] == 0
    assert page[1] % 4096 == 0
    assert other[1] % 64 == 0
    assert not page[1] - 100 < other[1] < page[1] + 100
    assert rest == (0, 0)
    bench.memory.check(page[1], 100)


def test_what_is_freed_is_used_again(start: Start, scripted: bytes, engine: str) -> None:
    class Fixed(Usercalls):
        """Frees the block that was allocated last, since a script cannot know it."""

        last = 0

        def alloc(self, call: Call) -> Answer:
            result, self.last = super().alloc(call)
            return result, self.last

        def free(self, call: Call) -> Answer:
            return super().free(call._replace(p1=self.last))

    bench = Bench(start(scripted, engine, Fixed()))
    found = bench.run((Number.ALLOC, 1000, 8), (Number.FREE, 0, 1000, 8), (Number.ALLOC, 1000, 8))
    assert found[0] == found[2]


def test_insecure_time(bench: Bench) -> None:
    before = time.time_ns()
    ((now, info),) = bench.run((Number.INSECURE_TIME,))
    assert before <= now <= time.time_ns()
    assert info == 0


def test_exit_tells_of_panic(bench: Bench) -> None:
    with pytest.raises(EnclavePanickedError):
        bench.run((Number.EXIT, 1))


def test_wait_and_send_to_oneself(bench: Bench) -> None:
    own = bench.runner.enclave.base + bench.runner.enclave.threads[0].offset
    found = bench.run(
        (Number.WAIT, abi.EV_UNPARK, abi.WAIT_NO),
        (Number.SEND, abi.EV_UNPARK, own),
        (Number.SEND, abi.EV_RETURNQ_NOT_EMPTY, 0),
        (Number.SEND, abi.EV_UNPARK, own),
        (Number.WAIT, abi.EV_CANCELQ_NOT_FULL, abi.WAIT_NO),
        (Number.WAIT, abi.EV_ALL, abi.WAIT_NO),
        (Number.WAIT, abi.EV_ALL, abi.WAIT_INDEFINITE),
        (Number.WAIT, abi.EV_ALL, abi.WAIT_NO),
        (Number.WAIT, abi.EV_ALL, abi.WAIT_NO),
        (Number.WAIT, 0x10, abi.WAIT_NO),
        (Number.SEND, 0, own),
        (Number.SEND, 0x10, own),
        (Number.SEND, abi.EV_UNPARK, own + 8),
        (Number.WAIT, abi.EV_UNPARK, 1_000_000),
        (Number.WAIT, 0, 1_000_000),
    )
    nothing, sent = (Result.WOULD_BLOCK, 0), (0, 0)
    assert found[:5] == [nothing, sent, sent, sent, nothing]
    assert found[5:9] == [(0, 4), (0, 4), (0, 2), nothing], "the highest first, each counted"
    assert found[9:13] == [(INVALID, 0)] * 4
    assert found[13:] == [(Result.TIMED_OUT, 0)] * 2


@pytest.mark.parametrize("mask", [0, abi.EV_UNPARK])
def test_a_wait_that_nobody_ends_is_a_deadlock(bench: Bench, mask: int) -> None:
    with pytest.raises(EnclaveFaultError, match="without possibility of wakeup"):
        bench.run((Number.WAIT, mask, abi.WAIT_INDEFINITE))


def test_a_thread_that_ends_without_a_word_leaves_a_deadlock(bench: Bench) -> None:
    ends = programs.script(bench.memory, [(Number.WAIT, 0, 20_000_000)], exits=False)
    script = programs.script(
        bench.memory,
        [(Number.LAUNCH_THREAD,), (Number.WAIT, abi.EV_UNPARK, abi.WAIT_INDEFINITE)],
    )
    with pytest.raises(EnclaveFaultError, match="without possibility of wakeup"):
        programs.follow(bench.runner, script, ends)


def test_a_stream_that_another_thread_closes(bench: Bench) -> None:
    """Whoever waits for it gets an error, or what comes; the host survives."""
    anywhere = bench.put(b"127.0.0.1:0")
    closes = programs.script(
        bench.memory, [(Number.WAIT, 0, 20_000_000), (Number.CLOSE, 3), (Number.EXIT, 0)]
    )
    script = programs.script(
        bench.memory,
        [
            (Number.BIND_STREAM, anywhere, 11, 0),
            (Number.LAUNCH_THREAD,),
            (Number.ACCEPT_STREAM, 3, 0, 0),
        ],
    )
    programs.follow(bench.runner, script, closes)


def test_threads_wake_each_other_and_spin(bench: Bench) -> None:
    """Two run at once: each spins until the other has written; then one waits, one sends."""
    flags = bench.put(bytes(16))
    main = bench.runner.enclave.base + bench.runner.enclave.threads[0].offset
    other = programs.script(
        bench.memory,
        [
            (programs.UNTIL, flags, 1),
            (programs.STORE, flags + 8, 2),
            (programs.UNTIL, flags, 3),
            (Number.SEND, abi.EV_UNPARK, main),
        ],
        exits=False,
    )
    steps = [
        (Number.LAUNCH_THREAD,),
        (programs.STORE, flags, 1),
        (programs.UNTIL, flags + 8, 2),
        (programs.STORE, flags, 3),
        (Number.WAIT, abi.EV_UNPARK, abi.WAIT_INDEFINITE),
    ]
    script = programs.script(bench.memory, steps)
    programs.follow(bench.runner, script, other)
    assert programs.answers(bench.memory, script, 5)[4] == (0, abi.EV_UNPARK)


def test_a_thread_that_ended_can_be_launched_again(bench: Bench) -> None:
    count = len(bench.runner.enclave.threads)
    done = bench.put(bytes(64))
    stay = [
        programs.script(bench.memory, [(programs.UNTIL, done, 1)], exits=False)
        for _ in range(count)
    ]
    # The last thread ends at once: its TCS is free again, and the launch after it succeeds.
    ends = programs.script(bench.memory, [(programs.STORE, done + 8, 1)], exits=False)
    steps = [
        *([(Number.LAUNCH_THREAD,)] * (count - 1)),
        (programs.UNTIL, done + 8, 1),
        (Number.WAIT, 0, 20_000_000),
        (Number.LAUNCH_THREAD,),
        (Number.LAUNCH_THREAD,),
        (programs.STORE, done, 1),
    ]
    script = programs.script(bench.memory, steps)
    programs.follow(bench.runner, script, *stay[: count - 2], ends, stay[-1])
    found = programs.answers(bench.memory, script, len(steps))
    assert found[: count - 1] == [(0, 0)] * (count - 1)
    assert found[count + 1 : count + 3] == [(0, 0), (Result.WOULD_BLOCK, 0)]


def test_a_thread_that_returns_a_value_breaks_the_abi(bench: Bench) -> None:
    never = bench.put(bytes(8))
    step = programs.STEP.pack(programs.END, 0, 0, 1, 0, 0, 0)
    script = programs.script(bench.memory, [(Number.LAUNCH_THREAD,), (programs.UNTIL, never, 1)])
    with pytest.raises(EnclaveFaultError, match="thread entrypoint"):
        programs.follow(bench.runner, script, bench.put(step))


@pytest.mark.parametrize("panics", [True, False])
def test_a_panic_counts_though_another_thread_has_exited_before(
    bench: Bench, panics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Rust program that panics, another thread may exit first, and without a panic."""
    gate = bench.put(bytes(8))
    table = bench.runner._usercalls._table
    honest, parameters = table[Number.EXIT]

    def exit_first(call: Call) -> Answer | Blocking | Waiting:
        if panics:
            bench.memory.write(gate, (1).to_bytes(8, "little"))  # now main goes on
        answer: Answer | Blocking | Waiting = honest(call)
        return answer

    monkeypatch.setitem(table, int(Number.EXIT), (exit_first, parameters))
    other = programs.script(bench.memory, [(Number.EXIT, 0)], exits=False)
    steps = [(Number.LAUNCH_THREAD,), (programs.UNTIL, gate, 1), (Number.EXIT, 1)]
    script = programs.script(bench.memory, steps)
    if not panics:  # main spins for ever, and that is no reason to wait for it
        programs.follow(bench.runner, script, other)
        return
    with pytest.raises(EnclavePanickedError):
        programs.follow(bench.runner, script, other)


def test_a_main_that_returns_breaks_the_abi(bench: Bench) -> None:
    script = programs.script(bench.memory, [], exits=False)
    with pytest.raises(EnclaveFaultError, match="returned from the main entrypoint"):
        programs.follow(bench.runner, script)


def test_a_library_cannot_launch_threads(start: Start, scripted: bytes, engine: str) -> None:
    bench = Bench(start(scripted, engine, library=True))
    assert bench.run((Number.LAUNCH_THREAD,)) == [(INVALID, 0)]


BAD_POINTERS = [
    (Number.READ, 0, 0x1000, 8),
    (Number.READ, 0, "enclave", 8),
    (Number.WRITE, 1, "enclave", 8),
    (Number.WRITE, 1, "user", 1 << 40),
    (Number.WRITE, 1, "user", 2**64 - 1),
    (Number.WRITE, 1, 2**64 - 8, 16),
    (Number.READ_ALLOC, 0, "enclave"),
    (Number.BIND_STREAM, "enclave", 8),
    (Number.CONNECT_STREAM, "user", 2**63),
    (Number.FREE, "enclave", 8, 8),
    (Number.ASYNC_QUEUES, "enclave", "user", 0),
    (Number.ASYNC_QUEUES, "user", "user", "enclave"),
]


@pytest.mark.parametrize("case", BAD_POINTERS, ids=lambda case: f"{case[0].name} {case[1:]}")
def test_bad_pointers_are_named(bench: Bench, case: tuple[int | str, ...]) -> None:
    places = {"enclave": bench.runner.enclave.base, "user": bench.put(bytes(64))}
    step = [places[value] if isinstance(value, str) else value for value in case]
    with pytest.raises(EnclaveFaultError, match="not user memory") as caught:
        bench.run(step)
    assert Number(step[0]).name.lower() in str(caught.value)
    assert "alloc" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ((17,), "invalid usercall 0x11"),
        ((2**63,), "invalid usercall 0x8000000000000000"),
        ((abi.USER_DEFINED | 3,), "invalid usercall 0x80000003"),
        ((Number.LAUNCH_THREAD, 1), "a parameter too many"),
        ((Number.FLUSH, 1, 0, 0, 5), "a parameter too many"),
        ((Number.ALLOC, 8, 8, 1), "a parameter too many"),
    ],
)
def test_calls_that_there_are_not(bench: Bench, step: tuple[int, ...], message: str) -> None:
    with pytest.raises(EnclaveFaultError, match=message):
        bench.run(step)
