"""A microcontroller with a program in it, for tests."""

from broch.cpu.msp430 import Bus, Cpu

from .assembler import assemble
from .programs import CODE, DATA, STACK, Program

VECTORS = 0xFFE0


def machine(
    source: str, *, translating: bool = False, cpu: Cpu | None = None, generator: bool = True
) -> Cpu:
    """A CPU about to run ``source`` at CODE; a label ``isr`` becomes nothing by itself."""
    cpu = cpu or Cpu(Bus())
    cpu.bus.load(CODE, assemble(source, CODE, generator=generator))
    cpu.bus.load(0xFFFE, CODE.to_bytes(2, "little"))
    cpu.translating = translating
    cpu.reset()
    cpu.registers[1] = STACK
    return cpu


def of_program(program: Program, *, translating: bool) -> Cpu:
    """A CPU about to run a random program."""
    cpu = machine(program.source, translating=translating)
    cpu.bus.load(DATA, program.data)
    for number, value in program.registers.items():
        cpu.registers[number] = value
    return cpu


def steps(cpu: Cpu, count: int) -> Cpu:
    """Run some instructions."""
    for _ in range(count):
        cpu.step()
    return cpu


def state(cpu: Cpu) -> tuple[list[int], int, bytes]:
    """Everything that two ways of running a program must agree on."""
    return list(cpu.registers), cpu.cycles, bytes(cpu.bus.memory)
