"""The microcontroller of a node: CPU, memory, peripherals, and the little code of its host.

    board = Board(node_key, random=os.urandom)
    loaded = board.load(read_module(elf), vendor=1)
    outcome = board.enter(loaded, Function.ATTEST, challenge)

The host is untrusted: it is a few instructions of ROM that enter a module and wait for it at EXIT,
where :meth:`Board.enter` takes over. Modules run one at a time, with interrupts off, for at most
so many cycles. What peripherals ask for meanwhile waits in :meth:`Board.interrupts`.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from broch.cpu.msp430 import (
    Bus,
    Cpu,
    DigitalPort,
    IllegalInstructionError,
    OverlapError,
    Peripheral,
    TimerA,
    Uart,
)
from broch.cpu.msp430.decode import CPU_OFF, PC, SP, SR
from broch.errors import PolicyError
from broch.tee.contract import NonVolatile
from broch.tee.sancus import memory
from broch.tee.sancus.instructions import PROTECT, Sancus, wipe
from broch.tee.sancus.layout import Layout, overlap
from broch.tee.sancus.module_file import ModuleFile, Part
from broch.tee.sancus.protection import VIOLATION_VECTOR, Protection, Violation

MAX_CYCLES: Final = 20_000_000  # that one call may take; some seconds
PARTS: Final = 16  # that the hardware can protect at a time
_TRAP: Final = 0x13F0  # an instruction of the emulator's own: the host's EXIT
_ENTER: Final = memory.HOST.start + 0x10  # br r4
_PROTECT: Final = memory.HOST.start + 0x20
_IDLE: Final = memory.HOST.start + 0x30  # jmp $
_VIOLATED: Final = memory.HOST.start + 0x40
_BR_R4: Final = 0x4400
_JMP_SELF: Final = 0x3FFF
_IDLE_CYCLES: Final = 10_000_000  # for what the UART still has to do
_NO_VECTORS: Final = (1 << VIOLATION_VECTOR) | 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call came back. ``fault`` says why it did not; there is no output then."""

    status: int = 255
    output: bytes = b""
    fault: str = ""
    violations: tuple[Violation, ...] = ()
    cycles: int = 0


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A module that the hardware protects now."""

    file: ModuleFile
    ids: tuple[int, ...]  # of its parts

    @property
    def entry(self) -> int:
        """The only address at which it can be entered."""
        return self.file.module.layout.public_start


class _ExitError(Exception):
    """The program came to one of the host's traps."""

    def __init__(self, address: int) -> None:
        super().__init__(hex(address))
        self.address = address


class Random:
    """A source of random words at 0x01b0. Real nodes have none; they would need one."""

    name = "random"
    addresses: tuple[range, ...] = (range(memory.RANDOM, memory.RANDOM + 2),)

    def __init__(self, source: Callable[[int], bytes]) -> None:
        self._source = source

    def read(self, address: int, *, byte: bool) -> int:
        """A fresh word, or byte."""
        del address
        return int.from_bytes(self._source(1 if byte else 2), "little")

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """Nothing to set."""

    def advance(self, now: int) -> int | None:
        """Nothing is ever due."""
        del now
        return None

    def accepted(self, vector: int) -> None:
        """Asks for no interrupt."""

    def reset(self) -> None:
        """Nothing to forget."""


