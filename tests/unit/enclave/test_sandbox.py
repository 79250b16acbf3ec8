"""The sandbox: what a sealed process can still do is what the lists say."""

import codecs
import contextlib
import ctypes
import errno
import os
import platform
import re
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broch.enclave import sandbox
from broch.errors import InternalError

from .harness import WAIT, fork, wait

SIGSYS = -int(signal.SIGSYS)
X86 = platform.machine() == "x86_64"
only_x86 = pytest.mark.skipif(not X86, reason="the numbers in this test are x86-64's")
libc = ctypes.CDLL(None, use_errno=True)


def in_sandbox(work: Callable[[], object], memory_mb: int = 64, **more: bool) -> int:
    """Seal a child and do ``work`` in it: 0 done, an errno, or minus a signal."""

    def child() -> int:
        sandbox.seal(memory_mb, **more)
        try:
            work()
        except OSError as exc:
            return exc.errno or 98
        except MemoryError:
            return 97
        return 0

    return wait(fork(child))


def raw(number: int, *arguments: object) -> None:
    """A system call by its number."""
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")


Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A pair of sockets between the test and its child."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far.settimeout(WAIT)
    with near, far:
        yield near, far


# What works.


def test_what_an_enclave_needs_works(ends: Ends) -> None:
    near, far = ends
    event = os.eventfd(0, os.EFD_NONBLOCK)

    def work() -> None:
        near.send(b"question")
        far.recv(100)
        os.eventfd_write(event, 1)
        poller = select.poll()
        poller.register(event, select.POLLIN)
        poller.poll(10)
        os.eventfd_read(event)
        os.urandom(32)
        os.getpid()
        grown = bytearray(8 << 20)
        grown.extend(bytes(8 << 20))

    assert in_sandbox(work) == 0
    os.close(event)


# What fails with EPERM, and what ends the process.


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda: os.open("/etc/passwd", os.O_RDONLY), id="open"),
        pytest.param(lambda: os.open("/proc/self/mem", os.O_RDWR), id="open /proc/self/mem"),
        pytest.param(lambda: os.open("/proc/self/maps", os.O_RDONLY), id="open /proc/self/maps"),
        pytest.param(lambda: os.open("/tmp/x", os.O_CREAT | os.O_WRONLY), id="create"),
        pytest.param(lambda: os.stat("/"), id="stat"),
        pytest.param(lambda: os.readlink("/proc/self/exe"), id="readlink"),
        pytest.param(os.getcwd, id="getcwd"),
        pytest.param(lambda: socket.socket(), id="socket"),
        pytest.param(lambda: socket.socket(socket.AF_UNIX), id="unix socket"),
        pytest.param(os.uname, id="uname"),
        pytest.param(lambda: os.get_inheritable(0), id="fcntl"),
        pytest.param(lambda: raw(16 if X86 else 29, 0, 0x5401, 0), id="ioctl"),
    ],
)
def test_looking_around_is_not_permitted(work: Callable[[], object]) -> None:
    assert in_sandbox(work) == errno.EPERM


def _map_executable() -> None:
    raw(9, 0, 4096, 5, 0x22, -1, 0)  # mmap(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS)


def _make_executable() -> None:
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    raw(10, ctypes.c_void_p(page), 4096, 5)


def _make_executable_high_bits() -> None:
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    raw(10, ctypes.c_void_p(page), ctypes.c_ulong(4096), ctypes.c_ulong(1 << 32 | 4))


@only_x86
@pytest.mark.parametrize("work", [_map_executable, _make_executable, _make_executable_high_bits])
def test_no_memory_becomes_executable(work: Callable[[], None]) -> None:
    assert in_sandbox(work) == errno.EPERM


