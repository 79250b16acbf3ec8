"""SGXS: one test a rule of the canonical form, and the measurement."""

import hashlib
import struct

import pytest

from broch.errors import DecodeError
from broch.tee.sgx import sgxs
from broch.tee.sgx.sgxs import CHUNK, PAGE, RECORD, Create, Page, Sgxs

RX = sgxs.PT_REG | sgxs.R | sgxs.X
RW = sgxs.PT_REG | sgxs.R | sgxs.W
DATA = bytes(range(256)) * 16


def record(tag: bytes, *fields: int, layout: str = "Q") -> bytes:
    return (tag.ljust(8, b"\0") + struct.pack("<" + layout, *fields)).ljust(RECORD, b"\0")


def ecreate(size: int = 0x4000) -> bytes:
    return record(b"ECREATE", 1, size, layout="IQ")


def unsized(offset: int = 0x10) -> bytes:
    return record(b"UNSIZED", 1, offset, layout="IQ")


def eadd(offset: int, flags: int = RX) -> bytes:
    return record(b"EADD", offset, flags, layout="QQ")


def eextend(offset: int, fill: int = 0xAA) -> bytes:
    return record(b"EEXTEND", offset) + bytes([fill]) * CHUNK


def unmeasrd(offset: int) -> bytes:
    return record(b"UNMEASRD", offset) + b"\xbb" * CHUNK


def full(page: int) -> bytes:
    return b"".join(eextend(page + start) for start in range(0, PAGE, CHUNK))


def test_a_stream_by_hand_is_what_the_writer_writes() -> None:
    stream = ecreate() + eadd(0) + full(0) + eadd(0x1000, RW) + eadd(0x3000, sgxs.PT_TCS)
    parsed = Sgxs.from_bytes(stream)
    assert parsed.create == Create(ssaframesize=1, size=0x4000)
    assert parsed.pages == (
        Page(0, RX, sgxs.ALL_MEASURED, b"\xaa" * PAGE),
        Page(0x1000, RW, sgxs.NOTHING, bytes(PAGE)),
        Page(0x3000, sgxs.PT_TCS, sgxs.NOTHING, bytes(PAGE)),
    )
    assert parsed.to_bytes() == stream


def test_the_measurement_of_measured_records_is_the_digest_of_the_stream() -> None:
    stream = ecreate() + eadd(0) + full(0) + eadd(0x1000, RW)
    assert sgxs.measure(stream) == hashlib.sha256(stream).digest()


@pytest.mark.parametrize("where", ["first", "middle", "last", "adjacent"])
def test_unmeasured_chunks_are_left_out(where: str) -> None:
    chunks = {
        "first": [unmeasrd(0), eextend(0x100), eextend(0x200)],
        "middle": [eextend(0), unmeasrd(0x100), eextend(0x200)],
        "last": [eextend(0), eextend(0x100), unmeasrd(0x200)],
        "adjacent": [eextend(0), unmeasrd(0x100), unmeasrd(0x200)],
    }[where]
    stream = ecreate() + eadd(0) + b"".join(chunks) + eadd(0x1000) + full(0x1000)
    kept = [chunk for chunk in chunks if not chunk.startswith(b"UNMEASRD")]
    expected = ecreate() + eadd(0) + b"".join(kept) + eadd(0x1000) + full(0x1000)
    assert sgxs.measure(stream) == hashlib.sha256(expected).digest()
    assert Sgxs.from_bytes(stream).to_bytes() == stream


def test_chunks_keep_the_order_of_the_stream() -> None:
    stream = ecreate() + eadd(0x1000) + eextend(0x1F00, 1) + eextend(0x1000, 2)
    parsed = Sgxs.from_bytes(stream)
    assert parsed.pages[0].order == bytes([15, 0])
    assert parsed.pages[0].data == b"\x02" * CHUNK + bytes(14 * CHUNK) + b"\x01" * CHUNK
    assert parsed.to_bytes() == stream


def test_16_chunks_in_another_order_are_still_one_page() -> None:
    backwards = b"".join(eextend(start) for start in reversed(range(0, PAGE, CHUNK)))
    stream = ecreate() + eadd(0) + backwards
    assert Sgxs.from_bytes(stream).to_bytes() == stream
    assert sgxs.measure(stream) == hashlib.sha256(stream).digest()


