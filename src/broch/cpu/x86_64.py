"""What runs x86-64 code here: registers, memory that both sides see, and the engine's contract.

An engine runs threads in one address space until one of them stops: at an instruction that faults,
or at a system call. No system call of that code is ever carried out. Whoever owns the engine looks
at the thread's registers and lets it go on, or does not:

    engine.resume(0)
    while stop := engine.wait():
        engine.registers(stop.thread).rip += 3
        engine.resume(stop.thread)

``broch.cpu.native`` runs the code on this CPU, ``broch.cpu.unicorn_x86`` on an emulated one.
"""

import ctypes
import mmap
import os
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

PAGE: Final = 4096  # bytes
READ: Final = 1
WRITE: Final = 2
EXECUTE: Final = 4
TRAP_FLAG: Final = 0x100  # RFLAGS


class Registers(ctypes.Structure):
    """The registers of a thread, as Linux's ``user_regs_struct`` has them."""

    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    cs: int
    eflags: int
    rsp: int
    ss: int
    fs_base: int
    gs_base: int

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx"),
            *("rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base"),
            *("gs_base", "ds", "es", "fs", "gs"),
        )
    ]

    @classmethod
    def offset_of(cls, name: str) -> int:
        """Where a register is in the structure (bytes)."""
        return int(getattr(cls, name).offset)


class Memory:
    """Bytes that the code and we see at once. Sparse: a page costs nothing until it is used."""

    def __init__(self, size: int, name: str = "broch") -> None:
        """Make zeroed memory of ``size`` bytes, a multiple of the page size."""
        self.size: Final = size
        self.descriptor = -1
        if sys.platform == "linux":
            self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, size)
        self.view = mmap.mmap(self.descriptor, size)

    def close(self) -> None:
        """Give it back; the code must run no more."""
        self.view.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A piece of the code's address space, whole pages."""

    address: int
    size: int
    rights: int  # READ, WRITE, EXECUTE
    memory: Memory
    offset: int  # of the first byte, in ``memory``


class StopKind(IntEnum):
    """Why a thread stopped. The instruction at RIP has had no effect, but for SYSCALL and TRAP."""

    ILLEGAL = 1  # the CPU does not know the instruction (#UD)
    FAULT = 2  # no such memory, or not with this right (#PF), or forbidden altogether (#GP)
    SYSCALL = 3  # SYSCALL, SYSENTER or INT 0x80
    TRAP = 4  # a breakpoint
    DIVIDE = 5  # an arithmetic fault: divided by zero (#DE), or floating point (#MF, #XM)
    BUS = 6  # memory that is mapped and not there, or misaligned (#AC)
    CPUID = 7  # forbidden here
    RDTSC = 8  # forbidden here
    HALT = 9  # an instruction of operating systems


class Stop(NamedTuple):
    """A thread stopped."""

    thread: int
    kind: StopKind


class Engine(Protocol):
    """Threads of x86-64 code in one address space. All but :meth:`wake` is for one thread of ours:
    the one that made the engine.
    """

    name: str

    def registers(self, thread: int) -> Registers:
        """The registers of a thread that is stopped; :meth:`resume` uses what they hold then."""
        ...

    def resume(self, thread: int) -> None:
        """Let a stopped thread run."""
        ...

    def wait(self) -> Stop | None:
        """Run until a thread stops; None if :meth:`wake` was called.

        Raises:
            InternalError: the process that the code runs in was killed.
        """
        ...

    def wake(self) -> None:
        """End a :meth:`wait`, now or the next. From any thread of ours."""
        ...

    def fault_address(self, thread: int) -> int | None:
        """Where the access went that stopped the thread; None if the CPU did not say."""
        ...

    def close(self) -> None:
        """End all threads, whatever they do."""
        ...
