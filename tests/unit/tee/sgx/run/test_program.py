"""Programs in C, on both engines: what they may do, and how each thing that ends them is called."""

import os
import re
from collections.abc import Iterator

import pytest

from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.run.ends import EnclaveFaultError, EnclavePanickedError
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.usercalls import Usercalls

from ..support import settings
from . import programs
from .conftest import Start


class Pipes:
    """Standard streams of an enclave."""

    def __init__(self, stdin: bytes = b"") -> None:
        self._in, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        self.out, self._out = os.pipe()
        self.err, self._err = os.pipe()
        self.usercalls = Usercalls(stdin=self._in, stdout=self._out, stderr=self._err)

    def read(self) -> tuple[bytes, bytes]:
        os.close(self._out)
        os.close(self._err)
        found = os.read(self.out, 65536), os.read(self.err, 65536)
        for descriptor in (self.out, self.err, self._in):
            os.close(descriptor)
        self.out = -1
        return found


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes(b"some input, longer than a buffer of the program: " + b"." * 100)
    yield made
    if made.out >= 0:
        made.read()


def test_arguments(start: Start, trying: bytes, engine: str, pipes: Pipes) -> None:
    runner = start(trying, engine, pipes.usercalls)
    runner.run_program(["arguments", "", "two words", "ü"])
    assert pipes.read()[0].decode() == "[enclave][arguments][][two words][ü]"


def test_an_argument_that_is_not_text(
    start: Start, trying: bytes, engine: str, pipes: Pipes
) -> None:
    """A name of a file, say: the enclave gets its bytes, as Python gave them to us."""
    start(trying, engine, pipes.usercalls).run_program(["arguments", os.fsdecode(b"\xff")])
    assert pipes.read()[0] == b"[enclave][arguments][\xff]"


def test_the_place_of_a_system_call_is_that_of_its_instruction(
    start: Start, trying: bytes, engine: str
) -> None:
    """It has been passed when it stops, but that is not what is shown."""
    runner = start(trying, engine)
    with pytest.raises(EnclaveFaultError, match="SYSCALL") as caught:
        runner.run_program(["syscall"])
    at = re.search("at 0x([0-9a-f]+)", str(caught.value))
    assert at is not None
    assert runner.enclave.memory.view[int(at[1], 16) :][:2] == b"\x0f\x05"


def test_standard_streams(start: Start, trying: bytes, engine: str, pipes: Pipes) -> None:
    start(trying, engine, pipes.usercalls).run_program(["echo"])
    out, err = pipes.read()
    assert out == b"some input, longer than a buffer of the program: " + b"." * 100
    assert err == b"end"


@pytest.mark.parametrize(
    ("what", "message", "hint"),
    [
        ("exit", "Enclave panicked: Exited with status code 7", None),
        ("abort", "Enclave panicked: asked to", None),
        ("heap", "Enclave panicked: out of memory", "--heap-size"),
    ],
)
def test_panics(
    start: Start, trying: bytes, engine: str, what: str, message: str, hint: str | None
) -> None:
    with pytest.raises(EnclavePanickedError) as caught:
        start(trying, engine).run_program([what])
    assert str(caught.value) == message
    assert (hint or "") in (caught.value.hint or "")
    assert caught.value.exit_code == 255


FAULTS = [
    ("stack", "stack overflow in thread 0", "--stack-size"),
    ("null", "#PF: access to 0x0 at 0x", ""),
    ("outside", "access to 0x12345678", ""),
    ("constant", "the enclave's page there is r--", ""),
    ("jump", "cannot be executed", ""),
    ("data", "cannot be executed: the enclave's page there is rw-", ""),
    ("divide", "division by zero", ""),
    ("ud2", "#UD: UD2", "aborted itself"),
    ("int3", "#BP: breakpoint", ""),
    ("syscall", "#UD: SYSCALL", "usercall"),
    ("int80", "#UD: INT 0x80", "usercall"),
    ("rdtsc", "#UD: RDTSC at", "--sgx2"),
    ("rdtscp", "#UD: RDTSCP at", "--sgx2"),
    ("eenter", "EENTER inside an enclave", ""),
    ("eaccept", "ENCLU EACCEPT: this CPU does not have it", ""),
    ("elsewhere", "EEXIT to 0x1234", ""),
]


@pytest.mark.parametrize(("what", "message", "hint"), FAULTS, ids=[case[0] for case in FAULTS])
def test_faults_are_named(
    start: Start, trying: bytes, engine: str, what: str, message: str, hint: str
) -> None:
    with pytest.raises(EnclaveFaultError) as caught:
        start(trying, engine).run_program([what])
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_cpuid_is_named_where_it_can_be_trapped(start: Start, trying: bytes, engine: str) -> None:
    runner = start(trying, engine)
    if not getattr(runner.engine, "traps_cpuid", True):
        pytest.skip("this CPU, or its hypervisor, cannot make CPUID fault")
    with pytest.raises(EnclaveFaultError, match="#UD: CPUID"):
        runner.run_program(["cpuid"])


@pytest.mark.parametrize("what", ["rdtsc", "rdtscp"])
def test_sgx2_allows_rdtsc(start: Start, trying: bytes, engine: str, what: str) -> None:
    start(trying, engine, sgx2=True).run_program([what])


def test_a_panic_without_debug_says_nothing(start: Start, trying_elf: bytes, engine: str) -> None:
    silent = programs.stream(trying_elf, debug=False)
    with pytest.raises(EnclavePanickedError, match=r"^Enclave panicked\.$") as caught:
        start(silent, engine).run_program(["abort"])
    assert "--debug" in (caught.value.hint or "")


def _key(runner: Runner, pipes: Pipes, *arguments: str) -> bytes:
    runner.run_program(["key", *arguments])
    return bytes.fromhex(pipes.read()[0].decode())


def test_seal_keys_are_the_devices(
    start: Start, trying: bytes, device: SgxDevice, engine: str
) -> None:
    keys = []
    for arguments in ((), (), ("signer",)):
        pipes = Pipes()
        keys.append(_key(start(trying, engine, pipes.usercalls), pipes, *arguments))
    assert keys[0] == keys[1] != keys[2]
    assert all(len(key) == 16 and any(key) for key in keys)


def test_another_device_gives_other_keys(
    start: Start, trying: bytes, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipes, others = Pipes(), Pipes()
    runner = start(trying, engine, pipes.usercalls)
    other = start(trying, engine, others.usercalls)
    monkeypatch.setattr(other, "_device", SgxDevice(settings(secret=bytes(32))))
    assert _key(runner, pipes) != _key(other, others)
