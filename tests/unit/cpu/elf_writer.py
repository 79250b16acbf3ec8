"""Writes small ELF files for tests, right or wrong in one place."""

import struct
from dataclasses import dataclass

PROGBITS, NOBITS = 1, 8
ALLOC = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section, and unless ``load`` is false the segment that loads it."""

    name: str
    address: int
    data: bytes = b""
    zeros: int = 0  # instead of data, not in the file
    load_at: int | None = None  # physical address, where it differs
    load: bool = True
    flags: int = ALLOC


def elf(
    *parts: Part,
    symbols: dict[str, int] | None = None,
    machine: int = 105,
    kind: int = 2,
    bits: int = 1,
    order: int = 1,
    entry: int = 0x8000,
) -> bytes:
    """An ELF file with these parts."""
    names = b"\0"
    headers = [bytes(40)]
    segments = []
    content = b""
    start = 52 + 32 * sum(part.load for part in parts)

    def named(name: str) -> int:
        nonlocal names
        names += name.encode() + b"\0"
        return len(names) - len(name) - 1

    def section(
        name: str,
        kind: int,
        body: bytes,
        *,
        flags: int = 0,
        at: int = 0,
        zeros: int = 0,
        link: int = 0,
        entry_size: int = 0,
    ) -> None:
        nonlocal content
        where, size = start + len(content), zeros or len(body)
        fields = (named(name), kind, flags, at, where, size, link, 0, 1, entry_size)
        headers.append(struct.pack("<10I", *fields))
        content += body

    for part in parts:
        where = start + len(content)
        kind_of = NOBITS if part.zeros else PROGBITS
        section(part.name, kind_of, part.data, flags=part.flags, at=part.address, zeros=part.zeros)
        if part.load:
            physical = part.address if part.load_at is None else part.load_at
            size = len(part.data)
            segments.append(
                struct.pack("<8I", 1, where, part.address, physical, size, size + part.zeros, 7, 1)
            )
    strings = b"\0"
    table = bytes(16)
    for name, value in (symbols or {}).items():
        table += struct.pack("<IIIBBH", len(strings), value, 0, 0x10, 0, 0xFFF1)
        strings += name.encode() + b"\0"
    section(".symtab", 2, table, link=len(headers) + 1, entry_size=16)
    section(".strtab", 3, strings)
    where = start + len(content)
    own_name = named(".shstrtab")
    headers.append(struct.pack("<10I", own_name, 3, 0, 0, where, len(names), 0, 0, 1, 0))
    content += names
    head = b"\x7fELF" + bytes([bits, order, 1, 0xFF]) + bytes(8)
    head += struct.pack(
        "<HHIIIIIHHHHHH",
        kind,
        machine,
        1,
        entry,
        52,
        start + len(content),
        0,
        52,
        32,
        len(segments),
        40,
        len(headers),
        len(headers) - 1,
    )
    return head + b"".join(segments) + content + b"".join(headers)
