"""An agent's TCP connections: lines it dials to peers, and connections that come in.

A peer is given two lines, one for what asks (EVENT, REQUEST) and one for what answers (REPLY,
FAILED): an enclave that waits for an answer may have crowded the first one.
"""

import asyncio
import hmac
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, Protocol

from broch.app.agent_enclave import Lane
from broch.app.agent_messages import MAX_HELLO, Hello, decode_hello, hello
from broch.app.flow import Flow, Sink
from broch.app.frames import HEAD, MAX_CONTROL_FRAME, MAX_PEER_FRAME, FrameParser
from broch.errors import DecodeError

_HELLO_SECONDS: Final = 5  # until which a connection must say who it is
_HIGH_WATER: Final = 1024 * 1024  # bytes written and not taken by the kernel


class Writer:
    """Frames many messages into one write; a sink."""

    def __init__(self, flow: Flow, loop: asyncio.AbstractEventLoop) -> None:
        self._flow = flow
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []

    def open(self, transport: asyncio.Transport) -> None:
        """Write to this transport from now on."""
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._transport = transport

    def push(self, message: bytes) -> None:
        """Send ``message`` soon; nothing is sent to a connection that is gone."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(HEAD.pack(len(message)))
        self._parts.append(message)

    def flush(self) -> None:
        """Write what was pushed."""
        if self._parts and self._transport is not None:
            self._transport.write(b"".join(self._parts))
        self._parts.clear()

    def pause(self) -> None:
        """The kernel takes no more."""
        self._flow.crowd(self)

    def go_on(self) -> None:
        """The kernel takes more, or the connection is gone."""
        self._flow.relieve(self)

    def close(self) -> None:
        """Hang up, after what was pushed."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self.go_on()


class Line(asyncio.Protocol):
    """A line that this agent dialled; it only sends."""

    def __init__(self, writer: Writer, greeting: bytes, on_lost: Callable[[], None]) -> None:
        self._writer = writer
        self._greeting = greeting
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._writer.open(transport)
        self._writer.push(self._greeting)

    def pause_writing(self) -> None:
        self._writer.pause()

    def resume_writing(self) -> None:
        self._writer.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writer.close()
        self._on_lost()


class Peer:
    """Another agent: both lines to it."""

    def __init__(
        self, flow: Flow, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self.forward = Writer(flow, loop)
        self.back = Writer(flow, loop)

    async def dial(self, address: tuple[str, int], name: str, token: bytes) -> None:
        """Open both lines; raises :class:`OSError`."""
        roles: tuple[tuple[Literal["forward", "back"], Writer], ...]
        roles = (("forward", self.forward), ("back", self.back))
        for role, writer in roles:
            line = partial(Line, writer, hello(role, name, token), self._on_lost)
            await self._loop.create_connection(line, *address)

    def close(self) -> None:
        """Hang up."""
        self.forward.close()
        self.back.close()


class Hall(Protocol):
    """Where connections come in: what they need of the agent."""

    flow: Flow
    lanes: dict[bytes, Lane]  # ROUTE_KEY of EVENT -> an enclave here
    deployer: Writer

    def admit(self, caller: "Caller", greeting: Hello) -> None:
        """Raise :class:`DecodeError` unless the caller may come in."""
        ...

    def obey(self, message: bytes) -> None:
        """A frame of the deployer's."""
        ...

    def hear_peer(self, message: bytes) -> None:
        """A frame of a peer's, other than an EVENT for an enclave here."""
        ...

    def deployer_left(self) -> None: ...

    def enclaves(self) -> set[Sink]: ...


class Caller(asyncio.Protocol):
    """A connection that came in: from the deployer or from a peer. A source."""

    def __init__(self, hall: Hall, loop: asyncio.AbstractEventLoop) -> None:
        self._hall = hall
        self._loop = loop
        self._parser = FrameParser(MAX_HELLO)
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._early = b""  # what came before HELLO was whole
        self.role: str | None = None

    @property
    def sinks(self) -> set[Sink]:
        """What this caller's messages may crowd: only those on a peer's forward line wait."""
        return self._hall.enclaves() if self.role == "forward" else set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._patience = self._loop.call_later(_HELLO_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        try:
            if self.role is None:
                data = self._greet(data)
                if not data:
                    return
            if self.role == "deployer":
                for message in self._parser.feed(data):
                    self._hall.obey(message)
                return
            find = self._hall.lanes.get
            for message in self._parser.feed(data):
                lane = find(message[:9])
                if lane is not None:
                    lane.count += 1
                    lane.push(message)
                else:
                    self._hall.hear_peer(message)
        except DecodeError:
            self.abort()
            return
        if self._hall.flow.must_wait(self) and self._transport is not None:
            self._transport.pause_reading()

    def _greet(self, data: bytes) -> bytes:
        """Take HELLO off the stream; what follows it is returned."""
        self._early += data
        if len(self._early) < HEAD.size:
            return b""
        (length,) = HEAD.unpack_from(self._early)
        if length > MAX_HELLO:
            raise DecodeError(0, f"a greeting of {length} bytes")
        size = HEAD.size + length
        if len(self._early) < size:
            return b""
        found = self._parser.feed(self._early[:size])
        data, self._early = self._early[size:], b""
        greeting = decode_hello(found[0])
        self._hall.admit(self, greeting)
        self.role = greeting.role
        if self._patience is not None:
            self._patience.cancel()
        if self.role == "deployer":
            assert self._transport is not None
            self._parser.limit = MAX_CONTROL_FRAME
            self._hall.deployer.open(self._transport)
        else:
            self._parser.limit = MAX_PEER_FRAME
        return data

    def resume(self) -> None:
        """Its sinks take messages again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._hall.deployer.pause()

    def resume_writing(self) -> None:
        self._hall.deployer.go_on()

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._patience is not None:
            self._patience.cancel()
        self._hall.flow.forget(self)
        if self.role == "deployer":
            self._hall.deployer_left()


def is_token(given: bytes, expected: bytes) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given, expected)
