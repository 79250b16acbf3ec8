"""What a piece of hot code consists of: its basic blocks, and which status bits matter where.

A region is a few basic blocks around the place where control arrived: what is reached from there
by jumps, calls and branches to constant addresses, nearest first. Instructions that only the
interpreter can do (:func:`needs_interpreter`) end a block: the region is left in front of them.

Status bits are computed only where someone may look before they are computed again: a jump, an
``addc``, or a place where the region may be left.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from broch.cpu.msp430.bus import MAPPED, PROTECTED, READ_ONLY, Bus, Domain
from broch.cpu.msp430.decode import (
    JUMPS,
    PC,
    SP,
    SR,
    Instruction,
    Kind,
    Operand,
    decode,
)

MAX_INSTRUCTIONS: Final = 160  # of a region
_SLOW: Final = MAPPED | PROTECTED | READ_ONLY
_ALL: Final = frozenset("zncv")
_USES: Final = {
    "jne": frozenset("z"),
    "jeq": frozenset("z"),
    "jnc": frozenset("c"),
    "jc": frozenset("c"),
    "jn": frozenset("n"),
    "jge": frozenset("nv"),
    "jl": frozenset("nv"),
    "addc": frozenset("c"),
    "subc": frozenset("c"),
    "rrc": frozenset("c"),
}
_SETS: Final = {"add", "addc", "sub", "subc", "cmp", "and", "bit", "xor", "rrc", "rra", "sxt"}
_FLAG_BITS: Final = {1: "c", 2: "z", 4: "n"}


def flag_constant(instruction: Instruction) -> str | None:
    """The status bit that ``bis #1, sr`` and its like set or clear: c, z or n."""
    source, destination = instruction.source, instruction.destination
    if instruction.name not in ("bis", "bic") or source is None or destination is None:
        return None
    if destination != Operand(Kind.REGISTER, SR) or source.kind is not Kind.CONSTANT:
        return None
    return _FLAG_BITS.get(source.value)


def sets(instruction: Instruction) -> frozenset[str]:
    """The status bits that an instruction computes."""
    if instruction.name in _SETS:
        return _ALL
    flag = flag_constant(instruction)
    return frozenset(flag) if flag else frozenset()


def uses(instruction: Instruction) -> frozenset[str]:
    """The status bits that an instruction needs to know."""
    return _USES.get(instruction.name, frozenset())


def may_leave(instruction: Instruction) -> bool:
    """Whether the region may be left in front of it, when its address turns out not plain."""
    if instruction.name in ("push", "call"):
        return True
    return any(o is not None and o.in_memory for o in (instruction.source, instruction.destination))


def needs_interpreter(instruction: Instruction, domain: Domain) -> bool:
    """Whether only the interpreter can do it."""
    name = instruction.name
    if name in ("reti", "ext", "illegal", "dadd"):
        return True
    if flag_constant(instruction):
        return False
    operands = [o for o in (instruction.source, instruction.destination) if o is not None]
    for operand in operands:
        if operand.kind is Kind.REGISTER and operand.register == SR:
            return True
        if operand.kind is Kind.ABSOLUTE and domain.writes[operand.value] & _SLOW:
            return True
        if operand.kind is Kind.REGISTER and operand.register == PC and name != "mov":
            return True
        if operand.kind in (Kind.INDEXED, Kind.INDIRECT, Kind.INCREMENT) and operand.register < SP:
            return True
    if name in ("rrc", "rra", "swpb", "sxt"):
        return operands[0].kind is Kind.CONSTANT
    if name in ("push", "call") and operands[0] == Operand(Kind.INCREMENT, SP):
        return True
    # Bytes on the stack, to PC or to SP are too rare to be worth a translation.
    return instruction.byte and (
        name == "push"
        or Operand(Kind.REGISTER, PC) in operands
        or Operand(Kind.REGISTER, SP) in operands
    )


@dataclass(slots=True)
class Block:
    """Instructions that run one after the other."""

    index: int
    instructions: list[Instruction]
    successors: list[int] = field(default_factory=list)  # indices of blocks
    exits: bool = True  # whether control may leave the region at its end
    live: frozenset[str] = _ALL  # status bits that matter after its end

    def live_before(self) -> frozenset[str]:
        """Status bits of before that matter in it or after it."""
        live = self.live
        for instruction in reversed(self.instructions):
            live = live - sets(instruction) | uses(instruction)
            if may_leave(instruction):
                live = _ALL
        return live


def is_branch(instruction: Instruction) -> bool:
    """Whether it always goes elsewhere: a jump, a call, a move to the program counter."""
    return instruction.name in ("jmp", "call") or instruction.destination == Operand(
        Kind.REGISTER, PC
    )


def target(instruction: Instruction) -> int | None:
    """Where a branch or a jump goes, if that is known."""
    if instruction.name in JUMPS:
        return instruction.target
    source = instruction.source
    if is_branch(instruction) and source is not None and source.kind is Kind.CONSTANT:
        return source.value & 0xFFFE
    return None


def _collect(
    bus: Bus, domain: Domain, start: int, span: range
) -> tuple[dict[int, Instruction], set[int]]:
    """Instructions near ``start`` by address, and where blocks begin."""
    words = bus.words
    found: dict[int, Instruction] = {}
    leaders = {start}
    queue = deque([start])
    while queue and len(found) < MAX_INSTRUCTIONS:
        address = queue.popleft()
        while address not in found and len(found) < MAX_INSTRUCTIONS:
            instruction = decode(lambda at: words[at >> 1], address)
            if not (address in span and address + instruction.size - 1 in span):
                break
            if needs_interpreter(instruction, domain):
                break
            found[address] = instruction
            there = target(instruction)
            if there is not None:
                leaders.add(there)
                queue.append(there)
            if is_branch(instruction):
                if instruction.name == "call":
                    leaders.add(instruction.next)
                    queue.append(instruction.next)
                break
            address = instruction.next
            if instruction.name in JUMPS:
                leaders.add(address)
    return found, leaders


def blocks_of(bus: Bus, domain: Domain, start: int, span: range) -> list[Block]:
    """The blocks of the region at ``start``, in the order of their addresses; may be none."""
    found, leaders = _collect(bus, domain, start, span)
    runs: list[list[Instruction]] = []
    at = None
    for address in sorted(found):
        if at != address or address in leaders:
            runs.append([])
        runs[-1].append(found[address])
        at = -1 if is_branch(found[address]) else found[address].next
    blocks = [Block(index, run) for index, run in enumerate(runs)]
    index_of = {block.instructions[0].address: block.index for block in blocks}
    for block in blocks:
        _connect(block, index_of)
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            live = _ALL if block.exits else frozenset[str]()
            for successor in block.successors:
                live |= blocks[successor].live_before()
            if live != block.live:
                block.live = live
                changed = True
    return blocks


def _connect(block: Block, index_of: dict[int, int]) -> None:
    last = block.instructions[-1]
    goes = []
    if last.name in JUMPS or is_branch(last):
        goes.append(target(last))
    if not is_branch(last):
        goes.append(last.next)
    block.successors = [index_of[at] for at in goes if at in index_of]
    # A target that is not known is None; a way back is where a region ends when its time is over.
    block.exits = any(at not in index_of or index_of[at] <= block.index for at in goes)
