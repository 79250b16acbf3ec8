"""The C kit and a host that lies, on the CPU itself: its flags, its memory, its concurrency.

``test_edp.py`` and ``test_edp_answers.py`` have every lie, in an emulator that sees each access.
Here are those where an emulator might be kinder than a CPU is.
"""

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.adversary.edp_programs import (
    ECHO,
    HEAP_TEST,
    OCALL,
    PRINTF,
    QUOTE,
    READ,
    REPORT,
    SECRET,
    SECRETS,
    SHORT_REPLY,
    STATE,
    WRITE,
    stream,
)

import broch.sgx
from broch.app.home import Home
from broch.cpu import native
from broch.cpu.native.engine import NativeEngine
from broch.cpu.x86_64 import Region
from broch.errors import UntrustedError
from broch.tee.sgx import TEE
from broch.tee.sgx.run import engines
from broch.tee.sgx.run.ends import EnclaveError, EnclavePanickedError
from broch.tee.sgx.run.runner import RETURN
from broch.tee.sgx.run.usercalls import Call, Usercalls, Waiting
from broch.tee.sgx.run.waiting import Answer, Blocking

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="no native engine here")

DF_AC = 0x40400
LIED = "Enclave panicked: the host gave a pointer that is not to memory of its own"
USED = 1 << 20  # bytes of user memory that these calls use at most
Lie = Callable[[Call, "Liar"], Answer]


class Liar(Usercalls):
    """Answers some usercalls as it likes, the others honestly."""

    def __init__(self, lies: dict[int, Lie]) -> None:
        super().__init__()
        self.lies = lies

    def dispatch(self, call: Call) -> Answer | Blocking | Waiting:
        lie = self.lies.get(call.number)
        return super().dispatch(call) if lie is None else lie(call, self)


class Poisoned(NativeEngine):
    """Every EENTER with the direction flag and alignment checks set."""

    def resume(self, thread: int) -> None:
        registers = self.registers(thread)
        if registers.rcx == RETURN and registers.rax == 0:
            registers.eflags |= DF_AC
        super().resume(thread)


