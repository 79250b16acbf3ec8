"""A traced process: made, emptied, given memory and threads, and locked.

It begins as :mod:`~broch.cpu.native.stub`. The tracer makes system calls in its name until it has
the memory and threads that it needs and nothing else: no descriptors, no vDSO, no stack. Then a
filter closes the kernel to it.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Sequence
from typing import Final

from broch.cpu.native import ptrace, stub
from broch.cpu.x86_64 import TRAP_FLAG, Region, Registers
from broch.errors import InternalError

_SYS_MMAP: Final = 9
_SYS_MUNMAP: Final = 11
_SYS_SETITIMER: Final = 38
_SYS_CLONE: Final = 56
_SYS_PRCTL: Final = 157
_SYS_ARCH_PRCTL: Final = 158
_SYS_SECCOMP: Final = 317
_SYS_CLOSE_RANGE: Final = 436
_MAP_SHARED: Final = 0x1
_MAP_FIXED_NOREPLACE: Final = 0x100000
# CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
_THREAD: Final = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
_ITIMER_PROF: Final = 2
_PR_SET_TSC: Final = 26
_PR_TSC_SIGSEGV: Final = 2
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_ARCH_SET_CPUID: Final = 0x1012
_SECCOMP_SET_MODE_FILTER: Final = 1
_FIRST_DESCRIPTOR: Final = 3
_MAX_ERRNO: Final = 4095
_TRAP: Final = signal.SIGTRAP
_USER_END: Final = 1 << 47


class TracedProcess:
    """A process with the given memory and ``threads`` threads, all of them stopped.

    ``leader`` is a further thread, which rests: a signal to it wakes whoever waits. If there is but
    one thread beside it, one of the two gets a SIGPROF for every tick of CPU time that both use.
    """

    def __init__(self, regions: Sequence[Region], threads: int, *, forbid_tsc: bool) -> None:
        """Make it.

        Raises:
            OSError: the kernel refuses to trace, to run the stub, or to map memory.
        """
        self.threads: list[int] = []
        self.traps_cpuid = False
        descriptors = sorted({region.memory.descriptor for region in regions})
        self.leader: Final = _spawn(descriptors)
        self.waiter: Final = ptrace.Waiter(self.leader)
        try:
            self._seize()
            self._empty()
            inherited = {d: _FIRST_DESCRIPTOR + i for i, d in enumerate(descriptors)}
            for region in regions:
                self._map(region, inherited[region.memory.descriptor])
            self._restrict(forbid_tsc=forbid_tsc)
            if threads == 1:
                self._call(_SYS_SETITIMER, _ITIMER_PROF, stub.TICK, 0)
            for _ in range(threads):
                self.threads.append(self._clone())
            self._call(
                _SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 1 << 0, stub.FILTER_PROGRAM
            )  # with SECCOMP_FILTER_FLAG_TSYNC, for the threads too
            self._rest()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it, and leave no zombie."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGKILL)
        while True:
            thread, status = self.waiter.any()
            if thread < 0:
                return
            if thread and os.WIFSTOPPED(status):  # stopped before the signal came through
                ptrace.resume(ptrace.PTRACE_CONT, thread)

    def _seize(self) -> None:
        """Trace it, wherever it is in its first instructions, and stop it where it rests."""
        options = ptrace.OPTION_SYSGOOD | ptrace.OPTION_CLONE | ptrace.OPTION_EXITKILL
        ptrace.request(ptrace.PTRACE_SEIZE, self.leader, 0, options)
        ptrace.request(ptrace.PTRACE_INTERRUPT, self.leader)
        self._expect(self.leader, _TRAP | ptrace.EVENT_STOP << 8)
        self._registers = Registers()
        ptrace.get_registers(self.leader, ctypes.addressof(self._registers))
        if not stub.START <= self._registers.rip <= stub.INJECT:
            raise InternalError("the process is not at its first instructions", place="ptrace")
        # Stopped before it ran, it has not yet asked to die with us.
        self._call(_SYS_PRCTL, 1, signal.SIGKILL)

    def _expect(self, thread: int, stop: int) -> None:
        """Wait until a thread stops in exactly one way."""
        while True:
            found, status = self.waiter.one(thread)
            if found == 0:
                continue
            if found > 0 and os.WIFSTOPPED(status):
                if status >> 8 == stop:
                    return
                if status >> 8 == signal.SIGUSR1:
                    ptrace.resume(ptrace.PTRACE_CONT, thread)
                    continue
            raise InternalError(f"a traced process stopped with status 0x{status:x}")

    def _call(self, number: int, *arguments: int, must: bool = True) -> int:
        """Make a system call in its name.

        Raises:
            OSError: it failed, and ``must`` not.
        """
        registers = self._prepare(number, arguments)
        ptrace.set_registers(self.leader, registers)
        ptrace.resume(ptrace.PTRACE_CONT, self.leader)
        self._expect(self.leader, _TRAP)
        return self._result(must=must)

    def _prepare(self, number: int, arguments: Sequence[int]) -> Registers:
        registers = self._registers
        registers.rip, registers.rax, registers.orig_rax = stub.INJECT, number, 2**64 - 1
        registers.eflags &= ~TRAP_FLAG
        names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
        for name, value in zip(names, (*arguments, 0, 0, 0, 0, 0, 0), strict=False):
            setattr(registers, name, value)
        return registers

    def _result(self, *, must: bool = True) -> int:
        after = Registers()
        ptrace.get_registers(self.leader, ctypes.addressof(after))
        result = ctypes.c_int64(after.rax).value
        if must and -_MAX_ERRNO <= result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def _empty(self) -> None:
        """Unmap what came with the process: stack, vDSO, and the like."""
        with open(f"/proc/{self.leader}/maps", encoding="ascii") as maps:
            lines = maps.read().splitlines()
        for line in lines:
            start, _, end = line.split()[0].partition("-")
            first, last = int(start, 16), int(end, 16)
            if first != stub.BASE and last <= _USER_END:
                self._call(_SYS_MUNMAP, first, last - first)

    def _map(self, region: Region, descriptor: int) -> None:
        self._call(
            *(_SYS_MMAP, region.address, region.size, region.rights),
            *(_MAP_SHARED | _MAP_FIXED_NOREPLACE, descriptor, region.offset),
        )

    def _restrict(self, *, forbid_tsc: bool) -> None:
        self._call(_SYS_CLOSE_RANGE, 0, 2**32 - 1, 0, must=False)
        self._call(_SYS_PRCTL, _PR_SET_DUMPABLE, 0)
        self._call(_SYS_PRCTL, _PR_SET_NO_NEW_PRIVS, 1)
        if forbid_tsc:
            self._call(_SYS_PRCTL, _PR_SET_TSC, _PR_TSC_SIGSEGV)
        # Only some CPUs can, and some hypervisors let them.
        self.traps_cpuid = self._call(_SYS_ARCH_PRCTL, _ARCH_SET_CPUID, 0, must=False) == 0

    def _clone(self) -> int:
        """A new thread, stopped before its first instruction."""
        registers = self._prepare(_SYS_CLONE, (_THREAD, 0, 0, 0, 0))
        ptrace.set_registers(self.leader, registers)
        ptrace.resume(ptrace.PTRACE_CONT, self.leader)
        self._expect(self.leader, _TRAP | ptrace.EVENT_CLONE << 8)
        ptrace.resume(ptrace.PTRACE_CONT, self.leader)
        self._expect(self.leader, _TRAP)
        thread = self._result()
        self._expect(thread, _TRAP | ptrace.EVENT_STOP << 8)
        return thread

    def _rest(self) -> None:
        """Let the first thread go to where it can be woken."""
        self._registers.rip, self._registers.orig_rax = stub.REST, 2**64 - 1
        ptrace.set_registers(self.leader, self._registers)
        ptrace.resume(ptrace.PTRACE_CONT, self.leader)


def _spawn(descriptors: Sequence[int]) -> int:
    """Start the stub, with ``descriptors`` from 3 on, in a process group of its own."""
    program = os.memfd_create("broch-stub", os.MFD_CLOEXEC)
    try:
        os.write(program, stub.program())
        # First out of the way, then to their places: one may be in another's place now.
        high = max([*descriptors, program]) + 1 + len(descriptors) + _FIRST_DESCRIPTOR
        count = len(descriptors)
        actions = [
            *((os.POSIX_SPAWN_DUP2, d, high + i) for i, d in enumerate(descriptors)),
            *((os.POSIX_SPAWN_DUP2, high + i, _FIRST_DESCRIPTOR + i) for i in range(count)),
            *((os.POSIX_SPAWN_CLOSE, high + i) for i in range(count)),
        ]
        return os.posix_spawn(
            f"/proc/self/fd/{program}",
            ["broch-enclave"],
            {},
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
        )
    finally:
        os.close(program)