def test_an_unsized_stream_parses_and_has_no_measurement() -> None:
    stream = unsized() + eadd(0) + full(0)
    parsed = Sgxs.from_bytes(stream)
    assert parsed.create == Create(ssaframesize=1, size=0x10, sized=False)
    assert parsed.to_bytes() == stream
    with pytest.raises(DecodeError, match="UNSIZED"):
        sgxs.measure(stream)


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        pytest.param(b"", "shorter", id="empty"),
        pytest.param(ecreate()[:-1], "shorter", id="half a record"),
        pytest.param(eadd(0), "not ECREATE", id="begins with EADD"),
        pytest.param(b"OTHER".ljust(64, b"\0"), "not ECREATE", id="unknown first tag"),
        pytest.param(patched(ecreate(), 20, b"\1"), "reserved", id="ECREATE reserved, first"),
        pytest.param(patched(ecreate(), 63, b"\1"), "reserved", id="ECREATE reserved, last"),
        pytest.param(ecreate() + ecreate(), "EADD is expected", id="two ECREATE"),
        pytest.param(ecreate() + eextend(0), "EADD is expected", id="chunk before a page"),
        pytest.param(ecreate() + b"X" * 64, "EADD is expected", id="unknown tag"),
        pytest.param(ecreate() + eadd(0)[:-1], "inside a record", id="half an EADD"),
        pytest.param(ecreate() + patched(eadd(0), 24, b"\1"), "reserved", id="EADD reserved"),
        pytest.param(ecreate() + eadd(0x800), "not aligned", id="page not aligned"),
        pytest.param(ecreate() + eadd(0) + eadd(0), "come after", id="page twice"),
        pytest.param(ecreate() + eadd(0x1000) + eadd(0), "come after", id="pages fall"),
        pytest.param(ecreate() + eadd(0, 0x101), "TCS page with R", id="TCS with R"),
        pytest.param(ecreate() + eadd(0, 0x102), "TCS page with R", id="TCS with W"),
        pytest.param(ecreate() + eadd(0, 0x104), "TCS page with R", id="TCS with X"),
        pytest.param(
            ecreate() + eadd(0) + eextend(0x80), "not one of page", id="chunk not aligned"
        ),
        pytest.param(
            ecreate() + eadd(0) + eextend(0x1000), "not one of page", id="chunk of the next page"
        ),
        pytest.param(
            ecreate() + eadd(0x1000) + eextend(0xF00), "not one of page", id="of the page before"
        ),
        pytest.param(
            ecreate() + eadd(0) + eextend(0x300) + eextend(0x300), "twice", id="chunk twice"
        ),
        pytest.param(
            ecreate() + eadd(0) + eextend(0x300) + unmeasrd(0x300), "twice", id="both kinds"
        ),
        pytest.param(ecreate() + eadd(0) + full(0) + eextend(0), "17th", id="17 chunks"),
        pytest.param(
            ecreate() + eadd(0) + patched(eextend(0), 16, b"\1"), "reserved", id="EEXTEND reserved"
        ),
        pytest.param(ecreate() + eadd(0) + eextend(0)[:-1], "inside a record", id="half a chunk"),
        pytest.param(
            ecreate() + eadd(2**64 - PAGE) + full(0), "not one of page", id="last page of all"
        ),
    ],
)
def test_each_rule_is_enforced(stream: bytes, problem: str) -> None:
    for read in (Sgxs.from_bytes, sgxs.measure):
        with pytest.raises(DecodeError, match=problem):
            read(stream)


def test_a_reserved_byte_in_any_chunk_of_a_full_page_is_found() -> None:
    stream = ecreate() + eadd(0) + full(0)
    for index in range(16):
        position = 2 * RECORD + index * (RECORD + CHUNK) + 20
        with pytest.raises(DecodeError):
            Sgxs.from_bytes(patched(stream, position, b"\1"))


def test_the_number_of_pages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgxs, "MAX_PAGES", 2)
    Sgxs.from_bytes(ecreate() + eadd(0) + eadd(0x1000))
    with pytest.raises(DecodeError, match="more than 2 pages"):
        Sgxs.from_bytes(ecreate() + eadd(0) + eadd(0x1000) + eadd(0x2000))
