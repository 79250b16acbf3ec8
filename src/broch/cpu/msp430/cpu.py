"""The MSP430: registers, interrupts, time, and the choice between interpreter and translator.

    cpu = Cpu(Bus())
    load_elf(cpu, program)
    cpu.reset()
    cpu.run(1_000_000)          # cycles

Time is counted in cycles. :meth:`Cpu.run` is exact: it stops at the first instruction boundary at
which the cycles are used up, and takes interrupts at the boundary where the hardware would, with
one known difference: a peripheral sees an access at the end of the instruction that makes it.
"""

from collections.abc import Callable
from typing import Final

from broch.cpu.msp430.bus import MAPPED, PROTECTED, READ_ONLY, Bus, Domain
from broch.cpu.msp430.decode import (
    CPU_OFF,
    GIE,
    INTERRUPT_CYCLES,
    PC,
    SR,
    Instruction,
    decode,
)
from broch.cpu.msp430.execute import HANDLERS, push
from broch.cpu.msp430.policy import Access, AccessPolicy
from broch.cpu.msp430.translate import Region, translate
from broch.errors import MalformedError

VECTORS: Final = 0xFFE0  # sixteen of them, the highest has precedence
RESET: Final = 15
NMI: Final = 14
RESET_CYCLES: Final = 4
HOT: Final = 24  # times that control arrives at a place before it is translated
_NEVER: Final = 1 << 62  # cycles
_COLD_AGAIN: Final = -2000  # after code was changed: do not translate it again at once

Extension = Callable[["Cpu"], None]
Trace = Callable[[Instruction, "Cpu"], None]


class IllegalInstructionError(MalformedError):
    """The program ran into something that is no instruction."""

    def __init__(self, address: int, word: int) -> None:
        super().__init__(f"0x{word:04x} is no instruction", place=f"0x{address:04x}")
        self.address = address
        self.word = word


