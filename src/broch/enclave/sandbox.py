"""Closing a process in: what an enclave process can still do once its code is about to run.

No new privileges, not dumpable (so no core, no ptrace and no /proc/PID/mem by its own user), no
file system and no new sockets (Landlock, seccomp), no exec and no new processes (seccomp), bounded
memory. All by ctypes; numbers from the kernel's headers (x86-64 and AArch64).

A call that is not on the allow-list ends the process, but for those by which library code merely
looks around (open, stat, socket): these fail with EPERM, which authors see as PermissionError.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from dataclasses import dataclass
from typing import Final

from broch.errors import InternalError

_libc: Final = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_LANDLOCK_ACCESS_FS_ALL: Final = ((1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1)  # ABI 1, 2, 3+
_SYS_LANDLOCK: Final = (444, 445, 446)  # create_ruleset, add_rule, restrict_self
_LANDLOCK_READ: Final = (1 << 0) | (1 << 2) | (1 << 3)  # execute, read file, read directory

_ALLOW_X86: Final = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "mmap": 9, "mprotect": 10,
    "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "getpid": 39, "sendto": 44, "recvfrom": 45,
    "exit": 60, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "restart_syscall": 219, "ppoll": 271, "getrandom": 318, "membarrier": 324, "rseq": 334,
}  # fmt: skip
_DENY_X86: Final = {
    "open": 2, "stat": 4, "lstat": 6, "lseek": 8, "ioctl": 16, "access": 21, "socket": 41,
    "connect": 42, "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89, "getuid": 102,
    "openat": 257, "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "statx": 332,
}  # fmt: skip
_ALLOW_ARM: Final = {
    "close": 57, "read": 63, "write": 64, "ppoll": 73, "fstat": 80, "exit": 93, "exit_group": 94,
    "futex": 98, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
    "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "gettimeofday": 169, "getpid": 172, "gettid": 178,
    "sendto": 206, "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222,
    "mprotect": 226, "madvise": 233, "getrandom": 278, "membarrier": 283, "rseq": 293,
}  # fmt: skip
_DENY_ARM: Final = {
    "getcwd": 17, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "lseek": 62,
    "readlinkat": 78, "newfstatat": 79, "uname": 160, "getuid": 174, "socket": 198,
    "connect": 203, "statx": 291,
}  # fmt: skip

_MEMORY_FILES_X86: Final = {"memfd_create": 319, "fcntl": 72, "sendmsg": 46}
_MEMORY_FILES_ARM: Final = {"memfd_create": 279, "fcntl": 25, "sendmsg": 211}


@dataclass(frozen=True, slots=True)
class _Arch:
    audit: int
    allow: dict[str, int]
    deny: dict[str, int]
    memory_files: dict[str, int]


_MEMORY_FILE: Final = 4 * 1024 * 1024  # bytes that a builder may write into one
_MEMORY_FILES: Final = 16  # that it may have open, with all else

_ARCHES: Final = {
    "x86_64": _Arch(0xC000003E, _ALLOW_X86, _DENY_X86, _MEMORY_FILES_X86),
    "aarch64": _Arch(0xC00000B7, _ALLOW_ARM, _DENY_ARM, _MEMORY_FILES_ARM),
}

# BPF (linux/filter.h, linux/seccomp.h)
_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_PROT = 0, 4, 32  # arg 2 of mmap and mprotect, low half
_PROT_EXEC: Final = 4
_X32: Final = 0x40000000


def _instruction(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, k)


def seccomp_filter(machine: str, *, writes_memory_files: bool = False) -> bytes:
    """The filter program for this architecture; raises :class:`InternalError` for others."""
    if machine not in _ARCHES:
        raise InternalError(f"no seccomp filter for {machine}")
    arch = _ARCHES[machine]
    guarded = [arch.allow["mmap"], arch.allow["mprotect"]]
    program = [
        _instruction(_LOAD, 0, 0, _OFFSET_ARCH),
        _instruction(_JEQ, 1, 0, arch.audit),
        _instruction(_RET, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, _OFFSET_NR),
        _instruction(_JGE, 0, 1, _X32),
        _instruction(_RET, 0, 0, _KILL),
    ]
    allowed = set(arch.allow.values()) - set(guarded)
    denied = set(arch.deny.values())
    if writes_memory_files:
        allowed |= set(arch.memory_files.values())
    for number in sorted(allowed):
        program += [_instruction(_JEQ, 0, 1, number), _instruction(_RET, 0, 0, _ALLOW)]
    for number in sorted(denied - allowed):
        program += [
            _instruction(_JEQ, 0, 1, number),
            _instruction(_RET, 0, 0, _ERRNO | errno.EPERM),
        ]
    # Memory that can be executed may not be made: what runs is what was measured.
    program += [
        _instruction(_JEQ, 1, 0, guarded[0]),
        _instruction(_JEQ, 0, 4, guarded[1]),
        _instruction(_LOAD, 0, 0, _OFFSET_PROT),
        _instruction(_JSET, 0, 1, _PROT_EXEC),
        _instruction(_RET, 0, 0, _ERRNO | errno.EPERM),
        _instruction(_RET, 0, 0, _ALLOW),
        _instruction(_RET, 0, 0, _KILL),
    ]
    return b"".join(program)


def _prctl(option: int, argument: int | ctypes.c_void_p | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def name_process(name: str) -> None:
    """What ps shows (15 bytes)."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def die_with_parent(parent: int) -> None:
    """Be killed when ``parent``, the process that forked this one, ends for whatever reason."""
    _prctl(_PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def not_dumpable() -> None:
    """No core file, no ptrace and no reading of memory by other processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def no_new_privileges() -> None:
    """Needed before Landlock and seccomp, and right by itself."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK[0], None, 0, 1)))


def landlock(read: tuple[str, ...] = (), write: tuple[str, ...] = ()) -> None:
    """Give up the file system but for these folders and files; raises :class:`OSError`."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.EOPNOTSUPP, "the kernel has no Landlock")
    handled = _LANDLOCK_ACCESS_FS_ALL[min(abi, 3) - 1]
    ruleset = int(_libc.syscall(_SYS_LANDLOCK[0], struct.pack("=Q", handled), 8, 0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        for paths, access in ((read, _LANDLOCK_READ), (write, handled & ~1)):
            for path in paths:
                _landlock_allow(ruleset, path, access)
        if _libc.syscall(_SYS_LANDLOCK[2], ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _landlock_allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            access &= (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14)  # what applies to a file
        rule = struct.pack("=Qi", access, descriptor)
        if _libc.syscall(_SYS_LANDLOCK[1], ruleset, 1, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)


def seccomp(*, writes_memory_files: bool = False) -> None:
    """Install the filter; from here on only the allow-list works. Raises :class:`OSError`."""
    program = seccomp_filter(platform.machine(), writes_memory_files=writes_memory_files)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header, len(header))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, buffer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def limit_memory(megabytes: int) -> None:
    """Let the process map so much more than it has now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _limit(resource.RLIMIT_AS, now + megabytes * 1024 * 1024)


def limit_processor(seconds: int) -> None:
    """Be killed after so much processor time."""
    _limit(resource.RLIMIT_CPU, seconds)


def _limit(kind: int, limit: int) -> None:
    """Set a limit for good; a lower one that is in force stays."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def seal(memory_mb: int, *, unsandboxed: bool = False, writes_memory_files: bool = False) -> None:
    """Close this process in for good: all of the above, in the order in which it works.

    Args:
        memory_mb: what it may map beyond what it has.
        unsandboxed: go on where the kernel lacks seccomp.
        writes_memory_files: let it make memfds and send descriptors, for builders.

    Raises:
        OSError: the kernel lacks seccomp or refuses, and ``unsandboxed`` does not say that the
            enclave may run all the same.
    """
    limit_memory(memory_mb)
    not_dumpable()
    no_new_privileges()
    with contextlib.suppress(OSError):  # seccomp denies the same; doctor tells what is missing
        landlock()
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_FSIZE, _MEMORY_FILE if writes_memory_files else 0)
    if writes_memory_files:
        _limit(resource.RLIMIT_NOFILE, _MEMORY_FILES)
    try:
        seccomp(writes_memory_files=writes_memory_files)
    except (OSError, InternalError):
        if not unsandboxed:
            raise


def missing() -> list[str]:
    """What this kernel lacks of all this, tried in a process of its own."""
    lacks = [] if landlock_abi() else ["Landlock"]
    child = os.fork()
    if child == 0:
        try:
            no_new_privileges()
            seccomp()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a forked child must end here)
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        lacks.append("seccomp")
    return lacks
