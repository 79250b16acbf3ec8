"""A host for enclaves under test: a real launcher, machine, zygote and device, and a test as agent.

The node's agent process only hands its channel to the machine over to the test, which so stands in
the agent's place: it loads what it likes, holds the host's end of each ring, and may cheat.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.crypto.channel import Direction, Opener, Sealer
from broch.enclave import device_folder, join, packets
from broch.enclave.launcher import Launcher, NodeProcess
from broch.enclave.machine import MachineSpec
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
from broch.enclave.messages import CALL, RESULT, SEALED, Kind, Status, decode_fault
from broch.enclave.ring import Ring, open_ring
from broch.image import Image, Interface
from broch.tee import registry
from broch.tee.contract import Packed, PackSettings

WAIT: Final = 30.0  # seconds until a test that waits in vain fails
AGENT: Final = '''
import json, os, socket

def relay(machine, control, spec):
    """Hand over the machine's channel, say what else is open, stay until the test hangs up."""
    links = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            links[number] = os.readlink("/proc/self/fd/" + number)
        except OSError:
            pass
    links = {n: link for n, link in links.items() if not link.startswith("/proc/")}
    report = json.dumps({"pid": os.getpid(), "fds": links}).encode()
    socket.send_fds(control, [report], [machine.fileno()])
    machine.close()
    while control.recv(4096):
        pass
