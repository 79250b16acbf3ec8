"""The machine of a microcontroller: loads, rings, interrupts, ends, and the operator's panel.

The device is one that does what the test says; the loop runs in a thread, as it would in a process.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from broch.enclave import packets
from broch.enclave.machine_messages import Answer, Ended, Kill, Limits, Load, LoadedReply, Refusal
from broch.enclave.mcu import McuMachine, PanelOrder, operate
from broch.enclave.messages import TICK, Kind, decode_fault
from broch.enclave.ring import Ring, open_ring
from broch.errors import InternalError, PolicyError, UsageError
from broch.tee.contract import Measurement, Packed

PATIENCE = 20.0
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


@dataclass
class Outcome:
    status: int = 0
    output: bytes = b""
    fault: str = ""


@dataclass
class Module:
    name: str
    interrupts: frozenset[int] = frozenset({2})
    calls: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def measurement(self) -> Measurement:
        return Measurement(tee="toy", value=self.name.encode())

    def number(self, port: int) -> int:
        return port

    def enter(self, function: int, data: bytes) -> Outcome:
        self.calls.append((function, data))
        if self.name == "bad" and function == 5:
            return Outcome(fault="ran into 0x0000 at 0x6000")
        if self.name == "talks" and function == 5:
            return Outcome(output=b"\3\0\2\0hi" * 100)
        return Outcome(output=b"\3\0\2\0up" if function == 6 else b"")

    def evidence(self, challenge: bytes, nonce: bytes, tag: bytes) -> bytes:
        return b""


class Toy:
    """A device with a button."""

    def __init__(self) -> None:
        self.modules: list[Module] = []
        self.removed: list[str] = []
        self.asked: list[int] = []

    def install(self, packed: Packed) -> Module:
        if packed.data == b"refuse":
            raise PolicyError("no room", hint="another node")
        module = Module(packed.data.decode())
        self.modules.append(module)
        return module

    def remove(self, module: Any) -> None:
        self.removed.append(module.name)
        self.modules.remove(module)

    def interrupts(self) -> list[int]:
        asked, self.asked = self.asked, []
        return asked

    def operate(self, action: str, target: str, value: Any) -> dict[str, Any]:
        if action != "press":
            raise UsageError(f"no such action: {action}", hint="press")
        self.asked.append(2)
        return {"pressed": target, "value": value}


class Machine:
    """The machine in its thread, and the agent's and the operator's ends."""

    def __init__(self) -> None:
        self.device = Toy()
        self.agent, theirs = packets.pair()
        self.panel, panel = packets.pair()
        machine = McuMachine(self.device, "toy", theirs, panel)
        self.agent.settimeout(PATIENCE)
        self._ends = (theirs, panel)
        self.thread = threading.Thread(target=machine.run)
        self.thread.start()
        self.rings: list[Ring] = []

    def ask(self, question: Load | Kill, *memories: bytes) -> None:
        files = [packets.memory_file("x", data) for data in memories]
        packets.send(self.agent, msgspec.msgpack.encode(question), files)
        packets.close_all(files)

    def answer(self) -> tuple[Answer, list[int]]:
        packet = packets.receive(self.agent)
        assert packet is not None
        return _answer.decode(packet[0]), packet[1]

    def load(self, name: str) -> Ring:
        self.ask(Load(name, "toy", Limits(), has_signature=False), name.encode())
        reply, descriptors = self.answer()
        assert isinstance(reply, LoadedReply)
        assert reply.measurement == name.encode()
        ring = open_ring(descriptors[0], descriptors[1], descriptors[2], host=True)
        self.rings.append(ring)
        assert self.hear(ring) == bytes([Kind.READY])
        return ring

    @staticmethod
    def hear(ring: Ring) -> bytes:
        message = ring.receive(PATIENCE)
        assert message is not None, "nothing came"
        return message

    def close(self) -> None:
        self.agent.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "it ends when the agent hangs up"
        for end in (*self._ends, self.panel):
            end.close()
        for ring in self.rings:
            ring.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


TICKED = TICK.pack(Kind.TICK, 0)


def test_modules_are_loaded_and_called(machine: Machine) -> None:
    ring = machine.load("talks")
    ring.send(TICKED)
    for _ in range(100):
        assert machine.hear(ring) == bytes([Kind.PRINT]) + b"hi"
    assert [function for function, _ in machine.device.modules[0].calls] == [0, 5]


def test_a_press_interrupts_those_that_listen(machine: Machine) -> None:
    first, second = machine.load("one"), machine.load("two")
    assert operate(machine.panel, PanelOrder("press", "1.0", 3)) == {"pressed": "1.0", "value": 3}
    for ring in (first, second):
        assert machine.hear(ring) == bytes([Kind.PRINT]) + b"up"


def test_a_module_that_cannot_go_on_ends_alone(machine: Machine) -> None:
    good, bad = machine.load("good"), machine.load("bad")
    bad.send(TICKED)
    assert decode_fault(machine.hear(bad)).what == "ran into 0x0000 at 0x6000"
    assert machine.answer()[0] == Ended("bad", 1)
    operate(machine.panel, PanelOrder("press"))
    assert machine.hear(good) == bytes([Kind.PRINT]) + b"up"
    assert machine.device.removed == ["bad"]


def test_poison_ends_a_module(machine: Machine) -> None:
    ring = machine.load("one")
    ring.send(bytes([Kind.RETURN]) + bytes(9))
    assert "kind 0x09 to a microcontroller" in decode_fault(machine.hear(ring)).what
    assert machine.answer()[0] == Ended("one", 1)


def test_stop_and_kill(machine: Machine) -> None:
    ring = machine.load("one")
    ring.send(bytes([Kind.STOP]))
    assert machine.hear(ring) == bytes([Kind.BYE])
    assert machine.answer()[0] == Ended("one", 0)
    machine.load("one")
    machine.ask(Kill("one"))
    assert machine.answer()[0] == Ended("one", -9)
    machine.ask(Kill("nobody"))
    machine.load("two")
    assert machine.device.removed == ["one", "one"]


@pytest.mark.parametrize(
    ("load", "memories", "code", "text"),
    [
        (Load("a", "toy", Limits(), has_signature=False), (b"refuse",), "refused", "no room"),
        (Load("a", "sgx", Limits(), has_signature=False), (b"x",), "usage", "this is a toy node"),
        (Load("a", "toy", Limits(), has_signature=True), (b"x",), "usage", "its signature"),
        (Load("a", "toy", Limits(), has_signature=False), (), "usage", "its signature"),
        (Load("a", "toy", Limits(), has_signature=False), (b"x", b"y"), "usage", "its signature"),
    ],
)
def test_loads_that_are_refused(
    machine: Machine, load: Load, memories: tuple[bytes, ...], code: str, text: str
) -> None:
    machine.ask(load, *memories)
    answer, _ = machine.answer()
    assert isinstance(answer, Refusal)
    assert (answer.name, answer.code) == ("a", code)
    assert text in answer.message
    machine.load("good")


def test_a_name_is_loaded_once_and_nonsense_is_ignored(machine: Machine) -> None:
    machine.load("one")
    machine.ask(Load("one", "toy", Limits(), has_signature=False), b"one")
    answer, _ = machine.answer()
    assert isinstance(answer, Refusal)
    assert "is loaded already" in answer.message
    packets.send(machine.agent, b"nonsense")
    machine.agent.send(b"\x05not even a packet")
    machine.load("two")


def test_the_panel_answers_everything(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no such action: kick") as caught:
        operate(machine.panel, PanelOrder("kick"))
    assert caught.value.hint == "press"
    packets.send(machine.panel, b"nonsense")
    packet = packets.receive(machine.panel)
    assert packet is not None
    assert b"not an order" in packet[0]
    for value in (object(), 2**64):
        with pytest.raises(UsageError, match="not a value for a device"):
            operate(machine.panel, PanelOrder("press", value=value))
    assert operate(machine.panel, PanelOrder("press", "x"))["pressed"] == "x"


def test_an_answer_that_comes_too_late_answers_nothing_else(machine: Machine) -> None:
    given_up = PanelOrder("press", "old", number=7)
    packets.send(machine.panel, msgspec.msgpack.encode(given_up))
    assert operate(machine.panel, PanelOrder("press", "new"))["pressed"] == "new"


def test_an_operator_who_hangs_up_ends_nothing(machine: Machine) -> None:
    machine.panel.close()
    machine.load("one")


def test_a_device_that_is_gone() -> None:
    ours, theirs = packets.pair()
    theirs.close()
    with ours, pytest.raises(InternalError, match="the device"):
        operate(ours, PanelOrder("show"))
