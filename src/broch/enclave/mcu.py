"""The machine of a node whose device runs its modules itself: no processes, one loop.

It speaks with the agent as :mod:`broch.enclave.machine` does: loads, rings, ends. Besides there is
the panel, a channel to whoever started the node and to nobody else: what hands and eyes would do
at the device must not pass through an agent, which could press a button that nobody pressed.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from broch.enclave import packets
from broch.enclave.agent_channel import AgentChannel
from broch.enclave.hosted import FaultError, HostedEnclave, Stopped, fault
from broch.enclave.machine_messages import Ended, Kill, Load, LoadedReply, Refusal
from broch.enclave.messages import Kind
from broch.enclave.ring import PoisonedError, Ring, RingClosedError, make_ring, open_ring
from broch.errors import BrochError, InternalError, UsageError
from broch.tee.contract import Packed
from broch.tee.hosting import Microcontroller

MAX_PACKED: Final = 4 * 1024 * 1024  # bytes of a module
_BACKLOG: Final = 1024  # messages that may wait for an agent that does not listen
_KILLED: Final = -9


class PanelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the operator does; see the device's own panel."""

    action: str
    target: str = ""
    value: Any = None
    number: int = 0  # comes back with the answer


class PanelAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What there is to see, or why it was refused."""

    seen: dict[str, Any] | None = None
    refusal: Refusal | None = None
    number: int = 0


_order: Final = msgspec.msgpack.Decoder(PanelOrder)
_answer: Final = msgspec.msgpack.Decoder(PanelAnswer)
_PANEL_SECONDS: Final = 30.0  # a module that runs for long is waited for


def operate(panel: socket.socket, order: PanelOrder) -> dict[str, Any]:
    """The operator's end of the panel: one order, and what there is to see then.

    Raises:
        BrochError: what the device refused with.
        UsageError: the value is none that can be sent to a device.
        InternalError: the device is gone, or does not answer.
    """
    numbered = msgspec.structs.replace(order, number=time.monotonic_ns())
    try:
        message = msgspec.msgpack.encode(numbered)
    except (TypeError, OverflowError) as exc:  # no plain data, or a number of more than 64 bits
        raise UsageError(f"not a value for a device: {exc}") from None
    panel.settimeout(_PANEL_SECONDS)
    try:
        packets.send(panel, message)
        answer = _answer_to(numbered.number, panel)
    except OSError as exc:
        raise InternalError(f"the device does not answer: {exc}") from None
    if answer.refusal is not None:
        # Brings asyncio, which the runtime closure does without; this runs in the deployer.
        from broch.enclave.machine_client import error_of

        raise error_of(answer.refusal)
    return answer.seen or {}


def _answer_to(number: int, panel: socket.socket) -> PanelAnswer:
    """The answer to one order; those to earlier ones, that were given up, may come before."""
    while (packet := packets.receive(panel)) is not None:
        answer = _answer.decode(packet[0])
        if answer.number == number:
            return answer
    raise InternalError("the device is gone")


class _Running:
    """One module and its ring."""

    def __init__(self, name: str, enclave: HostedEnclave, ring: Ring) -> None:
        self.name = name
        self.enclave = enclave
        self.ring = ring
        self.done = 0
        self.waiting: deque[bytes] = deque()  # for room in the ring
        self.is_asleep = False

    def say(self, messages: list[bytes]) -> None:
        """Send, or keep what the ring has no room for."""
        self.waiting.extend(messages)
        if len(self.waiting) > _BACKLOG:
            raise FaultError("its agent does not listen")
        self.flush()

    def flush(self) -> bool:
        """Send what waits; whether nothing is left."""
        while self.waiting and self.ring.has_room(len(self.waiting[0])):
            self.ring.send(self.waiting.popleft())
        return not self.waiting


class McuMachine:
    """The loop of such a machine.

    Args:
        device: runs the modules.
        tee: what it is called in loads.
        agent: the agent's channel.
        panel: the operator's channel, if there is one.
    """

    def __init__(
        self,
        device: Microcontroller,
        tee: str,
        agent: socket.socket,
        panel: socket.socket | None,
    ) -> None:
        self._device = device
        self._tee = tee
        self._agent = AgentChannel(agent, load=self._load, kill=self._kill, most=MAX_PACKED)
        self._panel = panel
        self._modules: dict[str, _Running] = {}
        self._poller = select.poll()
        self._poller.register(agent, select.POLLIN)
        if panel is not None:
            self._poller.register(panel, select.POLLIN)

    def run(self) -> None:
        """Serve until the agent hangs up."""
        while True:
            busy = self._work()
            for descriptor, _ in self._poller.poll(0 if busy or not self._sleep() else None):
                if descriptor == self._agent.fileno():
                    if not self._agent.serve():
                        return
                elif self._panel is not None and descriptor == self._panel.fileno():
                    self._serve_panel()
            for running in self._modules.values():
                if running.is_asleep:
                    running.is_asleep = False
                    running.ring.wakened()

    def _sleep(self) -> bool:
        """Get ready to sleep on all rings; false if there is something to do."""
        for running in self._modules.values():
            if not running.ring.prepare_sleep():
                return False
            running.is_asleep = True
        return True

    def _work(self) -> bool:
        """One message for each module, and what peripherals ask for; whether anything was done."""
        busy = False
        for running in list(self._modules.values()):
            with self._guarded(running):
                message = running.ring.receive(0) if running.flush() else None
                if message is not None:
                    busy = True
                    running.say(running.enclave.take(message))
                    running.done += 1
                    running.ring.tell_progress(running.done)
        for vector in self._device.interrupts():
            busy = True
            for running in list(self._modules.values()):
                if vector in running.enclave.module.interrupts:
                    with self._guarded(running):
                        running.say(running.enclave.interrupted(vector))
        return busy

    @contextmanager
    def _guarded(self, running: _Running) -> Iterator[None]:
        """End a module that cannot go on, and nothing else."""
        try:
            yield
        except Stopped:
            self._end(running, 0, bytes([Kind.BYE]))
        except (FaultError, PoisonedError) as exc:
            self._end(running, 1, fault(str(exc)))
        except RingClosedError:
            self._end(running, 0, b"")

    def _end(self, running: _Running, status: int, last: bytes) -> None:
        if self._modules.pop(running.name, None) is None:
            return
        self._poller.unregister(running.ring.fileno())
        self._device.remove(running.enclave.module)
        try:
            running.flush()
            if last and running.ring.has_room(len(last)):
                running.ring.send(last)
        except BrochError:
            pass  # the ring is what is broken
        running.ring.close()
        self._agent.say(Ended(running.name, status))

    # The agent

    def _load(self, question: Load, packed: Packed) -> None:
        if question.name in self._modules:
            raise UsageError(f"{question.name} is loaded already")
        if question.tee != self._tee:
            raise UsageError(f"a module for {question.tee}; this is a {self._tee} node")
        self._begin(question.name, HostedEnclave(self._device.install(packed)))

    def _kill(self, question: Kill) -> None:
        running = self._modules.get(question.name)
        if running is not None:
            self._end(running, _KILLED, b"")

    def _begin(self, name: str, enclave: HostedEnclave) -> None:
        memory = make_ring()
        ours = tuple(os.dup(descriptor) for descriptor in memory)
        running = _Running(name, enclave, open_ring(*ours, host=False))
        self._modules[name] = running
        self._poller.register(running.ring.fileno(), select.POLLIN)
        reply = LoadedReply(name, os.getpid(), enclave.module.measurement.value)
        self._agent.say(reply, memory)
        packets.close_all(memory)
        with self._guarded(running):
            running.say(enclave.start())

    # The operator

    def _serve_panel(self) -> None:
        assert self._panel is not None
        packet = packets.receive(self._panel)
        if packet is None:
            self._poller.unregister(self._panel)
            self._panel = None
            return
        message, descriptors = packet
        packets.close_all(descriptors)
        number = 0
        try:
            order = _order.decode(message)
            number = order.number
            seen = self._device.operate(order.action, order.target, order.value)
            answer = PanelAnswer(seen, number=number)
        except msgspec.MsgspecError as exc:
            answer = PanelAnswer(refusal=Refusal("", UsageError.code, f"not an order: {exc}", None))
        except BrochError as exc:
            refusal = Refusal("", exc.code, exc.message, exc.hint)
            answer = PanelAnswer(refusal=refusal, number=number)
        packets.send(self._panel, msgspec.msgpack.encode(answer))
