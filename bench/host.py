"""A host of one enclave, for benchmarks: a real machine with an emulated device, no agent."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broch.enclave import device_folder, loader, machine, packets
from broch.enclave.machine_messages import Answer, Limits, Load, LoadedReply, Ready, Refusal
from broch.enclave.messages import CALL, RESULT, Kind, Status
from broch.enclave.preload import preload
from broch.enclave.ring import Ring, open_ring
from broch.image import Image, Interface
from broch.tee import registry
from broch.tee.contract import PackSettings

_RUNTIME = bytes(32)  # image and machine agree on it; no launcher measures it here


@dataclass(frozen=True, slots=True)
class Enclave:
    """One that runs."""

    ring: Ring
    pid: int
    interface: Interface

    def call(self, port: int, arguments: bytes) -> bytes:
        """Call an entry with encoded arguments; its encoded result."""
        self.ring.send(CALL.pack(Kind.CALL, 1, port) + arguments)
        message = self.ring.receive()
        assert message is not None
        assert message[0] == Kind.RESULT
        assert message[9] == Status.OK
        return message[RESULT.size :]


def _interface(code: bytes) -> Interface:
    """What the code declares, asked in a child: running it changes how a process imports."""
    read, write = os.pipe()
    if os.fork() == 0:
        data = loader.run({"bench.py": code}, "bench.py").interface().to_data()
        os.write(write, msgspec.msgpack.encode(data))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        interface = Interface.from_data(msgspec.msgpack.decode(pipe.read()))
    os.wait()
    return interface


def _packet(sock: socket.socket) -> tuple[Ready | LoadedReply, list[int]]:
    packet = packets.receive(sock)
    assert packet is not None, "the machine is gone"
    answer = msgspec.msgpack.decode(packet[0], type=Answer)
    assert not isinstance(answer, Refusal), answer
    assert isinstance(answer, Ready | LoadedReply), answer
    return answer, packet[1]


@contextmanager
def enclave(code: str, tee: str = "sgx") -> Iterator[Enclave]:
    """Run a module's code in an enclave on a new emulated device; end both afterwards."""
    preload()
    source = code.encode()
    interface = _interface(source)
    kind = registry.find(tee)
    image = Image(
        app="bench",
        module="bench",
        files={"bench.py": source},
        main="bench.py",
        interface=interface,
        runtime=_RUNTIME,
        deployer=bytes(32),
    )
    packed = kind.pack(image, PackSettings(), kind.new_signing_key())
    with tempfile.TemporaryDirectory() as folder:
        device_folder.make(Path(folder))
        ours, theirs = packets.pair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            machine.run(machine.MachineSpec(tee, "bench", folder), _RUNTIME, theirs)
            os._exit(0)
        theirs.close()
        with ours:
            _packet(ours)
            contents = [packed.data] + ([packed.signature] if packed.signature else [])
            memories = [packets.memory_file("bench", content) for content in contents]
            load = Load("bench", tee, Limits(), has_signature=packed.signature is not None)
            packets.send(ours, msgspec.msgpack.encode(load), memories)
            packets.close_all(memories)
            answer, (memory, to_host, to_enclave) = _packet(ours)
            ring = open_ring(memory, to_host, to_enclave, host=True)
            ready = ring.receive(10)
            assert ready == bytes([Kind.READY]), ready
            yield Enclave(ring, answer.pid, interface)
        os.waitpid(pid, 0)
