"""What a TPM that is broken, busy or hostile may answer."""

import contextlib
import hashlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import BrochError, DecodeError, InternalError, UndecidedError
from broch.tee.tpm.attest import Selection
from broch.tee.tpm.commands import OWNER, Commands, policy_of
from broch.tee.tpm.native import AK_TEMPLATE, BOOT

SELECTION = Selection(bank=0x000B, width=3, indices=(0, 1))


def response(parameters: bytes = b"", tag: int = 0x8001, code: int = 0) -> bytes:
    return struct.pack(">HII", tag, 10 + len(parameters), code) + parameters


def answering(*answers: bytes) -> tuple[Commands, list[float]]:
    """A TPM that gives these answers, the last one for ever."""
    left, pauses = list(answers), list[float]()

    def exchange(message: bytes, limit: int) -> bytes:
        assert int.from_bytes(message[2:6], "big") == len(message)
        return left.pop(0) if len(left) > 1 else left[0]

    return Commands(exchange, pauses.append), pauses


def registers(updates: int, indices: int, values: int, bank: int = 0x000B) -> bytes:
    """The answer to a TPM2_PCR_Read: a bitmap, and so many values."""
    head = struct.pack(">IIHB", updates, 1, bank, 3) + indices.to_bytes(3, "little")
    return response(head + struct.pack(">I", values) + (b"\0\x20" + b"v" * 32) * values)


def test_a_tpm_that_puts_it_off_is_asked_again() -> None:
    for code in (0x908, 0x90A, 0x922):
        tpm, pauses = answering(response(code=code), response(code=code), registers(1, 3, 2))
        assert set(tpm.registers(SELECTION)) == {0, 1}
        assert pauses == [0.02, 0.04]


def test_a_tpm_that_puts_it_off_for_ever() -> None:
    tpm, pauses = answering(response(code=0x922))
    with pytest.raises(UndecidedError, match=r"busy \(0x922\)"):
        tpm.registers(SELECTION)
    assert len(pauses) == 6


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (0x18B, UndecidedError, "no such object"),
        (0x28B, UndecidedError, "no such object"),
        (0x98E, UndecidedError, "authorisation that is not empty"),
        (0x9A2, UndecidedError, "authorisation that is not empty"),
        (0x921, UndecidedError, "locked out"),
        (0x143, InternalError, "refused with 0x143"),  # COMMAND_CODE
        (0x1C4, InternalError, "refused with 0x1c4"),  # VALUE of parameter 1
    ],
)
def test_refusals(code: int, kind: type[BrochError], text: str) -> None:
    tpm, _ = answering(response(code=code))
    with pytest.raises(kind, match=text):
        tpm.registers(SELECTION)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "2 bytes expected, 0 left"),
        (response()[:9], "4 bytes expected"),
        (response() + b"\0", "says that it has 10 bytes, has 11"),
        (response(tag=0x8002), "tag 0x8002, expected 0x8001"),
        (registers(1, 0b1000, 1), "other registers than asked for"),
        (registers(1, 0b11, 1), "other registers than asked for"),
        (registers(1, 0b11, 2, bank=0x000C), "another bank"),
        (response(bytes(5000)), "longer than 4096 bytes"),
    ],
)
def test_answers_that_are_none(answer: bytes, text: str) -> None:
    tpm, _ = answering(answer)
    with pytest.raises(DecodeError, match=text):
        tpm.registers(SELECTION)


def test_a_bank_that_is_not_there() -> None:
    tpm, _ = answering(registers(1, 0, 0))
    with pytest.raises(UndecidedError, match="no registers of bank 0x000b"):
        tpm.registers(SELECTION)


def test_registers_that_change_between_two_answers() -> None:
    tpm, _ = answering(registers(1, 0b01, 1), registers(2, 0b10, 1))
    with pytest.raises(UndecidedError, match="registers change"):
        tpm.registers(SELECTION)


def test_registers_in_two_answers() -> None:
    tpm, _ = answering(registers(1, 0b01, 1), registers(1, 0b10, 1))
    assert tpm.registers(SELECTION) == {0: b"v" * 32, 1: b"v" * 32}


def test_a_policy_is_the_hash_of_its_one_command() -> None:
    zeros, command, selection = bytes(32), "0000017f", "00000001000b03ff0000"
    text = zeros + bytes.fromhex(command + selection) + b"d" * 32
    assert policy_of(BOOT, b"d" * 32) == hashlib.sha256(text).digest()


ASKED: list[Callable[[Commands], object]] = [
    lambda tpm: tpm.create_primary(AK_TEMPLATE),
    lambda tpm: tpm.read_public(OWNER),
    lambda tpm: tpm.quote(OWNER, b"", SELECTION),
    lambda tpm: tpm.registers(SELECTION),
    lambda tpm: tpm.nv_read(0x01400001),
    lambda tpm: tpm.hmac_under_policy(OWNER, SELECTION, bytes(32), b""),
]


@settings(max_examples=200)
@given(
    st.sampled_from(ASKED),
    st.sampled_from([0x8001, 0x8002]),
    st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda d: bytes(4) + d)),
)
def test_any_answer_is_taken_or_refused(
    ask: Callable[[Commands], object], tag: int, parameters: bytes
) -> None:
    tpm, _ = answering(response(parameters, tag))
    with contextlib.suppress(BrochError):
        ask(tpm)
