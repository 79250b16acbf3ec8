"""ELF files with protected modules in them.

:func:`parts` finds every protected part of any program for Sancus, by the symbols that its linkers
write: ``__sm_P_public_start`` and so on. :func:`read_module` takes one module of Broch's, and holds
it to the rules of docs/sancus-abi.md, so that what is loaded is what is measured.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Final

from broch.cpu.msp430 import (
    ElfError,
    EmptySectionError,
    OverlapError,
    Program,
    TooLargeError,
    read_elf,
)
from broch.errors import MalformedError
from broch.tee.sancus import memory
from broch.tee.sancus.keys import identity
from broch.tee.sancus.layout import Layout, overlap
from broch.tee.sancus.ports import PortTable, read_table

MAX_DRIVERS: Final = 3
TAG_SIZE: Final = 16  # bytes
_START: Final = re.compile(r"__sm_(.+)_public_start")
_EDGES: Final = ("public_start", "public_end", "secret_start", "secret_end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One protected part of a program."""

    name: str
    layout: Layout
    text: bytes = field(repr=False)

    @property
    def owns_peripherals(self) -> bool:
        """Whether it is a driver: its secret section is that of peripherals."""
        return self.layout.secret_end <= memory.PERIPHERALS_END


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFile:
    """A module of Broch's for Sancus: its own part, then its drivers', and its ports."""

    module: Part
    drivers: tuple[Part, ...]
    ports: PortTable

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, the module's own first."""
        return self.module, *self.drivers

    def measure(self) -> bytes:
        """Who the module is; its drivers' identities are in its text."""
        return measure(self.module.text, self.module.layout)

    def digest(self) -> bytes:
        """SHA-256 over all parts, 32 bytes: of each its measurement."""
        parts = b"".join(measure(part.text, part.layout) for part in self.parts)
        return hashlib.sha256(b"broch/sancus/parts/1" + parts).digest()


def measure(text: bytes, layout: Layout) -> bytes:
    """SHA-256 over layout and text, 32 bytes: what is shown and compared.

    The hardware's own word for it is the module key, which is secret, and a hash of 128 bits.
    """
    return hashlib.sha256(b"broch/sancus/1" + layout.to_bytes() + text).digest()


def parts(data: bytes) -> dict[str, Part]:
    """Every protected part of a linked program, by name.

    Raises:
        ElfError: not a program for an MSP430, or a part whose place is not to be found.
        EmptySectionError: there is none, or one without text.
    """
    return parts_of(read_elf(data))


def parts_of(program: Program) -> dict[str, Part]:
    """:func:`parts` of a program that was read already; raises the same."""
    found = {}
    for symbol in sorted(program.symbols):
        if match := _START.fullmatch(symbol):
            found[match[1]] = _part(program, match[1])
    if not found:
        raise EmptySectionError("the ELF file has no protected module: no __sm_NAME_public_start")
    return found


def _part(program: Program, name: str) -> Part:
    edges = {}
    for edge in _EDGES:
        symbol = f"__sm_{name}_{edge}"
        value = program.symbols.get(symbol)
        if value is None:
            raise ElfError(f"there is no symbol {symbol}")
        if not 0 <= value <= 0xFFFF:
            raise ElfError(f"{symbol} is 0x{value:x}, not an address of 16 bits")
        edges[edge] = value
    layout = Layout(**edges)
    if layout.public_start >= layout.public_end:
        raise EmptySectionError(f"the text of {name} is empty")
    if layout.secret_start > layout.secret_end:
        raise EmptySectionError(f"the secret section of {name} ends before it begins")
    return Part(name=name, layout=layout, text=_content(program, layout.text, name))


def _content(program: Program, addresses: range, name: str) -> bytes:
    """The program's bytes at these addresses, which sections must fill."""
    content = bytearray(len(addresses))
    missing = len(addresses)
    for section in program.sections.values():
        start = max(addresses.start, section.addresses.start)
        stop = min(addresses.stop, section.addresses.stop)
        if start < stop:
            part = section.data[start - section.address : stop - section.address]
            content[start - addresses.start : stop - addresses.start] = part
            missing -= stop - start
    if missing:
        raise ElfError(f"{missing} bytes of the text of {name} are in no section")
    return bytes(content)


