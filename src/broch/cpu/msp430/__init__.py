"""The MSP430, a 16-bit microcontroller, emulated to the instruction and to the cycle.

bus = Bus()
cpu = Cpu(bus)
port = DigitalPort(cpu, 1)
bus.attach(port)
read_elf(file).load(bus)
cpu.reset()
port.drive(0, high=True)    # press a button
cpu.run(1_000_000)          # cycles
"""

from broch.cpu.msp430.bus import Bus, Peripheral
from broch.cpu.msp430.cpu import Cpu, IllegalInstructionError
from broch.cpu.msp430.decode import Instruction, decode, disassemble
from broch.cpu.msp430.elf import (
    ElfError,
    EmptySectionError,
    OverlapError,
    Program,
    Section,
    TooLargeError,
    WrongMachineError,
    read_elf,
)
from broch.cpu.msp430.policy import Access, AccessPolicy
from broch.cpu.msp430.port import DigitalPort
from broch.cpu.msp430.timer import TimerA
from broch.cpu.msp430.trace import Recorder
from broch.cpu.msp430.uart import Uart

__all__ = [
    "Access",
    "AccessPolicy",
    "Bus",
    "Cpu",
    "DigitalPort",
    "ElfError",
    "EmptySectionError",
    "IllegalInstructionError",
    "Instruction",
    "OverlapError",
    "Peripheral",
    "Program",
    "Recorder",
    "Section",
    "TimerA",
    "TooLargeError",
    "Uart",
    "WrongMachineError",
    "decode",
    "disassemble",
    "read_elf",
]