@only_x86
@pytest.mark.parametrize(
    ("name", "number", "arguments"),
    [
        ("clone", 56, (17, 0, 0, 0, 0)),
        ("clone as a thread", 56, (0x10F00, 0, 0, 0, 0)),
        ("fork", 57, ()),
        ("vfork", 58, ()),
        ("execve", 59, (b"/bin/true", None, None)),
        ("kill", 62, (0, 0)),
        ("ptrace", 101, (0, 0, 0, 0)),
        ("setuid", 105, (0,)),
        ("personality", 135, (0x0400000,)),
        ("prctl", 157, (4, 1, 0, 0, 0)),
        ("setrlimit", 160, (9, None)),
        ("chroot", 161, (b"/",)),
        ("mount", 165, (None, None, None, 0, None)),
        ("init_module", 175, (None, 0, None)),
        ("tgkill", 234, (0, 0, 0)),
        ("unshare", 272, (0x10000000,)),
        ("perf_event_open", 298, (None, 0, 0, -1, 0)),
        ("prlimit64", 302, (0, 9, None, None)),
        ("setns", 308, (0, 0)),
        ("process_vm_readv", 310, (1, None, 0, None, 0, 0)),
        ("process_vm_writev", 311, (1, None, 0, None, 0, 0)),
        ("seccomp", 317, (0, 0, None)),
        ("memfd_create", 319, (b"x", 0)),
        ("bpf", 321, (0, None, 0)),
        ("userfaultfd", 323, (0,)),
        ("execveat", 322, (0, b"", None, None, 0)),
        ("pkey_mprotect", 329, (0, 4096, 5, -1)),
        ("io_uring_setup", 425, (1, None)),
        ("pidfd_getfd", 438, (0, 0, 0)),
        ("clone3", 435, (None, 0)),
        ("bind", 49, (0, None, 0)),
        ("accept", 43, (0, None, None)),
        ("sendmsg", 46, (0, None, 0)),
        ("recvmsg", 47, (0, None, 0)),
        ("dup2", 33, (0, 1)),
        ("shmget", 29, (0, 4096, 0)),
        ("fork of x32", 0x40000000 + 57, ()),
        ("read of x32", 0x40000000, (0, None, 0)),
        ("no such call", 9999, ()),
    ],
)
def test_everything_else_ends_the_process(
    name: str, number: int, arguments: tuple[object, ...]
) -> None:
    assert in_sandbox(lambda: raw(number, *arguments)) == SIGSYS, name


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda: os.fork() or os._exit(0), id="fork"),
        pytest.param(lambda: os.execv("/bin/true", ["true"]), id="exec"),
        pytest.param(lambda: os.kill(os.getppid(), 0), id="kill"),
        pytest.param(lambda: os.memfd_create("x"), id="memfd"),
        pytest.param(lambda: os.pipe(), id="pipe"),
        pytest.param(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)), id="setrlimit"),
        pytest.param(lambda: os.setuid(os.getuid()), id="setuid"),
    ],
)
def test_python_meets_the_same_end(work: Callable[[], object]) -> None:
    assert in_sandbox(work) == SIGSYS


def test_no_thread_can_be_made() -> None:
    import _thread

    assert in_sandbox(lambda: _thread.start_new_thread(os.getpid, ())) == SIGSYS


def test_a_sleeper_that_is_stopped_and_continued_sleeps_on(ends: Ends) -> None:
    """The kernel puts the rest of a poll behind restart_syscall; suspending a machine does it."""
    near, far = ends
    wake = os.eventfd(0)

    def work() -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        near.send(b"soon asleep")
        poller.poll(WAIT * 1000)

    def child() -> int:
        sandbox.seal(64)
        work()
        return 0

    pid = fork(child)
    far.recv(100)
    _until(pid, "S")
    os.kill(pid, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.kill(pid, signal.SIGCONT)
    assert os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1])
    _until(pid, "S")
    os.eventfd_write(wake, 1)
    assert wait(pid) == 0
    os.close(wake)


def _until(pid: int, state: str) -> None:
    for _ in range(1_000_000):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if status == state:
            return
        assert status != "Z", "it was killed"
        os.sched_yield()
    raise AssertionError(f"{pid} never was in state {state}")


