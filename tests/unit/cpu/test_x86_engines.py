"""Both engines for x86-64 code: what stops it, what it can see, and what is left of it."""

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from broch.cpu import native
from broch.cpu.native import ptrace, stub
from broch.cpu.native.engine import NativeEngine
from broch.cpu.unicorn_x86 import UnicornEngine
from broch.cpu.x86_64 import EXECUTE, PAGE, READ, WRITE, Engine, Memory, Region, Stop, StopKind
from broch.errors import InternalError, UndecidedError, UsageError
from broch.tee.sgx.run import engines

CODE = 0x1000_0000_0000
DATA = CODE + 16 * PAGE
HIDDEN = DATA + PAGE  # nothing is there
ENCLU = b"\x0f\x01\xd7"
JUMP_BACK = b"\xeb\xfb"  # to 3 bytes before itself
SPIN = b"\xeb\xfe"
Make = Callable[..., Engine]


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(2 * PAGE)
    yield made
    made.close()


def regions(memory: Memory) -> list[Region]:
    code = Region(address=CODE, size=PAGE, rights=READ | EXECUTE, memory=memory, offset=0)
    data = Region(address=DATA, size=PAGE, rights=READ | WRITE, memory=memory, offset=PAGE)
    return [code, data]


@pytest.fixture(params=["native", "unicorn"])
def make(request: pytest.FixtureRequest, memory: Memory) -> Iterator[Make]:
    """Make an engine for some code; it is closed at the end."""
    if request.param == "native" and (problem := native.missing()):
        pytest.skip(problem)
    if request.param == "unicorn" and importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")
    kind = NativeEngine if request.param == "native" else UnicornEngine
    engines: list[Engine] = []

    def start(code: bytes, *, threads: int = 1, forbid_tsc: bool = True) -> Engine:
        memory.view[: len(code)] = code
        engine: Engine = kind(regions(memory), threads, forbid_tsc=forbid_tsc)
        engines.append(engine)
        for thread in range(threads):
            registers = engine.registers(thread)
            registers.rip, registers.rsp = CODE, DATA + PAGE
        return engine

    yield start
    for engine in engines:
        engine.close()


def run(engine: Engine, thread: int = 0) -> Stop | None:
    engine.resume(thread)
    return engine.wait()


def test_it_goes_on_from_where_it_is_put(make: Make) -> None:
    engine = make(b"\x48\xff\xc0" + ENCLU + b"\xeb\xf8")  # inc rax; enclu; jmp back
    for count in range(1, 4):
        assert run(engine) == Stop(0, StopKind.ILLEGAL)
        assert engine.registers(0).rip == CODE + 3
        assert engine.registers(0).rax == count
        engine.registers(0).rip += 3


def test_all_registers_go_in_and_come_out(make: Make) -> None:
    engine = make(ENCLU)
    names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16))]
    registers = engine.registers(0)
    for number, name in enumerate(names):
        setattr(registers, name, 2**64 - 1 - number)
    registers.fs_base, registers.gs_base = DATA, DATA + 8
    run(engine)
    assert [getattr(registers, name) for name in names] == [2**64 - 1 - n for n in range(15)]
    assert (registers.fs_base, registers.gs_base) == (DATA, DATA + 8)
    assert registers.rsp == DATA + PAGE


def test_memory_is_shared(make: Make, memory: Memory) -> None:
    engine = make(b"\x65\x48\x8b\x04\x25\0\0\0\0" + b"\x65\x48\xff\x04\x25\x08\0\0\0" + ENCLU)
    engine.registers(0).gs_base = DATA  # mov rax, gs:0; inc qword gs:8
    memory.view[PAGE : PAGE + 8] = b"from us!"
    assert run(engine) == Stop(0, StopKind.ILLEGAL)
    assert engine.registers(0).rax.to_bytes(8, "little") == b"from us!"
    assert memory.view[PAGE + 8] == 1


STOPS = [
    ("syscall", b"\x0f\x05", StopKind.SYSCALL),
    ("int 0x80", b"\xcd\x80", StopKind.SYSCALL),
    ("int3", b"\xcc", StopKind.TRAP),
    ("ud2", b"\x0f\x0b", StopKind.ILLEGAL),
    ("div", b"\x48\x31\xc9\x48\xf7\xf1", StopKind.DIVIDE),
]


@pytest.mark.parametrize(("code", "kind"), [c[1:] for c in STOPS], ids=[c[0] for c in STOPS])
def test_what_stops_it(make: Make, code: bytes, kind: StopKind) -> None:
    engine = make(code + SPIN)
    engine.registers(0).rax = 231  # exit_group, if it were a system call
    assert run(engine) == Stop(0, kind)


@pytest.mark.parametrize(
    "code",
    [b"\xf4", b"\xe4\x60", b"\xec", b"\xe6\x60", b"\xee"],
    ids=["hlt", "in al, 0x60", "in al, dx", "out 0x60, al", "out dx, al"],
)
def test_instructions_of_operating_systems_are_refused(make: Make, code: bytes) -> None:
    stop = run(make(code + SPIN))
    assert stop is not None
    assert stop.kind in (StopKind.FAULT, StopKind.HALT)


