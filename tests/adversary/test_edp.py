"""The C kit for SGX against a host that lies, by the classes of Van Bulck et al. (CCS 2019).

    1 flags and extended state    2 entry and exit state machine    3 registers at exit
    4 pointers                    6 lengths that wrap               7 straddling the edge
    8 double fetch                9 answers of usercalls (Iago)     10 uninitialised bytes
    12 order and concurrency      13 partial words to user memory

Every lie is answered by an enclave that goes on with nothing wrong, or that ends itself for good.
"""

import random
import struct
from functools import cache
from pathlib import Path

import pytest
from tests.adversary.edp_host import (
    BASE,
    DEBUG_BUFFER,
    HONEST,
    HOST_REGISTERS,
    PAGE,
    USER,
    AbortedError,
    Answer,
    Exit,
    ExitedError,
    FaultError,
    Host,
    honest_alloc,
)

from broch.errors import UsageError
from broch.image import toolchain
from broch.tee.sgx import compiling, convert
from broch.tee.sgx.keys import check_report
from broch.tee.sgx.structures import Report

HEAP = 0x10000
SECRET = (0x5EC4E7C0FFEE5EC4).to_bytes(8, "little")
MAX = 2**64 - 1
(ECHO, OCALL, REPORT, SEAL_KEY, RANDOM, READ, WRITE, HEAP_TEST, FREE_TWICE, SECRETS, SMASH) = range(
    1, 12
)
(PRINTF, NAMES, ILLEGAL, WHERE, CONNECT, TIME, STATE, TARGETINFO, SHORT_REPLY) = range(12, 21)
(FREE_STACK, STACK, OCALL_NUMBER, QUOTE) = range(21, 25)


@cache
def stream(name: str, *, library: bool, debug: bool = True) -> bytes:
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))
    source = Path(__file__).parent / name
    elf = compiling.compile_and_link([source], library=library)
    options = convert.Options(
        heap_size=HEAP, stack_size=0x8000, threads=2, debug=debug, library=library
    )
    return b"".join(convert.convert(elf, options))


@pytest.fixture
def library() -> Host:
    return Host(stream=stream("edp_library.c", library=True))


@pytest.fixture
def executable() -> Host:
    return Host(stream=stream("edp_main.c", library=False))