class Cpu:
    """One MSP430 on its bus."""

    def __init__(self, bus: Bus, policy: AccessPolicy | None = None) -> None:
        self.bus = bus
        self.policy = policy
        self.registers = [0] * 16
        self.cycles = 0
        self.pending = 0  # interrupts asked for: a bit for each vector
        self.unmaskable = 1 << NMI  # of those, the ones that need no GIE
        self.extensions: dict[int, Extension] = {}  # opcode 0x1380 to 0x13ff -> what it does
        self.trace: Trace | None = None  # called before each instruction; turns translation off
        self.breakpoints: set[int] = set()  # run() stops there; turns translation off
        self.translating = True
        self._domain: Domain = bus.domains[0]
        self._source = 0  # the instruction that control came from
        self._decoded: dict[int, Instruction] = {}
        self._straddling: set[int] = set()  # instructions that begin in one domain, end in another
        self._regions: dict[int, Region] = {}
        self._heat: dict[int, int] = {}
        self._due = 0  # when peripherals must be looked after next
        self._shielded = False  # the instruction after EINT is not interrupted
        bus.code_written = self._code_written
        if policy is not None:
            self.policy_changed()

    # State

    def reset(self) -> None:
        """Start as after power-on: peripherals reset, PC from the reset vector. Memory stays."""
        self.registers[:] = [0] * 16
        self.pending = 0
        self._shielded = False
        for peripheral in self.bus.peripherals:
            peripheral.reset()
        self.registers[PC] = self.bus.words[(VECTORS >> 1) + RESET] & 0xFFFE
        self._source = self.registers[PC]
        self._domain = self.bus.domains[0]
        self.cycles += RESET_CYCLES
        self._due = self.cycles

    def policy_changed(self) -> None:
        """Read the policy anew. To be called whenever it would answer differently."""
        policy = self.policy
        if policy is None:
            self.bus.set_domains((), lambda _domain: ())
        else:
            self.bus.set_domains(policy.domains(), policy.refused)
        here = 0 if policy is None else policy.domain(self._source)
        self._domain = self.bus.domains[here]
        self._decoded.clear()
        self._straddling.clear()
        self._regions.clear()
        self._heat.clear()

    def request(self, vector: int) -> None:
        """Ask for an interrupt (0 to 14); it stays asked for until taken or withdrawn."""
        self.pending |= 1 << vector

    def withdraw(self, vector: int) -> None:
        """Take back :meth:`request`."""
        self.pending &= ~(1 << vector)

    def peripherals_changed(self) -> None:
        """A peripheral has something due sooner than it said: ask all of them again."""
        self._due = 0

    def illegal(self, instruction: Instruction) -> None:
        """Stop at something that is no instruction.

        Raises:
            IllegalInstructionError: always; the program counter is left at it.
        """
        self.registers[PC] = instruction.address
        raise IllegalInstructionError(instruction.address, instruction.word)

    # Memory, as the running program sees it

    def read(self, address: int, *, byte: bool) -> int:
        """Read for the running instruction; a refused read is reported and gives 0."""
        marks = self._domain.reads[address]
        if not marks:
            memory = self.bus
            return memory.memory[address] if byte else memory.words[address >> 1]
        if marks & PROTECTED:
            self._violation(Access.READ, address)
            return 0
        return self.bus.read_plain(address, byte=byte)

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """Write for the running instruction; a refused write is reported and lost."""
        marks = self._domain.writes[address]
        if not marks:
            if byte:
                self.bus.memory[address] = value & 0xFF
            else:
                self.bus.words[address >> 1] = value
        elif marks & PROTECTED:
            self._violation(Access.WRITE, address)
        elif not marks & READ_ONLY:
            self.bus.write_plain(address, value & 0xFF if byte else value, byte=byte)
            if marks & MAPPED:
                self._due = 0  # what the peripheral waits for may have changed

    def _violation(self, access: Access, address: int) -> None:
        assert self.policy is not None
        self.policy.violation(self, access, address, self._source)

    # Running

    def run(self, cycles: int) -> bool:
        """Run for ``cycles``, or to the end of the instruction in which they are used up.

        Returns:
            Whether it stopped at a breakpoint instead. One at the first instruction is passed.

        Raises:
            IllegalInstructionError: the program ran into something that is no instruction.
        """
        end = self.cycles + cycles
        careful = bool(self.breakpoints) or not self.translating  # a program may begin to be traced
        registers, regions = self.registers, self._regions
        while self.cycles < end:
            if self._housekeeping(end):
                continue
            pc = registers[PC]
            if not (careful or self._shielded or self.trace is not None):
                region = regions.get(pc)
                if region is not None:
                    limit = min(end, self._due) - region.longest
                    if self.cycles < limit:
                        self._run_region(region, limit)
                        continue
            self._instruction(pc)
            if self.breakpoints and registers[PC] in self.breakpoints:
                return True
        return False

    def step(self) -> None:
        """Take one interrupt, or run one instruction (none while the CPU is off).

        Raises:
            IllegalInstructionError: there is no instruction.
        """
        if not self._housekeeping(self.cycles + 1):
            self._instruction(self.registers[PC])

    def _run_region(self, region: Region, limit: int) -> None:
        cycles = region.function(self.registers, self.cycles, limit)
        self._source = region.start
        if cycles >= 0:
            self.cycles = cycles
            self._arrive(self.registers[PC])
            return
        self.cycles = ~cycles  # it stands before something that only the interpreter can do
        if self.cycles < limit + region.longest:
            self._instruction(self.registers[PC])
            self._arrive(self.registers[PC])

    def _housekeeping(self, end: int) -> bool:
        """What comes before an instruction; true if there is none to run now."""
        if self.cycles >= self._due:
            self._advance()
        if self.pending:
            sr = self.registers[SR]
            allowed = self.pending if sr & GIE else self.pending & self.unmaskable
            if allowed and (not self._shielded or sr & CPU_OFF):
                self._interrupt(allowed.bit_length() - 1)
                return True
        if self.registers[SR] & CPU_OFF:
            self.cycles = min(end, self._due)
            return True
        if self.policy is not None:
            return self._refuse_fetch(self.policy)
        return False

    def _advance(self) -> None:
        due = _NEVER
        for peripheral in self.bus.peripherals:
            at = peripheral.advance(self.cycles)
            if at is not None and at < due:
                due = at
        self._due = due

    def _interrupt(self, vector: int) -> None:
        self.pending &= ~(1 << vector)
        pc = self.registers[PC]
        if self.policy is None or not self.policy.interrupt(self, vector, pc):
            push(self, pc)
            push(self, self.registers[SR])
            self.registers[SR] = 0
            self.registers[PC] = self.bus.words[(VECTORS >> 1) + vector] & 0xFFFE
            self.cycles += INTERRUPT_CYCLES
        for peripheral in self.bus.peripherals:
            peripheral.accepted(vector)
        self._due = 0

    def _refuse_fetch(self, policy: AccessPolicy) -> bool:
        """Ask the policy where control goes from one domain to another."""
        pc = self.registers[PC]
        domain = policy.domain(pc)
        if domain == self._domain.number:
            return False
        if policy.enter(self, self._source, pc):
            self._domain = self.bus.domains[domain]
            return False
        self.cycles += 1
        policy.violation(self, Access.EXECUTE, pc, self._source)
        return True

    def _instruction(self, pc: int) -> None:
        """Run one instruction with the interpreter."""
        instruction = self._decoded.get(pc) or self._decode(pc)
        if pc in self._straddling:
            self._source = pc
            self.cycles += 1
            self._violation(Access.EXECUTE, instruction.next)
            return
        if self.trace is not None:
            self.trace(instruction, self)
        registers = self.registers
        self._source = pc
        self.cycles += instruction.cycles
        registers[PC] = instruction.next
        gie = registers[SR] & GIE
        HANDLERS[instruction.name](self, instruction)
        if registers[PC] != instruction.next:
            self._arrive(registers[PC])
        self._shielded = not gie and bool(registers[SR] & GIE) and instruction.name != "reti"

    def _decode(self, pc: int) -> Instruction:
        words = self.bus.words
        instruction = decode(lambda at: words[at >> 1], pc)
        self._decoded[pc] = instruction
        if self.policy is not None and self.policy.domain(pc) != self.policy.domain(
            instruction.next - 1 & 0xFFFF
        ):
            self._straddling.add(pc)
        self.bus.mark_code(range(pc, pc + max(instruction.size, 4)))
        return instruction

    # Translation

    @property
    def _careful(self) -> bool:
        """Whether every instruction goes through the interpreter."""
        return not self.translating or self.trace is not None or bool(self.breakpoints)

    def _arrive(self, pc: int) -> None:
        """Count an arrival of control at ``pc``; translate what is there when it is hot."""
        if self._careful:
            return
        heat = self._heat.get(pc, 0) + 1
        self._heat[pc] = heat
        if heat == HOT:
            self._translate(pc)

    def _translate(self, pc: int) -> None:
        policy = self.policy
        if policy is None:
            domain, span = self.bus.domains[0], range(0x10000)
        else:
            domain, span = self.bus.domains[policy.domain(pc)], policy.span(pc)
        region = translate(self.bus, domain, pc, span)
        if region is None:
            return
        self._regions[pc] = region
        for addresses in region.addresses:
            self.bus.mark_code(addresses)

    def _code_written(self, address: int) -> None:
        """Code at ``address`` has changed: forget what was made of it."""
        for at in range(address - 5, address + 1):
            self._decoded.pop(at & 0xFFFF, None)
            self._straddling.discard(at & 0xFFFF)
        stale = [
            start
            for start, region in self._regions.items()
            if any(address in addresses for addresses in region.addresses)
        ]
        for start in stale:
            del self._regions[start]
            self._heat[start] = _COLD_AGAIN
