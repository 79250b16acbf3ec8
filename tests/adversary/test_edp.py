"""The C kit for SGX against a host that lies, by the classes of Van Bulck et al. (CCS 2019).

    1 flags and extended state    2 entry and exit state machine    3 registers at exit
    4 pointers                    6 lengths that wrap               7 straddling the edge
    8 double fetch                9 answers of usercalls (Iago)     10 uninitialised bytes
    12 order and concurrency      13 partial words to user memory

Every lie is answered by an enclave that goes on with nothing wrong, or that ends itself for good.
"""

import struct

import pytest
from tests.adversary.edp_calls import assert_abort, assert_dead, call
from tests.adversary.edp_host import (
    BASE,
    DEBUG_BUFFER,
    HOST_REGISTERS,
    PAGE,
    USER,
    AbortedError,
    Answer,
    Exit,
    FaultError,
    Host,
    honest_alloc,
)
from tests.adversary.edp_programs import (
    ECHO,
    FREE_STACK,
    FREE_TWICE,
    ILLEGAL,
    OCALL,
    PRINTF,
    SECRET,
    SECRETS,
    SHORT_REPLY,
    SMASH,
    STACK,
    STATE,
    WHERE,
    WRITE,
    stream,
)

MAX = 2**64 - 1


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