def call(host: Host, number: int, data: bytes = b"", **how: int) -> tuple[int, bytes]:
    """An honest call: its value (signed) and its reply."""
    reply = host.place(bytes(16))
    address = host.place(data) if data else 0
    value, second = host.call(number, address, len(data), reply, **how)
    assert second == 0
    at, size = struct.unpack("<QQ", host.read(reply, 16))
    assert at == 0 or host.allocated[at] == -(-size // 8) * 8
    return struct.unpack("<q", struct.pack("<Q", value))[0], host.read(at, size)


def assert_dead(host: Host) -> None:
    """Whatever the host does, it is told to exit, and nothing else."""
    for values in ((), (ECHO,), (0, 0, 0)):
        for thread in range(len(host.tcs)):
            out = host.enter(*values, thread=thread)
            assert (out.number, out.values) == (10, (1, 0, 0, 0))


def assert_abort(host: Host, message: str, *values: int) -> None:
    with pytest.raises(AbortedError, match=message):
        host.call(*values)
    assert_dead(host)


class TestHonest:
    """What it does for a host that does not lie."""

    def test_arguments(self, executable: Host) -> None:
        out = executable.main(b"one", b"", b"three words here")
        assert out == b"0 enclave\n1 one\n2 \n3 three words here\n"
        assert_dead(executable)

    def test_an_exit_code(self, executable: Host) -> None:
        with pytest.raises(AbortedError, match=r"^Exited with status code 3$"):
            executable.call(*executable.arguments(b"enclave", b"fail"))

    def test_no_arguments(self, executable: Host) -> None:
        with pytest.raises(ExitedError):
            executable.call(0, 0)
        assert executable.output == b""

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, 10000])
    def test_echo(self, library: Host, size: int) -> None:
        data = bytes(i % 251 for i in range(size))
        assert call(library, ECHO, data) == (size, data)

    @pytest.mark.parametrize("shift", range(1, 8))
    def test_data_at_any_address(self, library: Host, shift: int) -> None:
        address = library.place(b"x" * shift + b"unaligned data" + b"y" * 8) + shift
        reply = library.place(bytes(16))
        assert library.call(ECHO, address, 14, reply) == (14, 0)
        at, size = struct.unpack("<QQ", library.read(reply, 16))
        assert library.read(at, size) == b"unaligned data"

    def test_an_unknown_number(self, library: Host) -> None:
        assert call(library, 999) == (-0x16, b"")

    def test_an_ocall(self, library: Host) -> None:
        seen = []

        def serve(host: Host, out: Exit) -> Answer:
            data, size, reply, _ = out.values
            seen.append(host.read(data, size))
            host.engine.mem_write(reply, struct.pack("<QQ", host.place(b"reply"), 5))
            return MAX, 0  # -1

        library.handlers[0x8000_0007] = serve
        assert call(library, OCALL, b"question") == (-1, b"reply")
        assert call(library, OCALL, b"long" * 4000)[1] == b"reply"
        assert seen == [b"question", b"long" * 4000]

    def test_an_ocall_without_reply(self, library: Host) -> None:
        library.handlers[0x8000_0007] = lambda host, out: (5, 0)
        assert call(library, OCALL) == (5, b"")

    def test_the_heap(self, library: Host) -> None:
        assert call(library, HEAP_TEST) == (0, b"")

    def test_nothing_is_lost_from_call_to_call(self, library: Host) -> None:
        for _ in range(50):
            assert call(library, ECHO, b"z" * 20000)[0] == 20000

    def test_printf(self, library: Host) -> None:
        _, text = call(library, PRINTF)
        assert text.decode().split("|") == [
            *("-1", "2", "    3", "4    ", "-0005", "4000000000", "beef", "BEEF", "000012ab"),
            *("-5000000000", "18446744073709551615", "7", "-2", "200", "fedcba9876543210"),
            *("-9223372036854775808", "abc", "     abc", "abc     ", "abc", "ab", "z", "0x10"),
            *("%", "lon", "6"),
        ]

    def test_pointers_in_data_are_relocated(self, library: Host) -> None:
        assert call(library, NAMES, b"x") == (0, b"one")
        assert call(library, NAMES, b"xy") == (0, b"two")

    def test_a_report_is_the_hardware_s(self, library: Host) -> None:
        data = bytes(range(64))
        _, target = call(library, TARGETINFO)
        for more in (b"", target):
            _, raw = call(library, REPORT, data + more)
            report = Report.from_bytes(raw)
            assert report.body.mrenclave == library.secs.mrenclave
            assert report.body.reportdata == data
            assert check_report(library.fuses, library.secs, report) is bool(more)

    def test_seal_keys_depend_on_binding_label_and_version(self, library: Host) -> None:
        cpu_svn = library.fuses.cpusvn
        keys = {}
        for binding in (1, 2):
            for label in (b"a" * 32, b"b" * 32):
                for svn in (None, 1, 3):
                    version = b"" if svn is None else cpu_svn + struct.pack("<H", svn)
                    value, key = call(library, SEAL_KEY, bytes([binding]) + label + version)
                    assert value == 0
                    keys[binding, label, svn] = key
        assert all(len(key) == 16 and any(key) for key in keys.values())
        assert keys[1, b"a" * 32, None] == keys[1, b"a" * 32, 3]  # its own version is 3
        assert len(set(keys.values())) == 8

    @pytest.mark.parametrize("version", [bytes(range(16)) + b"\4\0", b"\xff" * 16 + b"\3\0"])
    def test_no_seal_key_of_a_later_version(self, library: Host, version: bytes) -> None:
        assert call(library, SEAL_KEY, b"\1" + b"a" * 32 + version) == (-1, b"")

    def test_a_seal_key_bound_to_nothing_is_refused(self, library: Host) -> None:
        assert_abort(library, "bound to", SEAL_KEY, library.place(bytes(33)), 33, 0)

    def test_random_bytes(self, library: Host) -> None:
        first, second = call(library, RANDOM)[1], call(library, RANDOM)[1]
        assert len(first) == 64
        assert first != second
        assert len({first[i : i + 8] for i in range(0, 64, 8)}) == 8

    def test_a_long_write_is_whole(self, library: Host) -> None:
        text = bytes(i % 253 for i in range(20001))
        assert call(library, WRITE, text) == (20001, b"")
        assert library.output == text

    def test_errors_reach_the_author(self, library: Host) -> None:
        library.handlers[3] = lambda host, out: (0x20, 0)
        library.handlers[1] = lambda host, out: (0x0B, 0)
        library.handlers[8] = lambda host, out: (0x6F, 0)
        assert call(library, WRITE, b"x") == (-0x20, b"")
        assert call(library, READ) == (-0x0B, b"")
        assert call(library, CONNECT) == (-0x6F, b"")

    def test_a_short_write_goes_on(self, library: Host) -> None:
        def one(host: Host, out: Exit) -> Answer:
            host.output += host.read(out.values[1], 1)
            return 0, 1

        library.handlers[3] = one
        assert call(library, WRITE, b"abc") == (3, b"")
        assert library.output == b"abc"

    def test_reading(self, library: Host) -> None:
        def give(host: Host, out: Exit) -> Answer:
            host.engine.mem_write(out.values[1], b"line\n")
            return 0, 5

        library.handlers[1] = give
        assert call(library, READ) == (5, b"line\n")

    def test_time_and_a_stream(self, library: Host) -> None:
        library.handlers[13] = lambda host, out: (1_700_000_000_000_000_000, 0)
        library.handlers[8] = lambda host, out: (0, 17)
        assert call(library, TIME)[0] == 1_700_000_000
        assert call(library, CONNECT)[0] == 17

    def test_two_threads_take_turns(self, library: Host) -> None:
        one = library.enter(WRITE, library.place(b"first"), 5, 0)
        assert one.number == 14  # its scratch memory
        two = library.enter(WRITE, library.place(b"second"), 6, 0, thread=1)
        outs = {0: one, 1: two}
        while any(out.number for out in outs.values()):
            for thread in list(outs):
                if outs[thread].number:
                    answer = library.answer(outs[thread])
                    outs[thread] = library.enter(0, *answer, thread=thread)
        assert library.output == b"firstsecond"
        assert [outs[thread].values[0] for thread in (0, 1)] == [5, 6]


