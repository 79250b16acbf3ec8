"""A man in the middle on every TCP line: between deployer and agents, and between agents.

It stands before each agent: whoever dials a node reaches the wire, which dials the agent. It reads
every frame, tokens included, and may alter, drop, repeat, hold, redirect and make up frames.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from broch.app.agent_messages import FrameKind, addressed, decode_addressed, decode_hello
from broch.app.frames import MAX_CONTROL_FRAME, FrameParser, frame

Way = Literal["down", "up"]  # to the agent, from the agent


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame on its way. ``message`` is its kind and body."""

    node: str  # whose agent it comes from or goes to
    role: str  # "deployer", "forward" or "back": of the one who dialled
    peer: str  # who dialled
    way: Way
    message: bytes

    @property
    def kind(self) -> int:
        """Of the frame itself, or of what is addressed in it."""
        return self.inner[0]

    @property
    def is_addressed(self) -> bool:
        return self.message[0] in (FrameKind.SEND, FrameKind.SAID)

    @property
    def handle(self) -> int:
        return decode_addressed(self.message)[0] if self.is_addressed else 0

    @property
    def inner(self) -> bytes:
        """The message for or of an enclave."""
        return decode_addressed(self.message)[1] if self.is_addressed else self.message

    def with_inner(self, inner: bytes) -> bytes:
        """The frame with another message in it."""
        if not self.is_addressed:
            return inner
        return addressed(FrameKind(self.message[0]), self.handle, inner)


Bend = Callable[[Frame], Iterable[bytes]]  # what goes on instead of a frame


def straight(seen: Frame) -> Iterable[bytes]:
    """An honest wire."""
    return [seen.message]


class Wire:
    """All lines of an application. ``bend`` may be changed at any time."""

    def __init__(self) -> None:
        self.bend: Bend = straight
        self.seen: list[Frame] = []
        self._ends: dict[tuple[str, str, str, Way], asyncio.StreamWriter] = {}
        self._all: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def stand_before(self, node: str, port: int) -> int:
        """Listen in an agent's place; the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._join(node, port, reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _join(
        self, node: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        self._all += [writer, far_writer]
        names = ["", ""]  # role and name of the caller
        down = self._pump(node, names, "down", reader, far_writer)
        up = self._pump(node, names, "up", far_reader, writer)
        try:
            await asyncio.gather(down, up)
        finally:
            for end in (writer, far_writer):
                end.transport.abort()

    async def _pump(
        self,
        node: str,
        names: list[str],
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        parser = FrameParser(MAX_CONTROL_FRAME)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(1 << 16):
                for message in parser.feed(data):
                    if message[0] == FrameKind.HELLO:
                        greeting = decode_hello(message)
                        names[:] = [greeting.role, greeting.name]
                    seen = Frame(node, names[0], names[1], way, message)
                    self._ends[node, names[0], names[1], way] = writer
                    self.seen.append(seen)
                    for out in self.bend(seen):
                        writer.write(frame(out))
                await writer.drain()
        writer.transport.abort()

    def inject(self, like: Frame, message: bytes) -> None:
        """Send a frame the way that ``like`` went."""
        self._ends[like.node, like.role, like.peer, like.way].write(frame(message))

    def tell_enclave(self, node: str, handle: int, message: bytes) -> None:
        """Give an enclave a message in the deployer's name, by the deployer's own line."""
        line = Frame(node, "deployer", "deployer", "down", b"")
        self.inject(line, addressed(FrameKind.SEND, handle, message))

    def last(self, kind: int, **want: object) -> Frame:
        """The newest frame of this kind that was seen, with these fields."""
        for seen in reversed(self.seen):
            if seen.kind == kind and all(getattr(seen, k) == v for k, v in want.items()):
                return seen
        raise AssertionError(f"no frame of kind 0x{kind:02x} with {want} was seen")

    async def close(self) -> None:
        """Hang up everywhere."""
        for server in self._servers:
            server.close()
        for end in self._all:
            end.transport.abort()
        await asyncio.gather(*self._tasks)


def flip(data: bytes, at: int) -> bytes:
    """``data`` with the lowest bit of one byte flipped."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def same(seen: Frame, message: bytes) -> Frame:
    """The frame, carrying something else."""
    return replace(seen, message=message)
