"""The layout and the patches of a converted enclave, on small files of our own making."""

import hashlib
import struct
from typing import Any

import pytest

from broch.errors import MalformedError, UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.convert import GUARD, MAX_SIZE, Options, convert, power_of_two
from broch.tee.sgx.elf_rules import EH_NEW, EH_OLD
from broch.tee.sgx.sgxs import PAGE, Page, Sgxs

from .elf_maker import NEW_NAMES, RODATA, Maker, symbols


def stream(made: Maker | None = None, **options: Any) -> bytes:
    chosen = Options(**{"heap_size": 3 * PAGE, "stack_size": 2 * PAGE, **options})
    return b"".join(convert((made or Maker()).build(), chosen))


def pages(made: Maker | None = None, **options: Any) -> dict[int, Page]:
    return {page.offset: page for page in Sgxs.from_bytes(stream(made, **options)).pages}


def value(found: dict[int, Page], name: str, made: Maker | None = None) -> int:
    _, address, size = (made or Maker()).symbols[name]
    data = found[address - address % PAGE].data
    return int.from_bytes(data[address % PAGE : address % PAGE + size], "little")


def test_the_stream_is_canonical_and_sized() -> None:
    made = stream()
    parsed = Sgxs.from_bytes(made)
    assert parsed.create == sgxs.Create(ssaframesize=1, size=0x20000)
    assert parsed.to_bytes() == made
    assert sgxs.measure(made) == hashlib.sha256(made).digest()


def test_segments_keep_their_rights_and_are_measured() -> None:
    found = pages()
    rights = [found[offset].flags for offset in (0, 0x1000, 0x2000)]
    assert rights == [0x201, 0x205, 0x203]
    assert all(found[offset].order == sgxs.ALL_MEASURED for offset in (0, 0x1000, 0x2000))
    assert found[0x1000].data == (b"\xcc" * 0x40).ljust(PAGE, b"\0")


def test_heap_and_thread() -> None:
    found = pages()
    heap, thread = 0x3000, 0x6000
    stack = thread + GUARD
    tls, tcs, ssa = stack + 0x2000, stack + 0x3000, stack + 0x4000
    expected = [0, 0x1000, 0x2000, heap, heap + 0x1000, heap + 0x2000]
    assert list(found) == [*expected, stack, stack + 0x1000, tls, tcs, ssa]
    for offset in (heap, stack, ssa):
        assert (found[offset].flags, found[offset].order) == (0x203, sgxs.NOTHING)
    assert found[tls].flags == 0x203
    assert found[tls].data[:32] == struct.pack("<QQQQ", tls, 0, 0, 0)
    assert found[tcs].flags == 0x100
    expected_tcs = struct.pack("<QQQIIQQQQII", 0, 0, ssa, 0, 1, 0x1010, 0, tls, tls, 0xFFF, 0xFFF)
    assert found[tcs].data == expected_tcs.ljust(PAGE, b"\0")


def test_values_that_are_filled_in() -> None:
    found = pages(debug=True)
    size = GUARD + 2 * PAGE + 3 * PAGE
    assert value(found, "HEAP_BASE") == 0x3000
    assert value(found, "HEAP_SIZE") == 3 * PAGE
    assert value(found, "RELA") == 0x800
    assert value(found, "RELACOUNT") == 1
    assert value(found, "CFGDATA_BASE") == 0x6000 + size
    assert value(found, "ENCLAVE_SIZE") == 0x20000
    assert value(found, "DEBUG") == 1
    assert (value(found, "TEXT_BASE"), value(found, "TEXT_SIZE")) == (0x1000, 0x40)
    assert (value(found, "EH_FRM_OFFSET"), value(found, "EH_FRM_LEN")) == (0x920, 0x20)
    assert (value(found, "EH_FRM_HDR_OFFSET"), value(found, "EH_FRM_HDR_LEN")) == (0x900, 0x10)


def test_the_old_symbols() -> None:
    names = tuple(name for name in NEW_NAMES if name not in EH_NEW)
    made = Maker(symbols=symbols((*names, *EH_OLD)))
    found = pages(made)
    values = (value(found, "EH_FRM_HDR_BASE", made), value(found, "EH_FRM_HDR_SIZE", made))
    assert values == (0x900, 0x10)


@pytest.mark.parametrize(
    "options",
    [
        {"heap_size": 4 * PAGE},
        {"stack_size": 3 * PAGE},
        {"threads": 2},
        {"ssaframesize": 2},
        {"debug": True},
        {"sized": False},
    ],
)
def test_every_option_changes_the_stream(options: dict[str, Any]) -> None:
    assert stream(**options) != stream()


