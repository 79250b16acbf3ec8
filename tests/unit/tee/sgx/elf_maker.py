"""Small ELF files that obey every rule of an enclave, or break one.

The file is laid out at the addresses that it is loaded to: headers, .rodata with the symbols that
are filled in, .dynsym, .rela.dyn on the first page (r--); .text and .text_no_sgx on the second
(r-x); .data and .dynamic on the third (rw-). Sections that are not loaded follow.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PAGE: Final = 4096
RODATA: Final = 0x200
ENTRY: Final = 0x1010
NOTE: Final = ".note.x86_64-fortanix-unknown-sgx"
NEW_NAMES: Final = (
    *("HEAP_BASE", "HEAP_SIZE", "RELA", "RELACOUNT", "ENCLAVE_SIZE", "CFGDATA_BASE"),
    *("TEXT_BASE", "TEXT_SIZE", "EH_FRM_OFFSET", "EH_FRM_LEN"),
    *("EH_FRM_HDR_OFFSET", "EH_FRM_HDR_LEN", "DEBUG"),
)
RELATIVE: Final = (0x2000, 8, 0x1010)  # offset, info, addend


def symbols(names: tuple[str, ...] = NEW_NAMES) -> dict[str, tuple[int, int, int]]:
    """Name -> (section index, address, size)."""
    made = {"sgx_entry": (2, ENTRY, 0)}
    for index, name in enumerate(names):
        made[name] = (1, RODATA + 8 * index, 1 if name == "DEBUG" else 8)
    return made


def note(name: bytes = b"toolchain-version", desc: bytes = struct.pack("<I", 1)) -> bytes:
    padded = name + b"\0"
    padded += bytes(-len(padded) % 4)
    return struct.pack("<III", len(name) + 1, len(desc), 1) + padded + desc


@dataclass
class Maker:
    """Everything that a test may want otherwise."""

    symbols: dict[str, tuple[int, int, int]] = field(default_factory=symbols)
    extra_symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    dynamic: list[tuple[int, int]] = field(
        default_factory=lambda: [(7, 0x800), (8, 24), (9, 24), (0x6FFFFFF9, 1)]
    )
    relocations: list[tuple[int, int, int]] = field(default_factory=lambda: [RELATIVE])
    rights: tuple[int, int, int] = (4, 5, 6)  # R, RX, RW
    note: bytes | None = field(default_factory=note)
    without: tuple[str, ...] = ()  # names of sections to leave out
    types: Mapping[str, int] = field(default_factory=dict)  # name -> another type
    text: bytes = b"\xcc" * 0x40
    no_sgx: bytes = b"\x0f\x05"
    no_sgx_at: int = 0x1040
    data: bytes = b"\x11" * 0x40
    bss: int = 0x100
    segments: list[tuple[int, int, int, int, int]] | None = None  # offset, vaddr, filesz, memsz, p
    has_dynamic: bool = True
    tail: bytes = b""  # a further loaded segment, rw-, at 0x10000

    def build(self) -> bytes:
        image = bytearray(3 * PAGE)
        names = [(n, *v) for n, v in self.symbols.items()] + self.extra_symbols
        strings = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in names)
        table, at = bytearray(24), 1
        for name, section, value, size in names:
            table += struct.pack("<IBBHQQ", at, 0x11, 0, section, value, size)
            at += len(name) + 1
        rela = b"".join(struct.pack("<QQq", *entry) for entry in self.relocations)
        dynamic = b"".join(struct.pack("<QQ", *entry) for entry in [*self.dynamic, (0, 0)])
        image[0x400 : 0x400 + len(table)] = table
        image[0x800 : 0x800 + len(rela)] = rela
        image[0x1000 : 0x1000 + len(self.text)] = self.text
        image[self.no_sgx_at : self.no_sgx_at + len(self.no_sgx)] = self.no_sgx
        image[0x2000 : 0x2000 + len(self.data)] = self.data
        image[0x2100 : 0x2100 + len(dynamic)] = dynamic
        text_end = max(0x1000 + len(self.text), self.no_sgx_at + len(self.no_sgx))
        data_end = 0x2100 + len(dynamic)
        loads = self.segments
        if loads is None:
            loads = [
                (0, 0, 0x1000, 0x1000, self.rights[0]),
                (0x1000, 0x1000, text_end - 0x1000, text_end - 0x1000, self.rights[1]),
                (0x2000, 0x2000, data_end - 0x2000, data_end - 0x2000 + self.bss, self.rights[2]),
            ]
        if self.tail:
            loads = [*loads, (len(image), 0x10000, len(self.tail), len(self.tail), 6)]
            image += self.tail
        sections: list[tuple[str, int, int, int, int, int]] = [
            (".rodata", 1, 2, RODATA, 8 * len(NEW_NAMES), 0),
            (".text", 1, 6, 0x1000, len(self.text), 0),
            (".text_no_sgx", 1, 6, self.no_sgx_at, len(self.no_sgx), 0),
            (".dynsym", 11, 2, 0x400, len(table), 0),
            (".rela.dyn", 4, 2, 0x800, len(rela), 0),
            (".eh_frame_hdr", 1, 2, 0x900, 0x10, 0),
            (".eh_frame", 1, 2, 0x920, 0x20, 0),
            (".data", 1, 3, 0x2000, len(self.data), 0),
            (".bss", 8, 3, data_end, self.bss, 0),
        ]
        loose = {".dynstr": strings}
        if self.note is not None:
            loose[NOTE] = self.note
        for name, content in loose.items():
            kind = 7 if name == NOTE else 3
            sections.append((name, kind, 0, len(image), len(content), 0))
            image += content
        return self._finish(image, loads, sections, len(dynamic))

    def _finish(
        self,
        image: bytearray,
        loads: list[tuple[int, int, int, int, int]],
        sections: list[tuple[str, int, int, int, int, int]],
        dynamic: int,
    ) -> bytes:
        kept = [entry for entry in sections if entry[0] not in self.without]
        strings_at = 1 + next((i for i, e in enumerate(kept) if e[0] == ".dynstr"), 0)
        names = b"\0" + b"".join(entry[0].encode() + b"\0" for entry in kept) + b".shstrtab\0"
        names_at = len(image)
        image += names
        headers, at = bytearray(64), 1
        for name, kind, flags, place, size, _ in kept:
            link = strings_at if name == ".dynsym" else 0
            address = place if flags & 2 else 0
            headers += struct.pack(
                "<IIQQQQIIQQ",
                *(at, self.types.get(name, kind), flags, address, place, size, link, 0, 1, 0),
            )
            at += len(name) + 1
        headers += struct.pack("<IIQQQQIIQQ", at, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
        programs = [(1, *load) for load in loads]
        if self.has_dynamic:
            programs.append((2, 0x2100, 0x2100, dynamic, dynamic, 6))
        raw = b"".join(
            struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, vaddr, filesz, memsz, PAGE)
            for kind, offset, vaddr, filesz, memsz, flags in programs
        )
        image[64 : 64 + len(raw)] = raw
        image[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, ENTRY, 64, len(image), 0, 64, 56),
            *(len(programs), 64, len(kept) + 2, len(kept) + 1),
        )
        return bytes(image + headers)