class Board:
    """One microcontroller and its host.

    Args:
        node_key: 16 bytes; modules speak 128-bit SPONGENT.
        random: gives so many random bytes.
        as_rtl: with the weaknesses of the RTL (:mod:`.protection`).
        store: where module keys are kept, so that each is computed once.
    """

    def __init__(
        self,
        node_key: bytes,
        *,
        random: Callable[[int], bytes],
        as_rtl: bool = False,
        store: NonVolatile | None = None,
    ) -> None:
        self.protection = Protection(PARTS, as_rtl=as_rtl)
        self.cpu = Cpu(Bus(), self.protection)
        self.ports = {number: DigitalPort(self.cpu, number) for number in range(1, 7)}
        self.uart = Uart(self.cpu)
        others: tuple[Peripheral, ...] = (self.uart, TimerA(self.cpu), Random(random))
        for peripheral in (*self.ports.values(), *others):
            self.cpu.bus.attach(peripheral)
        Sancus(self.cpu, self.protection, node_key, store)
        self.cpu.extensions[_TRAP] = self._trap
        self.loaded: list[LoadedModule] = []
        self.reset()

    def reset(self) -> None:
        """Power off and on: memory is empty, nothing is protected."""
        bus = self.cpu.bus
        bus.load(0x0200, bytes(0x10000 - 0x0200))
        for at in (memory.EXIT, _PROTECT + 2, _VIOLATED):
            bus.load(at, struct.pack("<H", _TRAP))
        bus.load(_ENTER, struct.pack("<H", _BR_R4))
        bus.load(_PROTECT, struct.pack("<H", PROTECT))
        bus.load(_IDLE, struct.pack("<H", _JMP_SELF))
        bus.load(memory.VECTORS.start, struct.pack("<H", _VIOLATED) * 15)
        bus.load(0xFFFE, struct.pack("<H", _IDLE))
        self.loaded.clear()
        self.cpu.reset()

    # Modules

    def load(self, file: ModuleFile, *, vendor: int) -> LoadedModule:
        """Put a module into memory, its secret section empty, and let the hardware protect it.

        Raises:
            OverlapError: another module is there.
            PolicyError: the hardware protects no more modules.
        """
        for part in file.parts:
            self._check_free(part)
        ids: list[int] = []
        for part in file.parts:
            self.cpu.bus.load(part.layout.public_start, part.text)
            if not part.owns_peripherals:
                self.cpu.bus.load(part.layout.secret_start, bytes(len(part.layout.secret)))
            number = self.protect(part.layout, vendor=vendor)
            if not number:
                self._remove(ids)
                raise PolicyError(
                    f"the microcontroller does not protect {part.name}",
                    hint=f"it protects {PARTS} parts at a time; put the module on another node",
                )
            ids.append(number)
        loaded = LoadedModule(file, tuple(ids))
        self.loaded.append(loaded)
        return loaded

    def _check_free(self, part: Part) -> None:
        for other in self.loaded:
            for taken in other.file.parts:
                for mine in (part.layout.text, part.layout.secret):
                    for theirs in (taken.layout.text, taken.layout.secret):
                        if overlap(mine, theirs):
                            raise OverlapError(
                                f"{part.name} and {taken.name}, which is loaded, both want "
                                f"0x{max(mine.start, theirs.start):04x}"
                            )

    def protect(self, layout: Layout, *, vendor: int) -> int:
        """Execute 0x1381 in the host's name; the id, or 0."""
        registers = [0] * 16
        registers[11:16] = [
            vendor,
            layout.public_start,
            layout.public_end,
            layout.secret_start,
            layout.secret_end,
        ]
        outcome = self._run(_PROTECT, registers, MAX_CYCLES)
        return 0 if outcome.fault else outcome.status

    def unload(self, loaded: LoadedModule) -> None:
        """Wipe a module and give its place free, as a reset of it alone would."""
        self.loaded.remove(loaded)
        self._remove(loaded.ids)

    def _remove(self, ids: Iterable[int]) -> None:
        for number in ids:
            module = self.protection.modules.get(number)
            if module is not None:
                wipe(self.cpu, module)
                self.protection.remove(module)
        self.cpu.policy_changed()

    # Calls

    def enter(
        self, loaded: LoadedModule, function: int, data: bytes, *, cycles: int = MAX_CYCLES
    ) -> Outcome:
        """Enter a module with ``data`` in IN; what it left in OUT."""
        bus = self.cpu.bus
        bus.load(memory.IN, data[: memory.BUFFER])
        bus.load(memory.OUT, bytes(memory.BUFFER))
        registers = [0] * 16
        registers[SP] = memory.STACK
        registers[4], registers[6], registers[14] = loaded.entry, function, len(data)
        return self._run(_ENTER, registers, cycles)

    def run_code(self, address: int, *, cycles: int) -> Outcome:
        """Let unprotected code at ``address`` run, as a hostile host would."""
        registers = [0] * 16
        registers[SP] = memory.STACK
        return self._run(address, registers, cycles)

    def _run(self, address: int, registers: list[int], cycles: int) -> Outcome:
        cpu = self.cpu
        cpu.pending &= ~(1 << VIOLATION_VECTOR)
        self.protection.violations.clear()
        cpu.registers[:] = registers
        cpu.registers[PC] = address
        begin, fault, status, size = cpu.cycles, "took too many cycles", 255, 0
        try:
            cpu.run(cycles)
        except _ExitError as reached:
            status = cpu.registers[15]
            size = cpu.registers[14] if reached.address == memory.EXIT else 0
            fault = "was cut off by a violation" if reached.address == _VIOLATED else ""
        except IllegalInstructionError as exc:
            fault = f"ran into {exc.message} at {exc.place}"
        if not fault and size > memory.BUFFER:
            fault = f"says that it put out {size} bytes, OUT has {memory.BUFFER}"
        output = b"" if fault else bytes(cpu.bus.memory[memory.OUT : memory.OUT + size])
        cpu.registers[:] = [0] * 16
        cpu.registers[PC] = _IDLE
        return Outcome(
            status=status,
            output=output,
            fault=fault,
            violations=tuple(self.protection.violations),
            cycles=cpu.cycles - begin,
        )

    def _trap(self, cpu: Cpu) -> None:
        address = cpu.registers[PC] - 2 & 0xFFFF
        if address not in memory.HOST:
            raise IllegalInstructionError(address, _TRAP)
        raise _ExitError(address)

    # Time and interrupts

    def interrupts(self) -> list[int]:
        """Let peripherals do what they are about to; the vectors that they ask for, once each."""
        cpu = self.cpu
        cpu.registers[:] = [0] * 16
        cpu.registers[PC], cpu.registers[SR] = _IDLE, CPU_OFF
        end = cpu.cycles + _IDLE_CYCLES
        while cpu.cycles < end and (due := self.uart.advance(cpu.cycles)) is not None:
            if cpu.pending & ~_NO_VECTORS:
                break
            cpu.run(max(1, due - cpu.cycles))
        cpu.registers[SR] = 0
        asked = [vector for vector in range(VIOLATION_VECTOR) if cpu.pending >> vector & 1]
        for vector in asked:
            cpu.withdraw(vector)
        return asked
