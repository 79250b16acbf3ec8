"""Messages of an agent as calls into a module, and what comes back; the module is bent here."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from broch.enclave import hosted
from broch.enclave.hosted import FaultError, HostedEnclave, Stopped
from broch.enclave.messages import (
    CALL,
    GAP,
    NOTICE,
    RESULT,
    SEALED,
    TICK,
    Kind,
    Status,
    decode_fault,
)
from broch.enclave.ring import PoisonedError
from broch.tee.contract import Measurement
from broch.tee.hosting import Function


@dataclass
class Outcome:
    status: int = 0
    output: bytes = b""
    fault: str = ""


@dataclass
class Bent:
    """A module that answers what the test says."""

    answer: Callable[[int, bytes], Outcome] = lambda function, data: Outcome()
    calls: list[tuple[int, bytes]] = field(default_factory=list)
    measurement: Measurement = field(default_factory=lambda: Measurement(tee="x", value=b""))
    interrupts: frozenset[int] = frozenset({2})

    def number(self, port: int) -> int:
        return [7, 8][port]

    def enter(self, function: int, data: bytes) -> Outcome:
        self.calls.append((function, data))
        return self.answer(function, data)

    def evidence(self, challenge: bytes, nonce: bytes, tag: bytes) -> bytes:
        return b"E" + challenge + nonce + tag


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("<HH", kind, len(body)) + body + bytes(len(body) % 2)


def answering(status: int = 0, output: bytes = b"", fault: str = "") -> HostedEnclave:
    return HostedEnclave(Bent(lambda _, __: Outcome(status, output, fault)))


EVENT = SEALED.pack(Kind.EVENT, 5, 1, 2) + bytes(18)


def test_start_says_ready() -> None:
    assert answering(output=record(3, b"hi")).start() == [
        bytes([Kind.PRINT]) + b"hi",
        bytes([Kind.READY]),
    ]
    with pytest.raises(FaultError, match="did not start: a driver is not"):
        answering(8).start()


def test_a_challenge_becomes_evidence() -> None:
    enclave = answering(output=b"n" * 16 + b"t" * 16)
    said = enclave.take(bytes([Kind.CHALLENGE]) + b"c" * 32)
    assert said == [bytes([Kind.EVIDENCE]) + b"E" + b"c" * 32 + b"n" * 16 + b"t" * 16]
    for status, output in ((8, b""), (0, b"n" * 31), (0, b"n" * 33)):
        with pytest.raises(FaultError, match="does not attest itself"):
            answering(status, output).take(bytes([Kind.CHALLENGE]) + b"c" * 32)


def test_grants_go_in_one_by_one() -> None:
    module = Bent(lambda _, data: Outcome(0, data[:16]))
    said = HostedEnclave(module).take(bytes([Kind.GRANT]) + b"a" * 64 + b"b" * 64)
    assert said == [bytes([Kind.CONFIRM]) + b"a" * 16 + b"b" * 16]
    assert [data for _, data in module.calls] == [b"a" * 64, b"b" * 64]
    refused = answering(6).take(bytes([Kind.GRANT]) + bytes(128))
    assert refused == [NOTICE.pack(Kind.REFUSED, 0) + b"not attested, or for another attestation"]
    assert answering(0, b"short").take(bytes([Kind.GRANT]) + bytes(64))[0][0] == Kind.REFUSED


def test_an_event_goes_in_and_records_come_out() -> None:
    out = SEALED.pack(Kind.EVENT, 9, 1, 1)[1:] + bytes(18)
    module = Bent(lambda _, __: Outcome(0, record(4, struct.pack(">II", 5, 3)) + record(1, out)))
    said = HostedEnclave(module).take(EVENT)
    assert said == [GAP.pack(Kind.GAP, 5, 3), bytes([Kind.EVENT]) + out]
    assert module.calls == [(Function.INPUT, EVENT[1:])]


def test_what_is_refused_is_told() -> None:
    assert answering(3).take(EVENT) == [NOTICE.pack(Kind.REFUSED, 5) + b"not authentic"]
    long = EVENT + bytes(1024)
    module = Bent()
    assert HostedEnclave(module).take(long)[0][:5] == NOTICE.pack(Kind.REFUSED, 5)
    assert module.calls == [], "it does not fit IN"
    request = SEALED.pack(Kind.REQUEST, 5, 1, 2) + bytes(18)
    assert b"no handlers" in answering().take(request)[0]


def test_nothing_goes_in_that_does_not_fit() -> None:
    module = Bent()
    with pytest.raises(PoisonedError, match="65568 bytes to a microcontroller"):
        HostedEnclave(module).take(bytes([Kind.CHALLENGE]) + bytes(0x10000 + 32))
    assert module.calls == []


def test_calls() -> None:
    call = CALL.pack(Kind.CALL, 77, 1) + b"\x80"
    module = Bent(lambda _, __: Outcome(0, record(2, b"\0\0\x07")))
    assert HostedEnclave(module).take(call) == [RESULT.pack(Kind.RESULT, 77, Status.OK) + b"\x07"]
    assert module.calls == [(Function.ENTRY, b"\x08\0\x80")], "by the module's own number"
    refused = answering(11, record(2, b"\1\0no")).take(call)
    assert refused == [RESULT.pack(Kind.RESULT, 77, Status.REFUSED) + b"no"]
    for status, expected in ((4, Status.BAD_ARGUMENTS), (5, Status.REFUSED), (0, Status.REFUSED)):
        (said,) = answering(status).take(call)
        assert RESULT.unpack_from(said)[1:] == (77, expected)
    too_long = HostedEnclave(module).take(call + bytes(1024))
    assert RESULT.unpack_from(too_long[0])[2] == Status.BAD_ARGUMENTS
    with pytest.raises(PoisonedError, match="no port 2"):
        answering().take(CALL.pack(Kind.CALL, 1, 2))


def test_ticks_interrupts_and_the_end() -> None:
    module = Bent()
    enclave = HostedEnclave(module)
    assert enclave.take(TICK.pack(Kind.TICK, 0)) == []
    assert enclave.interrupted(2) == []
    assert module.calls == [(Function.TICK, b"\x07\0"), (Function.INTERRUPT, b"\x02\0")]
    with pytest.raises(Stopped):
        enclave.take(bytes([Kind.STOP]))
    with pytest.raises(PoisonedError, match="kind 0x0d"):
        enclave.take(bytes([Kind.EXPORT]))


@pytest.mark.parametrize(
    "output",
    [
        b"\1",
        b"\1\0\4\0abc",
        record(0, b""),
        record(9, b"x"),
        record(1, bytes(31)),
        record(4, bytes(7)),
        record(2, b"\0\0"),
        record(1, bytes(40))[:-2],
    ],
)
def test_records_that_are_none_end_the_module(output: bytes) -> None:
    with pytest.raises(FaultError, match=r"wrote (half )?a record"):
        answering(output=output).take(EVENT)


def test_results_have_a_status_that_there_is() -> None:
    with pytest.raises(FaultError, match="wrote a record of kind 2"):
        answering(output=record(2, b"\x63\0")).take(CALL.pack(Kind.CALL, 1, 0))


def test_faults() -> None:
    with pytest.raises(FaultError, match="took too many cycles"):
        answering(fault="took too many cycles").take(EVENT)
    with pytest.raises(FaultError, match="takes no calls any more"):
        answering(255).take(EVENT)
    assert decode_fault(hosted.fault("so")).what == "so"
    assert hosted.reason(99) == "status 99"
