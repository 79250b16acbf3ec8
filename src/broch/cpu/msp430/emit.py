"""One MSP430 instruction as lines of Python, for :mod:`broch.cpu.msp430.translate`.

Variables: ``rN`` registers; ``x`` the source's value, ``a`` its address, ``m`` the destination's
address, ``y`` its old value, ``z`` the result; ``fz fn ct va vb vt`` the status bits. Every line
that could leave the region comes before the first that changes something, so that the interpreter
can do the instruction from the start.
"""

from collections.abc import Callable
from typing import Final

from broch.cpu.msp430.decode import CG, PC, SP, Instruction, Kind, Operand
from broch.cpu.msp430.flow import flag_constant

_FLAG_LINES: Final = {
    ("bis", "c"): "ct = 65536",
    ("bic", "c"): "ct = 0",
    ("bis", "z"): "fz = 0",
    ("bic", "z"): "fz = 1",
    ("bis", "n"): "fn = 32768",
    ("bic", "n"): "fn = 0",
}


class Emitter:
    """Writes instructions, one after the other."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indent = 0
        self.registers: set[int] = set()
        self.spent = 0  # cycles of the block before the instruction
        self.wanted: frozenset[str] = frozenset()  # status bits that it must compute
        self.compared: tuple[str, str, bool] | None = None  # what a jump after cmp can compare
        self._emitters: dict[str, Callable[[Instruction], None]] = {
            "mov": self._move,
            "push": self._push,
            **dict.fromkeys(("rrc", "rra", "swpb", "sxt"), self._one),
        }

    def put(self, text: str) -> None:
        """Add a line."""
        self.lines.append("    " * self.indent + text)

    def instruction(self, instruction: Instruction) -> None:
        """Add an instruction that is no branch."""
        flag = flag_constant(instruction)
        if flag:
            if flag in self.wanted:
                self.put(_FLAG_LINES[instruction.name, flag])
            return
        self._emitters.get(instruction.name, self._two)(instruction)

    # Operands

    def register(self, number: int) -> str:
        """The variable of a register."""
        self.registers.add(number)
        return f"r{number}"

    def plain(self, marks: str, address: str, instruction: Instruction) -> None:
        """Leave the region unless ``address`` is plain memory."""
        self.put(f"if {marks}[{address}]:")
        self.put(f"    pc = {instruction.address}")
        self.put(f"    c = ~(c + {self.spent})")
        self.put("    break")

    def read(self, operand: Operand, instruction: Instruction) -> tuple[str, list[str]]:
        """A source's value, and the lines that step its register."""
        byte = instruction.byte
        if operand.kind is Kind.CONSTANT:
            return str(operand.value), []
        if operand.kind is Kind.REGISTER:
            if operand.register == PC:
                return str(instruction.address + 2 & (0xFF if byte else 0xFFFF)), []
            name = self.register(operand.register)
            if not byte:
                return name, []
            self.put(f"x = {name} & 255")
            return "x", []
        address = self._source_address(operand, instruction)
        self.put(f"x = {_load(address, byte=byte)}")
        if operand.kind is not Kind.INCREMENT:
            return "x", []
        return "x", [f"{address} = {address} + {_step(operand, byte=byte)} & 65535"]

    def _source_address(self, operand: Operand, instruction: Instruction) -> str:
        if operand.kind is Kind.ABSOLUTE:
            return str(operand.value)
        name = self.register(operand.register)
        if operand.kind is Kind.INDEXED:
            self.put(f"a = {_offset(name, operand.value)}")
            name = "a"
        self.plain("reads", name, instruction)
        return name

    def _destination_address(
        self, operand: Operand, instruction: Instruction, marks: str, stepped: int
    ) -> str:
        """Where a destination is; ``stepped``: what will be added to its register before."""
        if operand.kind is Kind.ABSOLUTE:
            if marks == "writes":
                self.plain(marks, str(operand.value), instruction)
            return str(operand.value)
        name = self.register(operand.register)
        if operand.kind is Kind.INDEXED:
            self.put(f"m = {_offset(name, operand.value, stepped)}")
        else:
            self.put(f"m = {name}")
        self.plain(marks, "m", instruction)
        return "m"

    def _store_register(self, register: int, value: str) -> None:
        if register == SP:
            self.put(f"{self.register(SP)} = {value} & 65534")
        elif register != CG and value != f"r{register}":
            self.put(f"{self.register(register)} = {value}")

    # Instructions

    def _stepped(self, instruction: Instruction) -> int:
        """What the source adds to the register that the destination is indexed by."""
        source, destination = instruction.source, instruction.destination
        assert source is not None
        assert destination is not None
        if source.kind is Kind.INCREMENT and source.register == destination.register:
            return _step(source, byte=instruction.byte)
        return 0

    def _move(self, instruction: Instruction) -> None:
        source, destination, byte = (
            instruction.source,
            instruction.destination,
            instruction.byte,
        )
        assert source is not None
        assert destination is not None
        value, steps = self.read(source, instruction)
        if destination.in_memory:
            stepped = self._stepped(instruction)
            at = self._destination_address(destination, instruction, "writes", stepped)
            self._put_all(steps)
            self.put(f"{_load(at, byte=byte)} = {value}")
        else:
            self._put_all(steps)
            self._store_register(destination.register, value)

    def _put_all(self, lines: list[str]) -> None:
        for line in lines:
            self.put(line)

    def _push(self, instruction: Instruction) -> None:
        assert instruction.source is not None
        value, steps = self.read(instruction.source, instruction)
        self.push(value, steps, instruction)

    def push(self, value: str, steps: list[str], instruction: Instruction) -> None:
        """Put a word on the stack."""
        stack = self.register(SP)
        self.put(f"m = {stack} - 2")
        self.plain("writes", "m", instruction)
        self._put_all(steps)
        self.put(f"words[m >> 1] = {value}")
        self.put(f"{stack} = m")

    def _one(self, instruction: Instruction) -> None:
        """rrc, rra, swpb, sxt."""
        operand, byte, name = instruction.source, instruction.byte, instruction.name
        assert operand is not None
        at = ""
        if operand.in_memory:
            at = self._destination_address(operand, instruction, "writes", 0)
            self.put(f"y = {_load(at, byte=byte)}")
            if operand.kind is Kind.INCREMENT:
                register = self.register(operand.register)
                self.put(f"{register} = {register} + {_step(operand, byte=byte)} & 65535")
        else:
            self.put(f"y = {self.register(operand.register)}{' & 255' if byte else ''}")
        self.put(f"z = {_turned(name, byte=byte)}")
        if name != "swpb":
            if name == "sxt":
                self._logic_flags("z", byte=False)
            else:
                self._sign_flags("z", byte=byte)
                if "c" in self.wanted:
                    self.put("ct = y << 16")
                self._no_overflow()
        if at:
            self.put(f"{_load(at, byte=byte)} = z")
        else:
            self._store_register(operand.register, "z")

    def _two(self, instruction: Instruction) -> None:
        source, destination, byte = (
            instruction.source,
            instruction.destination,
            instruction.byte,
        )
        assert source is not None
        assert destination is not None
        name = instruction.name
        value, steps = self.read(source, instruction)
        at = ""
        if destination.in_memory:
            marks = "reads" if name in ("cmp", "bit") else "writes"
            stepped = self._stepped(instruction)
            at = self._destination_address(destination, instruction, marks, stepped)
            self._put_all(steps)
            self.put(f"y = {_load(at, byte=byte)}")
            old = "y"
        else:
            self._put_all(steps)
            old = self._old(destination.register, instruction)
        result = self._compute(name, old, value, byte=byte)
        if name in ("cmp", "bit"):
            return
        if at:
            self.put(f"{_load(at, byte=byte)} = {result}")
        else:
            self._store_register(destination.register, result)

    def _old(self, register: int, instruction: Instruction) -> str:
        """The old value of a destination register."""
        if register == CG:
            return "0"
        name = self.register(register)
        if not instruction.byte:
            return name
        self.put(f"y = {name} & 255")
        return "y"

    def _compute(self, name: str, old: str, value: str, *, byte: bool) -> str:
        """Put the result in a variable, and the status bits that are wanted in theirs."""
        mask = 0xFF if byte else 0xFFFF
        if name == "bis":
            self.put(f"z = {old} | {value}")
        elif name == "bic":
            if value.isdigit():
                self.put(f"z = {old} & {int(value) ^ mask}")
            else:
                self.put(f"z = {old} & ({value} ^ {mask})")
        elif name in ("and", "bit"):
            if self.wanted or name == "and":
                self.put(f"z = {old} & {value}")
            self._logic_flags("z", byte=byte)
        elif name == "xor":
            self.put(f"z = {old} ^ {value}")
            self._sign_flags("z", byte=byte)
            self._not_zero_carry("z", byte=byte)
            self._overflow(old, value, "0", byte=byte)
        elif name in ("sub", "cmp"):
            self._subtract(name, old, value, byte=byte)
        else:
            if name == "subc":
                value = str(int(value) ^ mask) if value.isdigit() else f"({value} ^ {mask})"
            carry = "" if name == "add" else " + (ct >> 16 & 1)"
            self._sum(f"{old} + {value}{carry}", mask, byte=byte)
            self._sign_flags("z", byte=byte)
            self._overflow(old, value, "z", byte=byte)
        return "z"

    def _sum(self, total: str, mask: int, *, byte: bool) -> None:
        if "c" not in self.wanted:
            self.put(f"z = {total} & {mask}")
        elif byte:
            self.put(f"z = {total}")
            self.put("ct = z << 8")
            self.put("z &= 255")
        else:
            self.put(f"ct = {total}")
            self.put("z = ct & 65535")

    def _subtract(self, name: str, old: str, value: str, *, byte: bool) -> None:
        if name == "cmp":
            self.compared = (old, value, byte)
            if not self.wanted:
                return
        mask = 0xFF if byte else 0xFFFF
        total = (
            f"{old} + {mask + 1 - int(value)}"
            if value.isdigit()
            else f"{old} - {value} + {mask + 1}"
        )
        self._sum(total, mask, byte=byte)
        self._sign_flags("z", byte=byte)
        self._overflow(value, "z", old, byte=byte)

    # Status bits

    def _sign_flags(self, result: str, *, byte: bool) -> None:
        value = f"{result} << 8" if byte else result
        names = [name for flag, name in (("z", "fz"), ("n", "fn")) if flag in self.wanted]
        if names:
            self.put(f"{' = '.join(names)} = {value}")

    def _not_zero_carry(self, result: str, *, byte: bool) -> None:
        if "c" in self.wanted:
            self.put(f"ct = ({result} << 8) + 65535" if byte else f"ct = {result} + 65535")

    def _logic_flags(self, result: str, *, byte: bool) -> None:
        self._sign_flags(result, byte=byte)
        self._not_zero_carry(result, byte=byte)
        self._no_overflow()

    def _no_overflow(self) -> None:
        if "v" in self.wanted:
            self.put("va = vt = 0")

    def _overflow(self, a: str, b: str, t: str, *, byte: bool) -> None:
        if "v" in self.wanted:
            shift = " << 8" if byte else ""
            self.put(f"va = {a}{shift}; vb = {b}{shift}; vt = {t}{shift}")


def _step(operand: Operand, *, byte: bool) -> int:
    return 1 if byte and operand.register != SP else 2


def _load(address: str, *, byte: bool) -> str:
    if byte:
        return f"memory[{address}]"
    return f"words[{int(address) >> 1}]" if address.isdigit() else f"words[{address} >> 1]"


def _offset(name: str, index: int, stepped: int = 0) -> str:
    """``name`` plus a signed index; not cut to 16 bits, as marks cover what is outside."""
    if stepped:
        return f"{name} + {index + stepped} & 65535"
    return f"{name} - {0x10000 - index}" if index >= 0x8000 else f"{name} + {index}"


def _turned(name: str, *, byte: bool) -> str:
    """The result of rrc, rra, swpb, sxt on ``y``."""
    if name == "swpb":
        return "y >> 8 | (y & 255) << 8"
    if name == "sxt":
        return "(y & 255 ^ 128) - 128 & 65535"
    if name == "rra":
        return f"y >> 1 | y & {128 if byte else 32768}"
    return "(ct >> 8 & 256 | y) >> 1" if byte else "(ct & 65536 | y) >> 1"
