"""The machine: the process that hosts a node's device and launches what it loaded.

It alone reads the device's secret. Whoever loads an image gets a ring to the enclave; the channel
between enclave and device is made here and seen by nobody else. The image that runs is the copy
that the device measured, in memory that can no longer be changed.
"""

import os
import select
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from broch.enclave import device_folder, packets, sandbox
from broch.enclave.agent_channel import AgentChannel
from broch.enclave.device_channel import MAX_PACKET, DeviceService
from broch.enclave.machine_messages import (
    Ended,
    Kill,
    Load,
    LoadedReply,
    Ready,
    Refusal,
)
from broch.enclave.mcu import McuMachine
from broch.enclave.ring import make_ring
from broch.enclave.zygote import Fork, Forked, Report, Zygote
from broch.errors import BrochError, InternalError, PolicyError, UsageError
from broch.tee import registry
from broch.tee.contract import Device, DeviceSettings, Loaded, Packed, Tee
from broch.tee.guest import NativeSettings
from broch.tee.hosting import Microcontroller
from broch.tee.kernel import Linux

MAX_PACKED: Final = 64 * 1024 * 1024  # bytes of an image in its TEE's format
MAX_ENCLAVES: Final = 256  # on one machine at a time
_BEGIN: Final = timedelta(days=1)  # certificates of a new device begin so long ago


class MachineSpec(msgspec.Struct, frozen=True):
    """Which device a machine hosts."""

    tee: str
    name: str
    folder: str  # of the device
    native: str = ""  # root of the hardware under us ("/"); empty: an emulated device


