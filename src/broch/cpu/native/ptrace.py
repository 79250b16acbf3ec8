"""The few system calls that tracing takes (ptrace(2), waitpid(2), tgkill(2)).

Calls that return at once are made without giving up Python's lock, which costs more than they do.
What is called for every stop gets its arguments made once: to convert them costs as much again.
"""

import ctypes
import os
from typing import Final

from broch.cpu.x86_64 import Registers
from broch.errors import InternalError

PTRACE_CONT: Final = 7
PTRACE_GETREGS: Final = 12
PTRACE_SETREGS: Final = 13
PTRACE_SYSEMU: Final = 31
PTRACE_GETSIGINFO: Final = 0x4202
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207

OPTION_SYSGOOD: Final = 0x1
OPTION_CLONE: Final = 0x8
OPTION_EXITKILL: Final = 0x100000
EVENT_CLONE: Final = 3
EVENT_STOP: Final = 128

WNOTHREAD: Final = 0x20000000  # only what this thread of ours traces: others have children too
WALL: Final = 0x40000000
_SI_KERNEL: Final = 0x80  # a fault without an address (#GP)
_EINTR: Final = 4
_ECHILD: Final = 10

_quick: Final = ctypes.PyDLL(None, use_errno=True)
_slow: Final = ctypes.CDLL(None, use_errno=True)
_ptrace: Final = _quick.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long
_waitpid: Final = _slow.waitpid
_bare: Final = ctypes.PyDLL(None).ptrace  # for arguments that are converted already
_GETREGS: Final = ctypes.c_long(PTRACE_GETREGS)
_SETREGS: Final = ctypes.c_long(PTRACE_SETREGS)
_SYSEMU: Final = ctypes.c_long(PTRACE_SYSEMU)
_tgkill: Final = _quick.tgkill
_tgkill.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]


class Waiter:
    """waitpid of what this thread of ours traces in a process group: other children that it may
    have are neither waited for nor taken from who waits for them.
    """

    def __init__(self, group: int) -> None:
        self._status = ctypes.c_int()
        options = ctypes.c_int(WALL | WNOTHREAD)
        self._any = (ctypes.c_int(-group), ctypes.byref(self._status), options)

    def any(self) -> tuple[int, int]:
        """(Thread, status) of the next thread that stops or ends; (0, 0) if a signal came to us,
        (-1, 0) if there is none left.
        """
        found: int = _waitpid(*self._any)
        return (found, self._status.value) if found > 0 else _nobody()

    def one(self, thread: int) -> tuple[int, int]:
        """The same of one thread."""
        found: int = _waitpid(ctypes.c_int(thread), *self._any[1:])
        return (found, self._status.value) if found > 0 else _nobody()


def _nobody() -> tuple[int, int]:
    number = ctypes.get_errno()
    if number == _EINTR:
        return 0, 0
    if number == _ECHILD:
        return -1, 0
    raise InternalError(f"waitpid: {os.strerror(number)}", place="ptrace")


class Tracee:
    """A traced thread, and the registers that it is stopped with."""

    def __init__(self, thread: int) -> None:
        """Read the registers of ``thread``, which is stopped."""
        self.registers = Registers()
        place, number = ctypes.byref(self.registers), ctypes.c_long(thread)
        self._fetch = (_GETREGS, number, None, place)
        self._store = (_SETREGS, number, None, place)
        self._run = (_SYSEMU, number, None, None)
        self.fetch()

    def fetch(self) -> None:
        """Read its registers, now that it is stopped again."""
        _bare(*self._fetch)

    def run(self) -> None:
        """Let it run with these registers, and make no system call; a thread that was killed
        meanwhile is left to the wait.
        """
        if _bare(*self._store) == 0:
            _bare(*self._run)


def request(kind: int, thread: int, address: int = 0, data: int = 0) -> None:
    """One request of ptrace.

    Raises:
        OSError: the kernel refused.
    """
    if _ptrace(kind, thread, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def resume(kind: int, thread: int) -> None:
    """Let a thread run without a signal; one that was killed meanwhile is left to the wait."""
    _ptrace(kind, thread, 0, 0)


def get_registers(thread: int, address: int) -> None:
    """Read the registers of a stopped thread into the structure at ``address``."""
    _ptrace(PTRACE_GETREGS, thread, 0, address)


def set_registers(thread: int, registers: Registers) -> None:
    """Write the registers of a stopped thread.

    Raises:
        OSError: the kernel refused: not an address, or the thread is gone.
    """
    request(PTRACE_SETREGS, thread, 0, ctypes.addressof(registers))


def fault_address(thread: int) -> int | None:
    """``si_addr`` of the signal that stopped a thread; None if the CPU did not say."""
    info = (ctypes.c_uint64 * 16)()  # siginfo_t: 128 bytes; si_code at 8, si_addr at 16
    request(PTRACE_GETSIGINFO, thread, 0, ctypes.addressof(info))
    code = info[1] & 0xFFFFFFFF
    return int(info[2]) if 0 < code < _SI_KERNEL else None


def signal_thread(process: int, thread: int, number: int) -> None:
    """Send a signal to one thread; to none if it is gone."""
    _tgkill(process, thread, number)
