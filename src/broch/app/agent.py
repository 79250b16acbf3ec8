"""The agent: the untrusted process of a node, which loads enclaves and passes messages on.

It does what the deployer that knows its token says: load, route, send. It sees ciphertext, fixed
heads and entries' arguments, and is believed in nothing. It gives up all files but its modules'
stores and the code that it needs; its node's device is a process that it cannot look into.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from broch.app.agent_enclave import EnclaveHost, Lane, failed
from broch.app.agent_links import Caller, Peer, Writer, is_token
from broch.app.agent_messages import (
    ROUTE_KEY,
    AgentSpec,
    AskCounts,
    Done,
    Ended,
    FrameKind,
    Hello,
    Load,
    Loaded,
    NotLoaded,
    Place,
    Report,
    Route,
    Routes,
    Start,
    Unload,
    addressed,
    decode_addressed,
    decode_command,
    report,
)
from broch.app.flow import Flow, Sink
from broch.app.ocalls import HostWork
from broch.app.reports import error_to_data
from broch.enclave import sandbox
from broch.enclave.machine_client import MachineClient
from broch.enclave.machine_messages import Limits
from broch.enclave.messages import ANSWER, FAILED, SEALED, Kind, head
from broch.errors import BrochError, DecodeError, UndecidedError, UsageError
from broch.tee.contract import Packed

_LOOK: Final = 0.1  # seconds between two looks of the watchdog
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/etc", "/dev", "/opt", "/sys")


class Agent:
    """All of a node's enclaves and lines. The hub of its enclaves and the hall of its callers."""

    def __init__(self, spec: AgentSpec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec = spec
        self._loop = loop
        self._enclaves: dict[int, EnclaveHost] = {}
        self._peers: dict[str, Peer] = {}
        self._routes: dict[int, Route] = {}
        self._counted: dict[int, int] = {}  # connection -> events under earlier epochs
        self._tasks: set[asyncio.Task[None]] = set()
        self._caller: Caller | None = None
        self._machine: MachineClient | None = None
        self.flow = Flow()
        self.lanes: dict[bytes, Lane] = {}
        self.deployer = Writer(self.flow, loop)
        self.over: asyncio.Future[None] = loop.create_future()

    async def start(self, machine: socket.socket) -> None:
        """Wait until the device is up; raises the error with which it failed."""
        self._machine = MachineClient(machine, on_ended=self._on_ended, on_lost=self.leave)
        await self._machine.ready()
        self._watch()

    def leave(self) -> None:
        """End this process."""
        if not self.over.done():
            self.over.set_result(None)

    def _watch(self) -> None:
        now = self._loop.time()
        for enclave in list(self._enclaves.values()):
            enclave.look(now)
        self._loop.call_later(_LOOK, self._watch)

    # Callers.

    def admit(self, caller: Caller, greeting: Hello) -> None:
        """Check the token; there is one deployer at a time."""
        is_deployer = greeting.role == "deployer"
        token = self._spec.deployer_token if is_deployer else self._spec.peer_token
        if not is_token(greeting.token, token) or (is_deployer and self._caller is not None):
            raise DecodeError(0, "not the token")
        if is_deployer:
            self._caller = caller

    def deployer_left(self) -> None:
        """An agent without a deployer has nothing to do."""
        self.leave()

    def enclaves(self) -> set[Sink]:
        """All that a peer's messages may crowd."""
        return set(self._enclaves.values())

    def hear_peer(self, message: bytes) -> None:
        """Take what a peer passes on, if a route says that it ends here."""
        kind = message[0]
        if kind == Kind.REQUEST:
            connection, epoch, counter = _head(SEALED, message)
            route = self._routes.get(connection)
            if route is not None and route.epoch == epoch and isinstance(route.target, int):
                self._request(route.target, connection, counter, message)
            else:
                self.reply(connection, failed(connection, counter, "not connected"))
        elif kind == Kind.REPLY:
            connection, _, _, counter = _head(ANSWER, message)
            self._answer_here(connection, counter, message)
        elif kind == Kind.FAILED:
            connection, counter = _head(FAILED, message)
            self._answer_here(connection, counter, message)
        elif kind != Kind.EVENT:  # an event without a lane is late: its epoch is over
            raise DecodeError(0, f"kind 0x{kind:02x} from a peer")

    def obey(self, message: bytes) -> None:
        """Carry out a command, or pass a message on to an enclave."""
        kind = message[0]
        if kind == FrameKind.SEND:
            handle, inner = decode_addressed(message)
            enclave = self._enclaves.get(handle)
            if enclave is not None:
                enclave.push(inner)
        elif kind == Kind.EVENT:
            lane = self.lanes.get(message[:9])
            if lane is not None:
                lane.count += 1
                lane.push(message)
        else:
            self._carry_out(decode_command(message))

    def _carry_out(self, order: object) -> None:
        if isinstance(order, Load):
            self._spawn(self._load(order))
        elif isinstance(order, Routes):
            self._spawn(self._route(order))
        elif isinstance(order, AskCounts):
            self._tell(Done(order.order, counts=self._counts()))
        elif isinstance(order, Start | Unload):
            enclave = self._enclaves.get(order.handle)
            if enclave is not None and isinstance(order, Start):
                enclave.start_ticks()
            elif enclave is not None:
                enclave.give_up("was unloaded")

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, said: Report) -> None:
        self.deployer.push(report(said))

    # Enclaves.

    async def _load(self, order: Load) -> None:
        assert self._machine is not None
        work = HostWork(order.module, order.ocalls, Path(self._spec.stores, order.store))
        packed = Packed(tee=order.tee, data=order.data, signature=order.signature)
        limits = Limits(memory_mb=order.memory_mb, unsandboxed=order.unsandboxed)
        try:
            work.prepare()
            loaded = await self._machine.load(_name(order.handle), packed, limits)
        except BrochError as exc:
            self._tell(NotLoaded(order.handle, error_to_data(exc)))
            return
        self._tell(Loaded(order.handle, loaded.pid))
        self._enclaves[order.handle] = EnclaveHost(
            self, order, loaded.ring, work, self._loop, self.deployer
        )

    def kill(self, enclave: EnclaveHost) -> None:
        """End an enclave; :meth:`_on_ended` follows."""
        assert self._machine is not None
        self._machine.kill(_name(enclave.load.handle))

    def _on_ended(self, name: str, status: int) -> None:
        # In the loop's next round, so that an enclave that was just loaded is known.
        self._loop.call_soon(self._end, int(name), status)

    def _end(self, handle: int, status: int) -> None:
        enclave = self._enclaves.pop(handle, None)
        if enclave is not None:
            enclave.ended()
            self._tell(Ended(handle, status, enclave.why))

    def hear(self, enclave: EnclaveHost, message: bytes) -> None:
        """Pass on to the deployer what an enclave says."""
        self.deployer.push(addressed(FrameKind.SAID, enclave.load.handle, message))

    # Routes.

    async def _route(self, order: Routes) -> None:
        try:
            await asyncio.gather(
                *(self._dial(name, address) for name, address in order.peers.items())
            )
        except OSError as exc:
            error = UndecidedError(f"a peer cannot be reached: {exc.strerror}")
            self._tell(Done(order.order, error_to_data(error)))
            return
        for route in order.routes:
            self._replace(route)
        for enclave in self._enclaves.values():
            enclave.sinks = {self.deployer, *(lane.sink for lane in enclave.events.values())}
        self._tell(Done(order.order))

    async def _dial(self, name: str, address: tuple[str, int]) -> None:
        if name not in self._peers:
            peer = Peer(self.flow, self._loop, partial(self._peer_left, name))
            self._peers[name] = peer
            await peer.dial(address, self._spec.node, self._spec.peer_token)

    def _peer_left(self, name: str) -> None:
        """Nobody there will answer any more."""
        self._peers.pop(name, None)
        for enclave in self._enclaves.values():
            connection, counter = enclave.asked
            route = self._routes.get(connection)
            if route is not None and route.target == name:
                self._fail(enclave, connection, counter, "the peer is gone")

    def _replace(self, route: Route) -> None:
        old = self._routes.get(route.connection)
        if old is not None:
            key = ROUTE_KEY.pack(Kind.EVENT, old.connection, old.epoch)
            lane = self.lanes.pop(key, None)
            if lane is not None:
                self._counted[old.connection] = self._counted.get(old.connection, 0) + lane.count
            for enclave in self._enclaves.values():
                enclave.events.pop(key, None)
        self._routes[route.connection] = route
        key = ROUTE_KEY.pack(Kind.EVENT, route.connection, route.epoch)
        sink = self._sink(route.target)
        lane = None if sink is None else Lane(sink)
        if lane is not None and isinstance(route.target, int):
            self.lanes[key] = lane
        if lane is not None and isinstance(route.source, int):
            source = self._enclaves.get(route.source)
            if source is not None:
                source.events[key] = lane

    def _sink(self, place: Place) -> Sink | None:
        if place is None:
            return self.deployer
        if isinstance(place, int):
            return self._enclaves.get(place)
        peer = self._peers.get(place)
        return None if peer is None else peer.forward

    def _counts(self) -> dict[int, int]:
        counts = dict(self._counted)
        for key, lane in self.lanes.items():
            _, connection, _ = ROUTE_KEY.unpack(key)
            counts[connection] = counts.get(connection, 0) + lane.count
        return counts

    # Requests.

    def ask(self, enclave: EnclaveHost, message: bytes) -> None:
        """Pass a REQUEST of an enclave's here on to its handler."""
        connection, epoch, counter = head(SEALED, message)
        route = self._routes.get(connection)
        if route is None or route.epoch != epoch or route.source != enclave.load.handle:
            self._fail(enclave, connection, counter, "not connected")
        elif isinstance(route.target, int):
            self._request(route.target, connection, counter, message)
        elif isinstance(route.target, str) and route.target in self._peers:
            self._peers[route.target].forward.push(message)
        else:
            self._fail(enclave, connection, counter, "not connected")

    def _fail(self, enclave: EnclaveHost, connection: int, counter: int, why: str) -> None:
        text = failed(connection, counter, why)
        self._loop.call_soon(enclave.answer_request, connection, counter, text)

    def _request(self, handle: int, connection: int, counter: int, message: bytes) -> None:
        """Give a REQUEST to its handler, which is here."""
        handler = self._enclaves.get(handle)
        if handler is None:
            self.reply(connection, failed(connection, counter, "the module is not running"))
        else:
            self._counted[connection] = self._counted.get(connection, 0) + 1
            handler.request(message)

    def reply(self, connection: int, message: bytes) -> None:
        """Pass a REPLY or FAILED on to the asker."""
        route = self._routes.get(connection)
        if route is None:
            return
        if isinstance(route.source, int):
            layout = FAILED if message[0] == Kind.FAILED else ANSWER
            self._answer_here(connection, head(layout, message)[-1], message)
        elif isinstance(route.source, str) and route.source in self._peers:
            self._peers[route.source].back.push(message)

    def _answer_here(self, connection: int, counter: int, message: bytes) -> None:
        route = self._routes.get(connection)
        if route is not None and isinstance(route.source, int):
            asker = self._enclaves.get(route.source)
            if asker is not None:
                asker.answer_request(connection, counter, message)


