"""ELF files for x86-64, as far as enclaves need them (System V ABI, AMD64 supplement).

    ELF header, 64 bytes      16 type, 18 machine, 32 phoff, 40 shoff, 54 phentsize, 56 phnum,
                              58 shentsize, 60 shnum, 62 shstrndx
    program header, 56 bytes  0 type, 4 flags, 8 offset, 16 vaddr, 32 filesz, 40 memsz
    section header, 64 bytes  0 name, 4 type, 8 flags, 16 addr, 24 offset, 32 size, 40 link
    symbol, 24 bytes          0 name, 6 shndx, 8 value, 16 size
    dynamic entry, 16 bytes   0 tag, 8 value
    relocation, 24 bytes      0 offset, 8 type (32 bits), 12 symbol (32 bits), 16 addend

Everything is bounded by the file: what points outside it is refused with the offset of the field.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from broch.errors import DecodeError

PT_LOAD: Final = 1
PT_DYNAMIC: Final = 2
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
SHT_RELA: Final = 4
SHT_NOTE: Final = 7
SHT_NOBITS: Final = 8
SHT_DYNSYM: Final = 11
SHF_ALLOC: Final = 2
EM_X86_64: Final = 62
DT_NULL: Final = 0

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQ8xQQ8x")
_SECTION: Final = struct.Struct("<IIQQQQI20x")
_SYMBOL: Final = struct.Struct("<I2xHQQ")
_DYNAMIC: Final = struct.Struct("<QQ")
RELA: Final = struct.Struct("<QQq")
_NOTE: Final = struct.Struct("<III")
_MAX_NAME: Final = 4096  # bytes


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.vaddr + self.memsz


class Section(NamedTuple):
    """A section header and its name."""

    name: bytes
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int


class Symbol(NamedTuple):
    """A symbol."""

    name: str
    shndx: int
    value: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """An ELF file whose headers are inside it."""

    data: bytes
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the headers.

        Raises:
            DecodeError: not a 64-bit little-endian x86-64 ELF file, or cut short.
        """
        if data[:4] != b"\x7fELF":
            raise _wrong(0, f"begins with {data[:4]!r}: not an ELF file")
        (ident, _, machine, _, _, phoff, shoff, *rest) = _unpack(_HEADER, data, 0, "ELF header")
        if ident[4] != 2:
            raise _wrong(4, "a 32-bit ELF file; an enclave is 64-bit")
        if ident[5] != 1:
            raise _wrong(5, "a big-endian ELF file")
        if machine != EM_X86_64:
            raise _wrong(18, f"an ELF file for machine {machine}; SGX is x86-64 ({EM_X86_64})")
        _, _, phentsize, phnum, shentsize, shnum, shstrndx = rest
        if phnum and phentsize != _SEGMENT.size:
            raise _wrong(54, f"program headers of {phentsize} bytes, expected {_SEGMENT.size}")
        if shnum and shentsize != _SECTION.size:
            raise _wrong(58, f"section headers of {shentsize} bytes, expected {_SECTION.size}")
        segments = tuple(
            Segment(*_unpack(_SEGMENT, data, phoff + index * _SEGMENT.size, "program header"))
            for index in range(phnum)
        )
        sections = _read_sections(data, shoff, shnum, shstrndx)
        for index, segment in enumerate(segments):
            _check_segment(segment, phoff + index * _SEGMENT.size, len(data))
        return cls(data=data, segments=segments, sections=sections)

    def loads(self) -> list[Segment]:
        """The PT_LOAD segments in file order."""
        return [segment for segment in self.segments if segment.type == PT_LOAD]

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        wanted = name.encode()
        return next((section for section in self.sections if section.name == wanted), None)

    def content(self, section: Section) -> bytes:
        """The bytes of a section; none if it takes no room in the file.

        Raises:
            DecodeError: it reaches beyond the file.
        """
        if section.type == SHT_NOBITS:
            return b""
        return _slice(self.data, section.offset, section.size, f"section {show(section.name)}")

    def symbols(self, table: Section) -> Iterator[Symbol]:
        """All symbols of a table but the first, which is null.

        Raises:
            DecodeError: the table or its strings are cut short.
        """
        content = self.content(table)
        if len(content) % _SYMBOL.size:
            raise _wrong(table.offset, f"section {show(table.name)} is no whole number of symbols")
        if table.link >= len(self.sections):
            raise _wrong(table.offset, f"section {show(table.name)} has no string table")
        strings = self.content(self.sections[table.link])
        for name, shndx, value, size in _SYMBOL.iter_unpack(content[_SYMBOL.size :]):
            yield Symbol(show(_string(strings, name, table.offset)), shndx, value, size)

    def dynamic(self, segment: Segment) -> list[tuple[int, int]]:
        """(Tag, value) of PT_DYNAMIC up to DT_NULL.

        Raises:
            DecodeError: it is cut short.
        """
        content = _slice(self.data, segment.offset, segment.filesz, "PT_DYNAMIC")
        whole = content[: len(content) - len(content) % _DYNAMIC.size]
        entries = []
        for tag, value in _DYNAMIC.iter_unpack(whole):
            if tag == DT_NULL:
                break
            entries.append((tag, value))
        return entries

    def note(self, section: Section) -> tuple[bytes, bytes]:
        """(Name without its NUL, descriptor) of the first note in a section.

        Raises:
            DecodeError: there is no whole note.
        """
        content = self.content(section)
        what = f"note in {show(section.name)}"
        namesz, descsz, _ = _unpack(_NOTE, content, 0, what)
        name = _slice(content, _NOTE.size, namesz, what)
        begin = _NOTE.size + namesz + -namesz % 4
        return name.rstrip(b"\0"), _slice(content, begin, descsz, what)


