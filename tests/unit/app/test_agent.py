"""Who may come in to an agent, and what it lets through; an enclave's host, with a fake enclave."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from broch.app.agent import Agent, without
from broch.app.agent_enclave import EnclaveHost, failed
from broch.app.agent_links import Caller
from broch.app.agent_messages import (
    AgentSpec,
    AskCounts,
    Done,
    Hello,
    Load,
    Route,
    command,
    decode_command,
    decode_hello,
    decode_report,
    hello,
)
from broch.app.flow import Flow
from broch.app.frames import HEAD, frame
from broch.app.ocalls import HostWork, find_function
from broch.enclave.messages import ANSWER, OCALL, SEALED, TICK, Kind
from broch.enclave.ring import Ring, make_ring, open_ring
from broch.errors import DecodeError, UsageError

DEPLOYER, PEER = b"d" * 32, b"p" * 32
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def with_agent(
    work: Callable[[Callable[[], Awaitable[tuple[Reader, Writer]]]], Awaitable[None]],
) -> None:
    """Run an agent without a machine, and something that dials it."""
    loop = asyncio.get_running_loop()
    spec = AgentSpec("n", "127.0.0.1", 0, DEPLOYER, PEER, "/nowhere", [], [])
    agent = Agent(spec, loop)
    server = await loop.create_server(lambda: Caller(agent, loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened: list[Writer] = []

    async def dial() -> tuple[Reader, Writer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    async with server, asyncio.timeout(20):
        await work(dial)
        for writer in opened:
            writer.close()


async def is_closed(reader: Reader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "first",
    [
        frame(hello("deployer", "x", PEER)),
        frame(hello("forward", "x", DEPLOYER)),
        frame(hello("back", "x", b"")),
        frame(command(AskCounts(1))),
        frame(bytes([Kind.EVENT]) + bytes(40)),
        HEAD.pack(0),
        HEAD.pack(2**31),
        frame(b"\x80" + bytes(600)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_strangers_are_hung_up_on(first: bytes) -> None:
    async def work(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        reader, writer = await dial()
        writer.write(first)
        assert await is_closed(reader)

    asyncio.run(with_agent(work))


async def answer(reader: Reader) -> Done:
    (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
    said = decode_report(await reader.readexactly(size))
    assert isinstance(said, Done)
    return said


def test_a_deployer_is_obeyed_even_byte_by_byte() -> None:
    async def work(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        reader, writer = await dial()
        for byte in frame(hello("deployer", "x", DEPLOYER)) + frame(command(AskCounts(7))):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await answer(reader)).order == 7

    asyncio.run(with_agent(work))


def test_there_is_one_deployer() -> None:
    async def work(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        reader, writer = await dial()
        writer.write(frame(hello("deployer", "x", DEPLOYER)) + frame(command(AskCounts(1))))
        await answer(reader)
        other, other_writer = await dial()
        other_writer.write(frame(hello("deployer", "y", DEPLOYER)))
        assert await is_closed(other)
        writer.write(frame(command(AskCounts(2))))
        assert (await answer(reader)).order == 2

    asyncio.run(with_agent(work))


@pytest.mark.parametrize(
    "message",
    [command(AskCounts(1)), hello("deployer", "x", DEPLOYER), b"\x83" + bytes(8), b"\x04"],
)
def test_a_peer_gives_no_orders(message: bytes) -> None:
    async def work(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        reader, writer = await dial()
        writer.write(frame(hello("forward", "x", PEER)) + frame(message))
        assert await is_closed(reader)

    asyncio.run(with_agent(work))


def test_late_messages_of_a_peer_are_dropped() -> None:
    async def work(dial: Callable[[], Awaitable[tuple[Reader, Writer]]]) -> None:
        reader, writer = await dial()
        late = [SEALED.pack(Kind.EVENT, 1, 1, 1), SEALED.pack(Kind.REQUEST, 1, 1, 1)]
        late += [ANSWER.pack(Kind.REPLY, 1, 1, 1, 1), failed(1, 1, "why")]
        writer.write(frame(hello("forward", "x", PEER)) + b"".join(map(frame, late)))
        await writer.drain()
        writer.write(frame(b"\x81"))
        assert await is_closed(reader), "only the order at the end was an offence"

    asyncio.run(with_agent(work))


@pytest.mark.parametrize(
    ("decode", "data"),
    [
        (decode_hello, b"\x80"),
        (decode_hello, b"\x81\x90"),
        (decode_command, b"\x81\xc1"),
        (decode_command, b"\x81" + b"\x91" * 5000),
        (decode_report, b"\x82\x80"),
    ],
)
def test_malformed_messages_are_decode_errors(
    decode: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_no_token_is_shown() -> None:
    spec = AgentSpec("n", "h", 1, DEPLOYER, PEER, "", [], [])
    greeting = decode_hello(hello("back", "x", PEER))
    assert isinstance(greeting, Hello)
    assert "ddd" not in repr(spec)
    assert "ppp" not in repr(spec) + repr(greeting)


# An enclave's host.


class FakeHub:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.flow = Flow()
        self.heard: list[bytes] = []
        self.asked: list[bytes] = []
        self.replies: list[bytes] = []
        self.killed: list[EnclaveHost] = []

    def hear(self, enclave: EnclaveHost, message: bytes) -> None:
        self.heard.append(message)

    def ask(self, enclave: EnclaveHost, message: bytes) -> None:
        self.asked.append(message)

    def reply(self, connection: int, message: bytes) -> None:
        self.replies.append(message)

    def kill(self, enclave: EnclaveHost) -> None:
        self.killed.append(enclave)


class Silent:
    """A sink that takes everything."""

    def push(self, message: bytes) -> None:
        return


class Bench:
    """A host and the enclave's end of its ring, in one process."""

    def __init__(self, work: HostWork, every: dict[int, float] | None = None) -> None:
        self.hub = FakeHub()
        memory, to_host, to_enclave = make_ring()
        self.enclave: Ring = open_ring(
            os.dup(memory), os.dup(to_host), os.dup(to_enclave), host=False
        )
        ring = open_ring(memory, to_host, to_enclave, host=True)
        load = Load(1, "m", "keystone", b"", None, 64, False, 1.0, {}, every or {}, "m.store")
        loop = asyncio.get_running_loop()
        self.host = EnclaveHost(self.hub, load, ring, work, loop, Silent())

    async def says(self, *messages: bytes) -> None:
        for message in messages:
            self.enclave.send(message)
        await self.turn()

    async def turn(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def got(self) -> list[bytes]:
        found = []
        while (message := self.enclave.receive(0)) is not None:
            found.append(message)
        return found

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        try:
            yield
        finally:
            if not self.host.is_over:
                self.host.ended()
            self.enclave.close()


def on_bench(
    tmp_path: Path,
    work: Callable[[Bench], Awaitable[None]],
    every: dict[int, float] | None = None,
) -> None:
    async def main() -> None:
        bench = Bench(HostWork("m", {}, tmp_path / "m.store"), every)
        with bench.over():
            async with asyncio.timeout(20):
                await work(bench)

    asyncio.run(main())


READY = bytes([Kind.READY])
REQUEST = SEALED.pack(Kind.REQUEST, 7, 1, 3) + bytes(16)
REPLY = ANSWER.pack(Kind.REPLY, 7, 1, 1, 3) + bytes(16)


def test_an_answer_goes_in_only_while_it_is_waited_for(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        host = bench.host
        host.answer_request(7, 3, REPLY)
        assert bench.got() == [], "nothing was asked"
        await bench.says(READY, REQUEST)
        assert bench.hub.asked == [REQUEST]
        host.answer_request(7, 2, REPLY)
        host.answer_request(8, 3, REPLY)
        assert bench.got() == [], "another request was asked"
        host.answer_request(7, 3, REPLY)
        host.answer_request(7, 3, REPLY)
        assert bench.got() == [REPLY]

    on_bench(tmp_path, work)


def test_a_request_that_nobody_answers_fails(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY, REQUEST)
        now = asyncio.get_running_loop().time()
        bench.host.look(now + 1)
        assert bench.got() == []
        bench.host.look(now + 4)
        assert bench.got() == [failed(7, 3, "it took too long")]

    on_bench(tmp_path, work)


def test_a_handlers_end_fails_what_it_owes(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY)
        bench.host.request(REQUEST)
        bench.host.ended()
        assert bench.hub.replies == [failed(7, 3, "the module ended")]

    on_bench(tmp_path, work)


def test_a_request_worked_off_without_reply_fails(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY)
        bench.host.request(REQUEST)
        now = asyncio.get_running_loop().time()
        bench.host.look(now)
        assert bench.hub.replies == []
        bench.enclave.tell_progress(1)
        bench.host.look(now + 0.1)
        assert bench.hub.replies == [failed(7, 3, "the handler did not take the request")]

    on_bench(tmp_path, work)


def test_the_watchdog_counts_the_work_on_one_message(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        now = asyncio.get_running_loop().time()

        def look(seconds: float) -> None:
            nonlocal now
            for _ in range(round(seconds / 0.1)):
                now += 0.1
                bench.host.look(now)

        await bench.says(READY)
        look(5)
        assert bench.hub.killed == [], "it has nothing to do"
        bench.host.push(TICK.pack(Kind.TICK, 0))
        look(0.8)
        bench.enclave.tell_progress(1)
        bench.host.push(TICK.pack(Kind.TICK, 0))
        look(0.8)
        assert bench.hub.killed == [], "two messages, each in time"
        look(0.5)
        assert bench.hub.killed == [bench.host]
        assert bench.host.why == "took longer than 1 s"

    on_bench(tmp_path, work)


def test_the_watchdog_does_not_count_waiting(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        now = asyncio.get_running_loop().time()
        await bench.says(READY)
        bench.host.push(TICK.pack(Kind.TICK, 0))
        await bench.says(REQUEST)
        for tenth in range(20):
            bench.host.look(now + tenth / 10)
        assert bench.hub.killed == []
        bench.host.answer_request(7, 3, REPLY)
        for tenth in range(20, 40):
            bench.host.look(now + tenth / 10)
        assert bench.hub.killed == [bench.host]

    on_bench(tmp_path, work)


@pytest.mark.parametrize(
    "message",
    [
        b"\x00",
        b"\xff" * 20,
        bytes([Kind.CHALLENGE]) + bytes(32),
        bytes([Kind.REQUEST]),
        bytes([Kind.OCALL]) + bytes(3),
    ],
)
def test_nonsense_ends_the_enclave(tmp_path: Path, message: bytes) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY, message)
        assert bench.hub.killed == [bench.host]
        assert bench.host.why.startswith("sent what it cannot have sent")

    on_bench(tmp_path, work)


def test_two_questions_at_a_time_end_the_enclave(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY, REQUEST, OCALL.pack(Kind.OCALL, 1, 0) + b"\xc0")
        assert bench.hub.killed == [bench.host]

    on_bench(tmp_path, work)


def test_a_store_is_kept_whole(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        for question, wanted in (
            (bytes([Kind.LOAD]), bytes([Kind.LOADED])),
            (bytes([Kind.SAVE]) + b"blob", bytes([Kind.SAVED])),
            (bytes([Kind.LOAD]), bytes([Kind.LOADED]) + b"blob"),
        ):
            await bench.says(question)
            while not (found := bench.got()):
                await bench.turn()
            assert found == [wanted]
        assert (tmp_path / "m.store").read_bytes() == b"blob"

    on_bench(tmp_path, work)


def test_ticks_do_not_pile_up(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY)
        bench.host.start_ticks()
        while not (found := bench.got()):
            await bench.turn()
        assert found == [TICK.pack(Kind.TICK, 4)]
        for _ in range(5):
            await bench.turn()
        assert bench.got() == [], "the first is not worked off"
        bench.enclave.tell_progress(1)
        while not bench.got():
            await bench.turn()

    on_bench(tmp_path, work, {4: 0.001})


def test_what_has_no_room_waits_in_order(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.says(READY)
        messages = [SEALED.pack(Kind.EVENT, 1, 1, n) + bytes(16) for n in range(2000)]
        for message in messages:
            bench.host.push(message)
        crowded = type("Source", (), {"sinks": {bench.host}, "resume": lambda self: None})()
        assert bench.hub.flow.must_wait(crowded)
        found: list[bytes] = []
        while len(found) < len(messages):
            found += bench.got()
            bench.enclave.tell_progress(len(found))
            await bench.turn()
        assert found == messages
        assert not bench.hub.flow.must_wait(crowded)

    on_bench(tmp_path, work)


def test_host_functions_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("def f(x): return x\nnumber = 5\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    assert find_function(str(tmp_path / "good.py"), "f")(3) == 3
    for file, function, message in (
        ("good.py", "g", "good.py: has no function g"),
        ("good.py", "number", "good.py: has no function number"),
        ("bad.py", "f", "bad.py: cannot be imported: ZeroDivisionError"),
        ("none.py", "f", "none.py: cannot be imported: FileNotFoundError"),
    ):
        with pytest.raises(UsageError) as caught:
            find_function(str(tmp_path / file), function)
        assert str(caught.value).startswith(message)


def test_what_is_hidden_is_left_out_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("home/keys", "home/devices/app", "home/other", "code"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "way").symlink_to(tmp_path / "home" / "keys")
    hidden = [tmp_path / "home" / "keys", tmp_path / "home" / "devices"]
    assert without(tmp_path / "code", hidden) == [tmp_path / "code"]
    assert without(tmp_path / "home" / "devices" / "app", hidden) == []
    assert without(tmp_path, hidden) == [tmp_path / "code", tmp_path / "home" / "other"]


def test_routes_are_plain_data() -> None:
    route = Route(connection=1, epoch=2, source=3, target="peer")
    assert (route.source, route.target) == (3, "peer")
