"""The zygote: a process that has imported everything, holds no secret, and forks enclaves.

It is the child of its machine and listens to nobody else. One packet asks for an enclave: the
struct :class:`Fork`, with descriptors for image, ring (3) and device channel.
"""

import gc
import os
import select
import signal
import socket
from dataclasses import dataclass
from typing import Final

import msgspec

from broch.enclave import packets, process, sandbox
from broch.enclave.machine_messages import Ended, Kill, Limits

_FDS: Final = 5  # image, ring memory, eventfd to host, eventfd to enclave, device channel


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Fork an enclave."""

    name: str
    limits: Limits


class Forked(msgspec.Struct, frozen=True, tag=True):
    """It runs."""

    name: str
    pid: int


Order = Fork | Kill
Report = Forked | Ended
_order: Final = msgspec.msgpack.Decoder(Order)


@dataclass(slots=True)
class _Child:
    name: str
    pid: int
    pidfd: int


class Zygote:
    """The loop of a zygote's process."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._children: dict[int, _Child] = {}  # by pidfd
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def run(self) -> None:
        """Serve until the machine hangs up, then end all enclaves."""
        gc.collect()
        gc.freeze()
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == self._socket.fileno():
                    if not self._serve():
                        return
                else:
                    self._reap(descriptor)

    def _serve(self) -> bool:
        packet = packets.receive(self._socket)
        if packet is None:
            for child in self._children.values():
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            return False
        message, descriptors = packet
        order = _order.decode(message)
        if isinstance(order, Fork):
            self._fork(order, descriptors)
        else:
            for child in self._children.values():
                if child.name == order.name:
                    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        return True

    def _fork(self, order: Fork, descriptors: list[int]) -> None:
        assert len(descriptors) == _FDS
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_enclave(parent, order.limits, descriptors)
        packets.close_all(descriptors)
        child = _Child(order.name, pid, os.pidfd_open(pid))
        self._children[child.pidfd] = child
        self._poller.register(child.pidfd, select.POLLIN)
        self._say(Forked(order.name, pid))

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._say(Ended(child.name, status))

    def _say(self, report: Report) -> None:
        packets.send(self._socket, msgspec.msgpack.encode(report))


def _become_enclave(parent: int, limits: Limits, descriptors: list[int]) -> None:
    """In the child: keep nothing of the zygote's but memory, and run."""
    try:
        sandbox.die_with_parent(parent)
        image, memory, to_host, to_enclave, device = _only(descriptors)
        process.run(image, (memory, to_host, to_enclave), device, limits)
    finally:
        os._exit(1)


def _only(descriptors: list[int]) -> list[int]:
    """Close every descriptor but these, which become 3, 4, ...; 0 to 2 become /dev/null."""
    above = max(*descriptors, 2 + len(descriptors)) + 1  # so that no copy takes another's place
    high = [os.dup2(d, above + i, inheritable=False) for i, d in enumerate(descriptors)]
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    kept = [os.dup2(d, 3 + i, inheritable=False) for i, d in enumerate(high)]
    os.closerange(3 + len(kept), os.sysconf("SC_OPEN_MAX"))
    return kept