class TestState:
    """Classes 1, 2, 3: what the host sets at entry, and sees at exit."""

    @pytest.mark.parametrize("flags", [2, 0x402, 0x40002, 0x40402 | 0xCD5 | 0x4000 | 0x200000])
    @pytest.mark.parametrize("mxcsr", [0x1F80, 0x0000, 0xFFFF & ~0x0040])
    def test_flags_and_control_words_are_ours(self, library: Host, flags: int, mxcsr: int) -> None:
        _, raw = call(library, STATE, flags=flags, mxcsr=mxcsr)
        inside, control, fcw, _ = struct.unpack("<QIHH", raw)
        assert not inside & 0x40400  # DF, AC
        assert not inside & 0x204100  # ID, NT, TF
        assert control & 0xFFC0 == 0x1F80  # all masked, to nearest, no DAZ, no FTZ
        assert fcw == 0x37F
        data = bytes(range(200))
        assert call(library, ECHO, data, flags=flags, mxcsr=mxcsr) == (200, data)

    def test_flags_at_the_return_of_a_usercall(self, library: Host) -> None:
        out = library.enter(STATE, 0, 0, library.place(bytes(16)))
        assert out.number == 14
        address = library.reserve(64)
        out = library.enter(0, 0, address, flags=0x40402, mxcsr=0)
        assert out.number == 0
        # The string instructions of the copy that followed went upwards.
        assert struct.unpack("<QIHH", library.read(address, 16))[1] & 0xFFC0 == 0x1F80

    @pytest.mark.parametrize("rsp", [BASE + 0x100, BASE + 0x4800, 0, MAX, USER + 8])
    def test_the_host_s_stack_pointer_is_not_used(self, library: Host, rsp: int) -> None:
        data_page = next(p for p in library.sgxs.pages if p.flags & 3 == 3).offset
        before = library.read(BASE + data_page, PAGE)
        for use in (rsp, BASE + data_page + 0x800):
            out = library.enter(999, 0, 0, 0, rsp=use)
            assert out.number == 0
            assert out.registers["rsp"] == use
        changed = [
            i
            for i, (a, b) in enumerate(
                zip(before, library.read(BASE + data_page, PAGE), strict=True)
            )
            if a != b and 0x700 <= i < 0x900
        ]
        assert not changed

    def test_a_pending_exception_is_not_entered(self, library: Host) -> None:
        """SmashEx: with NSSA 1 the CPU itself refuses; our own check is a second one."""
        out = library.enter(WRITE, library.place(b"x"), 1, 0)
        assert out.number == 14
        with pytest.raises(FaultError, match="ud2"):
            library.enter(ECHO, cssa=1)
        # The usercall that was pending is untouched.
        out = library.enter(0, *library.answer(out))
        assert out.number == 3

    @pytest.mark.parametrize("values", [(ECHO, 0, 0), (WRITE, USER, 9), (SECRETS, 0, 0)])
    def test_registers_at_exit_tell_nothing(self, library: Host, values: tuple[int, ...]) -> None:
        library.xmm_poison = 0x77 << 64 | 0x99
        call(library, SECRETS)
        out = library.enter(*values)
        kept = {**HOST_REGISTERS, "rbx": USER + 0x100_0000 - PAGE, "rax": 4}
        for name, value in kept.items():
            assert out.registers[name] == value, name
        assert out.flags & ~0x200 == 2
        assert out.mxcsr == 0x1F80
        assert set(out.xmm) == {0}
        assert [out.registers[name] for name in ("rcx", "r10", "r11")] == [0, 0, 0]
        number, rest = out.number, out.values
        returned = (int(values[0] == SECRETS), 0, 0, 0)
        assert (number, rest) in ((0, returned), (14, (8192, 8, 0, 0)))

    def test_secrets_stay_inside(self, library: Host) -> None:
        call(library, SECRETS)
        for number in (SHORT_REPLY, ECHO, STATE, PRINTF):
            out = library.enter(number, library.place(b"d"), 1, library.place(bytes(16)))
            while out.number:
                assert int.from_bytes(SECRET, "little") not in out.registers.values()
                out = library.enter(0, *library.answer(out))
        assert SECRET not in library.read(USER, 0x100_0000)

    def test_entering_in_a_usercall_is_its_answer_and_nothing_else(self, library: Host) -> None:
        out = library.enter(WRITE, library.place(b"text"), 4, 0)
        assert out.number == 14
        # An attempt to make a nested call: its numbers are taken as the answer of alloc.
        assert_abort(library, "result that there is not", ECHO, 5, 4, 0)

    def test_main_is_entered_once(self, executable: Host) -> None:
        out = executable.enter(*executable.arguments(b"enclave"))
        assert out.number == 15
        with pytest.raises(AbortedError, match="thread that nobody asked for"):
            executable.call(0, 0, thread=1)
        assert_dead(executable)

    def test_a_stack_that_is_too_small_stops_at_the_guard(self, library: Host) -> None:
        with pytest.raises(FaultError, match="write"):
            library.call(STACK)

    def test_an_illegal_instruction_stops(self, library: Host) -> None:
        with pytest.raises(FaultError, match="ud2"):
            library.call(ILLEGAL)

    @pytest.mark.parametrize("number", [FREE_TWICE, FREE_STACK])
    def test_a_wrong_free_ends_the_enclave(self, library: Host, number: int) -> None:
        assert_abort(library, "free or realloc", number)

    def test_each_thread_has_a_canary_of_its_own(self, library: Host) -> None:
        for thread in (0, 1):
            library.enter(999, thread=thread)
        pages = [BASE + tcs[5] for tcs in library.tcs]  # OFSBASGX
        canaries = [library.read(page + 0x28, 8) for page in pages]
        assert len(canaries) == len(set(canaries)) == 2
        assert bytes(8) not in canaries
        library.enter(999)
        assert library.read(pages[0] + 0x28, 8) == canaries[0]

    def test_a_smashed_stack_ends_the_enclave(self, library: Host) -> None:
        data = library.place(b"A" * 64)
        assert_abort(library, "past the end of its stack frame", SMASH, data, 64)