def test_a_library_has_no_secondary_threads() -> None:
    size = GUARD + 2 * PAGE + 3 * PAGE
    for library, expected in ((False, [0, 1, 1]), (True, [0, 0, 0])):
        found = pages(threads=3, library=library)
        tls = [0x6000 + index * size + GUARD + 2 * PAGE for index in range(3)]
        assert [found[at].data[8] for at in tls] == expected
    assert stream(library=True) == stream()


def test_an_unsized_stream_says_where_the_size_goes() -> None:
    parsed = Sgxs.from_bytes(stream(sized=False))
    address = symbols()["ENCLAVE_SIZE"][1]
    assert parsed.create == sgxs.Create(ssaframesize=1, size=address, sized=False)
    assert value({p.offset: p for p in parsed.pages}, "ENCLAVE_SIZE") == 0


def test_code_for_outside_is_cut_off_the_end() -> None:
    assert pages(Maker(no_sgx=b"\x0f\x05" * 8))[0x1000].data[0x40:] == bytes(PAGE - 0x40)


def test_pages_that_held_only_code_for_outside_are_gone() -> None:
    # .text ends its page, .text_no_sgx is all of the next; .data must then follow further up.
    made = Maker(
        text=b"\xcc" * 0x1000,
        no_sgx=b"\x90" * 0x10,
        no_sgx_at=0x2000,
        data=b"",
        segments=[(0, 0, 0x1000, 0x1000, 4), (0x1000, 0x1000, 0x1010, 0x1010, 5)],
        relocations=[],
        dynamic=[],
    )
    found = pages(made)
    assert 0x2000 not in found
    assert 0x3000 in found, "the heap stays where it would have been"


def test_code_for_outside_becomes_nops_elsewhere() -> None:
    found = pages(Maker(no_sgx_at=0x1010, no_sgx=b"\x0f\x05\x0f\x05"))
    expected = b"\xcc" * 0x10 + b"\x90" * 4 + b"\xcc" * 0x2C
    assert found[0x1000].data == expected.ljust(PAGE, b"\0")


def test_a_segment_that_begins_inside_a_page() -> None:
    made = Maker(segments=[(0, 0, 0x1000, 0x1000, 4), (0x2008, 0x2008, 0x148, 0x148, 6)])
    found = pages(Maker(**{**made.__dict__, "no_sgx": b"", "relocations": [], "dynamic": []}))
    assert found[0x2000].data[:16] == bytes(8) + b"\x11" * 8


def test_a_large_segment_is_the_same_as_page_by_page() -> None:
    tail = bytes(range(256)) * 16 * 37  # two blocks of 16 pages, and five pages
    parsed = Sgxs.from_bytes(stream(Maker(tail=tail + b"end")))
    memory = b"".join(page.data for page in parsed.pages if 0x10000 <= page.offset < 0x36000)
    assert memory == (tail + b"end").ljust(38 * PAGE, b"\0")


def test_bss_is_measured_zeros() -> None:
    found = pages(Maker(bss=2 * PAGE))
    for offset in (0x3000, 0x4000):
        assert found[offset] == Page(offset, 0x203, sgxs.ALL_MEASURED, sgxs.ZEROS)


# What is refused


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"heap_size": 1}, "heap size 0x1 is not a multiple", "0x1000"),
        ({"stack_size": 0x1801}, "stack size 0x1801 is not a multiple", "0x2000"),
        ({"heap_size": -PAGE}, "is not a multiple", "0x0"),
        ({"threads": 0}, "threads: 0", None),
        ({"ssaframesize": 0}, "SSA frame size: 0", None),
        ({"ssaframesize": 2**32}, "32 bits", None),
        ({"heap_size": MAX_SIZE}, "the limit is", "lower"),
        ({"threads": 2**40}, "the limit is", "lower"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], problem: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        stream(**options)
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "place", "problem"),
    [
        ("HEAP_BASE", (1, 0x9000, 8), "HEAP_BASE at 0x9000 is inside no PT_LOAD"),
        ("HEAP_BASE", (1, 0x2160, 8), "HEAP_BASE at 0x2160 is in .bss"),
        ("HEAP_BASE", (1, RODATA + 12, 8), "HEAP_BASE and HEAP_SIZE|HEAP_SIZE and HEAP_BASE"),
    ],
)
def test_symbols_that_cannot_be_filled_in(
    name: str, place: tuple[int, int, int], problem: str
) -> None:
    with pytest.raises(MalformedError, match=problem) as caught:
        stream(Maker(symbols={**symbols(), name: place}))
    assert caught.value.hint


def test_nothing_is_made_before_all_is_checked() -> None:
    with pytest.raises(MalformedError):
        convert(b"\x7fELF", Options(heap_size=0, stack_size=0))


@pytest.mark.parametrize(("size", "expected"), [(0, 1), (1, 1), (2, 2), (3, 4), (4097, 8192)])
def test_power_of_two(size: int, expected: int) -> None:
    assert power_of_two(size) == expected