ACCESSES = [
    ("read of nothing", b"\x48\x8b\x03", HIDDEN),  # mov rax, [rbx]
    ("write to nothing", b"\x48\x89\x03", HIDDEN),
    ("write to code", b"\x48\x89\x03", CODE + 8),
    ("jump to data", b"\xff\xe3", DATA),
    ("null", b"\x48\x8b\x03", 0),
]


@pytest.mark.parametrize(
    ("code", "address"), [c[1:] for c in ACCESSES], ids=[c[0] for c in ACCESSES]
)
def test_faults_say_where(make: Make, code: bytes, address: int) -> None:
    engine = make(code + SPIN)
    engine.registers(0).rbx = address
    assert run(engine) == Stop(0, StopKind.FAULT)
    assert engine.fault_address(0) == address


@pytest.mark.parametrize("code", [b"\x0f\x31", b"\x0f\x01\xf9"], ids=["rdtsc", "rdtscp"])
def test_time_stamps_are_forbidden_or_not(make: Make, code: bytes) -> None:
    stop = run(make(code + SPIN))
    assert stop is not None
    assert stop.kind in (StopKind.FAULT, StopKind.RDTSC)
    assert run(make(code + ENCLU, forbid_tsc=False)) == Stop(0, StopKind.ILLEGAL)


def test_threads_run_at_once(make: Make, memory: Memory) -> None:
    """Each adds to the other's word and spins until its own has changed, many times."""
    # loop: lock inc qword [rbx]; wait: cmp [rcx], rdx; jb wait; inc rdx; cmp rdx, rsi; jbe loop
    code = bytes.fromhex("f048ff03 483911 72fb 48ffc2 4839f2 76ef") + ENCLU
    engine = make(code, threads=2)
    for thread in range(2):
        registers = engine.registers(thread)
        registers.rbx, registers.rcx = DATA + 8 * thread, DATA + 8 - 8 * thread
        registers.rdx, registers.rsi = 1, 20
        engine.resume(thread)
    stops = [engine.wait(), engine.wait()]
    assert {(stop.thread, stop.kind) for stop in stops if stop} == {
        (0, StopKind.ILLEGAL),
        (1, StopKind.ILLEGAL),
    }
    assert memory.view[PAGE] == memory.view[PAGE + 8] == 20


def test_wake_ends_a_wait_while_code_runs(make: Make) -> None:
    engine = make(SPIN)
    engine.resume(0)
    timer = threading.Timer(0.05, engine.wake)
    timer.start()
    assert engine.wait() is None
    timer.join()
    assert engine.registers(0) is not None


def test_wake_ends_a_wait_for_nothing(make: Make) -> None:
    engine = make(SPIN)
    timer = threading.Timer(0.05, engine.wake)
    timer.start()
    assert engine.wait() is None
    timer.join()


def test_wake_counts_before_the_wait(make: Make) -> None:
    engine = make(ENCLU)
    thread = threading.Thread(target=engine.wake)
    thread.start()
    thread.join()
    assert engine.wait() is None
    assert run(engine) == Stop(0, StopKind.ILLEGAL)


# Native alone


@pytest.fixture
def trace(memory: Memory) -> Iterator[Callable[[bytes], NativeEngine]]:
    """Make a native engine with two threads for some code."""
    if problem := native.missing():
        pytest.skip(problem)
    engines: list[NativeEngine] = []

    def start(code: bytes) -> NativeEngine:
        memory.view[: len(code)] = code
        engine = NativeEngine(regions(memory), 2, forbid_tsc=True)
        engines.append(engine)
        engine.registers(0).rip, engine.registers(0).rsp = CODE, DATA + PAGE
        return engine

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture
def traced(trace: Callable[[bytes], NativeEngine]) -> NativeEngine:
    return trace(b"\x0f\x05" + SPIN)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_process_has_nothing_but_its_memory(traced: NativeEngine) -> None:
    process = traced._leader
    try:
        with open(f"/proc/{process}/maps", encoding="ascii") as file:
            starts = {int(line.split("-")[0], 16) for line in file if "vsyscall" not in line}
    except PermissionError:
        pytest.skip("the process is not dumpable, so only root may look into it")
    assert starts == {stub.BASE, CODE, DATA}
    assert os.listdir(f"/proc/{process}/fd") == []
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file)
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "1"


def test_a_system_call_is_not_made(traced: NativeEngine) -> None:
    traced.registers(0).rax = 231  # exit_group
    assert run(traced) == Stop(0, StopKind.SYSCALL)
    assert _alive(traced._leader)
    traced.registers(0).rip = CODE  # and once more, in the same thread
    assert run(traced) == Stop(0, StopKind.SYSCALL)


def test_the_filter_ends_the_process_should_a_call_ever_be_made(traced: NativeEngine) -> None:
    """As if the tracer let a thread go on without stopping its system calls."""
    traced.registers(0).rax = 39  # getpid
    ptrace.set_registers(traced._ids[0], traced.registers(0))
    ptrace.resume(ptrace.PTRACE_CONT, traced._ids[0])
    with pytest.raises(InternalError, match="killed"):
        traced.wait()