def pointers(size: int) -> dict[str, tuple[int, int]]:
    """Ranges that are not all outside an enclave of ``size`` bytes."""
    return {
        "null": (0, 8),
        "first page": (BASE, 8),
        "code": (BASE + 0x2000, 64),
        "last byte": (BASE + size - 8, 8),
        "straddles the start": (BASE - 8, 16),
        "one byte at the start": (BASE - 64, 65),
        "straddles the end": (BASE + size - 8, 16),
        "all of it": (BASE - 8, size + 16),
        "wraps": (MAX - 7, 16),
        "wraps to all": (BASE - 8, MAX),
        "longest": (8, MAX - 8),
    }


NAMES_OF_POINTERS = list(pointers(0))


class TestPointers:
    """Classes 4, 6, 7."""

    def bad(self, host: Host, name: str) -> tuple[int, int]:
        return pointers(host.sgxs.create.size)[name]

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS)
    def test_data_of_a_call(self, library: Host, name: str) -> None:
        address, size = self.bad(library, name)
        assert_abort(library, "memory of its own|fit the heap", ECHO, address, size, 0)

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS[1:])
    def test_where_the_reply_goes(self, library: Host, name: str) -> None:
        address, _ = self.bad(library, name)
        if name == "longest":
            address = MAX - 7
        before = library.read(BASE, PAGE)
        if name in ("one byte at the start", "wraps to all"):  # ByteBuffers that end before it
            address = BASE - 8
        assert_abort(library, "memory of its own", ECHO, 0, 0, address)
        assert library.read(BASE, PAGE) == before

    @pytest.mark.parametrize("shift", [1, 4, 7])
    def test_a_reply_pointer_that_is_not_aligned(self, library: Host, shift: int) -> None:
        assert_abort(library, "not aligned", ECHO, 0, 0, library.reserve(32) + shift)

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS)
    def test_memory_from_alloc(self, library: Host, name: str) -> None:
        address, _ = self.bad(library, name)
        address = {"longest": MAX - 7}.get(name, address)
        library.handlers[14] = lambda host, out: (0, address)
        assert_abort(library, "memory of its own", ECHO, library.place(b"x" * 80), 80, 0)

    def test_memory_from_alloc_that_is_not_aligned(self, library: Host) -> None:
        def shifted(host: Host, out: Exit) -> Answer:
            _, address = honest_alloc(host, out)
            return 0, address + 4

        library.handlers[14] = shifted
        assert_abort(library, "not aligned", ECHO, library.place(b"x"), 1, 0)

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS)
    def test_the_reply_of_an_ocall(self, library: Host, name: str) -> None:
        address, size = self.bad(library, name)

        def serve(host: Host, out: Exit) -> Answer:
            host.engine.mem_write(out.values[2], struct.pack("<QQ", address, size))
            return 0, 0

        library.handlers[0x8000_0007] = serve
        assert_abort(library, "memory of its own|more than there is room", OCALL)

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS)
    def test_an_argument(self, executable: Host, name: str) -> None:
        address, size = self.bad(executable, name)
        array = executable.place(struct.pack("<QQ", address, size))
        assert_abort(executable, "memory of its own|fit the heap", array, 1)

    @pytest.mark.parametrize("name", NAMES_OF_POINTERS)
    def test_the_array_of_arguments(self, executable: Host, name: str) -> None:
        address, _ = self.bad(executable, name)
        address = {"longest": MAX - 7}.get(name, address)
        address = BASE - 8 if name in ("one byte at the start", "wraps to all") else address
        assert_abort(executable, "memory of its own", address, 1)

    @pytest.mark.parametrize("count", [4097, 2**60, 2**60 + 1, MAX])
    def test_a_count_of_arguments_that_wraps(self, executable: Host, count: int) -> None:
        assert_abort(executable, "more than 4096 arguments", executable.place(bytes(64)), count)

    @pytest.mark.parametrize("shift", [1, 4, 7])
    def test_an_array_of_arguments_that_is_not_aligned(self, executable: Host, shift: int) -> None:
        array, count = executable.arguments(b"enclave")
        assert_abort(executable, "not aligned", array + shift, count)

    @pytest.mark.parametrize("count", [2**60, 2**32])
    def test_a_number_that_is_too_wide(self, library: Host, count: int) -> None:
        assert_abort(library, "more than 32 bits", count | ECHO)

    @pytest.mark.parametrize("where", [BASE + 0x4000, BASE - 8, MAX - 7, DEBUG_BUFFER + 4])
    def test_a_debug_buffer_that_is_not_the_host_s(self, library: Host, where: int) -> None:
        before = {p.offset: library.read(BASE + p.offset, PAGE) for p in library.sgxs.pages[:8]}
        out = library.enter(2**32, r10=where)
        assert (out.number, out.values[0]) == (10, 1)
        assert library.read(BASE, PAGE) == before[0]
        assert not library.accesses
        text = b"the host called a function"
        assert not any(
            text[:16] in library.read(BASE + offset, PAGE)
            for offset, data in before.items()
            if text[:16] not in data
        )

    def test_a_production_enclave_does_not_say_why_it_ends(self) -> None:
        host = Host(stream=stream("edp_library.c", library=True, debug=False))
        out = host.enter(2**32)
        assert (out.number, out.values[0]) == (10, 1)
        assert not host.accesses

    def test_inside_and_outside(self, library: Host) -> None:
        size = library.sgxs.create.size
        ranges = [
            *((BASE - 8, 8), (BASE, 8), (BASE + size - 8, 8)),
            *((BASE + size, 8), (BASE, size), (BASE - 1, size + 1)),
            *((BASE, size + 1), (MAX, 1), (MAX, 2), (BASE + 8, MAX - BASE), (0, MAX)),
        ]
        data = b"".join(struct.pack("<QQ", *pair) for pair in ranges)
        expected = [1, 2, 2, 1, 2, 0, 0, 0, 0, 0, 0]
        assert list(call(library, WHERE, data)[1]) == expected


