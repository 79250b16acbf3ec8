"""The program that a traced process begins as: one page of code, made here.

    start   die with the tracer's thread, then
    rest    pause, for ever: where the first thread stays, so that it can be woken
    inject  a system call and a breakpoint: how the tracer makes a call in this process's name
    tick    how much CPU time it may use until it gets a signal (struct itimerval)
    filter  what the kernel will do for this process once it is set up (seccomp)

The filter allows what the first thread still does by itself: nothing but to wait. All code that
runs later is traced so that its system calls are not made at all; should a tracer of ours ever let
it go on otherwise, the filter ends the process.
"""

import struct
from typing import Final

from broch.cpu.native.nearness import TICK_US

BASE: Final = 0x200000
_PR_SET_PDEATHSIG: Final = 1
_SIGKILL: Final = 9
_SYS_PRCTL: Final = 157
_SYS_PAUSE: Final = 34
_SYS_RESTART: Final = 219
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_KILL_PROCESS: Final = 0x80000000
_ALLOW: Final = 0x7FFF0000
_BPF_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_BPF_JEQ: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_BPF_RET: Final = 0x06

_EHDR: Final = struct.Struct("<4sBBB9xHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_HEADERS: Final = _EHDR.size + _PHDR.size

_START: Final = b"".join(
    (
        b"\xb8" + struct.pack("<I", _SYS_PRCTL),  # mov eax, prctl
        b"\xbf" + struct.pack("<I", _PR_SET_PDEATHSIG),  # mov edi, PR_SET_PDEATHSIG
        b"\xbe" + struct.pack("<I", _SIGKILL),  # mov esi, SIGKILL
        b"\x0f\x05",  # syscall
    )
)
_REST: Final = b"\xb8" + struct.pack("<I", _SYS_PAUSE) + b"\x0f\x05" + b"\xeb\xf7"
_INJECT: Final = b"\x0f\x05\xcc"


def _filter() -> bytes:
    """(code, jump if true, jump if false, operand) a step."""
    steps = (
        (_BPF_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_BPF_JEQ, 0, 4, _AUDIT_ARCH_X86_64),
        (_BPF_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_BPF_JEQ, 1, 0, _SYS_PAUSE),
        (_BPF_JEQ, 0, 1, _SYS_RESTART),
        (_BPF_RET, 0, 0, _ALLOW),
        (_BPF_RET, 0, 0, _KILL_PROCESS),
    )
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


_FILTER: Final = _filter()

START: Final = BASE + _HEADERS
REST: Final = START + len(_START)
INJECT: Final = REST + len(_REST)
TICK: Final = -(-(INJECT + len(_INJECT)) // 8) * 8
_TICK: Final = struct.pack("<4Q", 0, TICK_US, 0, TICK_US)
_FILTER_AT: Final = TICK + len(_TICK)
FILTER_PROGRAM: Final = _FILTER_AT + len(_FILTER)  # struct sock_fprog


def program() -> bytes:
    """The ELF file."""
    code = (_START + _REST + _INJECT).ljust(TICK - START, b"\xcc")
    code += _TICK + _FILTER + struct.pack("<HxxxxxxQ", len(_FILTER) // 8, _FILTER_AT)
    size = _HEADERS + len(code)
    header = _EHDR.pack(
        *(b"\x7fELF", 2, 1, 1),  # 64-bit, little-endian, version 1
        *(2, 62, 1),  # ET_EXEC, EM_X86_64, version 1
        *(START, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, 1, 0, 0, 0),
    )
    load = _PHDR.pack(1, 5, 0, BASE, BASE, size, size, 0x1000)  # PT_LOAD, r-x
    return header + load + code
