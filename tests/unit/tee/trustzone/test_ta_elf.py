"""The ELF inside, read by somebody else's reader, and the memory hash."""

import hashlib
import io
from typing import Final
from uuid import UUID

import pytest
from elftools.elf.elffile import ELFFile

from broch.errors import DecodeError
from broch.tee.trustzone.ta_elf import NAMESPACE, TaElf, hash_regions, uuid_of

from .conftest import make_image

TA: Final = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51b")
ELF: Final = TaElf(uuid=TA, image=b"i" * 5000)


def test_other_readers_find_the_head_and_the_image() -> None:
    elf = ELFFile(io.BytesIO(ELF.to_bytes()))
    assert elf.header["e_machine"] == "EM_AARCH64"
    assert elf.header["e_type"] == "ET_DYN"
    names = [section.name for section in elf.iter_sections()]
    assert names == ["", ".ta_head", ".broch_image", ".shstrtab"]
    contents = {section.name: section.data() for section in elf.iter_sections()}
    head = contents[".ta_head"]
    assert len(head) == 32
    assert head[:16] == bytes.fromhex("00f2aa8a5024e411abe20002a5d5c51b")
    assert head[24:] == b"\xff" * 8
    assert contents[".broch_image"] == ELF.image
    segments = [
        (s["p_type"], s["p_flags"], s["p_vaddr"], s["p_filesz"]) for s in elf.iter_segments()
    ]
    assert segments == [("PT_LOAD", 4, 0, 32), ("PT_LOAD", 4, 4096, 5000)]


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 20000])
def test_round_trip(size: int) -> None:
    elf = TaElf(uuid=TA, image=b"i" * size)
    assert TaElf.from_bytes(elf.to_bytes()) == elf


def test_the_elf_of_a_module() -> None:
    image = make_image()
    elf = TaElf.of(image)
    assert elf.uuid == uuid_of("garden", "valve")
    assert elf.image == image.to_bytes()


def test_there_is_one_encoding() -> None:
    good = ELF.to_bytes()
    for index in [*range(0x1020), *range(0x1FF0, 0x2000), *range(0x2000 + 5000, len(good))]:
        if index in range(0x1000, 0x1010):
            continue  # the UUID, which may be any
        with pytest.raises(DecodeError):
            TaElf.from_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
    for wrong in (good[:-1], good + b"\0", good[:0x2000], b"", bytes(9000)):
        with pytest.raises(DecodeError):
            TaElf.from_bytes(wrong)


def test_the_memory_hash_is_over_pages_in_order_of_size() -> None:
    small, large = b"z" * 10, b"a" * 5000
    expected = hashlib.sha256(small.ljust(4096, b"\0") + large.ljust(8192, b"\0")).digest()
    assert hash_regions([large, small]) == hash_regions([small, large]) == expected


def test_regions_of_one_size_are_in_order_of_content() -> None:
    expected = hashlib.sha256(b"a".ljust(4096, b"\0") + b"b".ljust(4096, b"\0")).digest()
    assert hash_regions([b"b", b"a"]) == expected


def test_the_memory_hash_of_a_module_covers_uuid_and_image() -> None:
    head = ELF.to_bytes()[0x1000:0x2000]
    assert ELF.memory_hash() == hashlib.sha256(head + ELF.image.ljust(8192, b"\0")).digest()
    assert TaElf(uuid=NAMESPACE, image=ELF.image).memory_hash() != ELF.memory_hash()


def test_the_namespace_is_derived_from_its_name() -> None:
    digest = bytearray(hashlib.sha512(b"broch/trustzone/namespace/1").digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    assert UUID(bytes=bytes(digest)) == NAMESPACE


def test_a_uuid_is_that_of_the_name_and_nothing_else() -> None:
    uuid = uuid_of("garden", "valve")
    assert uuid.version == 5
    assert uuid == TaElf.of(make_image(b"other code")).uuid
    assert len({uuid, uuid_of("garden", "pump"), uuid_of("garden-v", "alve")}) == 3
    # Fixed for good: sealed data of every module depends on it.
    assert uuid == UUID("781e404e-aaf9-5942-8469-ef0a46d9b864")