class TestAnswers:
    """Class 9: what a host may answer, and no enclave may believe."""

    @pytest.mark.parametrize(
        "result",
        [3, 5, 0x15, 0x2000_0003, 0x3FFF_FFFE, 0x8000_0000, 2**32, 2**32 + 1, 2**63, MAX],
    )
    @pytest.mark.parametrize(
        ("number", "usercall"), [(READ, 1), (WRITE, 3), (CONNECT, 8), (READ, 14)]
    )
    def test_a_result_that_there_is_not(
        self, library: Host, result: int, number: int, usercall: int
    ) -> None:
        library.handlers[usercall] = lambda host, out: (result, 0)
        data = library.place(b"x")
        assert_abort(library, "result that there is not", number, data, 1, 0)

    @pytest.mark.parametrize("count", [65, 8192, 2**32, 2**63, MAX])
    def test_more_read_than_there_is_room(self, library: Host, count: int) -> None:
        library.handlers[1] = lambda host, out: (0, count)
        assert_abort(library, "more than it was asked for", READ)

    @pytest.mark.parametrize("count", [2, 2**32, 2**63, MAX])
    def test_more_written_than_there_was(self, library: Host, count: int) -> None:
        library.handlers[3] = lambda host, out: (0, count)
        assert_abort(library, "more than it was asked for", WRITE, library.place(b"x"), 1, 0)

    def test_nothing_written_is_no_endless_loop(self, library: Host) -> None:
        library.handlers[3] = lambda host, out: (0, 0)
        assert call(library, WRITE, b"abc") == (0, b"")

    @pytest.mark.parametrize("stream", [2**63, MAX])
    def test_a_stream_that_is_an_error(self, library: Host, stream: int) -> None:
        library.handlers[8] = lambda host, out: (0, stream)
        assert_abort(library, "more than it was asked for", CONNECT)

    @pytest.mark.parametrize("size", [65, 4096])
    def test_a_reply_larger_than_its_room(self, library: Host, size: int) -> None:
        def serve(host: Host, out: Exit) -> Answer:
            reply = struct.pack("<QQ", host.place(bytes(size)), size)
            host.engine.mem_write(out.values[2], reply)
            return 0, 0

        library.handlers[0x8000_0007] = serve
        assert_abort(library, "more than there is room", OCALL)

    @pytest.mark.parametrize("value", [2**31, 2**32, 2**63, 0xFFFF_FFFF])
    def test_a_value_of_an_ocall_that_is_no_int32(self, library: Host, value: int) -> None:
        library.handlers[0x8000_0007] = lambda host, out: (value, 0)
        assert_abort(library, "more than 32 bits", OCALL)

    def test_an_ocall_number_that_is_too_large(self, library: Host) -> None:
        assert_abort(library, "above 0x7fffffff", OCALL_NUMBER)

    def quoting(self, host: Host, *pieces: bytes) -> list[bytes]:
        """Answer a connection with these pieces, one a read; what is written."""
        left, written = list(pieces), list[bytes]()

        def read(host: Host, out: Exit) -> Answer:
            piece = left.pop(0) if left else b""
            host.engine.mem_write(out.values[1], piece[: out.values[2]])
            if len(piece) > out.values[2]:
                left.insert(0, piece[out.values[2] :])
            return 0, min(len(piece), out.values[2])

        def write(host: Host, out: Exit) -> Answer:
            written.append(host.read(*out.values[1:3]))
            return 0, out.values[2]

        def close(host: Host, out: Exit) -> Answer:
            assert out.values[0] == 9
            written.append(b"closed")
            return 0, 0

        host.handlers |= {8: lambda host, out: (0, 9), 1: read, 3: write, 5: close}
        return written

    def test_a_quote_in_small_pieces(self, library: Host) -> None:
        target = bytes(512)
        size = struct.pack("<I", 5000)
        quote = bytes(i % 255 for i in range(5000))
        written = self.quoting(
            library, target[:100], target[100:], size[:1], size[1:] + quote[:3], quote[3:]
        )
        assert call(library, QUOTE, b"d" * 64) == (5000, quote)
        report, end = written
        assert Report.from_bytes(report).body.reportdata == b"d" * 64
        assert end == b"closed"

    @pytest.mark.parametrize(
        ("pieces", "error"),
        [
            ([], 0x2000_0002),
            ([bytes(511)], 0x2000_0002),
            ([bytes(512)], 0x2000_0002),
            ([bytes(512), b"\x01\0\0"], 0x2000_0002),
            ([bytes(512), b"\x02\0\0\0", b"q"], 0x2000_0002),
            ([bytes(512), struct.pack("<I", 16385)], 0x2000_0000),
            ([bytes(512), b"\xff\xff\xff\xff"], 0x2000_0000),
        ],
    )
    def test_a_quote_that_is_none(self, library: Host, pieces: list[bytes], error: int) -> None:
        written = self.quoting(library, *pieces)
        assert call(library, QUOTE, bytes(64)) == (-error, b"")
        assert written[-1] == b"closed"

    @pytest.mark.parametrize("at", [49, 56, 63, 128, 511])
    def test_a_target_that_ereport_does_not_take(self, library: Host, at: int) -> None:
        """On a CPU it would be an exception in the enclave."""
        target = bytes(at) + b"\1" + bytes(511 - at)
        self.quoting(library, target)
        assert_abort(library, "TARGETINFO", QUOTE, library.place(bytes(64)), 64, 0)

    def test_a_host_that_makes_no_quotes(self, library: Host) -> None:
        library.handlers[8] = lambda host, out: (0x6F, 0)
        assert call(library, QUOTE, bytes(64)) == (-0x6F, b"")

    def test_no_memory(self, library: Host) -> None:
        library.handlers[14] = lambda host, out: (0x3FFF_FFFF, 0)
        assert_abort(library, "no memory left", WRITE, library.place(b"x"), 1, 0)

    def test_more_data_than_the_heap_holds(self, library: Host) -> None:
        assert_abort(library, "--heap-size", ECHO, library.reserve(HEAP), HEAP, 0)


