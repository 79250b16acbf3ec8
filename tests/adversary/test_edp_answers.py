"""The C kit for SGX against what a host answers, and against what it changes meanwhile.

The classes are those of ``test_edp.py``.
"""

import random
import struct

import pytest
from tests.adversary.edp_calls import assert_abort, call
from tests.adversary.edp_host import (
    BASE,
    DEBUG_BUFFER,
    HONEST,
    USER,
    AbortedError,
    Answer,
    Exit,
    ExitedError,
    FaultError,
    Host,
)
from tests.adversary.edp_programs import (
    CONNECT,
    ECHO,
    HEAP,
    HEAP_TEST,
    OCALL,
    OCALL_NUMBER,
    PRINTF,
    QUOTE,
    READ,
    REPORT,
    SECRET,
    SECRETS,
    SHORT_REPLY,
    STATE,
    TIME,
    WHERE,
    WRITE,
    stream,
)

from broch.tee.sgx.structures import Report

MAX = 2**64 - 1


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
