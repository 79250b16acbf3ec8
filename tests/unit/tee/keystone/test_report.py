"""The report's three forms."""

import json
from typing import Any, Final

import pytest

from broch.errors import DecodeError
from broch.tee.keystone.report import SIZE, Report

REPORT: Final = Report(
    enclave_hash=b"\x01" * 64,
    data=b"some data",
    enclave_signature=b"\x02" * 64,
    sm_hash=b"\x03" * 64,
    sm_public_key=b"\x04" * 32,
    sm_signature=b"\x05" * 64,
    dev_public_key=b"\x06" * 32,
)

HEX: Final = [f"0{digit}" * 64 for digit in range(7)]


def test_fields_are_where_the_header_file_says() -> None:
    data = REPORT.to_bytes()
    assert len(data) == SIZE == 1352
    assert data[:64] == b"\x01" * 64
    assert data[64:72] == (9).to_bytes(8, "little")
    assert data[72:81] == b"some data"
    assert data[81:1096] == bytes(1015), "no byte of our memory travels in the padding"
    assert data[1096:1160] == b"\x02" * 64
    assert data[1160:1224] == b"\x03" * 64
    assert data[1224:1256] == b"\x04" * 32
    assert data[1256:1320] == b"\x05" * 64
    assert data[1320:] == b"\x06" * 32


@pytest.mark.parametrize("size", [0, 1, 64, 1023, 1024])
def test_round_trips(size: int) -> None:
    report = Report(**{**fields(), "data": bytes([7]) * size})
    assert Report.from_bytes(report.to_bytes()) == report
    assert Report.from_compressed(report.to_compressed()) == report
    assert Report.from_json(report.to_json()) == report
    assert len(report.to_compressed()) == 328 + size
    for form in (report.to_bytes(), report.to_compressed(), report.to_json()):
        assert Report.decode(form) == report


def fields() -> dict[str, Any]:
    return {name: getattr(REPORT, name) for name in REPORT.__slots__}


def test_what_is_signed_leaves_the_padding_out() -> None:
    assert REPORT.signed_by_sm() == b"\x01" * 64 + (9).to_bytes(8, "little") + b"some data"
    assert REPORT.signed_by_device() == b"\x03" * 64 + b"\x04" * 32


def test_json_is_what_upstream_prints() -> None:
    small = Report(**{**fields(), "data": b"\xab"})
    assert small.to_json().decode() == (
        f'{{"device_pubkey": "{HEX[6][:64]}", '
        f'"enclave": {{"data": "ab", "datalen": 1, "hash": "{HEX[1]}", '
        f'"signature": "{HEX[2]}"}}, "security_monitor": {{"hash": "{HEX[3]}", '
        f'"pubkey": "{HEX[4][:64]}", "signature": "{HEX[5]}"}}}}'
    )


@pytest.mark.parametrize("size", [0, 327, 1351, 1353])
def test_the_size_is_exact(size: int) -> None:
    with pytest.raises(DecodeError):
        Report.from_bytes(REPORT.to_bytes().ljust(size, b"\0")[:size])


def test_data_len_is_bounded() -> None:
    data = bytearray(REPORT.to_bytes())
    data[64:72] = (1025).to_bytes(8, "little")
    for parse in (Report.from_bytes, Report.from_device, Report.from_compressed, Report.decode):
        with pytest.raises(DecodeError) as caught:
            parse(bytes(data))
        assert caught.value.offset == 0x40


def test_padding_must_be_zero_unless_it_comes_from_a_device() -> None:
    leaked = bytearray(REPORT.to_bytes())
    leaked[1095] = 1
    with pytest.raises(DecodeError) as caught:
        Report.from_bytes(bytes(leaked))
    assert caught.value.offset == 81
    assert Report.from_device(bytes(leaked)) == REPORT


@pytest.mark.parametrize("change", [-1, 1])
def test_a_compressed_report_ends_with_its_fields(change: int) -> None:
    data = REPORT.to_compressed()
    with pytest.raises(DecodeError):
        Report.from_compressed(data[:change] if change < 0 else data + b"\0")
    with pytest.raises(DecodeError):
        Report.from_compressed(data[:327])


def spoil(*path: str, value: object) -> bytes:
    report = json.loads(REPORT.to_json())
    inner = report
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(report).encode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff", id="not ASCII"),
        pytest.param(b"[" * 5000, id="deep"),
        pytest.param(b'{"a": ' * 1300, id="deep objects"),
        pytest.param(b" " * 8193, id="too long"),
        pytest.param(REPORT.to_json() + b"x", id="text after"),
        pytest.param(spoil("extra", value=1), id="another key"),
        pytest.param(spoil("enclave", value=[]), id="enclave a list"),
        pytest.param(spoil("enclave", "datalen", value=8), id="datalen too small"),
        pytest.param(spoil("enclave", "datalen", value=-1), id="datalen negative"),
        pytest.param(spoil("enclave", "datalen", value=1025), id="datalen too large"),
        pytest.param(spoil("enclave", "datalen", value=9.0), id="datalen a float"),
        pytest.param(spoil("enclave", "datalen", value=True), id="datalen a bool"),
        pytest.param(spoil("enclave", "hash", value="01" * 63), id="short hash"),
        pytest.param(spoil("enclave", "hash", value="0A" * 64), id="upper case"),
        pytest.param(spoil("enclave", "hash", value="0g" * 64), id="not hexadecimal"),
        pytest.param(spoil("enclave", "hash", value="0 1 " * 32), id="spaces"),
        pytest.param(spoil("device_pubkey", value=5), id="key a number"),
        pytest.param(
            REPORT.to_json().replace(b'"datalen": 9', b'"datalen": 9, "datalen": 9'), id="twice"
        ),
    ],
)
def test_json_is_read_strictly(text: bytes) -> None:
    with pytest.raises(DecodeError):
        Report.from_json(text)
