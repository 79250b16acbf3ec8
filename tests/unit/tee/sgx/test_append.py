"""Appending: alignment, measuring, rights, the size; upstream's two defects only on request."""

import pytest

from broch.errors import DecodeError, MalformedError, UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.append import Align, Part, append, parse_mode
from broch.tee.sgx.sgxs import CHUNK, PAGE, Create, Page, Sgxs

R, RW, RX = (sgxs.PT_REG | rights for rights in (sgxs.R, sgxs.R | sgxs.W, sgxs.R | sgxs.X))
CODE = Page(0, RX, sgxs.ALL_MEASURED, bytes(range(256)) * 16)
SIZE_AT = 0x128


def unsized(
    *, pages: tuple[Page, ...] = (CODE,), size_at: int = SIZE_AT, ssaframesize: int = 1
) -> bytes:
    create = Create(ssaframesize=ssaframesize, size=size_at, sized=False)
    return Sgxs(create=create, pages=pages).to_bytes()


def part(flags: int, data: bytes, *, measured: bool = True) -> Part:
    return Part(flags=flags, measured=measured, data=data)


def added(*operations: Part | Align, as_upstream: bool = False) -> list[Page]:
    stream = append(unsized(), operations, as_upstream=as_upstream)
    return list(Sgxs.from_bytes(stream).pages[1:])


def test_no_operation_gives_the_size() -> None:
    parsed = Sgxs.from_bytes(append(unsized(ssaframesize=3), []))
    assert parsed.create == Create(ssaframesize=3, size=PAGE)
    expected = bytearray(CODE.data)
    expected[SIZE_AT : SIZE_AT + 8] = PAGE.to_bytes(8, "little")
    assert parsed.pages == (CODE._replace(data=bytes(expected)),)


def test_the_size_is_found_among_chunks_in_another_order() -> None:
    page = Page(PAGE, RW, b"\x05\x01\x83", bytes(PAGE))
    made = append(unsized(pages=(CODE, page), size_at=PAGE + SIZE_AT), [])
    assert Sgxs.from_bytes(made).pages[1].data[SIZE_AT : SIZE_AT + 8] == b"\0\x20" + bytes(6)


def test_measured_and_unmeasured_files() -> None:
    for measured, code in ((True, 0), (False, 0x80)):
        (page,) = added(part(R, b"x" * 300, measured=measured))
        assert (page.offset, page.flags) == (PAGE, R)
        assert page.order == bytes((code, code | 1))
        assert page.data == (b"x" * 300).ljust(PAGE, b"\0")


def test_files_alike_follow_without_a_gap() -> None:
    (page,) = added(part(R, b"a" * 100), part(R, b"b" * 100))
    assert page.data[:201] == b"a" * 100 + b"b" * 100 + b"\0"
    assert page.order == b"\0"


def test_other_measuring_begins_a_chunk() -> None:
    (page,) = added(part(R, b"a" * 100), part(R, b"b" * 100, measured=False))
    assert page.data[CHUNK : CHUNK + 100] == b"b" * 100
    assert page.order == b"\0\x81"


def test_other_rights_begin_a_page_and_a_page_keeps_its_own() -> None:
    first, second = added(part(R, b"a"), part(RW, b"b"))
    assert (first.offset, first.flags, first.data[:1]) == (PAGE, R, b"a")
    assert (second.offset, second.flags, second.data[:1]) == (2 * PAGE, RW, b"b")


def test_upstream_gives_a_page_the_rights_of_the_next_file() -> None:
    first, second = added(part(R, b"a"), part(RW, b"b"), as_upstream=True)
    assert (first.flags, second.flags) == (RW, RW)


def test_a_file_of_many_pages() -> None:
    data = bytes(range(256)) * 33
    found = added(part(RX, data))
    assert [page.offset for page in found] == [PAGE, 2 * PAGE, 3 * PAGE]
    assert b"".join(page.data for page in found)[: len(data)] == data
    assert found[2].order == b"\0"


def test_alignment_inside_a_page_leaves_chunks_out() -> None:
    operations = (part(R, b"a" * 100), Align(1024), part(R, b"b" * 300))
    (page,) = added(*operations)
    assert page.order == b"\0\4\5"
    assert page.data[1024:1324] == b"b" * 300
    (upstream,) = added(*operations, as_upstream=True)
    assert upstream.order == page.order
    assert upstream.data[1024 : 1024 + 2 * CHUNK] == page.data[CHUNK : 3 * CHUNK]


def test_alignment_beyond_a_page() -> None:
    first, second = added(part(R, b"a"), Align(0x8000), part(R, b"b"))
    assert (first.offset, second.offset) == (PAGE, 0x8000)


def test_the_size_covers_what_was_appended() -> None:
    made = append(unsized(), [Align(0x10000), part(R, b"a")])
    assert Sgxs.from_bytes(made).create.size == 0x20000


def test_an_empty_file_adds_nothing() -> None:
    assert append(unsized(), [part(R, b"")]) == append(unsized(), [])


def test_a_file_that_fills_its_page() -> None:
    (page,) = added(part(R, b"a" * PAGE))
    assert page.order == sgxs.ALL_MEASURED


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("-", (sgxs.PT_REG, False)),
        ("-r", (R, False)),
        ("-rm", (R, True)),
        ("-mxwr", (sgxs.PT_REG | 7, True)),
    ],
)
def test_modes(mode: str, expected: tuple[int, bool]) -> None:
    assert parse_mode(mode) == expected


@pytest.mark.parametrize("mode", ["r", "-q", "-rmq", "-R", ""])
def test_modes_that_are_none(mode: str) -> None:
    with pytest.raises(UsageError):
        parse_mode(mode)


@pytest.mark.parametrize("size", [0, 3, -1, 2**60])
def test_alignments_that_are_none(size: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        Align(size)


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (
            Sgxs(create=Create(ssaframesize=1, size=PAGE), pages=(CODE,)).to_bytes(),
            "sized already",
        ),
        (unsized(size_at=0x12C), "not on an 8-byte boundary"),
        (unsized(size_at=0x2000), "no measured chunk is there"),
        (unsized(pages=(Page(0, RW, b"\0\x81", bytes(PAGE)),)), "no measured chunk is there"),
        (unsized(pages=()), "no pages"),
    ],
)
def test_streams_that_are_refused(stream: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        append(stream, [])


def test_a_stream_that_is_not_canonical() -> None:
    for size in range(0, len(unsized()), 97):
        with pytest.raises(MalformedError):
            append(unsized()[:size], [])
    with pytest.raises(DecodeError):
        append(unsized() + b"x", [])