@lru_cache(maxsize=16)  # it is asked for again and again
def read_module(data: bytes) -> ModuleFile:
    """Read one module.

    Raises:
        ElfError: not a program, or one that breaks a rule of modules.
        WrongMachineError: for another machine.
        OverlapError: two of its ranges share addresses.
        EmptySectionError: no module in it, or no text.
        TooLargeError: it does not fit the places for modules.
        DecodeError: its port table is wrong.
    """
    program = read_elf(data)
    found = parts_of(program)
    modules = [part for part in found.values() if not part.owns_peripherals]
    drivers = tuple(part for part in found.values() if part.owns_peripherals)
    if len(modules) != 1:
        raise ElfError(f"the ELF file has {len(modules)} modules, expected one")
    if len(drivers) > MAX_DRIVERS:
        raise ElfError(f"the module has {len(drivers)} drivers, at most {MAX_DRIVERS}")
    for part in found.values():
        _check_place(part)
    _check_apart(found)
    _check_sections(program, found)
    module = modules[0]
    for driver in drivers:
        _check_tag(program, module, driver)
    offset = _inside(program, module, f"__sm_{module.name}_ports")
    return ModuleFile(module=module, drivers=drivers, ports=read_table(module.text, offset))


def _check_place(part: Part) -> None:
    layout = part.layout
    if any(getattr(layout, edge) % 2 for edge in _EDGES):
        raise ElfError(f"{part.name}: an odd address among {_spell(layout)}")
    text, secret = layout.text, layout.secret
    if text.start not in memory.TEXT or text.stop - 1 not in memory.TEXT:
        raise TooLargeError(
            f"the text of {part.name} is at {_at(text)}, modules' text at {_at(memory.TEXT)}"
        )
    if part.owns_peripherals:
        return
    if secret and (secret.start not in memory.SECRET or secret.stop - 1 not in memory.SECRET):
        raise TooLargeError(
            f"the secret section of {part.name} is at {_at(secret)}, those of modules at "
            f"{_at(memory.SECRET)}"
        )


def _check_apart(found: Mapping[str, Part]) -> None:
    ranges = [
        (f"the {what} of {part.name}", addresses)
        for part in found.values()
        for what, addresses in (("text", part.layout.text), ("secret section", part.layout.secret))
    ]
    for (first, one), (second, other) in combinations(ranges, 2):
        if overlap(one, other):
            raise OverlapError(f"{first} and {second} overlap at 0x{max(one[0], other[0]):04x}")


def _check_sections(program: Program, found: Mapping[str, Part]) -> None:
    """Nothing is to be loaded that is not text, and secret sections begin as zeros."""
    for section in program.sections.values():
        if not section.data:
            continue
        here = section.addresses
        if any(_within(here, part.layout.text) for part in found.values()):
            continue
        if not any(_within(here, part.layout.secret) for part in found.values()):
            raise ElfError(f"section {section.name} at {_at(here)} is in no part of the module")
        if any(section.data):
            raise ElfError(
                f"section {section.name} has values to begin with",
                hint="data of a module begins as zeros: set it in the module's start function",
            )


def _within(inner: range, outer: range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop


def _check_tag(program: Program, module: Part, driver: Part) -> None:
    offset = _inside(program, module, f"__sm_{driver.name}_tag", TAG_SIZE)
    if module.text[offset : offset + TAG_SIZE] != identity(driver.text, driver.layout):
        raise MalformedError(
            f"the tag of driver {driver.name} in {module.name} is not its identity"
        )


def _inside(program: Program, module: Part, symbol: str, size: int = 1) -> int:
    """The offset of ``symbol`` in the module's text."""
    value = program.symbols.get(symbol)
    if value is None:
        raise ElfError(f"there is no symbol {symbol}")
    offset = value - module.layout.public_start
    if not 0 <= offset <= len(module.text) - size:
        raise ElfError(f"{symbol} is 0x{value:x}, not in the text of {module.name}")
    return offset


def _spell(layout: Layout) -> str:
    return ", ".join(f"0x{getattr(layout, edge):04x}" for edge in _EDGES)


def _at(addresses: range) -> str:
    return f"0x{addresses.start:04x}-0x{addresses.stop - 1:04x}"
