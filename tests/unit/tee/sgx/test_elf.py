"""Each rule that an enclave's ELF file must obey, broken alone; and files that are no ELF files."""

import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from broch.errors import DecodeError, MalformedError
from broch.tee.sgx import elf, elf_rules
from broch.tee.sgx.elf import Elf
from broch.tee.sgx.elf_rules import EH_NEW, EH_OLD

from .elf_maker import NEW_NAMES, NOTE, RELATIVE, RODATA, Maker, note, symbols

DT_RELA, DT_RELACOUNT = 7, 0x6FFFFFF9


def without(name: str) -> dict[str, tuple[int, int, int]]:
    return {key: value for key, value in symbols().items() if key != name}


def changed(name: str, value: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
    return {**symbols(), name: value}


def test_a_file_that_obeys_every_rule() -> None:
    found = elf_rules.check(Maker().build())
    assert found.symbols["sgx_entry"].value == 0x1010
    assert (found.rela, found.relacount) == (0x800, 1)
    assert (found.text.addr, found.text.size) == (0x1000, 0x40)
    assert (found.eh_frame.addr, found.eh_frame_hdr.addr) == (0x920, 0x900)
    assert found.symbols.keys() == {"sgx_entry", *NEW_NAMES}


def test_the_old_symbols_will_do() -> None:
    names = tuple(name for name in NEW_NAMES if name not in EH_NEW)
    made = Maker(symbols=symbols((*names, *EH_OLD)))
    assert elf_rules.check(made.build()).symbols.keys() >= set(EH_OLD)


def test_no_relocations_at_all() -> None:
    made = elf_rules.check(Maker(dynamic=[], relocations=[]).build())
    assert (made.rela, made.relacount) == (0, 0)


def test_dynamic_entries_after_the_last_do_not_count() -> None:
    made = Maker(dynamic=[(7, 0x800), (DT_RELACOUNT, 1), (0, 0), (23, 1)])
    assert elf_rules.check(made.build()).relacount == 1


RULES: list[Any] = [
    # 2. The note.
    (Maker(note=None), f"there is no section {NOTE}", "llvm-strip -s removes it"),
    (Maker(types={NOTE: 1}), "has type 1, not SHT_NOTE", "x86_64-fortanix-unknown-sgx"),
    (Maker(note=note(b"toolchain")), "'toolchain', not 'toolchain-version'", "build for"),
    (Maker(note=note(desc=bytes(8))), "has 8 bytes, expected 4", "build for"),
    (Maker(note=note(desc=b"\2\0\0\0")), "toolchain-version is 2; known", "older toolchain"),
    # 3. Symbols.
    (Maker(without=(".dynsym",)), "no section .dynsym", "-pie"),
    (Maker(types={".dynsym": 2}), ".dynsym has type 2", "link"),
    (
        Maker(extra_symbols=[("memcpy", 0, 0, 0)]),
        "undefined dynamic symbol memcpy",
        "statically",
    ),
    (Maker(extra_symbols=[("HEAP_BASE", 1, RODATA, 8)]), "HEAP_BASE is there twice", "start file"),
    *(
        (Maker(symbols=without(name)), f"symbols are missing: {name}", "--dynamic-list")
        for name in elf_rules.MANDATORY
    ),
    *(
        (
            Maker(symbols=changed(name, (1, symbols()[name][1], 4))),
            f"{name} has 4 bytes, expected {size}",
            f".size {name}, {size}",
        )
        for name, size in {**elf_rules.MANDATORY, **dict.fromkeys(EH_NEW, 8)}.items()
        if size
    ),
    (
        Maker(symbols=changed("ENCLAVE_SIZE", (1, RODATA + 0x84, 8))),
        "ENCLAVE_SIZE is at 0x284, not on an 8-byte boundary",
        "align it to 8",
    ),
    *((Maker(symbols=without(name)), "neither EH_FRM_HDR_BASE", "unwinding") for name in EH_NEW),
    # 4. Dynamic entries.
    (Maker(has_dynamic=False), "no PT_DYNAMIC", "-pie"),
    *((Maker(dynamic=[(tag, 1)]), f"dynamic entry {tag} .* a PLT", "PLT") for tag in (2, 20, 23)),
    *(
        (Maker(dynamic=[(tag, 1)]), f"dynamic entry {tag} .* constructors", "sgx_entry")
        for tag in (12, 25, 27)
    ),
    *(
        (Maker(dynamic=[(tag, 1)]), f"dynamic entry {tag} .* destructors", "at exit")
        for tag in (13, 26, 28)
    ),
    *(
        (Maker(dynamic=[(tag, 1)]), f"dynamic entry {tag} .* implicit addends", "-z rela")
        for tag in (17, 18, 19, 0x6FFFFFFA)
    ),
    (Maker(dynamic=[(7, 1), (7, 1)]), "entry 7 .* is there twice", "link"),
    (Maker(dynamic=[(DT_RELA, 0x800)]), "only one of DT_RELA and", "combreloc"),
    (Maker(dynamic=[(DT_RELACOUNT, 1)]), "only one of DT_RELA and", "combreloc"),
    # 5. Relocations.
    (Maker(relocations=[(0x2000, 1, 0)]), "has type 1 and symbol 0", "-Bstatic"),
    (Maker(relocations=[(0x2000, 3 << 32 | 8, 0)]), "has type 8 and symbol 3", "-Bstatic"),
    (Maker(relocations=[(0x1FFF, 8, 0)]), "0x1fff is not inside a writable segment", "-z text"),
    (Maker(relocations=[(0x1000, 8, 0)]), "0x1000 is not inside a writable segment", "-z text"),
    (Maker(relocations=[(0x2249, 8, 0)]), "0x2249 is not inside a writable", "-z text"),
    (Maker(relocations=[RELATIVE] * 2), "RELACOUNT is 1, and there are 2 reloc", "combreloc"),
    (Maker(relocations=[]), "RELACOUNT is 1, and there are 0 relocations", "combreloc"),
    (Maker(dynamic=[]), "RELACOUNT is 0, and there are 1 relocations", "combreloc"),
    # 6. Sections.
    (Maker(without=(".eh_frame",)), "no section .eh_frame$", "unwind-tables"),
    (Maker(without=(".eh_frame_hdr",)), "no section .eh_frame_hdr", "--eh-frame-hdr"),
    (Maker(without=(".text",)), "no section .text$", "named .text"),
    # 7. Segments.
    (Maker(segments=[], dynamic=[], relocations=[]), "no PT_LOAD segment", "nothing to load"),
    (Maker(rights=(5, 5, 6)), "first page of the enclave is executable", "separate-code"),
    (
        Maker(segments=[(0, 0, 0x1001, 0x1001, 4), (0x1000, 0x1800, 0x1800, 0x1800, 6)]),
        "segment at 0x1800 begins on a page of the one before",
        "max-page-size",
    ),
]


@pytest.mark.parametrize(("made", "problem", "hint"), RULES, ids=[rule[1] for rule in RULES])
def test_each_rule(made: Maker, problem: str, hint: str) -> None:
    with pytest.raises(MalformedError, match=problem) as caught:
        elf_rules.check(made.build())
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_relocation_may_be_in_the_last_eight_bytes() -> None:
    assert elf_rules.check(Maker(relocations=[(0x2248, 8, 0)]).build()).relacount == 1


def test_rules_are_checked_in_order() -> None:
    made = Maker(note=None, without=(".dynsym", ".text"), has_dynamic=False)
    for then, problem in (
        ({}, NOTE),
        ({"note": note()}, ".dynsym"),
        ({"without": (".text",)}, "PT_DYNAMIC"),
        ({"has_dynamic": True}, "section .text"),
    ):
        made = replace(made, **then)
        with pytest.raises(MalformedError, match=problem):
            elf_rules.check(made.build())


def test_relocation_sections_that_overlap_are_not_read_for_ever() -> None:
    data = bytearray(Maker().build())
    (shoff,) = struct.unpack_from("<Q", data, 40)
    shnum = struct.unpack_from("<H", data, 60)[0]
    for index in range(shnum):
        at = shoff + 64 * index
        kind, size = struct.unpack_from("<I", data, at + 4)[0], len(data) // 24 * 24
        if kind == 1:
            struct.pack_into("<I", data, at + 4, elf.SHT_RELA)
            struct.pack_into("<QQ", data, at + 24, 0, size)
    with pytest.raises(MalformedError):
        elf_rules.check(bytes(data))


# Files that are no ELF files


@pytest.mark.parametrize(
    ("offset", "patch", "problem"),
    [
        (0, b"\x7fELG", "not an ELF file"),
        (4, b"\1", "32-bit"),
        (5, b"\2", "big-endian"),
        (18, b"\xf3\0", "machine 243"),
        (32, b"\xff" * 8, "program header reaches beyond"),
        (40, b"\xff" * 8, "section header reaches beyond"),
        (54, b"\0\1", "program headers of 256 bytes"),
        (58, b"\0\1", "section headers of 256 bytes"),
        (62, b"\xff\0", "section names are in section 255"),
        (64 + 8, b"\xff" * 6, "reaches beyond the end of the file"),
        (64 + 32, b"\1\x10", "more bytes in the file than in memory"),
        (64 + 40, b"\xff" * 7, "beyond any enclave"),
    ],
)
def test_headers(offset: int, patch: bytes, problem: str) -> None:
    data = bytearray(Maker().build())
    data[offset : offset + len(patch)] = patch
    with pytest.raises(DecodeError, match=problem):
        Elf.from_bytes(bytes(data))


def test_truncations_end_in_our_errors() -> None:
    data = Maker().build()
    for size in range(0, len(data), 13):
        with pytest.raises(MalformedError):
            elf_rules.check(data[:size])


def test_changed_bytes_end_in_our_errors_or_in_a_file_that_obeys() -> None:
    data = Maker().build()
    (shoff,) = struct.unpack_from("<Q", data, 40)
    places = [*range(64 + 56 * 4), *range(0x400, 0x568), *range(0x2100, 0x2150)]
    places += range(shoff, len(data))
    for place in places:
        for value in (0, 0xFF):
            bent = bytearray(data)
            bent[place] = value
            with suppress(MalformedError):
                elf_rules.check(bytes(bent))


def test_names_are_shown_escaped() -> None:
    made = Maker(extra_symbols=[("x", 0, 0, 0)]).build().replace(b"\0x\0", b"\0\xff\0")
    with pytest.raises(MalformedError, match=r"symbol \\xff"):
        elf_rules.check(made)
