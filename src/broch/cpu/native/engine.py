"""The native engine: every thread of the code is a thread of a traced process.

Each runs by PTRACE_SYSEMU: a system call stops it and is not made. So does every fault, and so does
ENCLU, which is an illegal instruction to a CPU without SGX, and a fault outside an enclave to one
with it. Between stops the code has the CPU to itself.
"""

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Final

from broch.cpu.native import ptrace
from broch.cpu.native.process import TracedProcess
from broch.cpu.x86_64 import TRAP_FLAG, Region, Registers, Stop, StopKind
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
        problem = unfit()
        if problem is not None:
            raise UndecidedError(f"the native engine is not to be had: {problem}")
        try:
            self._process = TracedProcess(regions, threads, forbid_tsc=forbid_tsc)
        except OSError as exc:
            raise UndecidedError(
                f"the native engine is not to be had: {exc.strerror}",
                hint="see broch doctor; --engine unicorn runs everywhere",
            ) from exc
        self._leader = self._process.leader
        self._waiter = self._process.waiter
        self._ids = list(self._process.threads)
        self._index = {thread: index for index, thread in enumerate(self._ids)}
        self._registers = [Registers() for _ in self._ids]
        self._addresses = [ctypes.addressof(registers) for registers in self._registers]
        for thread, address in zip(self._ids, self._addresses, strict=True):
            ptrace.get_registers(thread, address)
        self._is_open = True

    @property
    def traps_cpuid(self) -> bool:
        """Whether CPUID faults, as it does in an enclave: few CPUs can do that."""
        return self._process.traps_cpuid

    def registers(self, thread: int) -> Registers:
        """See :meth:`broch.cpu.x86_64.Engine.registers`."""
        return self._registers[thread]

    def resume(self, thread: int) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.resume`."""
        registers = self._registers[thread]
        registers.orig_rax = _NO_SYSCALL  # else the kernel may "restart" a call it never made
        registers.eflags &= ~TRAP_FLAG
        try:
            ptrace.set_registers(self._ids[thread], registers)
        except ProcessLookupError:
            return  # killed: the next wait says so
        ptrace.resume(ptrace.PTRACE_SYSEMU, self._ids[thread])

    def wait(self) -> Stop | None:
        """See :meth:`broch.cpu.x86_64.Engine.wait`."""
        while True:
            found, status = self._waiter.any()
            if found == 0:  # a signal to us: Python's handler runs now
                continue
            if found < 0 or status & 0xFF != 0x7F:
                raise InternalError("the process that the code runs in was killed")
            if found == self._leader:
                ptrace.resume(ptrace.PTRACE_CONT, found)
                if status >> 8 == signal.SIGUSR1:
                    return None
                continue
            kind = _KINDS.get(status >> 8)
            if kind is None:  # a signal that somebody sent: not the code's business
                ptrace.resume(ptrace.PTRACE_SYSEMU, found)
                continue
            index = self._index[found]
            ptrace.get_registers(found, self._addresses[index])
            return Stop(index, kind)

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


def unfit() -> str | None:
    """Why this system cannot have a native engine, whatever its settings; None if it can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if platform.machine() != "x86_64":
        return f"it needs an x86-64 CPU, this is {platform.machine()}"
    return None


def missing() -> str | None:
    """Why there is no native engine on this machine; None if there is. Tries it."""
    problem = unfit()
    if problem is not None:
        return problem
    try:
        TracedProcess([], 1, forbid_tsc=False).kill()
    except OSError as exc:
        return f"tracing: {os.strerror(exc.errno) if exc.errno else exc}"
    return None
