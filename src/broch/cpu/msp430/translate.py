"""Hot code as Python: a region of basic blocks becomes one function.

The function keeps registers in local variables and runs until control leaves the region, or the
cycles that it was given are used up, or an access turns out not to be to plain memory. In that
case it stops in front of the instruction, with all registers as they must be there, and the
interpreter does it. It never touches a peripheral and never breaks an access rule.

    def region(R, c, limit):        # registers, cycles so far, cycles at which to stop
        r5 = R[5]; ...              # only those that the region uses
        fz, fn, ct, va, vb, vt      # the status bits, see below
        b = 2                       # the block to run
        while True:
            if b <= 0: ...          # blocks by address: falling from one into the next is free,
            if b <= 1: ...          # a jump forward sets b, one backward also starts over
            ...
        R[5] = r5; ...
        return c                    # ~c if the interpreter must go on

Status bits are kept as what they are computed from: Z is ``not fz``; N is bit 15 of ``fn``; C is
bit 16 of ``ct``; V is bit 15 of ``(va ^ vt) & (vb ^ vt)``. Byte operations shift theirs up by 8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broch.cpu.msp430.bus import Bus, Domain
from broch.cpu.msp430.decode import FLAGS, JUMPS, PC, SR, Instruction
from broch.cpu.msp430.emit import Emitter
from broch.cpu.msp430.flow import (
    Block,
    blocks_of,
    is_branch,
    may_leave,
    sets,
    target,
    uses,
)

_Function = Callable[[list[int], int, int], int]
_GROUP: Final = 6  # blocks that are passed over by one test
_CONDITIONS: Final = {
    "jne": "fz",
    "jeq": "not fz",
    "jnc": "not ct & 65536",
    "jc": "ct & 65536",
    "jn": "fn & 32768",
    "jge": "not (((va ^ vt) & (vb ^ vt)) ^ fn) & 32768",
    "jl": "(((va ^ vt) & (vb ^ vt)) ^ fn) & 32768",
}
_COMPARISONS: Final = {"jne": "!=", "jeq": "==", "jnc": "<", "jc": ">=", "jge": ">=", "jl": "<"}


@dataclass(frozen=True, slots=True)
class Region:
    """Translated code."""

    start: int
    function: _Function
    longest: int  # cycles, at least as many as one pass without going back takes
    addresses: tuple[range, ...]  # of its code


def translate(bus: Bus, domain: Domain, start: int, span: range) -> Region | None:
    """Translate the region at ``start``, within ``span``; None where there is nothing to."""
    blocks = blocks_of(bus, domain, start, span)
    index_of = {block.instructions[0].address: block.index for block in blocks}
    if start not in index_of:
        return None
    source = _Writer(blocks, index_of, start).source()
    scope: dict[str, object] = {}
    exec(compile(source, f"<msp430 0x{start:04x}>", "exec"), scope)  # noqa: S102 - our own text
    make = scope["make"]
    assert callable(make)
    function = make(bus.memory, bus.words, domain.reads, domain.writes, index_of.get)
    return Region(
        start=start,
        function=function,
        longest=sum(i.cycles for block in blocks for i in block.instructions),
        addresses=tuple(map(_extent, blocks)),
    )


class _Writer(Emitter):
    """Writes the source of one region."""

    def __init__(self, blocks: list[Block], index_of: dict[int, int], start: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.index_of = index_of
        self.start = start
        self.block = blocks[0]

    def source(self) -> str:
        """The whole text: ``make``, which gives the function."""
        grouped = len(self.blocks) > _GROUP
        for block in self.blocks:
            self.indent = 3
            if grouped:
                if block.index % _GROUP == 0:
                    self.put(f"if b < {block.index + _GROUP}:")
                self.indent = 4
            self._block(block)
        used = sorted(self.registers)
        head = [
            "def make(memory, words, reads, writes, index_of):",
            "    def region(R, c, limit, memory=memory, words=words, reads=reads, writes=writes):",
            *(f"        r{n} = R[{n}]" for n in used),
            f"        s = R[{SR}]",
            "        fz = 0 if s & 2 else 1",
            "        fn = s << 13",
            "        ct = s << 16",
            "        va = vb = s << 7",
            "        vt = 0",
            f"        b = {self.index_of[self.start]}",
            "        while True:",
        ]
        tail = [
            f"        R[{PC}] = pc",
            *(f"        R[{n}] = r{n}" for n in used),
            f"        R[{SR}] = (s & {0xFFFF & ~FLAGS} | ct >> 16 & 1 | (0 if fz else 2)"
            " | fn >> 13 & 4 | ((va ^ vt) & (vb ^ vt)) >> 7 & 256)",
            "        return c",
            "    return region",
        ]
        return "\n".join([*head, *self.lines, *tail])

    def _block(self, block: Block) -> None:
        self.block = block
        self.spent = 0
        self.compared = None
        self.put(f"if b <= {block.index}:")
        self.indent += 1
        last = block.instructions[-1]
        for at, instruction in enumerate(block.instructions):
            if instruction.name in JUMPS or is_branch(instruction):
                self._branch(instruction)
                return
            self.wanted = self._wanted(at)
            self.compared = None
            self.instruction(instruction)
            self.spent += instruction.cycles
        self.put(f"c += {self.spent}")
        self._go(last.next)

    def _wanted(self, at: int) -> frozenset[str]:
        """Of the status bits that an instruction sets, those that someone looks at."""
        instructions = self.block.instructions
        left = sets(instructions[at])
        wanted: set[str] = set()
        for later in range(at + 1, len(instructions)):
            instruction = instructions[later]
            if may_leave(instruction):
                return frozenset(wanted | left)
            if later > at + 1 or not _compares(instructions[at], instruction):
                wanted |= uses(instruction) & left
            left -= sets(instruction)
        return frozenset(wanted | (left & self.block.live))

    # Where blocks lead

    def _branch(self, last: Instruction) -> None:
        total = self.spent + last.cycles
        there = target(last)
        if last.name in JUMPS and last.name != "jmp":
            assert there is not None
            self.put(f"c += {total}")
            self.put(f"if {self._condition(last)}:")
            self.indent += 1
            self._go(there)
            self.indent -= 1
            if self.index_of.get(last.next) != self.block.index + 1:
                self.put("else:")
                self.indent += 1
                self._go(last.next)
                self.indent -= 1
            return
        if there is None:
            self._computed(last, total)
            return
        if last.name == "call":
            self.push(str(last.next), [], last)
        self.put(f"c += {total}")
        self._go(there)

    def _computed(self, last: Instruction, total: int) -> None:
        """A call or move to an address that is known only then."""
        assert last.source is not None
        value, steps = self.read(last.source, last)
        if last.name == "call":
            self.put(f"pc = {value} & 65534")
            self.push(str(last.next), steps, last)
        else:
            for step in steps:
                self.put(step)
            self.put(f"pc = {value} & 65534")
        self.put(f"c += {total}")
        self.put("b = index_of(pc, -1)")
        self.put("if b < 0 or c >= limit: break")
        self.put("continue")

    def _condition(self, jump: Instruction) -> str:
        if self.compared is None or jump.name not in _COMPARISONS:
            return _CONDITIONS[jump.name]
        left, right, byte = self.compared
        if jump.name in ("jge", "jl"):
            sign = 128 if byte else 32768
            left, right = (
                str(int(side) ^ sign) if side.isdigit() else f"({side} ^ {sign})"
                for side in (left, right)
            )
        return f"{left} {_COMPARISONS[jump.name]} {right}"

    def _go(self, address: int) -> None:
        """Continue at ``address``: in this region, or elsewhere."""
        index = self.index_of.get(address)
        if index is None:
            self.put(f"pc = {address}")
            self.put("break")
        elif index > self.block.index:
            self.put(f"b = {index}")
        else:
            self.put("if c >= limit:")
            self.put(f"    pc = {address}")
            self.put("    break")
            self.put(f"b = {index}")
            self.put("continue")


def _compares(compare: Instruction, jump: Instruction) -> bool:
    """Whether a jump can compare for itself what the ``cmp`` before it compares."""
    return compare.name == "cmp" and jump.name in _COMPARISONS


def _extent(block: Block) -> range:
    last = block.instructions[-1]
    return range(block.instructions[0].address, last.address + last.size)