def _name(handle: int) -> str:
    return str(handle)


def _head(layout: Any, message: bytes) -> tuple[int, ...]:
    try:
        return head(layout, message)
    except BrochError as exc:
        raise DecodeError(0, exc.message) from None


# The process.


def main(machine: socket.socket, control: socket.socket, spec: bytes) -> None:
    """Be an agent until the deployer leaves or ``control`` is hung up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = msgspec.msgpack.decode(spec, type=AgentSpec)
    try:
        lacks = sandbox.missing()
        listener = _listen(settings)
        lacks += _close_in(settings)
        asyncio.run(_serve(settings, machine, control, listener, lacks))
    except BrochError as exc:
        with contextlib.suppress(OSError):
            control.sendall(msgspec.json.encode({"error": error_to_data(exc)}) + b"\n")
    finally:
        os._exit(0)  # host functions may be stuck in threads


def _listen(spec: AgentSpec) -> socket.socket:
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((spec.host, spec.port))
        sock.listen(128)
    except OSError as exc:
        sock.close()
        raise UsageError(
            f"node {spec.node} cannot listen on {spec.host}:{spec.port}: {exc.strerror}",
            hint="name another port for the node, or none, and any free one is taken",
        ) from None
    return sock


def _close_in(spec: AgentSpec) -> list[str]:
    """Give up what an agent has no use for; what the kernel lacks for that."""
    sandbox.not_dumpable()
    sandbox.no_new_privileges()
    libraries = [path for path in (*sys.path, sys.prefix, sys.base_prefix) if path]
    folders = dict.fromkeys(map(os.path.realpath, [*libraries, *_SYSTEM, *spec.readable]))
    hidden = [Path(os.path.realpath(path)) for path in spec.hidden]
    readable = [str(part) for folder in folders for part in without(Path(folder), hidden)]
    try:
        sandbox.landlock(read=tuple(readable), write=(spec.stores, "/dev/null"))
    except OSError as exc:
        return [f"Landlock for agents ({exc.strerror})"]
    return []


def without(folder: Path, hidden: list[Path]) -> list[Path]:
    """``folder``, or those of its parts that hold nothing hidden."""
    if any(folder.is_relative_to(path) for path in hidden):
        return []
    if not any(path.is_relative_to(folder) for path in hidden):
        return [folder]
    try:
        children = sorted(path for path in folder.iterdir() if not path.is_symlink())
    except OSError:
        return []
    return [part for child in children for part in without(child, hidden)]


async def _serve(
    spec: AgentSpec,
    machine: socket.socket,
    control: socket.socket,
    listener: socket.socket,
    lacks: list[str],
) -> None:
    loop = asyncio.get_running_loop()
    agent = Agent(spec, loop)
    await agent.start(machine)
    await loop.create_server(lambda: Caller(agent, loop), sock=listener)
    port = listener.getsockname()[1]
    control.sendall(msgspec.json.encode({"port": port, "lacks": lacks}) + b"\n")
    control.setblocking(False)
    loop.add_reader(control, agent.leave)  # nothing is ever said there: it was hung up
    await agent.over
