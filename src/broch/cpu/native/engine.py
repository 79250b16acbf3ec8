"""The native engine: every thread of the code is a thread of a traced process.

Each runs by PTRACE_SYSEMU: a system call stops it and is not made. So does every fault, and so does
ENCLU, which is an illegal instruction to a CPU without SGX, and a fault outside an enclave to one
with it. Between stops the code has the CPU to itself.
"""

import errno
import os
import signal
from collections.abc import Sequence
from typing import Final

from broch.cpu.native import ptrace
from broch.cpu.native.nearness import Nearness
from broch.cpu.native.process import TracedProcess
from broch.cpu.x86_64 import EXECUTE, PAGE, READ, Memory, Region, Registers, Stop, StopKind
from broch.errors import InternalError, UndecidedError

_SYSCALL: Final = signal.SIGTRAP | 0x80
_KINDS: Final = {
    signal.SIGILL: StopKind.ILLEGAL,
    signal.SIGSEGV: StopKind.FAULT,
    _SYSCALL: StopKind.SYSCALL,
    signal.SIGTRAP: StopKind.TRAP,
    signal.SIGFPE: StopKind.DIVIDE,
    signal.SIGBUS: StopKind.BUS,
}
_NO_SYSCALL: Final = 2**64 - 1
_SYSCALL_CODE: Final = b"\x0f\x05"
_PROBE_AT: Final = 1 << 44
_STOPPED: Final = 0x7F  # low byte of such a status


class NativeEngine:
    """See :class:`broch.cpu.x86_64.Engine`."""

    name: str = "native"

    def __init__(self, regions: Sequence[Region], threads: int, *, forbid_tsc: bool) -> None:
        """Make a process with this memory and so many threads, all stopped.

        Args:
            regions: what the code sees; nothing else is there.
            threads: how many; they are numbered from 0.
            forbid_tsc: RDTSC and RDTSCP fault.

        Raises:
            UndecidedError: this machine does not let us trace.
        """
        try:
            self._process = TracedProcess(regions, threads, forbid_tsc=forbid_tsc)
        except OSError as exc:
            raise UndecidedError(
                f"the native engine is not to be had: {exc.strerror}",
                hint="see broch doctor; --engine unicorn runs everywhere",
            ) from exc
        self._leader = self._process.leader
        self._waiter = self._process.waiter
        self._ids = tuple(self._process.threads)
        self._tracees = [ptrace.Tracee(thread) for thread in self._ids]
        for tracee in self._tracees:
            tracee.registers.orig_rax = _NO_SYSCALL
        self._stops = {  # by thread and status of waitpid
            (thread, signal_ << 8 | _STOPPED): (self._tracees[index], Stop(index, kind))
            for index, thread in enumerate(self._ids)
            for signal_, kind in _KINDS.items()
        }
        self._nearness = Nearness(self._ids[0]) if threads == 1 else None
        self._is_open = True

    @property
    def traps_cpuid(self) -> bool:
        """Whether CPUID faults, as it does in an enclave: few CPUs can do that."""
        return self._process.traps_cpuid

    def registers(self, thread: int) -> Registers:
        """See :meth:`broch.cpu.x86_64.Engine.registers`."""
        return self._tracees[thread].registers

    def resume(self, thread: int) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.resume`."""
        self._tracees[thread].run()

    def wait(self) -> Stop | None:
        """See :meth:`broch.cpu.x86_64.Engine.wait`."""
        nearness = self._nearness
        while True:
            news = self._waiter.any()
            known = self._stops.get(news)
            if known is not None:
                if nearness is not None:
                    nearness.stopped()
                tracee, stop = known
                tracee.fetch()
                if stop.kind is StopKind.SYSCALL:  # else the kernel may "restart" it
                    tracee.registers.orig_rax = _NO_SYSCALL
                return stop
            if self._is_wake(*news):
                return None

    def _is_wake(self, thread: int, status: int) -> bool:
        """Deal with what is no stop of the code's own making; whether it is that of :meth:`wake`.

        Raises:
            InternalError: the process is gone.
        """
        if thread == 0:  # a signal to us: Python's handler runs now
            return False
        if thread < 0 or status & 0xFF != _STOPPED:
            raise InternalError("the process that the code runs in was killed")
        if status >> 8 == signal.SIGPROF and self._nearness is not None:
            self._nearness.ticked()
        if thread == self._leader:
            ptrace.resume(ptrace.PTRACE_CONT, thread)
            return status >> 8 == signal.SIGUSR1
        ptrace.resume(ptrace.PTRACE_SYSEMU, thread)  # a signal that somebody sent it
        return False

    def wake(self) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.wake`."""
        if self._is_open:
            ptrace.signal_thread(self._leader, self._leader, signal.SIGUSR1)

    def fault_address(self, thread: int) -> int | None:
        """See :meth:`broch.cpu.x86_64.Engine.fault_address`."""
        return ptrace.fault_address(self._ids[thread])

    def close(self) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.close`."""
        if self._is_open:
            self._is_open = False
            self._process.kill()
            if self._nearness is not None:
                self._nearness.ticked()


def probe() -> None:
    """Try it: a system call that stops its thread instead of being made.

    Raises:
        OSError: this machine does not do that, or not for us.
    """
    memory = Memory(PAGE)
    memory.view[: len(_SYSCALL_CODE)] = _SYSCALL_CODE
    region = Region(address=_PROBE_AT, size=PAGE, rights=READ | EXECUTE, memory=memory, offset=0)
    process = TracedProcess([region], 1, forbid_tsc=False)
    try:
        thread = process.threads[0]
        tracee = ptrace.Tracee(thread)
        tracee.registers.rip, tracee.registers.orig_rax = _PROBE_AT, _NO_SYSCALL
        ptrace.set_registers(thread, tracee.registers)
        ptrace.request(ptrace.PTRACE_SYSEMU, thread)
        if process.waiter.one(thread) != (thread, _SYSCALL << 8 | _STOPPED):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    finally:
        process.kill()
        memory.close()
