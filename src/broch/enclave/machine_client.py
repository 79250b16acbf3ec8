"""The agent's side of a machine: load enclaves, kill them, hear of their end. For asyncio."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from broch.enclave import packets
from broch.enclave.machine_messages import (
    Answer,
    Ended,
    Kill,
    Limits,
    Load,
    LoadedReply,
    Question,
    Ready,
    Refusal,
)
from broch.enclave.ring import Ring, open_ring
from broch.errors import (
    BrochError,
    InternalError,
    MalformedError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.tee.contract import Packed

_CLASSES: Final = {
    kind.code: kind
    for kind in (
        UsageError,
        MalformedError,
        UntrustedError,
        PolicyError,
        UndecidedError,
        InternalError,
    )
}
_answer: Final = msgspec.msgpack.Decoder(Answer)


def error_of(refusal: Refusal) -> BrochError:
    """The error that a machine refused with."""
    return _CLASSES.get(refusal.code, InternalError)(refusal.message, hint=refusal.hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEnclave:
    """An enclave that runs on this machine."""

    name: str
    pid: int
    measurement: bytes
    ring: Ring


class MachineClient:
    """Talks to the machine under an agent.

    Args:
        sock: the agent's end of the pair.
        on_ended: called with the name and exit status (negative: signal) of each enclave that ends.
        on_lost: called when the machine itself is gone.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_ended: Callable[[str, int], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._on_ended = on_ended
        self._on_lost = on_lost
        self._waiting: dict[str, asyncio.Future[LoadedEnclave]] = {}
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(sock, self._read)

    async def ready(self) -> int:
        """Wait until the device is up; the machine's process id. Raises what it failed with."""
        return await self._ready

    async def load(self, name: str, packed: Packed, limits: Limits) -> LoadedEnclave:
        """Load an image; raises the error with which the device refused it."""
        memories = [packets.memory_file("broch-packed", packed.data)]
        if packed.signature is not None:
            memories.append(packets.memory_file("broch-signature", packed.signature))
        try:
            waiting = self._expect(name)
            load = Load(name, packed.tee, limits, has_signature=packed.signature is not None)
            try:
                self._send(load, memories)
            except OSError:
                del self._waiting[name]
                raise InternalError("the machine is gone") from None
        finally:
            packets.close_all(memories)
        return await waiting

    def kill(self, name: str) -> None:
        """End an enclave; ``on_ended`` follows."""
        with contextlib.suppress(OSError):  # the machine is gone, and all of its enclaves
            self._send(Kill(name), ())

    def close(self) -> None:
        """Hang up, which ends the machine and all its enclaves."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _expect(self, name: str) -> asyncio.Future[LoadedEnclave]:
        if name in self._waiting:
            raise InternalError(f"{name} is being loaded already")
        self._waiting[name] = self._loop.create_future()
        return self._waiting[name]

    def _send(self, question: Question, descriptors: tuple[int, ...] | list[int]) -> None:
        packets.send(self._socket, msgspec.msgpack.encode(question), descriptors)

    def _read(self) -> None:
        packet = packets.receive(self._socket)
        if packet is None:
            self._loop.remove_reader(self._socket)
            lost = InternalError("the machine is gone")
            futures: list[asyncio.Future[Any]] = [self._ready, *self._waiting.values()]
            for waiting in futures:
                if not waiting.done():
                    waiting.set_exception(lost)
                    waiting.exception()  # whoever waits gets it; nobody else need
            self._waiting.clear()
            self._on_lost()
            return
        message, descriptors = packet
        answer = _answer.decode(message)
        if isinstance(answer, Ended):
            self._on_ended(answer.name, answer.status)
            return
        if isinstance(answer, Ready):
            self._ready.set_result(answer.pid)
            return
        if isinstance(answer, Refusal) and not answer.name:
            self._ready.set_exception(error_of(answer))
            return
        loading = self._waiting.pop(answer.name, None)
        if loading is None or loading.done():
            packets.close_all(descriptors)
        elif isinstance(answer, Refusal):
            loading.set_exception(error_of(answer))
        else:
            loading.set_result(_loaded(answer, descriptors))


def _loaded(answer: LoadedReply, descriptors: list[int]) -> LoadedEnclave:
    memory, to_host, to_enclave = descriptors
    ring = open_ring(memory, to_host, to_enclave, host=True)
    return LoadedEnclave(
        name=answer.name, pid=answer.pid, measurement=answer.measurement, ring=ring
    )
