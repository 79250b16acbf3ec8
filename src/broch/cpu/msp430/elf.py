"""ELF files for the MSP430: read, checked, put into memory.

Segments go to their physical addresses: initialised data lies in ROM, and the program's own
startup copies it. Symbols keep their virtual ones.
"""

import io
import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from broch.cpu.msp430.bus import PERIPHERALS_END, SIZE, Bus
from broch.errors import MalformedError

MACHINE: Final = "EM_MSP430"
MAX_FILE: Final = 4 << 20  # bytes
MAX_ITEMS: Final = 4096  # segments or sections
_ALLOCATED: Final = 0x2  # SHF_ALLOC
_EVERYTHING: Final = (range(PERIPHERALS_END, SIZE),)
# What pyelftools lets through from a file that lies about itself.
_BROKEN: Final = (
    ELFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
)


class ElfError(MalformedError):
    """The file is no ELF file, or is broken."""


class WrongMachineError(ElfError):
    """The ELF file is for another machine, or is not a finished program."""


class OverlapError(ElfError):
    """Two sections or segments want the same memory."""


class EmptySectionError(ElfError):
    """A section that must hold something is missing or empty."""


class TooLargeError(ElfError):
    """The file or what it loads does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section that is in memory when the program runs."""

    name: str
    address: int
    data: bytes  # zeros where the file holds none

    @property
    def addresses(self) -> range:
        """Where it is."""
        return range(self.address, self.address + len(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program as its ELF file describes it."""

    entry: int
    segments: tuple[tuple[int, bytes], ...]  # physical address, what to put there
    sections: Mapping[str, Section]
    symbols: Mapping[str, int]

    def section(self, name: str) -> Section:
        """A section that must be there and not be empty.

        Raises:
            EmptySectionError: it is not, or is.
        """
        found = self.sections.get(name)
        if found is None:
            raise EmptySectionError(f"there is no section {name}")
        if not found.data:
            raise EmptySectionError(f"section {name} is empty")
        return found

    def load(self, bus: Bus) -> None:
        """Put the program into memory."""
        for address, data in self.segments:
            bus.load(address, data)


def read_elf(data: bytes, memory: Sequence[range] = _EVERYTHING) -> Program:
    """Read a program.

    Args:
        data: the file.
        memory: where there is memory; segments must lie within one of these.

    Raises:
        ElfError: broken, or no ELF file.
        WrongMachineError: for another machine, or not a finished program.
        OverlapError: two sections or two segments want the same memory.
        EmptySectionError: nothing is to be loaded.
        TooLargeError: it does not fit in memory, or the file is unreasonably large.
    """
    if len(data) > MAX_FILE:
        raise TooLargeError(f"the ELF file has {len(data)} bytes, more than {MAX_FILE}")
    try:
        elf = ELFFile(io.BytesIO(data))
        _check_machine(elf)
        program = Program(
            entry=int(elf["e_entry"]),
            segments=_segments(elf, memory),
            sections=_sections(elf),
            symbols=_symbols(elf),
        )
    except _BROKEN as exc:
        raise ElfError(f"not a sound ELF file: {exc}") from exc
    return program


def _check_machine(elf: ELFFile) -> None:
    machine = elf["e_machine"]
    if machine != MACHINE or elf.elfclass != 32 or not elf.little_endian:
        raise WrongMachineError(f"the ELF file is for {machine}, not for {MACHINE}")
    if elf["e_type"] != "ET_EXEC":
        raise WrongMachineError(f"the ELF file is {elf['e_type']}, not a linked program (ET_EXEC)")
    if elf.num_segments() > MAX_ITEMS or elf.num_sections() > MAX_ITEMS:
        raise TooLargeError(f"the ELF file has more than {MAX_ITEMS} segments or sections")


def _segments(elf: ELFFile, memory: Sequence[range]) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    sections = [s for s in elf.iter_sections() if s["sh_flags"] & _ALLOCATED and s["sh_size"]]
    for segment in elf.iter_segments():
        size = segment["p_filesz"]
        if segment["p_type"] != "PT_LOAD" or not size:
            continue
        if not any(segment.section_in_segment(section) for section in sections):
            continue  # linkers like to load the file's own headers
        address = segment["p_paddr"]
        if not any(address in part and address + size - 1 in part for part in memory):
            raise TooLargeError(f"{size} bytes at 0x{address:04x} do not fit into memory")
        content = segment.data()
        if len(content) != size:
            raise ElfError(f"the file ends within the segment at 0x{address:04x}")
        found.append((address, content))
    if not found:
        raise EmptySectionError("the ELF file has nothing to load")
    _check_apart([(f"segment at 0x{at:04x}", range(at, at + len(part))) for at, part in found])
    return tuple(found)


def _sections(elf: ELFFile) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for section in elf.iter_sections():
        if not section["sh_flags"] & _ALLOCATED:
            continue
        address, size = section["sh_addr"], section["sh_size"]
        if address + size > SIZE:
            raise TooLargeError(f"section {section.name} ends at 0x{address + size:x}")
        content = bytes(size) if section["sh_type"] == "SHT_NOBITS" else section.data()
        if len(content) != size:
            raise ElfError(f"the file ends within section {section.name}")
        if section.name in found:
            raise OverlapError(f"there are two sections {section.name}")
        found[section.name] = Section(name=section.name, address=address, data=content)
    _check_apart([(f"section {s.name}", s.addresses) for s in found.values() if s.data])
    return found


def _check_apart(parts: list[tuple[str, range]]) -> None:
    ordered = sorted(parts, key=lambda part: part[1].start)
    for (first, before), (second, after) in itertools.pairwise(ordered):
        if after.start < before.stop:
            raise OverlapError(f"{first} and {second} overlap at 0x{after.start:04x}")


def _symbols(elf: ELFFile) -> dict[str, int]:
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}
    return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if symbol.name}
