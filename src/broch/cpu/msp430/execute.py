"""The interpreter: one instruction at a time, exactly, with every case that there is.

It runs what is cold, what touches peripherals, protected or changing memory, and what changes the
status register. Hot code goes to :mod:`broch.cpu.msp430.translate`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from broch.cpu.msp430.decode import (
    CARRY,
    CG,
    FLAGS,
    NEGATIVE,
    OVERFLOW,
    PC,
    SP,
    SR,
    ZERO,
    Instruction,
    Kind,
    Operand,
)

if TYPE_CHECKING:
    from broch.cpu.msp430.cpu import Cpu

_Handler = Callable[["Cpu", Instruction], None]
_Flags = int
_Alu = Callable[[int, int, int, int], tuple[int, _Flags]]  # source, destination, mask, carry


def _add(source: int, destination: int, mask: int, carry: int) -> tuple[int, _Flags]:
    total = source + destination + carry
    result = total & mask
    sign = mask + 1 >> 1
    flags = 0 if result else ZERO
    if total > mask:
        flags |= CARRY
    if result & sign:
        flags |= NEGATIVE
    if (source ^ result) & (destination ^ result) & sign:
        flags |= OVERFLOW
    return result, flags


def _logic(result: int, mask: int) -> _Flags:
    """Flags of and, bit, sxt: carry is "not zero"."""
    if not result:
        return ZERO
    return CARRY | NEGATIVE if result & (mask + 1 >> 1) else CARRY


def _plain_add(s: int, d: int, mask: int, _carry: int) -> tuple[int, _Flags]:
    return _add(s, d, mask, 0)


def _sub(s: int, d: int, mask: int, _carry: int) -> tuple[int, _Flags]:
    return _add(s ^ mask, d, mask, 1)


def _subc(s: int, d: int, mask: int, carry: int) -> tuple[int, _Flags]:
    return _add(s ^ mask, d, mask, carry)


def _dadd(s: int, d: int, mask: int, carry: int) -> tuple[int, _Flags]:
    result = 0
    for shift in range(0, mask.bit_length(), 4):
        digit = (s >> shift & 15) + (d >> shift & 15) + carry
        carry = int(digit > 9)
        result |= (digit - 10 if carry else digit) % 16 << shift
    flags = CARRY if carry else 0
    if not result:
        flags |= ZERO
    if result & (mask + 1 >> 1):
        flags |= NEGATIVE
    return result, flags


def _and(s: int, d: int, mask: int, _carry: int) -> tuple[int, _Flags]:
    return s & d, _logic(s & d, mask)


def _xor(s: int, d: int, mask: int, _carry: int) -> tuple[int, _Flags]:
    flags = _logic(s ^ d, mask)
    return s ^ d, flags | OVERFLOW if s & d & (mask + 1 >> 1) else flags


_ALU: Final[dict[str, _Alu]] = {
    "add": _plain_add,
    "addc": _add,
    "sub": _sub,
    "cmp": _sub,
    "subc": _subc,
    "dadd": _dadd,
    "and": _and,
    "bit": _and,
    "xor": _xor,
}


def source_value(cpu: "Cpu", operand: Operand, instruction: Instruction) -> int:
    """Read a source operand and step its register where the mode says so."""
    registers = cpu.registers
    byte = instruction.byte
    register = operand.register
    match operand.kind:
        case Kind.CONSTANT:
            return operand.value
        case Kind.REGISTER:
            here = instruction.address + 2 & 0xFFFF
            value = here if register == PC else registers[register]
            return value & 0xFF if byte else value
        case Kind.ABSOLUTE:
            return cpu.read(operand.value, byte=byte)
        case Kind.INDEXED:
            return cpu.read(registers[register] + operand.value & 0xFFFF, byte=byte)
        case Kind.INDIRECT:
            return cpu.read(registers[register], byte=byte)
        case _:
            address = registers[register]
            value = cpu.read(address, byte=byte)
            step = 1 if byte and register != SP else 2
            registers[register] = address + step & 0xFFFF
            return value


def _address(cpu: "Cpu", operand: Operand) -> int:
    """Where a destination in memory is."""
    if operand.kind is Kind.INDEXED:
        return cpu.registers[operand.register] + operand.value & 0xFFFF
    if operand.kind is Kind.ABSOLUTE:
        return operand.value
    return cpu.registers[operand.register]


def _set_register(cpu: "Cpu", register: int, value: int) -> None:
    if register in (PC, SP):
        value &= 0xFFFE
    if register != CG:
        cpu.registers[register] = value


def _set_flags(cpu: "Cpu", flags: _Flags) -> None:
    cpu.registers[SR] = cpu.registers[SR] & ~FLAGS | flags


def _two(cpu: "Cpu", instruction: Instruction) -> None:
    name, byte = instruction.name, instruction.byte
    source, destination = instruction.source, instruction.destination
    assert source is not None
    assert destination is not None
    value = source_value(cpu, source, instruction)
    mask = 0xFF if byte else 0xFFFF
    address = old = 0
    if destination.in_memory:
        address = _address(cpu, destination)
        if name != "mov":
            old = cpu.read(address, byte=byte)
    else:
        old = cpu.registers[destination.register] & mask
        if destination.register == CG:
            old = 0
    flags = None
    if name == "mov":
        result = value
    elif name == "bis":
        result = old | value
    elif name == "bic":
        result = old & ~value
    else:
        result, flags = _ALU[name](value, old, mask, cpu.registers[SR] & CARRY)
    if flags is not None:
        _set_flags(cpu, flags)
    if name in ("cmp", "bit"):
        return
    if destination.in_memory:
        cpu.write(address, result, byte=byte)
    else:
        _set_register(cpu, destination.register, result)


def _shift(cpu: "Cpu", instruction: Instruction) -> None:
    """rrc, rra, swpb, sxt: read, change, write back to the same place."""
    operand, byte, name = instruction.source, instruction.byte, instruction.name
    assert operand is not None
    address = _address(cpu, operand)
    old = source_value(cpu, operand, instruction)
    mask = 0xFF if byte else 0xFFFF
    sign = mask + 1 >> 1
    if name == "swpb":
        result = (old >> 8 | old << 8) & 0xFFFF
    elif name == "sxt":
        result = ((old & 0xFF ^ 0x80) - 0x80) & 0xFFFF
        _set_flags(cpu, _logic(result, mask))
    else:
        carried = cpu.registers[SR] & CARRY and sign if name == "rrc" else old & sign
        result = old >> 1 | carried
        flags = old & CARRY
        if not result:
            flags |= ZERO
        if result & sign:
            flags |= NEGATIVE
        _set_flags(cpu, flags)
    if operand.in_memory:
        cpu.write(address, result, byte=byte)
    elif operand.kind is Kind.REGISTER:
        _set_register(cpu, operand.register, result)


def push(cpu: "Cpu", value: int, *, byte: bool = False) -> None:
    """Put a word on the stack, or a byte in the lower half of one."""
    registers = cpu.registers
    registers[SP] = registers[SP] - 2 & 0xFFFF
    cpu.write(registers[SP], value, byte=byte)


def pop(cpu: "Cpu") -> int:
    """Take a word from the stack."""
    value = cpu.read(cpu.registers[SP], byte=False)
    cpu.registers[SP] = cpu.registers[SP] + 2 & 0xFFFF
    return value


def _push(cpu: "Cpu", instruction: Instruction) -> None:
    assert instruction.source is not None
    push(cpu, source_value(cpu, instruction.source, instruction), byte=instruction.byte)


def _call(cpu: "Cpu", instruction: Instruction) -> None:
    assert instruction.source is not None
    target = source_value(cpu, instruction.source, instruction)
    push(cpu, instruction.next)
    cpu.registers[PC] = target & 0xFFFE


def _reti(cpu: "Cpu", _instruction: Instruction) -> None:
    cpu.registers[SR] = pop(cpu) & 0x01FF
    cpu.registers[PC] = pop(cpu) & 0xFFFE


def _jump(cpu: "Cpu", instruction: Instruction) -> None:
    if taken(instruction.name, cpu.registers[SR]):
        cpu.registers[PC] = instruction.target


def taken(name: str, sr: int) -> bool:
    """Whether the jump ``name`` is taken with this status register."""
    match name:
        case "jne":
            return not sr & ZERO
        case "jeq":
            return bool(sr & ZERO)
        case "jnc":
            return not sr & CARRY
        case "jc":
            return bool(sr & CARRY)
        case "jn":
            return bool(sr & NEGATIVE)
        case "jge":
            return bool(sr & NEGATIVE) == bool(sr & OVERFLOW)
        case "jl":
            return bool(sr & NEGATIVE) != bool(sr & OVERFLOW)
        case _:
            return True


def _extension(cpu: "Cpu", instruction: Instruction) -> None:
    handler = cpu.extensions.get(instruction.word)
    if handler is None:
        cpu.illegal(instruction)
    else:
        handler(cpu)


def _illegal(cpu: "Cpu", instruction: Instruction) -> None:
    cpu.illegal(instruction)


HANDLERS: Final[dict[str, _Handler]] = {
    **dict.fromkeys(("mov", "bis", "bic", *_ALU), _two),
    **dict.fromkeys(("rrc", "rra", "swpb", "sxt"), _shift),
    **dict.fromkeys(("jne", "jeq", "jnc", "jc", "jn", "jge", "jl", "jmp"), _jump),
    "push": _push,
    "call": _call,
    "reti": _reti,
    "ext": _extension,
    "illegal": _illegal,
}