def test_builders_may_write_memory_files_up_to_a_bound() -> None:
    def work() -> None:
        memory = os.memfd_create("x")
        assert os.write(memory, bytes(5 << 20)) == 4 << 20
        with contextlib.suppress(OSError):
            os.write(memory, b"x")
            os._exit(96)
        for _ in range(1000):
            os.memfd_create("x")

    assert in_sandbox(work, writes_memory_files=True) == errno.EMFILE


# Memory, privileges, other processes.


def test_memory_is_bounded() -> None:
    assert in_sandbox(lambda: bytearray(40 << 20), memory_mb=64) == 0
    assert in_sandbox(lambda: bytearray(80 << 20), memory_mb=64) == 97


def test_a_lower_limit_of_the_user_stays() -> None:
    def child() -> int:
        with open("/proc/self/statm", encoding="ascii") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        lower = now + (16 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (lower, lower))
        sandbox.limit_memory(1024)
        return int(resource.getrlimit(resource.RLIMIT_AS) != (lower, lower))

    assert wait(fork(child)) == 0


def test_processor_time_is_bounded() -> None:
    def child() -> None:
        sandbox.limit_processor(1)
        while True:
            pass

    assert wait(fork(child)) == -signal.SIGKILL


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_the_kernel_says_that_it_is_sealed(ends: Ends) -> None:
    near, far = ends

    def child() -> None:
        sandbox.seal(64)
        near.send(b"sealed")
        near.recv(1)

    pid = fork(child)
    far.recv(100)
    status = status_of(pid)
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"
    far.send(b"x")
    assert wait(pid) == 0


@pytest.mark.parametrize("how", ["mem", "ptrace", "process_vm_readv"])
def test_another_process_of_the_same_user_cannot_look_in(how: str, ends: Ends) -> None:
    """As root this drops to an ordinary user, for whom the rule is meant."""
    near, far = ends
    secret = ctypes.create_string_buffer(b"a secret of the enclave")
    codecs.lookup("ascii")  # where Python is may be closed to the other user
    platform.machine()

    def drop() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

    def enclave() -> None:
        drop()
        libc.prctl(4, 1, 0, 0, 0)  # dumpable, as any process of a user is
        sandbox.seal(64)
        near.send(b"sealed")
        near.recv(1)

    def attacker() -> int:
        drop()
        try:
            if how == "mem":
                with open(f"/proc/{pid}/mem", "rb") as memory:
                    memory.seek(ctypes.addressof(secret))
                    return 1 + memory.read(8).count(b"secret")
            if how == "ptrace":
                libc.ptrace.restype = ctypes.c_long
                attached = libc.ptrace(16, pid, 0, 0)
                return 0 if attached == -1 and ctypes.get_errno() == errno.EPERM else 1
            local = ctypes.create_string_buffer(16)
            ours = struct.pack("PN", ctypes.addressof(local), 16)
            theirs = struct.pack("PN", ctypes.addressof(secret), 16)
            count = libc.process_vm_readv(pid, ours, 1, theirs, 1, 0)
            return 0 if count == -1 and ctypes.get_errno() == errno.EPERM else 1
        except PermissionError:
            return 0

    pid = fork(enclave)
    try:
        far.recv(100)
        assert wait(fork(attacker)) == 0
    finally:
        os.kill(pid, signal.SIGKILL)  # it may be in the attacker's hands
        wait(pid)


def test_die_with_parent_when_the_parent_is_gone_already() -> None:
    assert wait(fork(lambda: sandbox.die_with_parent(1 if os.getppid() != 1 else 2))) == 1


