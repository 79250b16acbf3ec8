"""Calls that wait: who runs them, how they are called off, and streams under them."""

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from broch.tee.sgx.run import streams
from broch.tee.sgx.run.abi import Result, result_of
from broch.tee.sgx.run.streams import FileStream, Listener, SocketStream, show, split
from broch.tee.sgx.run.waiting import (
    Answer,
    Blocking,
    Interrupt,
    InterruptedCallError,
    Workers,
)

SECONDS = 60.0
Results = SimpleQueue[Answer | BaseException]


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.close()


@pytest.fixture
def descriptors() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _reading(descriptor: int) -> Blocking:
    def work(interrupt: Interrupt) -> Answer:
        interrupt.wait(descriptor, select.POLLIN)
        return 0, len(os.read(descriptor, 16))

    return Blocking(work)


def test_an_answer_comes_back(workers: Workers, descriptors: tuple[int, int]) -> None:
    results: Results = SimpleQueue()
    for _ in range(3):
        workers.submit(_reading(descriptors[0]), results.put)
        os.write(descriptors[1], b"abc")
        assert results.get(timeout=SECONDS) == (0, 3)


def test_many_wait_at_once_and_threads_are_used_again(workers: Workers) -> None:
    results: Results = SimpleQueue()
    pipes = [os.pipe() for _ in range(5)]
    before = threading.active_count()
    for _ in range(2):
        for reader, _writer in pipes:
            workers.submit(_reading(reader), results.put)
        for _reader, writer in reversed(pipes):
            os.write(writer, b"x")
        assert [results.get(timeout=SECONDS) for _ in pipes] == [(0, 1)] * 5
    assert threading.active_count() <= before + 10
    for ends in pipes:
        for descriptor in ends:
            os.close(descriptor)


def test_a_call_can_be_called_off(workers: Workers, descriptors: tuple[int, int]) -> None:
    results: Results = SimpleQueue()
    interrupt = workers.submit(_reading(descriptors[0]), results.put)
    interrupt.set()
    assert isinstance(results.get(timeout=SECONDS), InterruptedCallError)
    interrupt.set()  # too late, and harmless
    sleeping = workers.submit(Blocking(_sleep), results.put)
    sleeping.set()
    assert isinstance(results.get(timeout=SECONDS), InterruptedCallError)


def _sleep(interrupt: Interrupt) -> Answer:
    interrupt.sleep(1e9)
    return 0, 0


def test_workers_run_anywhere_though_who_starts_them_may_not() -> None:
    everywhere = os.sched_getaffinity(0)
    workers = Workers()
    results: Results = SimpleQueue()
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        workers.submit(Blocking(lambda _: (0, len(os.sched_getaffinity(0)))), results.put)
        assert results.get(timeout=SECONDS) == (0, len(everywhere))
    finally:
        os.sched_setaffinity(0, everywhere)
        workers.close()


def test_closing_calls_everything_off(descriptors: tuple[int, int]) -> None:
    workers = Workers()
    results: Results = SimpleQueue()
    for _ in range(3):
        workers.submit(_reading(descriptors[0]), results.put)
    workers.close()
    found = [results.get(timeout=SECONDS) for _ in range(3)]
    assert all(isinstance(result, InterruptedCallError) for result in found)


def test_what_is_raised_comes_back(workers: Workers) -> None:
    results: Results = SimpleQueue()

    def work(_: Interrupt) -> Answer:
        raise LookupError("why")

    workers.submit(Blocking(work), results.put)
    assert isinstance(results.get(timeout=SECONDS), LookupError)


def test_an_interrupt_that_is_closed_writes_nowhere() -> None:
    interrupt = Interrupt()
    interrupt.close()
    reader, writer = os.pipe()  # likely the same numbers
    interrupt.set()
    assert not select.select([reader], [], [], 0)[0]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:80", ("localhost", 80)),
        ("[::1]:65535", ("::1", 65535)),
        ("1.2.3.4:0", ("1.2.3.4", 0)),
        (":1", ("", 1)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:65536", "host:-1", "h:٣"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(OSError, match="not an address"):
        split(text)


def test_addresses_are_shown_as_rust_shows_them() -> None:
    assert show(("1.2.3.4", 5)) == "1.2.3.4:5"
    assert show(("::1", 5, 0, 0)) == "[::1]:5"


@pytest.mark.parametrize(
    ("number", "result"),
    [
        (errno.ECONNREFUSED, Result.CONNECTION_REFUSED),
        (errno.EADDRINUSE, Result.ADDR_IN_USE),
        (errno.EACCES, Result.PERMISSION_DENIED),
        (errno.EIO, Result.OTHER),
        (0, Result.OTHER),
    ],
)
def test_errors_of_the_system(number: int, result: Result) -> None:
    assert result_of(OSError(number, "")) is result


def test_a_full_pipe_makes_a_writer_wait(descriptors: tuple[int, int]) -> None:
    reader, writer = descriptors
    stream = FileStream(writer, readable=False)
    written = 0
    while (some := stream.try_write(b"x" * 100_000)) is not None:
        written += some
    assert written >= 4096
    while written:
        written -= len(os.read(reader, written))
    assert stream.try_write(b"y") == 1


def test_directions_are_kept(descriptors: tuple[int, int]) -> None:
    for attempt in (
        lambda: FileStream(descriptors[0], readable=True).try_write(b"x"),
        lambda: FileStream(descriptors[1], readable=False).try_read(1),
    ):
        with pytest.raises(BrokenPipeError):
            attempt()


def test_a_file_is_read_to_its_end(tmp_path: "os.PathLike[str]") -> None:
    path = os.path.join(tmp_path, "input")
    with open(path, "wb") as file:
        file.write(b"content")
    descriptor = os.open(path, os.O_RDONLY)
    stream = FileStream(descriptor, readable=True)
    assert [stream.try_read(4), stream.try_read(4), stream.try_read(4)] == [b"cont", b"ent", b""]
    os.close(descriptor)


def test_sockets_do_not_block() -> None:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    assert stream.try_read(8) is None
    theirs.sendall(b"data")
    assert stream.try_read(8) == b"data"
    theirs.close()
    assert stream.try_read(8) == b""
    with pytest.raises(BrokenPipeError):
        stream.try_write(b"x")
    stream.close()


def test_listeners_neither_read_nor_write() -> None:
    listener: Listener = streams.listen("127.0.0.1:0")
    assert listener.try_accept() is None
    attempts: list[Callable[[], object]] = [
        lambda: listener.try_read(1),
        lambda: listener.try_write(b"x"),
    ]
    for attempt in attempts:
        with pytest.raises(BrokenPipeError):
            attempt()
    listener.close()


def test_a_connection_that_does_not_come_about_can_be_called_off(workers: Workers) -> None:
    """A listener whose queue is full answers no further connection."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    address = show(full.getsockname())
    waiting = []
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
        waiting.append(sock)
    results: Results = SimpleQueue()

    def work(interrupt: Interrupt) -> Answer:
        streams.connect(address, interrupt).close()
        return 0, 0

    interrupt = workers.submit(Blocking(work), results.put)
    interrupt.set()
    assert isinstance(results.get(timeout=SECONDS), InterruptedCallError)
    for sock in (*waiting, full):
        sock.close()
