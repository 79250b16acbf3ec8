"""Messages of the ring: kinds apart, heads of fixed layout, fault reports."""

import struct
from typing import Final

import pytest

from broch.enclave import messages
from broch.enclave.gate import ANSWERS
from broch.enclave.messages import (
    ANSWER,
    CALL,
    FAILED,
    GAP,
    NOTICE,
    OCALL,
    RESULT,
    RETURN,
    SEALED,
    TICK,
    FaultReport,
    Kind,
    Status,
    decode_fault,
    encode_fault,
    head,
)
from broch.enclave.ring import PoisonedError

SIZES: Final = {
    "SEALED": (SEALED, 17),
    "ANSWER": (ANSWER, 25),
    "FAILED": (FAILED, 13),
    "CALL": (CALL, 11),
    "RESULT": (RESULT, 10),
    "TICK": (TICK, 3),
    "OCALL": (OCALL, 11),
    "RETURN": (RETURN, 9),
    "NOTICE": (NOTICE, 5),
    "GAP": (GAP, 13),
}
TO_ENCLAVE: Final = range(0x01, 0x40)
TO_HOST: Final = range(0x41, 0x80)


def test_every_kind_has_a_number_of_its_own_that_fits_a_byte() -> None:
    assert len({int(kind) for kind in Kind.__members__.values()}) == len(Kind.__members__)
    assert all(kind in TO_ENCLAVE or kind in TO_HOST for kind in Kind)


def test_every_kind_is_in_the_docstring() -> None:
    text = messages.__doc__ or ""
    for kind in Kind:
        assert f"    {kind.name} " in text, kind
    to_enclave, to_host = text.split("enclave to host\n")
    for kind in (Kind.CHALLENGE, Kind.STOP, Kind.LOADED):
        assert kind in TO_ENCLAVE
        assert f"    {kind.name} " in to_enclave
    for kind in (Kind.READY, Kind.BYE, Kind.IMPORTED):
        assert kind in TO_HOST
        assert f"    {kind.name} " in to_host


def test_what_answers_the_enclave_comes_from_the_host() -> None:
    assert all(kind in TO_ENCLAVE for kind in ANSWERS)


def test_a_status_fits_a_byte() -> None:
    assert [int(status) for status in Status] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", SIZES)
def test_heads_are_big_endian_without_padding(name: str) -> None:
    layout, size = SIZES[name]
    assert layout.size == size
    assert layout.format.startswith(">B")


@pytest.mark.parametrize("name", SIZES)
def test_a_head_leaves_out_the_kind_and_the_body(name: str) -> None:
    layout, _ = SIZES[name]
    values = tuple(range(7, 7 + len(layout.format) - 2))
    assert head(layout, layout.pack(5, *values) + b"body") == values


@pytest.mark.parametrize("name", SIZES)
def test_a_message_shorter_than_its_head_is_poison(name: str) -> None:
    layout, size = SIZES[name]
    for length in range(size):
        with pytest.raises(PoisonedError, match=f"message of {length} bytes, its head alone has"):
            head(layout, bytes(length))
    assert head(layout, bytes(size)) == (0,) * (len(layout.format) - 2)


def test_the_layout_is_the_one_in_the_docstring() -> None:
    message = struct.pack(">BIIQQ", 5, 1, 2, 3, 4)
    assert head(ANSWER, message) == (1, 2, 3, 4)
    assert head(SEALED, message) == (1, 2, 3)


@pytest.mark.parametrize(
    "report",
    [
        FaultReport(what="raised ValueError"),
        FaultReport(what="raised ValueError", place="main.py:3", message="no"),
        FaultReport(what=""),
    ],
)
def test_a_fault_comes_back_as_it_went(report: FaultReport) -> None:
    message = encode_fault(report)
    assert message[0] == Kind.FAULT
    assert decode_fault(message) == report


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="not msgpack"),
        pytest.param(b"\x80", id="without what"),
        pytest.param(b"\x81\xa4what\x05", id="what as number"),
        pytest.param(b"\x82\xa4what\xa1x\xa1x\x01", id="unknown field"),
        pytest.param(b"\x81\xa4what\xa1\xff", id="not text"),
        pytest.param(b"\x81\xa4what\xa1x\x00", id="bytes after it"),
        pytest.param(b"\x81\xa4what" + b"\x91" * 100_000, id="nested"),
        pytest.param(b"\x81\xa1x" + b"\x91" * 100_000, id="nested in an unknown field"),
        pytest.param(b"\x81" + b"\x91" * 100_000, id="nested in a key"),
    ],
)
def test_what_is_no_fault_report_is_poison(body: bytes) -> None:
    with pytest.raises(PoisonedError, match="not a fault report"):
        decode_fault(bytes([Kind.FAULT]) + body)


def test_every_truncation_of_a_fault_is_poison() -> None:
    message = encode_fault(FaultReport(what="raised ValueError", place="main.py:3", message="no"))
    for size in range(1, len(message)):
        with pytest.raises(PoisonedError):
            decode_fault(message[:size])
