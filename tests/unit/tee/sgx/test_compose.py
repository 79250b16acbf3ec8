"""Enclaves out of raw files."""

import struct

import pytest

from broch.errors import UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.compose import RIGHTS, Blob, Thread, build
from broch.tee.sgx.convert import MAX_SIZE
from broch.tee.sgx.sgxs import PAGE, Page, Sgxs


def test_a_file_and_a_thread() -> None:
    made = b"".join(build([Blob(flags=RIGHTS["rx"], data=b"\x90"), Thread(nssa=2)]))
    parsed = Sgxs.from_bytes(made)
    assert parsed.create == sgxs.Create(ssaframesize=1, size=4 * PAGE)
    tcs = struct.pack("<QQQIIQQQQII", 0, 0, 2 * PAGE, 0, 2, 0, 0, 0, 0, 0xFFF, 0xFFF)
    whole = sgxs.ALL_MEASURED
    assert parsed.pages == (
        Page(0, 0x205, whole, b"\x90".ljust(PAGE, b"\0")),
        Page(PAGE, 0x100, whole, tcs.ljust(PAGE, b"\0")),
        Page(2 * PAGE, 0x203, whole, sgxs.ZEROS),
        Page(3 * PAGE, 0x203, whole, sgxs.ZEROS),
    )


@pytest.mark.parametrize(("rights", "flags"), [("r", 1), ("rw", 3), ("rx", 5), ("rwx", 7)])
def test_rights(rights: str, flags: int) -> None:
    assert RIGHTS[rights] == sgxs.PT_REG | flags


def test_frames_of_several_pages() -> None:
    parsed = Sgxs.from_bytes(b"".join(build([Thread(nssa=2)], ssaframesize=3)))
    assert len(parsed.pages) == 7
    assert parsed.create == sgxs.Create(ssaframesize=3, size=8 * PAGE)


@pytest.mark.parametrize(
    ("parts", "ssaframesize"),
    [
        ([], 1),
        ([Blob(flags=0x201, data=b"")], 1),
        ([Thread(nssa=1)], 0),
        ([Thread(nssa=1)], 2**32),
        ([Thread(nssa=2**32)], 1),
        ([Thread(nssa=-1), Thread(nssa=5)], 1),
        ([Thread(nssa=MAX_SIZE // PAGE)], 1),
    ],
)
def test_what_is_refused(parts: list[Blob | Thread], ssaframesize: int) -> None:
    with pytest.raises(UsageError):
        build(parts, ssaframesize=ssaframesize)
