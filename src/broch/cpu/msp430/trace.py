"""What the CPU did, for people: one line for each instruction.

    1204  8006  add.b @r5+, 0x2(r6)   r5=4001 sr=0004 [n]

First the cycles before it, its address and text; then the registers that it changed.
"""

from collections import deque

from broch.cpu.msp430.cpu import Cpu
from broch.cpu.msp430.decode import (
    CARRY,
    NEGATIVE,
    OVERFLOW,
    PC,
    SR,
    ZERO,
    Instruction,
    disassemble,
)

_FLAGS = (("v", OVERFLOW), ("n", NEGATIVE), ("z", ZERO), ("c", CARRY))


def flags(sr: int) -> str:
    """The status bits that are set, as letters: ``nc``."""
    return "".join(letter for letter, bit in _FLAGS if sr & bit)


class Recorder:
    """Keeps the last lines of what a CPU does, from when it is made until :meth:`stop`."""

    def __init__(self, cpu: Cpu, lines: int = 1000) -> None:
        self._cpu = cpu
        self._lines: deque[str] = deque(maxlen=lines)
        self._before: list[int] = []
        self._text = ""
        cpu.trace = self._record

    def stop(self) -> None:
        """Let the CPU run at full speed again."""
        self.lines()
        self._cpu.trace = None

    def lines(self) -> list[str]:
        """What was done so far, the last instruction included."""
        self._finish()
        return list(self._lines)

    def _record(self, instruction: Instruction, cpu: Cpu) -> None:
        self._finish()
        self._before = list(cpu.registers)
        self._text = f"{cpu.cycles:>9}  {instruction.address:04x}  {disassemble(instruction):<24}"

    def _finish(self) -> None:
        if not self._text:
            return
        changed = []
        for number, (old, new) in enumerate(zip(self._before, self._cpu.registers, strict=True)):
            if old != new and number not in (PC, SR):
                name = "sp" if number == 1 else f"r{number}"
                changed.append(f"{name}={new:04x}")
        if self._before[SR] != self._cpu.registers[SR]:
            sr = self._cpu.registers[SR]
            changed.append(f"sr={sr:04x} [{flags(sr)}]")
        self._lines.append(f"{self._text} {' '.join(changed)}".rstrip())
        self._text = ""
