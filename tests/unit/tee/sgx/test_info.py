"""What is said of a stream; what upstream prints is in tests/vectors."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broch.errors import DecodeError, UsageError
from broch.tee.sgx import info, sgxs
from broch.tee.sgx.convert import MAX_SIZE
from broch.tee.sgx.sgxs import CHUNK, PAGE, Create, Page, Sgxs

TCS = struct.pack("<QQQIIQ", 0, 0, 0x5000, 0, 1, 0x123).ljust(PAGE, b"\0")


def page(number: int, flags: int = 0x203, order: bytes = sgxs.NOTHING, fill: int = 0) -> Page:
    data = bytearray(PAGE)
    for code in order:
        start = (code & 0x7F) * CHUNK
        data[start : start + CHUNK] = bytes([fill]) * CHUNK
    return Page(number * PAGE, flags, order, bytes(data))


def stream(*pages: Page, size: int = 0x10000, sized: bool = True) -> bytes:
    create = Create(ssaframesize=1, size=size, sized=sized)
    return Sgxs(create=create, pages=pages).to_bytes()


def test_runs_gaps_and_the_end() -> None:
    made = stream(
        page(0, order=sgxs.ALL_MEASURED, fill=0xCC),
        page(1, order=sgxs.ALL_MEASURED, fill=0xCC),
        page(4),
        page(5),
        Page(6 * PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, TCS),
        page(7, order=b"\x80", fill=1),
        page(8, order=b"\0\x81", fill=1),
    )
    assert list(info.summary(made)) == [
        "   0-1fff Reg  rw- [0xcc]* meas=all",
        "2000-3fff (unmapped)",
        "4000-5fff Reg  rw- (empty) meas=none",
        "6000-6fff Tcs  ---  (data) meas=all [oentry=0x123, ossa=0x5000, nssa=1]",
        "7000-7fff Reg  rw-  (data) meas=none",
        "8000-8fff Reg  rw-  (data) meas=partial",
        "9000-ffff (unmapped)",
    ]


def test_runs_on_both_sides_of_a_gap_are_two() -> None:
    lines = list(info.summary(stream(page(0), page(2), size=0x4000)))
    assert [line.split()[0] for line in lines] == ["0-", "1000-1fff", "2000-2fff", "3000-3fff"]


def test_no_pages() -> None:
    assert list(info.summary(stream())) == ["   0-ffff (unmapped)"]
    assert next(iter(info.summary(stream(sized=False, size=0)))) == "(unsized)"


def test_a_large_enclave_is_not_walked_page_by_page() -> None:
    assert len(list(info.summary(stream(page(0), page(2**40), size=2**60)))) == 4


def test_json() -> None:
    made = stream(page(1, order=sgxs.ALL_MEASURED, fill=1))
    shown = info.as_json(made)
    assert shown["mrenclave"] == sgxs.measure(made).hex()
    assert (shown["size"], shown["pages"], shown["threads"]) == (0x10000, 1, 0)
    assert [region["first"] for region in shown["regions"]] == [PAGE]
    unsized = info.as_json(stream(page(1), size=8, sized=False))
    assert (unsized["mrenclave"], unsized["size"], unsized["size_offset"]) == (None, None, 8)


def test_pages_as_json() -> None:
    made = stream(Page(PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, TCS))
    (shown,) = info.pages(made)
    assert shown["oentry"] == 0x123
    assert shown["type"] == "Tcs"


def test_list_all_takes_records_in_any_order() -> None:
    made = stream(page(1, order=b"\x80", fill=7))
    records = [made[:64], made[64:128], made[128:]]
    lines = list(info.list_all(b"".join(reversed(records))))
    assert lines == [
        "UNMEASRD offset=0x    1000 data=[0x07]*",
        "EADD offset=0x    1000 pagetype=2 flags=R | W",
        "ECREATE size=0x10000 ssaframesize=1",
    ]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [(0x200, "(empty)"), (0x23F, "R | W | X | PENDING | MODIFIED | PR"), (0x241, "R | 0x40")],
)
def test_flags(flags: int, shown: str) -> None:
    assert next(iter(info.list_all(sgxs.add_record(0, flags)))).endswith(f"flags={shown}")


def test_memory() -> None:
    made = stream(page(1, order=b"\0", fill=9), page(3))
    memory = b"".join(info.dump_memory(made))
    assert memory == bytes(PAGE) + b"\x09" * CHUNK + bytes(3 * PAGE - CHUNK)


def test_memory_beyond_the_limit() -> None:
    with pytest.raises(UsageError, match="memory is shown up to"):
        info.dump_memory(stream(page(MAX_SIZE // PAGE)))


Show = Callable[[bytes], Iterator[Any] | dict[str, Any]]


@pytest.mark.parametrize(
    "show",
    [info.summary, info.list_pages, info.list_all, info.pages, info.as_json, info.dump_memory],
)
def test_what_is_no_stream(show: Show) -> None:
    made = stream(page(1, order=b"\0", fill=9))
    for bad in (made[:-1], made + b"x", b"EADD" + bytes(60), b"x" * 64):
        if show is info.list_all and bad[:4] == b"EADD":
            continue
        with pytest.raises(DecodeError):
            list(show(bad))
