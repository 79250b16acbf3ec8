"""The SGX extension: canonical, complete, bounded."""

from dataclasses import replace

import pytest

from broch.errors import DecodeError
from broch.tee.dcap.pckext import PckExtension

PROCESSOR = PckExtension(
    ppid=b"P" * 16,
    components=(0, 1, 127, 128, 255, *range(11)),
    pcesvn=300,
    cpusvn=b"V" * 16,
    pceid=b"\0\1",
    fmspc=b"FMSPC!",
    sgx_type=0,
)
PLATFORM = replace(
    PROCESSOR,
    sgx_type=1,
    platform_instance=b"I" * 16,
    dynamic_platform=True,
    cached_keys=False,
    smt_enabled=True,
)


@pytest.mark.parametrize("extension", [PROCESSOR, PLATFORM])
def test_round_trip(extension: PckExtension) -> None:
    assert PckExtension.from_bytes(extension.to_bytes()) == extension


def test_every_truncation_is_an_error() -> None:
    data = PLATFORM.to_bytes()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            PckExtension.from_bytes(data[:size])


def test_every_changed_byte_is_refused_or_another_value() -> None:
    data = PLATFORM.to_bytes()
    for offset in range(len(data)):
        for bit in (0x01, 0x80):
            bent = bytearray(data)
            bent[offset] ^= bit
            try:
                read = PckExtension.from_bytes(bytes(bent))
            except DecodeError:
                continue
            assert read != PLATFORM


def pair(oid: str, value: str) -> bytes:
    body = bytes.fromhex("06") + bytes([len(bytes.fromhex(oid))]) + bytes.fromhex(oid + value)
    return bytes([0x30, len(body)]) + body


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "one value", id="empty"),
        pytest.param(b"\x31\x00", "one value", id="a set"),
        pytest.param(b"\x30\x00\x30\x00", "one value", id="two values"),
        pytest.param(b"\x30\x00", "item 2 is missing", id="nothing in it"),
        pytest.param(b"\x30\x80\x00\x00", "shortest form", id="indefinite length"),
        pytest.param(b"\x30\x81\x00", "shortest form", id="long form of a short length"),
        pytest.param(b"\x30\x85\0\0\0\0\1\0", "shortest form", id="five length bytes"),
        pytest.param(b"\x30\x05\x00", "goes beyond", id="too long"),
        pytest.param(b"\x30\x02\x05\x00", "pair of OID", id="no pair"),
        pytest.param(
            b"\x30" + bytes([16]) + pair("2a864886f84d010d0201", "0500"),
            "belongs",
            id="another OID",
        ),
    ],
)
def test_what_is_no_extension(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        PckExtension.from_bytes(data)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ppid": b"P" * 15}, "item 1 has 15 bytes"),
        ({"cpusvn": b"V" * 17}, "item 18 has 17 bytes"),
        ({"pceid": b"P" * 3}, "item 3 has 3 bytes"),
        ({"fmspc": b"F" * 5}, "item 4 has 5 bytes"),
        ({"sgx_type": 3}, "item 5 is not a number"),
        ({"pcesvn": 65536}, "item 17 is not a number"),
        ({"components": (256, *range(15))}, "item 1 is not a number"),
        ({"components": tuple(range(15))}, "item 16 is missing"),
        ({"components": tuple(range(17))}, "comes twice"),
        ({"platform_instance": b"I" * 15}, "item 6 has 15 bytes"),
    ],
)
def test_each_field_is_bounded(change: dict[str, object], problem: str) -> None:
    bent = replace(PLATFORM, **change)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(DecodeError, match=problem):
        PckExtension.from_bytes(bent.to_bytes())


def test_a_boolean_is_00_or_ff() -> None:
    data = PLATFORM.to_bytes()
    offset = data.index(b"\x01\x01\xff")
    with pytest.raises(DecodeError, match="not a boolean"):
        PckExtension.from_bytes(data[:offset] + b"\x01\x01\x01" + data[offset + 3 :])
