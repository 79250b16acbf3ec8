"""Properties of the SGX tools: what they make is canonical; bad input ends in our errors."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.tee.sgx.elf_maker import Maker

from broch.errors import BrochError
from broch.tee.sgx import info, sdk_image, sgxs, sigstruct_view
from broch.tee.sgx.append import Align, Part, append
from broch.tee.sgx.compose import RIGHTS, Blob, Thread, build
from broch.tee.sgx.convert import Options, convert, measured_pages
from broch.tee.sgx.sgxs import ALL_MEASURED, PAGE, Create, Page, Sgxs

QUICK: Final = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CODE: Final = Page(0, 0x205, ALL_MEASURED, bytes(range(256)) * 16)
UNSIZED: Final = Sgxs(
    create=Create(ssaframesize=1, size=0x100, sized=False), pages=(CODE,)
).to_bytes()
ELF: Final = Maker().build()


@st.composite
def parts(draw: st.DrawFn) -> Part | Align:
    if draw(st.integers(0, 4)) == 0:
        return Align(1 << draw(st.integers(0, 15)))
    return Part(
        flags=sgxs.PT_REG | draw(st.sampled_from([1, 3, 5])),
        measured=draw(st.booleans()),
        data=bytes([draw(st.integers(1, 255))]) * draw(st.integers(0, 9000)),
    )


@QUICK
@given(st.lists(parts(), max_size=6))
def test_what_is_appended_is_there_with_its_own_rights(made: list[Part | Align]) -> None:
    parsed = Sgxs.from_bytes(append(UNSIZED, made))
    assert parsed.create.sized
    assert parsed.create.size > max(page.offset for page in parsed.pages)
    bytes_of: dict[int, int] = {}
    for part in made:
        if isinstance(part, Part):
            bytes_of[part.flags] = bytes_of.get(part.flags, 0) + len(part.data)
    found: dict[int, int] = {}
    for page in parsed.pages[1:]:
        count = PAGE - page.data.count(0)
        found[page.flags] = found.get(page.flags, 0) + count
    assert found == {flags: size for flags, size in bytes_of.items() if size}


@QUICK
@given(st.lists(parts(), max_size=6))
def test_what_upstream_appends_is_canonical_too(made: list[Part | Align]) -> None:
    stream = append(UNSIZED, made, as_upstream=True)
    assert len(stream) == len(append(UNSIZED, made))
    assert Sgxs.from_bytes(stream).to_bytes() == stream


@QUICK
@given(
    st.lists(
        st.one_of(
            st.builds(
                Blob, flags=st.sampled_from(list(RIGHTS.values())), data=st.binary(max_size=9000)
            ),
            st.builds(Thread, nssa=st.integers(0, 3)),
        ),
        max_size=5,
    ),
    st.integers(1, 3),
)
def test_what_is_built_is_measured_whole(made: list[Blob | Thread], frame: int) -> None:
    with suppress(BrochError):
        stream = b"".join(build(made, ssaframesize=frame))
        assert sgxs.measure(stream) == hashlib.sha256(stream).digest()
        memory = b"".join(info.dump_memory(stream))
        for blob in made:
            assert not isinstance(blob, Blob) or blob.data in memory


@QUICK
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40 * PAGE))
def test_blocks_and_pages_agree(number: int, pages: int, size: int) -> None:
    content = bytes(index % 251 for index in range(size))[: pages * PAGE]
    made = b"".join(measured_pages(number * PAGE, pages * PAGE, 0x203, content))
    expected = b"".join(
        sgxs.page_records(
            Page(
                number * PAGE + at, 0x203, ALL_MEASURED, content[at : at + PAGE].ljust(PAGE, b"\0")
            )
        )
        for at in range(0, pages * PAGE, PAGE)
    )
    assert made == expected


@QUICK
@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_conversion(
    heap: int, stack: int, threads: int, frame: int, debug: bool, library: bool, sized: bool
) -> None:
    options = Options(
        heap_size=heap * PAGE,
        stack_size=stack * PAGE,
        threads=threads,
        ssaframesize=frame,
        debug=debug,
        library=library,
        sized=sized,
    )
    stream = b"".join(convert(ELF, options))
    parsed = Sgxs.from_bytes(stream)
    assert len(parsed.pages) == 3 + heap + threads * (stack + 2 + frame)
    if not sized:
        # Sizing an unsized stream gives what is converted with its size at once.
        values = {name: getattr(options, name) for name in options.__slots__}
        at_once = b"".join(convert(ELF, Options(**{**values, "sized": True})))
        assert append(stream, []) == at_once


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(ELF) - 1), st.integers(0, 255)), max_size=8))
def test_bent_files_end_in_our_errors(changes: list[tuple[int, int]]) -> None:
    bent = bytearray(ELF)
    for place, value in changes:
        bent[place] = value
    with suppress(BrochError):
        for number, _ in enumerate(convert(bytes(bent), Options(heap_size=0, stack_size=0))):
            if number > 100:
                break


@QUICK
@given(st.binary(max_size=4000), st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"ECREATE\0"]))
def test_noise_ends_in_our_errors(noise: bytes, begin: bytes) -> None:
    data = begin + noise
    for read in (info.as_json, info.summary, info.list_all, sdk_image.read, sigstruct_view.view):
        with suppress(BrochError):
            found = read(data)
            if isinstance(found, Iterator):
                list(found)


@pytest.mark.parametrize("cut", range(0, len(ELF), 777))
def test_truncated_files_end_in_our_errors(cut: int) -> None:
    with pytest.raises(BrochError):
        convert(ELF[:cut], Options(heap_size=0, stack_size=0))
