"""The C kit for SGX, and a host that does not lie."""

import struct

import pytest
from tests.adversary.edp_calls import assert_abort, assert_dead, call
from tests.adversary.edp_host import AbortedError, Answer, Exit, ExitedError, Host
from tests.adversary.edp_programs import (
    CONNECT,
    ECHO,
    HEAP_TEST,
    NAMES,
    OCALL,
    PRINTF,
    RANDOM,
    READ,
    REPORT,
    SEAL_KEY,
    TARGETINFO,
    TIME,
    WRITE,
)

from broch.tee.sgx.keys import check_report
from broch.tee.sgx.structures import Report

MAX = 2**64 - 1


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