class TestAnything:
    """Lies drawn at random: whatever the host says, nothing but these ends, and nothing leaks."""

    CALLS = (*range(ECHO, HEAP_TEST), PRINTF, WHERE, CONNECT, TIME, STATE, SHORT_REPLY, QUOTE, 99)

    def numbers(self, host: Host, rng: random.Random) -> int:
        size = host.sgxs.create.size
        near = rng.choice((0, BASE, BASE + 0x2000, BASE + size, USER, USER + 0x8000, 2**63, MAX))
        by = rng.choice((0, 1, 7, 8, 16, 64, 4096, 2**32))
        return rng.choice((near, near + by, near - by, by, rng.getrandbits(64))) & MAX

    def lie(self, host: Host, out: Exit, rng: random.Random) -> Answer:
        if rng.random() < 0.5 and out.number in HONEST:
            return HONEST[out.number](host, out)
        for at in out.values:
            if rng.random() < 0.5 and USER <= at < USER + 0x80_0000:
                pair = struct.pack("<QQ", self.numbers(host, rng), self.numbers(host, rng))
                host.engine.mem_write(at - at % 8, pair)
        result = rng.choice((0, 0, 0, 0x0B, 0x3FFF_FFFF, self.numbers(host, rng)))
        return result, rng.choice((0, 1, host.reserve(8192), self.numbers(host, rng)))

    def once(self, host: Host, rng: random.Random) -> str:
        """One call; how it ended."""
        given = (host.place(rng.randbytes(80)), rng.choice((0, 1, 33, 65, 80)), host.reserve(16))
        values = [rng.choice(self.CALLS)]
        values += [self.numbers(host, rng) if rng.random() < 0.2 else value for value in given]
        thread = rng.randrange(2)
        out, answers = host.enter(*values, thread=thread), 0
        while out.number not in (0, 10):
            answers += 1
            if answers > 50:
                return "endless"  # the host never gives it what it wants; the thread is stuck
            out = host.enter(0, *self.lie(host, out, rng), thread=thread)
        return "returned" if out.number == 0 else "ended"

    @pytest.mark.parametrize("seed", range(3))
    def test_random_lies(self, seed: int) -> None:
        rng, ends = random.Random(seed), set()
        for _ in range(8):
            host = Host(stream=stream("edp_library.c", library=True))
            call(host, SECRETS)
            for _ in range(6):
                try:
                    ends.add(end := self.once(host, rng))
                except FaultError:
                    # Only at what the host said is its own, and is not there.
                    assert host.faulted is not None
                    assert not BASE <= host.faulted < BASE + host.sgxs.create.size
                    break
                if end != "returned":
                    break
            assert SECRET not in host.read(USER, 0x100_0000)
            writes = [access for access in host.accesses if access.write]
            assert all(access.size == 8 and access.address % 8 == 0 for access in writes)
        assert {"returned", "ended"} <= ends


