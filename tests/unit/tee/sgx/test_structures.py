"""REPORT, TARGETINFO, KEYREQUEST: sizes, places, reserved bytes."""

import pytest

from broch.errors import DecodeError
from broch.tee.sgx.keys import ereport
from broch.tee.sgx.structures import KeyRequest, Report, Secs, TargetInfo

from .support import FUSES, REPORT_DATA

SECS = Secs(
    size=8192,
    ssaframesize=1,
    flags=0x85,
    xfrm=3,
    miscselect=1,
    mrenclave=b"E" * 32,
    mrsigner=b"S" * 32,
    configid=b"C" * 64,
    isvprodid=0x0102,
    isvsvn=0x0304,
    configsvn=0x0506,
    isvfamilyid=b"F" * 16,
    isvextprodid=b"X" * 16,
)


def test_the_report_is_laid_out_as_the_manual_says() -> None:
    report = ereport(FUSES, SECS, TargetInfo.of(SECS), REPORT_DATA)
    data = report.to_bytes()
    assert len(data) == 432
    for offset, value in (
        (0, FUSES.cpusvn),
        (16, b"\1\0\0\0"),
        (20, bytes(12)),
        (32, b"X" * 16),
        (48, b"\x85" + bytes(7) + b"\3" + bytes(7)),
        (64, b"E" * 32),
        (96, bytes(32)),
        (128, b"S" * 32),
        (160, bytes(32)),
        (192, b"C" * 64),
        (256, bytes.fromhex("020104030605")),
        (262, bytes(42)),
        (304, b"F" * 16),
        (320, REPORT_DATA),
        (384, FUSES.report_keyid),
        (416, report.mac),
    ):
        assert data[offset : offset + len(value)] == value, hex(offset)
    assert Report.from_bytes(data) == report


@pytest.mark.parametrize("offset", [21, 31, 96, 127, 160, 191, 262, 303])
def test_reserved_bytes_of_a_report(offset: int) -> None:
    data = bytearray(ereport(FUSES, SECS, TargetInfo.of(SECS), REPORT_DATA).to_bytes())
    data[offset] = 1
    with pytest.raises(DecodeError, match="reserved"):
        Report.from_bytes(bytes(data))


def test_targetinfo_is_laid_out_as_the_manual_says() -> None:
    info = TargetInfo.of(SECS)
    data = info.to_bytes()
    assert len(data) == 512
    assert data[:32] == b"E" * 32
    assert data[32:48] == b"\x85" + bytes(7) + b"\3" + bytes(7)
    assert data[50:56] == bytes.fromhex("060501000000")
    assert data[64:128] == b"C" * 64
    assert TargetInfo.from_bytes(data) == info


@pytest.mark.parametrize("offset", [49, 56, 63, 128, 511])
def test_reserved_bytes_of_a_targetinfo(offset: int) -> None:
    data = bytearray(TargetInfo.of(SECS).to_bytes())
    data[offset] = 1
    with pytest.raises(DecodeError, match="reserved"):
        TargetInfo.from_bytes(bytes(data))


def test_keyrequest_is_laid_out_as_the_manual_says() -> None:
    request = KeyRequest(
        keyname=4,
        keypolicy=2,
        isvsvn=0x0102,
        cpusvn=b"V" * 16,
        flags_mask=0x0B,
        xfrm_mask=0x0C,
        keyid=b"K" * 32,
        miscmask=0x0D,
        configsvn=0x0E,
    )
    data = request.to_bytes()
    assert len(data) == 512
    assert data[:8] == bytes.fromhex("0400020002010000")
    assert data[8:24] == b"V" * 16
    assert data[24:40] == b"\x0b" + bytes(7) + b"\x0c" + bytes(7)
    assert data[40:72] == b"K" * 32
    assert data[72:78] == b"\x0d\0\0\0\x0e\0"
    assert data[78:] == bytes(434)
    assert KeyRequest.from_bytes(data) == request


@pytest.mark.parametrize("kind", [Report, TargetInfo, KeyRequest])
@pytest.mark.parametrize("size", [0, 431, 433, 511, 513])
def test_other_lengths(kind: type[Report | TargetInfo | KeyRequest], size: int) -> None:
    with pytest.raises(DecodeError, match="expected"):
        kind.from_bytes(bytes(size))


def test_a_secs_knows_its_state() -> None:
    assert SECS.initialized
    assert not SECS.debug
    assert Secs(size=8192, ssaframesize=1, flags=2).debug