def poisoned(regions: Sequence[Region], threads: int) -> NativeEngine:
    return Poisoned(regions, threads, forbid_tsc=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("edp") / "library.sgxs"
    file.write_bytes(stream("edp_library.c", library=True))
    return file


@pytest.fixture
def start(path: Path) -> Iterator[Callable[..., broch.sgx.Enclave]]:
    """Starts enclaves whose host tells the lies that it is given."""
    started: list[broch.sgx.Enclave] = []
    home = Home(path.parent / "home")

    def make(lies: dict[int, Lie] | None = None) -> broch.sgx.Enclave:
        liar = Liar(lies or {})
        enclave = broch.sgx.Enclave(path, engine="native", usercalls=liar, home=home)
        started.append(enclave)
        return enclave

    yield make
    for enclave in started:
        enclave.close()


Start = Callable[..., broch.sgx.Enclave]


def test_flags_are_cleared_before_they_matter(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "choose", lambda wanted, sgx2: poisoned)
    enclave = start({1: lambda call, host: (0x0B, 0)})
    flags = struct.unpack_from("<Q", enclave.call(STATE).data)[0]
    assert not flags & DF_AC
    data = bytes(range(201))
    assert enclave.call(ECHO, data) == (201, data)
    assert enclave.call(HEAP_TEST).value == 0
    assert enclave.call(READ).value == -0x0B
    assert enclave.call(PRINTF).data.startswith(b"-1|2|")


def test_a_quote_is_believed(start: Start) -> None:
    """From the C kit to what a verifier sees."""
    enclave = start()
    data = b"bound to this".ljust(64, b"\0")
    value, quote = enclave.call(QUOTE, data)
    assert value == len(quote) > 1000
    now = datetime.now(UTC)
    claims = TEE.verify(quote, enclave.device.endorsements(), at=now)
    assert (claims.measurement, claims.report_data) == (enclave.mrenclave, data)
    assert claims.emulated
    # The same by hand, for a host that is asked by the author's own ocalls.
    report = enclave.call(REPORT, data + enclave.quote_target).data
    by_hand = TEE.verify(enclave.quote(report), enclave.device.endorsements(), at=now)
    assert by_hand.report_data == data
    with pytest.raises(UntrustedError):
        enclave.quote(enclave.call(REPORT, data).data)  # for nobody


@pytest.mark.parametrize(
    ("number", "usercall", "answer", "message"),
    [
        (READ, 1, (0, 65), "more than it was asked for"),
        (READ, 1, (2**32, 0), "result that there is not"),
        (WRITE, 3, (0, 2**64 - 1), "more than it was asked for"),
        (WRITE, 14, (0, 1 << 44), "memory of its own"),
        (ECHO, 14, (0, 0x1003), "not aligned"),
        (OCALL, 0x8000_0007, (2**31, 0), "more than 32 bits"),
    ],
)
def test_answers_that_cannot_be(
    start: Start, number: int, usercall: int, answer: Answer, message: str
) -> None:
    enclave = start({usercall: lambda call, host: answer})
    with pytest.raises(EnclavePanickedError, match=message):
        enclave.call(number, b"data")
    with pytest.raises(EnclaveError):  # and it stays ended
        enclave.call(ECHO, b"data")


def test_secrets_do_not_reach_the_memory_that_is_shared(start: Start) -> None:
    enclave = start()
    for number in (SECRETS, SHORT_REPLY, ECHO, STATE, PRINTF, SECRETS, REPORT):
        enclave.call(number, bytes(64))
    assert SECRET not in enclave._library.memory.region.memory.view[:USED]


class Flipping:
    """While it is open, a thread writes two values to one place in turn, as fast as it can."""

    def __init__(self, view: memoryview, values: tuple[bytes, bytes]) -> None:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._flip, args=(view, values))

    def _flip(self, view: memoryview, values: tuple[bytes, bytes]) -> None:
        while not self._done.is_set():
            for value in values:
                view[:] = value

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_a_reply_whose_pointer_changes_all_the_time(start: Start) -> None:
    """The enclave reads a good pointer, or ends; it never takes its own memory for the host's."""
    good, outcomes = b"good reply", set[str]()
    for _ in range(6):
        flips: list[Flipping] = []

        def serve(call: Call, host: Liar, flips: list[Flipping] = flips) -> Answer:
            memory = host.memory
            place = memory.place(good)
            assert place is not None
            pair = struct.pack("<QQ", place, len(good)), struct.pack("<QQ", 1 << 44, len(good))
            memory.write(call.p3, pair[0])
            start_at = call.p3 - memory.region.address
            view = memoryview(memory.region.memory.view)[start_at : start_at + 16]
            flips.append(Flipping(view, pair))
            flips[-1].__enter__()
            return 0, 0

        enclave = start({0x8000_0007: serve})
        try:
            outcomes.add(enclave.call(OCALL, b"question").data.decode())
        except EnclavePanickedError as exc:
            outcomes.add(exc.message)
        finally:
            for flip in flips:
                flip.__exit__()
        enclave.close()
    assert outcomes <= {good.decode(), LIED}


def test_data_that_changes_all_the_time_is_what_was_there_at_one_time(start: Start) -> None:
    enclave = start()
    memory = enclave._library.memory
    data = memory.place(b"A" * 4096)
    reply = memory.alloc(16, 8)
    assert data is not None
    assert reply is not None
    at = data - memory.region.address
    view = memoryview(memory.region.memory.view)[at : at + 4096]
    with Flipping(view, (b"A" * 4096, b"B" * 4096)):
        for _ in range(20):
            assert enclave.enter(ECHO, data, 4096, reply) == (4096, 0)
            where, size = struct.unpack("<QQ", memory.read(reply, 16))
            got = memory.read(where, size)
            assert len(got) == 4096
            assert {got[i : i + 8] for i in range(0, 4096, 8)} <= {b"A" * 8, b"B" * 8}
            memory.free(where, size, 8)
    view.release()
