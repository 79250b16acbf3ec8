"""MSP430 instructions: 27 of them, in three formats, with seven addressing modes.

    15..12  11..8   7    6     5..4  3..0
    opcode  source  Ad   B/W   As    destination    two operands (opcode 4 to F)
    0001    00, opcode (3)  B/W  As  register       one operand
    001     condition (3)   offset (10 bits, words) jump

``As`` with register: 0 register, 1 indexed, 2 indirect, 3 indirect with increment. With PC these
are symbolic (1) and immediate (3); with SR absolute (1). SR (2, 3) and R3 (0 to 3) generate the
constants 4, 8 and 0, 1, 2, -1. Here symbolic operands become absolute ones, and immediate and
generated ones constants: what remains is five kinds.

Cycles are those of SLAU144J, tables 3-15 and 3-16 (the same as SLAU049F's).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PC: Final = 0
SP: Final = 1
SR: Final = 2
CG: Final = 3

CARRY: Final = 0x0001
ZERO: Final = 0x0002
NEGATIVE: Final = 0x0004
GIE: Final = 0x0008  # interrupts are taken
CPU_OFF: Final = 0x0010
OVERFLOW: Final = 0x0100
FLAGS: Final = CARRY | ZERO | NEGATIVE | OVERFLOW


class Kind(IntEnum):
    """What an operand is."""

    REGISTER = 0
    CONSTANT = 1
    ABSOLUTE = 2
    INDEXED = 3
    INDIRECT = 4
    INCREMENT = 5


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand: ``value`` is the constant, the address or the index, where there is one."""

    kind: Kind
    register: int = CG
    value: int = 0

    @property
    def in_memory(self) -> bool:
        """Whether it is read or written in memory."""
        return self.kind >= Kind.ABSOLUTE


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction. Jumps have no operands, and ``target`` says where they go."""

    name: str  # of the core instruction, without ".b": "mov", "jne", "reti"; "ext" for extensions
    address: int
    size: int  # bytes: 2, 4 or 6
    cycles: int
    byte: bool = False
    source: Operand | None = None
    destination: Operand | None = None
    target: int = 0
    word: int = 0  # as it stands in memory

    @property
    def next(self) -> int:
        """The address after it."""
        return (self.address + self.size) & 0xFFFF


TWO: Final = ("mov", "add", "addc", "subc", "sub", "cmp", "dadd", "bit", "bic", "bis", "xor", "and")
ONE: Final = ("rrc", "swpb", "rra", "sxt", "push", "call", "reti")
JUMPS: Final = ("jne", "jeq", "jnc", "jc", "jn", "jge", "jl", "jmp")
EXTENSION: Final = "ext"
ILLEGAL: Final = "illegal"
_NO_BYTE: Final = ("swpb", "sxt", "call")

_SR_CONSTANTS: Final = {2: 4, 3: 8}
_CG_CONSTANTS: Final = (0, 1, 2, 0xFFFF)
# Cycles of two-operand instructions: source kind -> to a register, to PC, to memory.
_TWO_CYCLES: Final = {
    Kind.REGISTER: (1, 2, 4),
    Kind.INDIRECT: (2, 2, 5),
    Kind.INCREMENT: (2, 3, 5),
    Kind.CONSTANT: (2, 3, 5),
    Kind.INDEXED: (3, 3, 6),
    Kind.ABSOLUTE: (3, 3, 6),
}
# Of one-operand instructions: kind -> rrc, rra, swpb, sxt; push; call.
_ONE_CYCLES: Final = {
    Kind.REGISTER: (1, 3, 4),
    Kind.INDIRECT: (3, 4, 4),
    Kind.INCREMENT: (3, 5, 5),
    Kind.CONSTANT: (3, 4, 5),
    Kind.INDEXED: (4, 5, 5),
    Kind.ABSOLUTE: (4, 5, 5),
}
INTERRUPT_CYCLES: Final = 6
RETI_CYCLES: Final = 5
JUMP_CYCLES: Final = 2

_Fetch = Callable[[int], int]


def decode(fetch: _Fetch, address: int) -> Instruction:
    """Decode what stands at ``address``; ``fetch`` gives the word at an even address."""
    word = fetch(address)
    group = word >> 12
    if group >= 4:
        return _two(fetch, address, word)
    if group >= 2:
        return _jump(address, word)
    if group == 1 and word & 0x0C00 == 0:
        return _one(fetch, address, word)
    return Instruction(ILLEGAL, address, 2, 1, word=word)


def _jump(address: int, word: int) -> Instruction:
    offset = (word & 0x3FF) - ((word & 0x200) << 1)
    target = (address + 2 + 2 * offset) & 0xFFFF
    return Instruction(
        JUMPS[word >> 10 & 7], address, 2, JUMP_CYCLES, False, None, None, target, word
    )


def _one(fetch: _Fetch, address: int, word: int) -> Instruction:
    opcode = word >> 7 & 7
    if opcode == 7:
        return Instruction(EXTENSION, address, 2, 1, word=word)
    name = ONE[opcode]
    if name == "reti":
        return Instruction(name, address, 2, RETI_CYCLES, word=word)
    byte = bool(word & 0x40)
    if byte and name in _NO_BYTE:
        return Instruction(ILLEGAL, address, 2, 1, word=word)
    operand, size, generated = _source(fetch, address, word & 15, word >> 4 & 3, byte=byte)
    cycles = _ONE_CYCLES[Kind.REGISTER if generated else operand.kind][
        ("push", "call").index(name) + 1 if name in ("push", "call") else 0
    ]
    return Instruction(name, address, size, cycles, byte, operand, None, 0, word)


def _two(fetch: _Fetch, address: int, word: int) -> Instruction:
    byte = bool(word & 0x40)
    source, size, generated = _source(fetch, address, word >> 8 & 15, word >> 4 & 3, byte=byte)
    register = word & 15
    if word & 0x80:
        at = (address + size) & 0xFFFF
        index = fetch(at)
        size += 2
        destination = _indexed(register, index, at)
        column = 2
    else:
        destination = Operand(Kind.REGISTER, register)
        column = int(register == PC)
    cycles = _TWO_CYCLES[Kind.REGISTER if generated else source.kind][column]
    return Instruction(
        TWO[(word >> 12) - 4], address, size, cycles, byte, source, destination, 0, word
    )


def _indexed(register: int, index: int, at: int) -> Operand:
    """The operand ``index(register)``; ``at`` is where the index stands."""
    if register == PC:
        return Operand(Kind.ABSOLUTE, PC, (at + index) & 0xFFFF)
    if register in (SR, CG):
        return Operand(Kind.ABSOLUTE, SR, index)
    return Operand(Kind.INDEXED, register, index)


def _source(
    fetch: _Fetch, address: int, register: int, mode: int, *, byte: bool
) -> tuple[Operand, int, bool]:
    """The source, the bytes of the instruction so far, and whether it came from the generator."""
    mask = 0xFF if byte else 0xFFFF
    at = (address + 2) & 0xFFFF
    if register == CG:
        return Operand(Kind.CONSTANT, CG, _CG_CONSTANTS[mode] & mask), 2, True
    if register == SR and mode >= 2:
        return Operand(Kind.CONSTANT, SR, _SR_CONSTANTS[mode]), 2, True
    if mode == 0:
        return Operand(Kind.REGISTER, register), 2, False
    if mode == 1:
        return _indexed(register, fetch(at), at), 4, False
    if register == PC:  # immediate; @PC reads the same word without stepping over it
        size = 4 if mode == 3 else 2
        return Operand(Kind.CONSTANT, PC, fetch(at) & mask), size, False
    return Operand(Kind.INDIRECT if mode == 2 else Kind.INCREMENT, register), 2, False


_NAMES: Final = ("pc", "sp", "sr", "r3", *(f"r{n}" for n in range(4, 16)))


def _text(operand: Operand) -> str:
    name = _NAMES[operand.register]
    match operand.kind:
        case Kind.REGISTER:
            return name
        case Kind.CONSTANT:
            return f"#0x{operand.value:x}"
        case Kind.ABSOLUTE:
            return f"&0x{operand.value:04x}"
        case Kind.INDEXED:
            return f"0x{operand.value:x}({name})"
        case Kind.INDIRECT:
            return f"@{name}"
        case _:
            return f"@{name}+"


def disassemble(instruction: Instruction) -> str:
    """The instruction as text: ``add.b @r5+, 0x2(r6)``."""
    name = instruction.name
    if name in JUMPS:
        return f"{name} 0x{instruction.target:04x}"
    if name in (EXTENSION, ILLEGAL):
        return f".word 0x{instruction.word:04x}"
    operands = [_text(o) for o in (instruction.source, instruction.destination) if o is not None]
    return f"{name}{'.b' if instruction.byte else ''} {', '.join(operands)}".rstrip()