class TestFetches:
    """Classes 8, 10, 13: how user memory is read and written."""

    def test_what_the_host_gives_is_read_once(self, library: Host) -> None:
        reply = library.place(bytes(16))
        address = library.place(bytes(range(1, 201)))
        library.call(ECHO, address, 200, reply)
        reads = [a.address for a in library.accesses if not a.write]
        assert sorted(reads) == list(range(address, address + 200, 8))

    def test_arguments_are_read_once(self, executable: Host) -> None:
        executable.main(b"some", b"arguments", b"of several words")
        reads = [a.address for a in executable.accesses if not a.write]
        assert len(reads) == len(set(reads)) > 8

    def test_a_pointer_that_changes_after_it_was_read(self, executable: Host) -> None:
        array, count = executable.arguments(b"enclave", b"honest")
        evil = struct.pack("<QQ", BASE + 0x2000, 64)

        def flip(host: Host, address: int) -> None:
            if array <= address < array + 32:
                done = [a.address for a in host.accesses if array <= a.address < array + 32]
                for at in done:
                    host.engine.mem_write(at, evil[at % 16 : at % 16 + 8])

        executable.on_read = flip
        with pytest.raises(ExitedError):
            executable.call(array, count)
        assert executable.output == b"0 enclave\n1 honest\n"

    def test_the_reply_of_an_ocall_that_changes(self, library: Host) -> None:
        """Its address and length flip at every read; whatever mixture is read is checked."""
        good, bad = b"good reply", (BASE + 0x2000, 10)
        state = {"at": 0}

        def serve(host: Host, out: Exit) -> Answer:
            state["at"] = out.values[2]
            host.engine.mem_write(out.values[2], struct.pack("<QQ", host.place(good), len(good)))
            host.on_read = flip
            return 0, 0

        def flip(host: Host, address: int) -> None:
            reads = [a for a in host.accesses if not a.write and a.address == state["at"]]
            if address == state["at"] + 8 and reads:
                host.engine.mem_write(state["at"], struct.pack("<Q", bad[0]))

        library.handlers[0x8000_0007] = serve
        assert call(library, OCALL, b"q")[1] == good

    def test_all_of_user_memory_changes_all_the_time(self, library: Host) -> None:
        """Data is what was read at one time; the copy is what the author sees."""
        address = library.place(b"A" * 64)

        def flip(host: Host, at: int) -> None:
            host.engine.mem_write(address, b"B" * 64 if at % 16 == 0 else b"A" * 64)

        library.on_read = flip
        reply = library.place(bytes(16))
        library.call(ECHO, address, 64, reply)
        at, size = struct.unpack("<QQ", library.read(reply, 16))
        assert library.read(at, size) == (b"B" * 8 + b"A" * 8) * 4

    def test_every_write_is_a_whole_word(self, library: Host, executable: Host) -> None:
        for number in (ECHO, SHORT_REPLY, STATE, PRINTF, REPORT):
            call(library, number, bytes(range(64))[: 64 if number == REPORT else 13])
        executable.main(b"x", b"yy")
        for host in (library, executable):
            writes = [a for a in host.accesses if a.write]
            assert len(writes) > 3
            assert all(a.size == 8 and a.address % 8 == 0 for a in writes)

    @pytest.mark.parametrize("size", range(1, 17))
    def test_the_rest_of_the_last_word_is_zero(self, library: Host, size: int) -> None:
        call(library, SECRETS)
        reply = library.place(bytes(16))
        library.call(SHORT_REPLY, library.place(b"z" * size), size, reply)
        at, got = struct.unpack("<QQ", library.read(reply, 16))
        assert got == size
        room = -(-size // 8) * 8
        assert library.read(at, room) == b"\xc5" * size + bytes(room - size)

    def test_a_message_leaves_nothing_else_in_the_debug_buffer(self, library: Host) -> None:
        call(library, SECRETS)
        with pytest.raises(AbortedError):
            library.call(2**32)
        text = library.read(DEBUG_BUFFER, 1024)
        assert set(text[text.index(0) :]) == {0}
