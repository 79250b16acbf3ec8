"""Digital I/O ports (SLAU049F, chapter 9): eight pins each, ports 1 and 2 with interrupts.

    offset   port 1, 2   port 3, 4   port 5, 6
    IN       0           0           0           what the pins are at; cannot be written
    OUT      1           1           1
    DIR      2           2           2           1: output
    IFG      3           -           -           an edge was seen
    IES      4           -           -           1: the edge from high to low
    IE       5           -           -
    SEL      6           3           3           kept, and without effect

Pins that are outputs read as what is put out. There are no pull-ups: an input that nobody drives
is low.
"""

from collections.abc import Callable
from typing import Final

from broch.cpu.msp430.wires import PORT1_VECTOR, PORT2_VECTOR, ByteRegisters, Wires
from broch.errors import UsageError

_BASES: Final = {1: 0x20, 2: 0x28, 3: 0x18, 4: 0x1C, 5: 0x30, 6: 0x34}
_VECTORS: Final = {1: PORT1_VECTOR, 2: PORT2_VECTOR}
_FULL: Final = ("in", "out", "dir", "ifg", "ies", "ie", "sel")
_SMALL: Final = ("in", "out", "dir", "sel")


class DigitalPort(ByteRegisters):
    """One port."""

    def __init__(self, wires: Wires, number: int) -> None:
        """Make port 1 to 6.

        Raises:
            UsageError: there is no such port.
        """
        if number not in _BASES:
            raise UsageError(f"there is no port {number}: an MSP430 has ports 1 to 6")
        self.name = f"port {number}"
        self.number = number
        self.changed: Callable[[DigitalPort], None] | None = None  # called when outputs change
        self._wires = wires
        self._vector = _VECTORS.get(number)
        self._names = _FULL if self._vector is not None else _SMALL
        self._base = _BASES[number]
        self.addresses: tuple[range, ...] = (range(self._base, self._base + len(self._names)),)
        self._pins = 0
        self._registers = dict.fromkeys(self._names, 0)

    @property
    def output(self) -> int:
        """The pins that the program drives high: a bit for each."""
        return self._registers["out"] & self._registers["dir"]

    @property
    def driven(self) -> int:
        """The pins that are outputs."""
        return self._registers["dir"]

    @property
    def input(self) -> int:
        """What the outside drives the pins to."""
        return self._pins

    def drive(self, pin: int, *, high: bool) -> None:
        """Drive a pin (0 to 7) from outside, as a button does.

        Raises:
            UsageError: there is no such pin.
        """
        if not 0 <= pin <= 7:
            raise UsageError(f"{self.name} has pins 0 to 7, and no pin {pin}")
        before = self._level()
        self._pins = self._pins | 1 << pin if high else self._pins & ~(1 << pin)
        self._edges(before)

    def get(self, address: int) -> int:
        """Read one register."""
        at = address - self._base
        if at >= len(self._names):
            return 0
        name = self._names[at]
        return self._level() if name == "in" else self._registers[name]

    def put(self, address: int, value: int) -> None:
        """Write one register."""
        at = address - self._base
        if at >= len(self._names) or self._names[at] == "in":
            return
        before, output = self._level(), (self.output, self.driven)
        self._registers[self._names[at]] = value
        self._edges(before)
        if self.changed is not None and (self.output, self.driven) != output:
            self.changed(self)

    def advance(self, now: int) -> int | None:
        """Nothing is ever due: pins change when they are driven."""
        del now
        return None

    def accepted(self, vector: int) -> None:
        """Flags are cleared by software: while one is set, the request stands."""
        if vector == self._vector:
            self._ask()

    def reset(self) -> None:
        """All pins are inputs; what drives them from outside stays."""
        output = self.output, self.driven
        self._registers = dict.fromkeys(self._names, 0)
        self._ask()
        if self.changed is not None and output != (0, 0):
            self.changed(self)

    def _level(self) -> int:
        outputs = self._registers["dir"]
        return self._pins & ~outputs & 0xFF | self._registers["out"] & outputs

    def _edges(self, before: int) -> None:
        if self._vector is None:
            return
        after = self._level()
        falling = self._registers["ies"]
        self._registers["ifg"] |= (before ^ after) & (after ^ falling)
        self._ask()

    def _ask(self) -> None:
        if self._vector is None:
            return
        if self._registers["ifg"] & self._registers["ie"]:
            self._wires.request(self._vector)
        else:
            self._wires.withdraw(self._vector)
