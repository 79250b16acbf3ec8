"""The MSP430's address space: memory, what is mapped over it, and who may touch what.

    0x0000-0x01ff   peripherals, 8-bit ones below 0x0100
    0x0200-         RAM, then flash or ROM, up to the interrupt vectors at 0xffe0

Most accesses are to plain memory and must be fast. So there is a table with a byte for each
address that says what is *not* plain about it, for reads and for writes; only where it is not zero
does anyone look closer. A :class:`Domain` has tables of its own: code that runs in one domain of
an access policy sees as protected what belongs to the others.

Invariants, for every domain: a word has the same marks on both bytes but for CODE; what is marked
for reads is marked for writes; addresses past 0xffff (and below 0) are marked, so that an index
that has not been cut to 16 bits yet is never taken for plain memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from broch.errors import UsageError

SIZE: Final = 0x10000  # bytes
PERIPHERALS_END: Final = 0x0200

MAPPED: Final = 1  # a peripheral's
PROTECTED: Final = 2  # refused by the access policy
READ_ONLY: Final = 4  # writes are lost
CODE: Final = 8  # has been decoded or translated: a write must drop that
OUTSIDE: Final = 128  # not an address


class Peripheral(Protocol):
    """A device on the bus. Times are cycles since power-on."""

    name: str
    addresses: tuple[range, ...]

    def read(self, address: int, *, byte: bool) -> int:
        """A program reads; a word is read at its even address."""
        ...

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """A program writes."""
        ...

    def advance(self, now: int) -> int | None:
        """Do what is due by ``now``; return when something is due next, if anything is."""
        ...

    def accepted(self, vector: int) -> None:
        """The CPU takes the interrupt that this peripheral asked for."""
        ...

    def reset(self) -> None:
        """Take the state after power-on."""
        ...


@dataclass(slots=True)
class Domain:
    """What code of one domain finds not plain: a byte of marks for each address."""

    number: int
    reads: bytearray = field(default_factory=lambda: _marks())
    writes: bytearray = field(default_factory=lambda: _marks())


def _marks() -> bytearray:
    """Marks where nothing but the end of the address space and the peripherals stands out."""
    marks = bytearray(SIZE) + bytes([OUTSIDE]) * SIZE
    marks[:PERIPHERALS_END] = bytes([MAPPED]) * PERIPHERALS_END
    return marks


class Bus:
    """Memory, peripherals and domains of one microcontroller."""

    def __init__(self) -> None:
        self.memory = bytearray(SIZE)
        self.words = memoryview(self.memory).cast("H")  # hosts are little-endian, as MSP430s are
        self.domains = {0: Domain(0)}
        self.peripherals: list[Peripheral] = []
        self._owners: dict[int, Peripheral] = {}
        self._read_only: list[range] = []
        self._code = bytearray(SIZE)
        self.code_written: Callable[[int], None] = lambda _address: None

    def attach(self, peripheral: Peripheral) -> None:
        """Map a peripheral at its addresses.

        Raises:
            UsageError: another one is there, or the addresses are not those of peripherals.
        """
        for addresses in peripheral.addresses:
            for address in addresses:
                if not 0 <= address < PERIPHERALS_END:
                    raise UsageError(f"{peripheral.name}: 0x{address:04x} is no peripheral address")
                if address in self._owners:
                    other = self._owners[address].name
                    raise UsageError(f"{peripheral.name} overlaps {other} at 0x{address:04x}")
        for addresses in peripheral.addresses:
            self._owners.update(dict.fromkeys(addresses, peripheral))
        self.peripherals.append(peripheral)

    def make_read_only(self, addresses: range) -> None:
        """Let programs' writes there be lost, as in ROM. Rounded outwards to words."""
        self._read_only.append(addresses)
        for domain in self.domains.values():
            _mark(domain.writes, addresses, READ_ONLY)

    def set_domains(
        self, numbers: Iterable[int], refused: Callable[[int], Iterable[tuple[range, bool, bool]]]
    ) -> None:
        """Make the domains anew.

        Args:
            numbers: of the domains; 0 is always among them.
            refused: for a domain, what it may not touch: addresses, for reads, for writes.
        """
        self.domains = {number: Domain(number) for number in {0, *numbers}}
        for domain in self.domains.values():
            for addresses in self._read_only:
                _mark(domain.writes, addresses, READ_ONLY)
            for addresses, reads, _ in refused(domain.number):
                _mark(domain.writes, addresses, PROTECTED)  # always, see the invariants
                if reads:
                    _mark(domain.reads, addresses, PROTECTED)
        self._code = bytearray(SIZE)

    def mark_code(self, addresses: range) -> None:
        """Call :attr:`code_written` when a program or :meth:`load` changes one of these."""
        for address in addresses:
            at = address & 0xFFFF
            if not self._code[at]:
                self._code[at] = 1
                for domain in self.domains.values():
                    domain.writes[at] |= CODE

    def load(self, address: int, data: bytes) -> None:
        """Put ``data`` into memory from outside: no access rules, and ROM can be written.

        Raises:
            UsageError: it does not fit.
        """
        if not 0 <= address <= SIZE - len(data):
            raise UsageError(f"{len(data)} bytes do not fit at 0x{address:04x}")
        end = address + len(data)
        self.memory[address:end] = data
        at = self._code.find(1, address, end)
        while at >= 0:
            self.code_written(at)
            at = self._code.find(1, at + 1, end)

    def read_plain(self, address: int, *, byte: bool) -> int:
        """Read memory or a peripheral, whatever the access policy says."""
        if byte:
            owner = self._owners.get(address)
            if owner is not None:
                return owner.read(address, byte=True) & 0xFF
            return 0 if address < PERIPHERALS_END else self.memory[address]
        address &= 0xFFFE
        owner = self._owners.get(address)
        if owner is not None:
            return owner.read(address, byte=False) & 0xFFFF
        return 0 if address < PERIPHERALS_END else self.words[address >> 1]

    def write_plain(self, address: int, value: int, *, byte: bool) -> None:
        """Write memory or a peripheral, whatever the access policy says."""
        if not byte:
            address &= 0xFFFE
        owner = self._owners.get(address)
        if owner is not None:
            owner.write(address, value, byte=byte)
        elif address >= PERIPHERALS_END:
            if byte:
                self.memory[address] = value
            else:
                self.words[address >> 1] = value
            if self._code[address] or (not byte and self._code[address + 1]):
                self.code_written(address)


def _mark(marks: bytearray, addresses: range, mark: int) -> None:
    for address in range(addresses.start & ~1, addresses.stop + 1 & ~1):
        marks[address] |= mark