'''
_answer: Final = msgspec.msgpack.Decoder(Answer)


class MachineRefused(Exception):  # noqa: N818
    """The machine refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.code = refusal.code
        self.message = refusal.message
        self.hint = refusal.hint or ""


def gone(pidfd: int, seconds: float = WAIT) -> bool:
    """Whether the process ends within so many seconds."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def watch(pid: int) -> int:
    """A descriptor that is readable once the process ended."""
    return os.pidfd_open(pid)


def children(pid: int) -> list[int]:
    """Processes that this one forked and that still live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def process_named(parent: int, name: str) -> int:
    """The one child of ``parent`` whose name begins so; it may be about to take that name."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        for pid in children(parent):
            if Path(f"/proc/{pid}/comm").read_text().startswith(name):
                return pid
        os.sched_yield()
    raise AssertionError(f"process {parent} has no child {name}: {children(parent)}")


@dataclass(slots=True)
class Joined:
    """What a deployer keeps of a join."""

    keys: join.ModuleKeys
    nonce: bytes
    evidence: bytes
    serial: int = 0


class Enclave:
    """The host's end of an enclave."""

    def __init__(self, node: "Node", image: Image, reply: LoadedReply, ring: Ring) -> None:
        self.node = node
        self.image = image
        self.name = reply.name
        self.pid = reply.pid
        self.pidfd = watch(reply.pid)
        self.measurement = reply.measurement
        self.ring = ring
        self.printed: list[str] = []
        self.sent: list[bytes] = []  # all that it ever sent
        self._calls = 0

    def number(self, port: str) -> int:
        return self.image.interface.number(port)

    def receive(self, timeout: float = WAIT) -> bytes:
        """The next message that is not PRINT."""
        end = time.monotonic() + timeout
        while True:
            is_over = self.over()
            message = self.ring.receive(0 if is_over else 0.1)
            if message is None:
                assert not is_over, f"{self.name} ended without a word: {self.ended()}"
                assert time.monotonic() < end, f"{self.name} says nothing"
                continue
            self.sent.append(message)
            if message[0] != Kind.PRINT:
                return message
            self.printed.append(message[1:].decode())

    def take(self, kind: Kind) -> bytes:
        """The next message, which must be of this kind."""
        message = self.receive()
        if message[0] == Kind.FAULT and kind != Kind.FAULT:
            raise AssertionError(f"{self.name} gave up: {decode_fault(message)}")
        assert message[0] == kind, f"expected {kind.name}, got {Kind(message[0]).name}"
        return message

    def send(self, kind: Kind, body: bytes = b"") -> None:
        self.ring.send(bytes([kind]) + body)

    def begin_call(self, entry: str, **arguments: object) -> int:
        self._calls += 1
        data = msgspec.msgpack.encode(arguments)
        self.ring.send(CALL.pack(Kind.CALL, self._calls, self.number(entry)) + data)
        return self._calls

    def result(self, call: int) -> tuple[Status, bytes]:
        message = self.take(Kind.RESULT)
        _, number, status = RESULT.unpack_from(message)
        assert number == call
        return Status(status), message[RESULT.size :]

    def call(self, entry: str, **arguments: object) -> Any:
        """Call an entry; its value."""
        status, body = self.result(self.begin_call(entry, **arguments))
        assert status is Status.OK, body
        return msgspec.msgpack.decode(body)

    def fault(self) -> str:
        """Its last words: ``place: what``; then it ends with status 1."""
        report = decode_fault(self.take(Kind.FAULT))
        assert self.ended() == 1
        text = f"{report.place}: {report.what}" if report.place else report.what
        return f"{text}: {report.message}" if report.message else text

    def ended(self) -> int:
        """Wait for its end: the exit status, negative for a signal."""
        return self.node.wait_ended(self.name)

    def over(self) -> bool:
        """Whether its process has ended."""
        return gone(self.pidfd, 0)

    def close(self) -> None:
        self.ring.close()
        os.close(self.pidfd)

    def kill(self) -> None:
        self.node.say(Kill(self.name))

    # A deployer's part.

    def attest(self, nonce: bytes = bytes(32)) -> Joined:
        self.send(Kind.CHALLENGE, nonce)
        message = self.take(Kind.EVIDENCE)
        return Joined(join.ModuleKeys(message[1:33], message[33:65]), nonce, message[65:])

    def grant(self, joined: Joined, *connections: join.Connection) -> None:
        joined.serial += 1
        terms = join.Terms(joined.serial, bytes(32), list(connections))
        sealed = join.grant(terms, joined.nonce, joined.keys, self.node.kit.deployer)
        self.send(Kind.GRANT, sealed)
        confirm = self.take(Kind.CONFIRM)
        join.check_confirmation(confirm[1:], terms, joined.nonce, joined.keys)


def connection(number: int, role: Any, port: str, epoch: int = 1) -> join.Connection:
    return join.Connection(number, role, port, "peer.port", "aes-128-gcm", bytes(16), epoch)


class Peer:
    """The other end of a connection."""

    def __init__(self, number: int, epoch: int = 1) -> None:
        self.number, self.epoch = number, epoch
        self._seal = Sealer(
            "aes-128-gcm", bytes(16), connection=number, direction=Direction.FORWARD, epoch=epoch
        )
        self._open = Opener(
            "aes-128-gcm", bytes(16), connection=number, direction=Direction.FORWARD, epoch=epoch
        )

    def sealed(self, kind: Kind, data: bytes) -> bytes:
        counter, sealed = self._seal.seal(data)
        return SEALED.pack(kind, self.number, self.epoch, counter) + sealed

    def event(self, value: object) -> bytes:
        return self.sealed(Kind.EVENT, msgspec.msgpack.encode(value))

    def open(self, message: bytes) -> Any:
        """What is in an EVENT that the enclave sent."""
        kind, number, epoch, counter = SEALED.unpack_from(message)
        assert (kind, number, epoch) == (Kind.EVENT, self.number, self.epoch)
        return msgspec.msgpack.decode(self._open.open(counter, message[SEALED.size :]))


@dataclass(slots=True)
class Kit:
    """What all nodes of a test session share."""

    launcher: Launcher
    deployer: Ed25519PrivateKey
    signing: dict[str, RSAPrivateKey] = field(default_factory=dict)
    _interfaces: dict[tuple[tuple[str, bytes], ...], Interface] = field(default_factory=dict)

    def image(self, source: str | Mapping[str, str], **changes: Any) -> Image:
        """An image of this source, the first file being the main one."""
        texts = {"main.py": source} if isinstance(source, str) else source
        files = {path: text.encode() for path, text in texts.items()}
        main = next(iter(files))
        fields: dict[str, Any] = {"app": "tests", "module": "probe", "files": files, "main": main}
        fields |= {
            "runtime": self.launcher.runtime,
            "deployer": self.deployer.public_key().public_bytes_raw(),
        }
        if "interface" not in changes:
            key = tuple(files.items())
            if key not in self._interfaces:
                self._interfaces[key] = self.launcher.declare(files, main)
            fields["interface"] = self._interfaces[key]
        return Image(**(fields | changes))

    def pack(self, tee: str, image: Image) -> Packed:
        kind = registry.find(tee)
        if kind.needs_signing_key and tee not in self.signing:
            self.signing[tee] = kind.new_signing_key()
        settings = PackSettings(version=1, product_id=1, debug=image.debug)
        return kind.pack(image, settings, self.signing.get(tee))


class Node:
    """A machine, and the test as its agent."""

    def __init__(self, kit: Kit, folder: Path, tee: str = "keystone") -> None:
        device_folder.make(folder)
        self.kit = kit
        self.tee = tee
        self._ended: dict[str, int] = {}
        self._loaded = 0
        spec = MachineSpec(tee, "bench", str(folder))
        self.process: NodeProcess = kit.launcher.start_node(spec, "broch_test_agent:relay", b"")
        self.process.control.settimeout(WAIT)
        report, (machine,), _, _ = socket.recv_fds(self.process.control, 4096, 1)
        self.agent: dict[str, Any] = msgspec.json.decode(report)
        self.machine = socket.socket(fileno=machine)
        self.machine.settimeout(WAIT)
        self.enclaves: list[Enclave] = []
        answer, _ = self.hear()
        if isinstance(answer, Refusal):
            self.close()
            raise MachineRefused(answer)
        assert isinstance(answer, Ready)
        self.pid = answer.pid
        self.pidfd = watch(self.pid)

    def say(self, question: Question, descriptors: tuple[int, ...] = ()) -> None:
        packets.send(self.machine, msgspec.msgpack.encode(question), descriptors)

    def hear(self) -> tuple[Answer, list[int]]:
        packet = packets.receive(self.machine)
        if packet is None:
            raise EOFError("the machine hung up")
        return _answer.decode(packet[0]), packet[1]

    def load(
        self,
        source: str | Mapping[str, str] | Image,
        name: str = "",
        *,
        limits: Limits | None = None,
        **changes: Any,
    ) -> Enclave:
        """Load; the enclave has not said anything yet."""
        image = source if isinstance(source, Image) else self.kit.image(source, **changes)
        self._loaded += 1
        name = name or f"probe-{self._loaded}"
        reply, descriptors = self.load_packed(self.kit.pack(self.tee, image), name, limits)
        enclave = Enclave(self, image, reply, open_ring(*descriptors, host=True))
        self.enclaves.append(enclave)
        return enclave

    def load_packed(
        self, packed: Packed, name: str = "probe", limits: Limits | None = None
    ) -> tuple[LoadedReply, tuple[int, int, int]]:
        memories = [packets.memory_file("image", packed.data)]
        if packed.signature is not None:
            memories.append(packets.memory_file("signature", packed.signature))
        load = Load(name, packed.tee, limits or Limits(), packed.signature is not None)
        self.say(load, tuple(memories))
        packets.close_all(memories)
        return self.loaded(name)

    def loaded(self, name: str) -> tuple[LoadedReply, tuple[int, int, int]]:
        """The answer to a load; ends that are told before it are kept."""
        while True:
            answer, descriptors = self.hear()
            if isinstance(answer, Ended):
                self._ended[answer.name] = answer.status
            elif isinstance(answer, Refusal):
                raise MachineRefused(answer)
            else:
                assert isinstance(answer, LoadedReply)
                assert answer.name == name
                memory, to_host, to_enclave = descriptors
                return answer, (memory, to_host, to_enclave)

    def start(
        self, source: str | Mapping[str, str] | Image, name: str = "", **more: Any
    ) -> Enclave:
        """Load, and wait until its code is."""
        enclave = self.load(source, name, **more)
        enclave.take(Kind.READY)
        return enclave

    def wait_ended(self, name: str) -> int:
        while name not in self._ended:
            answer, _ = self.hear()
            assert isinstance(answer, Ended), answer
            self._ended[answer.name] = answer.status
        return self._ended.pop(name)

    def clear(self) -> None:
        """End what runs here, so that the node can be used again."""
        for enclave in self.enclaves:
            if not enclave.over():
                enclave.kill()
                assert gone(enclave.pidfd)
            enclave.close()
        self.enclaves.clear()

    def close(self) -> None:
        self.machine.close()
        self.process.close()
        for enclave in self.enclaves:
            enclave.close()


def fork(work: Any, *arguments: Any) -> int:
    """Do ``work(*arguments)`` in a child: exit status its value (0 for None), 99 if it raised."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        signal.alarm(int(WAIT))
        status = work(*arguments) or 0
    finally:
        os._exit(status)


def wait(child: int) -> int:
    """Its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