class Machine:
    """The loop of a machine's process."""

    def __init__(
        self,
        tee: Tee,
        device: Device,
        runtime: bytes,
        agent: socket.socket,
        zygote: socket.socket,
    ) -> None:
        self._runtime = runtime
        self._agent = AgentChannel(agent, load=self._load, kill=self._kill, most=MAX_PACKED)
        self._zygote = zygote
        self._tee, self._device = tee, device
        self._services: dict[int, tuple[socket.socket, DeviceService]] = {}
        self._enclaves: dict[str, socket.socket] = {}  # name -> device channel
        self._early: list[Ended] = []
        self._poller = select.poll()
        self._poller.register(agent, select.POLLIN)
        self._poller.register(zygote, select.POLLIN)

    def run(self) -> None:
        """Serve until the agent hangs up or the zygote dies."""
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._agent.fileno():
                    if not self._agent.serve():
                        return
                elif descriptor == self._zygote.fileno():
                    if not self._hear_zygote():
                        return
                elif descriptor in self._services:
                    self._serve_enclave(descriptor)

    def _load(self, question: Load, packed: Packed) -> None:
        if question.name in self._enclaves or len(self._enclaves) >= MAX_ENCLAVES:
            raise UsageError(f"{question.name} is loaded already, or too many enclaves are")
        self._launch(question, self._check(packed))

    def _kill(self, question: Kill) -> None:
        packets.send(self._zygote, msgspec.msgpack.encode(question))

    def _check(self, packed: Packed) -> Loaded:
        """Let the device measure and check; then that it is made for this runtime."""
        if packed.tee != self._device.tee:
            raise UsageError(f"an image for {packed.tee}; this is a {self._device.tee} device")
        loaded = self._device.load(packed)
        if loaded.image.runtime != self._runtime:
            raise PolicyError(
                f"built for runtime {loaded.image.runtime.hex()[:16]}, this machine runs "
                f"{self._runtime.hex()[:16]}",
                hint="Python, Broch or a dependency changed since the image was built: build anew",
            )
        return loaded

    def _launch(self, question: Load, loaded: Loaded) -> None:
        image = packets.memory_file("broch-image", loaded.image.to_bytes())
        ring = make_ring()
        ours, theirs = packets.pair()
        order = Fork(question.name, question.limits)
        try:
            packets.send(
                self._zygote, msgspec.msgpack.encode(order), (image, *ring, theirs.fileno())
            )
            pid = self._forked(question.name)
            service = DeviceService(
                self._device,
                loaded.identity,
                self._tee.report_data_size,
                next(iter(self._tee.seal_bindings), None),
            )
            self._services[ours.fileno()] = (ours, service)
            self._enclaves[question.name] = ours
            self._poller.register(ours, select.POLLIN)
            reply = LoadedReply(question.name, pid, loaded.identity.measurement.value)
            self._agent.say(reply, ring)
        finally:
            theirs.close()
            packets.close_all((image, *ring))
        for ended in self._early:
            self._ended(ended)
        self._early.clear()

    def _forked(self, name: str) -> int:
        """Wait for the zygote's word on a fork; ends that come first are kept."""
        while True:
            report = self._zygote_report()
            if report is None:
                raise InternalError("the zygote is gone")
            if isinstance(report, Forked):
                assert report.name == name
                return report.pid
            self._early.append(report)

    def _zygote_report(self) -> Report | None:
        packet = packets.receive(self._zygote)
        return None if packet is None else _report.decode(packet[0])

    def _hear_zygote(self) -> bool:
        if not _has_news(self._zygote):
            return True  # a load, served since the poll, took it
        report = self._zygote_report()
        if report is None:
            return False
        if isinstance(report, Ended):
            self._ended(report)
        return True

    def _ended(self, report: Ended) -> None:
        channel = self._enclaves.pop(report.name, None)
        if channel is not None:
            self._hang_up(channel)
        self._agent.say(report)

    def _serve_enclave(self, descriptor: int) -> None:
        """Answer one question. What a module sends may not stop the machine: others run on it."""
        sock, service = self._services[descriptor]
        try:
            packet = sock.recv(MAX_PACKET, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return  # the descriptor is another enclave's than at the poll
        except OSError:
            packet = b""
        try:
            if packet:
                sock.send(service.answer(packet), socket.MSG_DONTWAIT)
                return
        except (OSError, ValueError, RecursionError):
            pass  # it does not take its answers, or asked nonsense
        self._hang_up(sock)

    def _hang_up(self, channel: socket.socket) -> None:
        descriptor = channel.fileno()
        if descriptor >= 0:  # else it is closed, and its number may be another's
            del self._services[descriptor]
            self._poller.unregister(descriptor)
            channel.close()


def _has_news(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


_report: Final = msgspec.msgpack.Decoder(Report)


def _open_device(spec: MachineSpec) -> tuple[Tee, Device]:
    folder = Path(spec.folder)
    tee, device = _open_native(spec) if spec.native else _open_emulated(spec, folder)
    device_folder.save_endorsements(folder, device.endorsements())
    return tee, device


def _open_emulated(spec: MachineSpec, folder: Path) -> tuple[Tee, Device]:
    tee = registry.find(spec.tee)
    settings = DeviceSettings(
        name=spec.name,
        secret=device_folder.read_secret(folder),
        nv=device_folder.FileNonVolatile(folder),
        now=datetime.now(UTC) - _BEGIN,
    )
    return tee, tee.device(settings)


def _open_native(spec: MachineSpec) -> tuple[Tee, Device]:
    tee = registry.find_native(spec.tee)
    return tee, tee.native(NativeSettings(name=spec.name, kernel=Linux(Path(spec.native))))


def _make(
    spec: MachineSpec,
    runtime: bytes,
    agent: socket.socket,
    zygote: socket.socket,
    panel: socket.socket | None,
) -> "Machine | McuMachine":
    tee, device = _open_device(spec)
    if isinstance(device, Microcontroller):
        zygote.close()  # which ends it: no process is needed
        os.wait()
        return McuMachine(device, tee.name, agent, panel)
    if panel is not None:
        panel.close()
    return Machine(tee, device, runtime, agent, zygote)


def run(
    spec: MachineSpec,
    runtime: bytes,
    agent: socket.socket,
    panel: socket.socket | None = None,
) -> None:
    """Be a machine: fork the zygote while there is no secret yet, then host the device."""
    ours, theirs = packets.pair()
    parent = os.getpid()
    if os.fork() == 0:
        sandbox.die_with_parent(parent)
        sandbox.name_process("broch-zygote")
        sandbox.not_dumpable()  # nobody may alter what becomes an enclave
        os.environ.clear()  # not measured, and nothing of a module's business
        ours.close()
        agent.close()
        if panel is not None:
            panel.close()
        Zygote(theirs).run()
        os._exit(0)
    theirs.close()
    sandbox.name_process(f"device:{spec.name}")
    sandbox.not_dumpable()
    try:
        machine = _make(spec, runtime, agent, ours, panel)
    except BrochError as exc:
        refusal = Refusal("", exc.code, str(exc), exc.hint)
        packets.send(agent, msgspec.msgpack.encode(refusal))
        return
    except Exception as exc:
        # A defect, or a file of this installation that is broken: its text may show the secret.
        hint = "BROCH_DEBUG=1 shows where"
        what = f"the device fails: {type(exc).__name__}"
        refusal = Refusal("", InternalError.code, what, hint)
        packets.send(agent, msgspec.msgpack.encode(refusal))
        raise
    packets.send(agent, msgspec.msgpack.encode(Ready(os.getpid())))
    machine.run()
