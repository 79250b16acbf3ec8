"""The body of a REPORT."""

import pytest

from broch.errors import DecodeError
from broch.tee.dcap.report import ReportBody

DATA = bytes(48) + b"\x07" + bytes(7) + b"\x03" + bytes(320 - 57) + b"D" * 64


def test_round_trip() -> None:
    body = ReportBody.from_bytes(DATA)
    assert body.to_bytes() == DATA
    assert (body.flags, body.xfrm, body.debug) == (7, 3, True)
    assert body.reportdata == b"D" * 64


@pytest.mark.parametrize("offset", [21, 31, 96, 127, 160, 191, 262, 303])
def test_reserved_bytes(offset: int) -> None:
    with pytest.raises(DecodeError, match="reserved"):
        ReportBody.from_bytes(DATA[:offset] + b"\1" + DATA[offset + 1 :])


@pytest.mark.parametrize("size", [0, 383, 385])
def test_other_lengths(size: int) -> None:
    with pytest.raises(DecodeError, match="384"):
        ReportBody.from_bytes(bytes(size))
