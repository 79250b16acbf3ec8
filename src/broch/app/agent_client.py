"""The deployer's line to one agent."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from broch.app.agent_messages import (
    AskCounts,
    Command,
    Done,
    Ended,
    FrameKind,
    Load,
    Loaded,
    NotLoaded,
    Route,
    Routes,
    Start,
    Unload,
    addressed,
    command,
    decode_addressed,
    decode_report,
    hello,
)
from broch.app.frames import MAX_CONTROL_FRAME, FrameParser, frame
from broch.app.reports import error_from_data
from broch.enclave.messages import Kind
from broch.errors import DecodeError, InternalError, UndecidedError

_PATIENCE: Final = 60.0  # seconds for an agent's answer
_COUNT_PATIENCE: Final = 5.0  # seconds for what is only shown


_T = TypeVar("_T")


class Listener(Protocol):
    """Who is told what comes from an agent. None of it is to be believed as it is."""

    def said(self, handle: int, message: bytes) -> None: ...
    def ended(self, handle: int, status: int, why: str) -> None: ...
    def event(self, message: bytes) -> None: ...
    def lost(self, node: str) -> None: ...


class AgentLink(asyncio.Protocol):
    """Commands to an agent, and its reports.

    Args:
        node: whose agent it is.
        token: makes the agent obey.
        listener: is told what comes unasked.
    """

    def __init__(self, node: str, token: bytes, listener: Listener) -> None:
        self._node = node
        self._token = token
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._parser = FrameParser(MAX_CONTROL_FRAME)
        self._transport: asyncio.Transport | None = None
        self._loading: dict[int, asyncio.Future[int]] = {}
        self._orders: dict[int, asyncio.Future[dict[int, int]]] = {}
        self._last_order = 0

    @property
    def is_open(self) -> bool:
        """Whether the agent is there."""
        return self._transport is not None

    async def load(self, order: Load) -> int:
        """Load an image; the enclave's process id. Raises what the device refused it with."""
        waiting: asyncio.Future[int] = self._loop.create_future()
        self._loading[order.handle] = waiting
        self._command(order)
        return await self._answer(waiting, _PATIENCE)

    def unload(self, handle: int) -> None:
        """Kill an enclave."""
        self._command(Unload(handle))

    def start_ticks(self, handle: int) -> None:
        """Begin with the periodic calls of an enclave."""
        self._command(Start(handle))

    async def route(self, routes: Sequence[Route], peers: dict[str, tuple[str, int]]) -> None:
        """Put these routes in place of what their connections had; returns when it is done."""
        order = self._next()
        self._command(Routes(order, list(routes), peers))
        await self._answer(self._orders[order], _PATIENCE)

    async def counts(self) -> dict[int, int]:
        """Messages that came to enclaves there, by connection."""
        order = self._next()
        self._command(AskCounts(order))
        return await self._answer(self._orders[order], min(_PATIENCE, _COUNT_PATIENCE))

    async def _answer(self, waiting: "asyncio.Future[_T]", seconds: float) -> _T:
        """Wait, but not for ever: an agent may do nothing at all."""
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        except TimeoutError:
            raise UndecidedError(
                f"the agent of node {self._node} did not answer within {seconds:g} s"
            ) from None

    def send(self, handle: int, message: bytes) -> None:
        """Send a message to an enclave."""
        self._write(addressed(FrameKind.SEND, handle, message))

    def event(self, message: bytes) -> None:
        """Send an EVENT over a connection of the operator's."""
        self._write(message)

    def close(self) -> None:
        """Hang up, which ends the agent; nobody is told."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._fail_all()

    def _next(self) -> int:
        self._last_order += 1
        self._orders[self._last_order] = self._loop.create_future()
        return self._last_order

    def _command(self, order: Command) -> None:
        self._write(command(order))

    def _write(self, message: bytes) -> None:
        if self._transport is None:
            raise InternalError(f"the agent of node {self._node} is gone")
        self._transport.write(frame(message))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._write(hello("deployer", "deployer", self._token))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._parser.feed(data):
                self._take(message)
        except DecodeError:
            self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close()
        self._listener.lost(self._node)

    def _take(self, message: bytes) -> None:
        kind = message[0]
        if kind == Kind.EVENT:
            self._listener.event(message)
        elif kind == FrameKind.SAID:
            self._listener.said(*decode_addressed(message))
        else:
            self._take_report(decode_report(message))

    def _take_report(self, said: object) -> None:
        if isinstance(said, Ended):
            self._listener.ended(said.handle, said.status, said.why)
        elif isinstance(said, Loaded):
            _resolve(self._loading.pop(said.handle, None), said.pid)
        elif isinstance(said, NotLoaded):
            _reject(self._loading.pop(said.handle, None), error_from_data(said.error))
        elif isinstance(said, Done):
            waiting = self._orders.pop(said.order, None)
            if said.error is None:
                _resolve(waiting, said.counts)
            else:
                _reject(waiting, error_from_data(said.error))

    def _fail_all(self) -> None:
        futures: list[asyncio.Future[Any]] = [*self._loading.values(), *self._orders.values()]
        for waiting in futures:
            _reject(waiting, InternalError(f"the agent of node {self._node} is gone"))
        self._loading.clear()
        self._orders.clear()


def _resolve(waiting: "asyncio.Future[Any] | None", value: object) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)


def _reject(waiting: "asyncio.Future[Any] | None", error: Exception) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # whoever waits gets it; nobody else need
