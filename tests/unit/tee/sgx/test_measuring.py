"""Measuring in pieces gives what measuring at once gives, and the same errors at the same place."""

import hashlib
import io
import random

import pytest

from broch.errors import DecodeError
from broch.tee.sgx import block, measuring, sgxs
from broch.tee.sgx.sgxs import ALL_MEASURED, CHUNKS, PAGE, Create, Page, Sgxs

RW = 0x203
UNMEASURED = bytes(chunk | 0x80 for chunk in range(CHUNKS))


def make(seed: int) -> Sgxs:
    """Blocks, gaps, pages measured in part or not at all."""
    rnd = random.Random(seed)
    pages, number = [], rnd.choice([0, 3])
    for _ in range(rnd.randrange(70)):
        order = rnd.choice([ALL_MEASURED] * 12 + [b"", b"\1\x82\3", UNMEASURED])
        data = bytearray(PAGE)
        for code in order:
            start = (code & 0x7F) * 256
            data[start : start + 256] = rnd.randbytes(256)
        pages.append(Page(number * PAGE, RW, order, bytes(data)))
        number += rnd.choice([1] * 30 + [5])
    return Sgxs(create=Create(ssaframesize=1, size=1 << 20), pages=tuple(pages))


def definition(stream: Sgxs) -> bytes:
    digest = hashlib.sha256(sgxs.create_record(stream.create))
    for page in stream.pages:
        digest.update(sgxs.add_record(page.offset, page.flags))
        for offset, data, measured in page.chunks():
            if measured:
                digest.update(sgxs.extend_record(offset) + data)
    return digest.digest()


def outcome(stream: bytes, *, in_pieces: bool) -> bytes | str:
    try:
        if in_pieces:
            return measuring.measure_file(io.BytesIO(stream))
        return measuring.measure(stream)
    except DecodeError as exc:
        return str(exc)


@pytest.mark.parametrize("size", [5300, 20_000, 100_000, 1 << 23])
def test_the_definition(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(measuring, "BUFFER", size)
    for seed in range(8):
        parsed = make(seed)
        stream = parsed.to_bytes()
        expected = definition(parsed)
        assert outcome(stream, in_pieces=True) == expected
        assert outcome(stream, in_pieces=False) == expected


def test_errors_are_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make(1).to_bytes()
    whole = Sgxs.from_bytes
    rnd = random.Random(7)
    for _ in range(40):
        bent = bytearray(stream[: rnd.randrange(1, len(stream) + 1)])
        if rnd.random() < 0.5:
            bent[rnd.randrange(len(bent))] ^= 1 << rnd.randrange(8)
        data = bytes(bent)
        try:
            expected: bytes | str = definition(whole(data))
        except DecodeError as exc:
            expected = str(exc)
        monkeypatch.setattr(measuring, "BUFFER", rnd.choice([6000, 90_000]))
        assert outcome(data, in_pieces=True) == outcome(data, in_pieces=False) == expected


def test_an_open_size(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Create(ssaframesize=1, size=8, sized=False)
    data = Sgxs(create=create, pages=make(1).pages).to_bytes()
    for size in (6000, 1 << 23):
        monkeypatch.setattr(measuring, "BUFFER", size)
        for in_pieces in (True, False):
            assert "UNSIZED" in str(outcome(data, in_pieces=in_pieces))


def test_the_number_of_pages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tuple(Page(index * PAGE, RW, ALL_MEASURED, bytes(PAGE)) for index in range(40))
    data = Sgxs(create=Create(ssaframesize=1, size=1 << 20), pages=pages).to_bytes()
    monkeypatch.setattr(sgxs, "MAX_PAGES", 39)
    for in_pieces in (True, False):
        assert "more than 39 pages" in str(outcome(data, in_pieces=in_pieces))


# Blocks


def block_of(offset: int, flags: int, data: bytes) -> bytes:
    return b"".join(
        sgxs.page_records(Page(offset + at, flags, ALL_MEASURED, data[at : at + PAGE]))
        for at in range(0, block.DATA, PAGE)
    )


@pytest.mark.parametrize("offset", [0, 0x10000, 0x7FFF_FFFF_0000])
@pytest.mark.parametrize("flags", [0x201, 0x207])
def test_a_block_is_its_pages(offset: int, flags: int) -> None:
    data = random.Random(offset).randbytes(block.DATA)
    expected = block_of(offset, flags, data)
    assert block.write(offset, flags, b"front" + data, 5) == expected
    assert block.is_at(b"front" + expected, 5, offset, flags)
    assert not block.is_at(expected, 0, offset, flags ^ 2)
    assert not block.is_at(expected, 0, offset + 0x10000, flags)


def test_every_changed_header_byte_of_a_block_is_seen() -> None:
    stream = bytearray(block_of(0x10000, 0x203, bytes(block.DATA)))
    position = 0
    for _ in range(block.PAGES):
        for size in (64, *(320,) * CHUNKS):
            for at in range(position, position + 64, 5):
                stream[at] ^= 0x10
                assert not block.is_at(stream, 0, 0x10000, 0x203)
                stream[at] ^= 0x10
            position += size
    assert block.is_at(stream, 0, 0x10000, 0x203)


def test_a_block_of_tcs_pages_with_rights_is_refused() -> None:
    data = sgxs.create_record(Create(ssaframesize=1, size=1 << 20))
    data += block_of(0, sgxs.PT_TCS | sgxs.R, bytes(block.DATA))
    assert "a TCS page with R" in str(outcome(data + bytes(0), in_pieces=False))


def test_a_17th_chunk_after_a_block() -> None:
    data = sgxs.create_record(Create(ssaframesize=1, size=1 << 20))
    data += block_of(0, RW, bytes(block.DATA)) + sgxs.extend_record(0xF000) + bytes(256)
    assert "17th chunk" in str(outcome(data, in_pieces=False))