def test_vsyscalls_are_not_made_either(trace: Callable[[bytes], NativeEngine]) -> None:
    engine = trace(b"\xff\xd0" + ENCLU)  # call rax
    engine.registers(0).rax = 0xFFFFFFFFFF600000  # gettimeofday(rdi, rsi)
    engine.registers(0).rdi = engine.registers(0).rsi = 0
    with contextlib.suppress(InternalError):  # where it is emulated, the filter ends the process
        assert run(engine) == Stop(0, StopKind.FAULT)


def test_signals_of_others_do_not_reach_the_code(traced: NativeEngine) -> None:
    traced.registers(0).rip = CODE + 2
    traced.resume(0)
    os.kill(traced._leader, signal.SIGTERM)
    os.kill(traced._leader, signal.SIGINT)
    ctypes.CDLL(None).tgkill(traced._leader, traced._ids[0], signal.SIGUSR2)
    threading.Timer(0.05, traced.wake).start()
    assert traced.wait() is None
    assert _alive(traced._leader)


def test_a_process_that_was_killed_is_an_error(traced: NativeEngine) -> None:
    traced.registers(0).rip = CODE + 2
    traced.resume(0)
    os.kill(traced._leader, signal.SIGKILL)
    with pytest.raises(InternalError, match="killed"):
        traced.wait()


def test_nothing_is_left_after_close(traced: NativeEngine) -> None:
    process = traced._leader
    traced.registers(0).rip = CODE + 2
    traced.resume(0)
    traced.close()
    assert not _alive(process)
    traced.close()
    traced.wake()


def test_children_of_others_are_left_to_them(traced: NativeEngine) -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    traced.resume(0)
    assert traced.wait() == Stop(0, StopKind.SYSCALL)
    traced.close()
    assert child.wait(60) == 3


ORPHAN = """
    import os, signal, sys
    from broch.cpu.native.engine import NativeEngine
    from broch.cpu.x86_64 import Memory, Region
    memory = Memory(4096)
    memory.view[:2] = b"\\xeb\\xfe"
    region = Region(address=1 << 44, size=4096, rights=5, memory=memory, offset=0)
    engine = NativeEngine([region], 1, forbid_tsc=True)
    engine.registers(0).rip = 1 << 44
    engine.resume(0)
    print(engine._leader, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_of_the_tracing_thread_are_left_to_it_too(traced: NativeEngine) -> None:
    """One that lives on keeps nobody waiting, and one that ends is not taken from us."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as lives:
        with subprocess.Popen(["sh", "-c", "exit 3"], stdout=subprocess.PIPE) as ends:
            assert ends.stdout is not None
            assert ends.stdout.read() == b""  # it is over, and nobody has asked for its status
            traced.registers(0).rip = CODE + 2
            traced.resume(0)
            os.kill(traced._leader, signal.SIGKILL)
            with pytest.raises(InternalError, match="killed"):
                traced.wait()
            traced.close()
            assert ends.wait() == 3
        assert lives.poll() is None


def test_it_dies_with_its_tracer(traced: NativeEngine) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ORPHAN)], stdout=subprocess.PIPE, text=True
    )
    out, _ = child.communicate(timeout=60)
    process = int(out)
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process)  # readable when it has ended
        import select

        assert select.select([descriptor], [], [], 60)[0]
        os.close(descriptor)


FORBIDDEN = """
    import ctypes, struct, sys
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 101), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("<HBBI", *step) for step in steps)  # ptrace: EPERM
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(fprog)) == 0
    from broch.cpu import native
    from broch.tee.sgx.run import engines
    from broch.errors import UndecidedError
    assert "not permitted" in native.missing(), native.missing()
    from broch.cpu.native.engine import NativeEngine
    try:
        NativeEngine([], 1, forbid_tsc=True)
    except UndecidedError as exc:
        assert "not permitted" in str(exc) and "unicorn" in exc.hint
    else:
        sys.exit("traced all the same")
    print(engines.choose(None)([], 1).name)
"""


def test_where_tracing_is_forbidden_the_other_engine_is_chosen(traced: NativeEngine) -> None:
    if importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORBIDDEN)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("unicorn\n", "")


def test_other_systems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert native.missing() == "it needs an x86-64 CPU, this is aarch64"
    with pytest.raises(UndecidedError, match="aarch64") as caught:
        engines.choose("native")
    assert "unicorn" in (caught.value.hint or "")
    if importlib.util.find_spec("unicorn") is not None:
        assert engines.choose()([], 1).name == "unicorn"
    monkeypatch.setattr("sys.platform", "darwin")
    assert native.missing() == "it needs Linux"


def test_without_any_engine_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for wanted in (None, "unicorn"):
        with pytest.raises(UndecidedError) as caught:
            engines.choose(wanted)
        assert "pip install 'broch[emulate]'" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no such engine"):
        engines.choose("other")