def test_landlock_leaves_what_is_named(tmp_path: Path) -> None:
    if not sandbox.landlock_abi():
        pytest.skip("the kernel has no Landlock")
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "file").write_text("x")
    (tmp_path / "write").mkdir()
    (tmp_path / "other").write_text("x")

    def child() -> int:
        sandbox.no_new_privileges()
        sandbox.landlock(
            read=(str(tmp_path / "read"), str(tmp_path / "missing")),
            write=(str(tmp_path / "write"), "/dev/null"),
        )
        (tmp_path / "read" / "file").read_text()
        (tmp_path / "write" / "new").write_text("y")
        Path("/dev/null").write_text("z")
        for forbidden in (
            lambda: (tmp_path / "other").read_text(),
            lambda: (tmp_path / "read" / "file").write_text("y"),
            lambda: (tmp_path / "read" / "new").write_text("y"),
            lambda: (tmp_path / "read" / "file").rename(tmp_path / "write" / "file"),
        ):
            with contextlib.suppress(OSError):
                forbidden()
                return 1
        return 0

    assert wait(fork(child)) == 0


def test_missing_says_what_the_kernel_lacks() -> None:
    assert "seccomp" not in sandbox.missing()


def test_without_seccomp_it_runs_only_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(**_: bool) -> None:
        raise OSError(errno.EINVAL, "no seccomp")

    monkeypatch.setattr(sandbox, "seccomp", lacking)
    assert in_sandbox(lambda: None) == 99
    assert in_sandbox(lambda: None, unsandboxed=True) == 0


# The filter itself.


def run_filter(program: bytes, number: int, arch: int, prot: int = 0) -> int:
    """What the kernel would do: an interpreter of the few instructions in use."""
    data = struct.pack("=IIQ6Q", number, arch, 0, 0, 0, prot, 0, 0, 0)
    accumulator = position = steps = 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        steps += 1
        assert steps < 1000
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:
            return int(k)
        else:
            taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            position += true if taken[code] else false


KILL, DENY, ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("builder", [False, True])
def test_the_filter_says_what_the_lists_say(machine: str, builder: bool) -> None:
    program = sandbox.seccomp_filter(machine, writes_memory_files=builder)
    arch = sandbox._ARCHES[machine]
    files = set(arch.memory_files.values()) if builder else set()
    allow, deny = set(arch.allow.values()) | files, set(arch.deny.values()) - files
    for number in (*range(600), 0x3FFFFFFF, 0x40000000, 0x40000001, 2**32 - 1):
        wanted = ALLOW if number in allow else DENY if number in deny else KILL
        assert run_filter(program, number, AUDIT[machine]) == wanted, number
        for other in (set(AUDIT.values()) - {AUDIT[machine]}) | {0x40000003, 0}:
            assert run_filter(program, number, other) == KILL
    for number in (arch.allow["mmap"], arch.allow["mprotect"]):
        for prot in range(16):
            wanted = DENY if prot & 4 else ALLOW
            assert run_filter(program, number, AUDIT[machine], prot) == wanted
        assert run_filter(program, number, AUDIT[machine], 1 << 32 | 4) == DENY


def test_other_machines_have_no_filter() -> None:
    with pytest.raises(InternalError, match="no seccomp filter for riscv64"):
        sandbox.seccomp_filter("riscv64")


def headers(*names: str) -> dict[str, int]:
    """Numbers of system calls as the kernel's installed headers give them."""
    for name in names:
        for folder in ("/usr/include", f"/usr/include/{platform.machine()}-linux-gnu"):
            path = Path(folder, name)
            if path.is_file():
                found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", path.read_text())
                return {name: int(number) for name, number in found}
    pytest.skip(f"no kernel headers {names[0]}")


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_the_kernel_s(machine: str, header: str) -> None:
    numbers = headers(header)
    arch = sandbox._ARCHES[machine]
    aliases = {"newfstatat": ("newfstatat", "fstatat"), "fcntl": ("fcntl", "fcntl64")}
    for listed in (arch.allow, arch.deny, arch.memory_files):
        assert len(set(listed.values())) == len(listed)
        for name, number in listed.items():
            known = [numbers[n] for n in aliases.get(name, (name,)) if n in numbers]
            assert number in known, name
    assert not set(arch.allow.values()) & set(arch.deny.values())