def show(name: bytes) -> str:
    """A name from a file, fit to be shown."""
    return name.decode("ascii", "backslashreplace")


def _read_sections(data: bytes, shoff: int, shnum: int, shstrndx: int) -> tuple[Section, ...]:
    raw = [
        _unpack(_SECTION, data, shoff + index * _SECTION.size, "section header")
        for index in range(shnum)
    ]
    if not raw:
        return ()
    if shstrndx >= shnum:
        raise _wrong(62, f"section names are in section {shstrndx} of {shnum}")
    strings = _slice(data, raw[shstrndx][4], raw[shstrndx][5], "the table of section names")
    return tuple(
        Section(_string(strings, fields[0], shoff + index * _SECTION.size), *fields[1:])
        for index, fields in enumerate(raw)
    )


def _check_segment(segment: Segment, position: int, length: int) -> None:
    if segment.type != PT_LOAD:
        return
    if segment.filesz > segment.memsz:
        raise _wrong(position + 32, "a segment with more bytes in the file than in memory")
    if segment.offset + segment.filesz > length:
        raise _wrong(position + 8, "a segment reaches beyond the end of the file")
    if segment.end > 1 << 47:
        raise _wrong(position + 16, f"a segment up to 0x{segment.end:x}, beyond any enclave")


def _unpack(layout: struct.Struct, data: bytes, offset: int, what: str) -> tuple[Any, ...]:
    if offset + layout.size > len(data):
        raise _wrong(min(offset, len(data)), f"the {what} reaches beyond the end of the file")
    return layout.unpack_from(data, offset)


def _slice(data: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(data):
        raise _wrong(min(offset, len(data)), f"{what} reaches beyond the end")
    return data[offset : offset + size]


def _string(strings: bytes, offset: int, position: int) -> bytes:
    end = strings.find(b"\0", offset, offset + _MAX_NAME)
    if offset >= len(strings) or end < 0:
        raise _wrong(position, f"a name at {offset} of a string table of {len(strings)} bytes")
    return strings[offset:end]


def _wrong(offset: int, problem: str) -> DecodeError:
    return DecodeError(offset, problem, what="elf")
