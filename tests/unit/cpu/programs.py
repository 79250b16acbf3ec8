"""Random MSP430 programs that keep to plain memory, for comparing one way to run them with another.

R4 to R7 point into a window of memory and only move by what an increment adds, R7 for bytes; R8 to
R15 hold anything; the stack has its own window. What data sheets leave open is left out: words at
odd addresses, an odd stack pointer, bytes through the stack pointer, digits that are no decimals.
"""

import random
from dataclasses import dataclass
from typing import Final

from .assembler import JUMPS, TWO

CODE: Final = 0x8000
DATA: Final = 0x4000
DATA_SIZE: Final = 0x100
STACK: Final = 0x4200
POINTERS: Final = ("r4", "r5", "r6", "r7")
VALUES: Final = tuple(f"r{n}" for n in range(8, 16))


@dataclass(frozen=True, slots=True)
class Program:
    """Source, and the state to start from."""

    source: str
    registers: dict[int, int]
    data: bytes


def _pointer(rng: random.Random, *, byte: bool) -> str:
    """R7 for bytes, as it may become odd, and the others for words."""
    return POINTERS[-1] if byte else rng.choice(POINTERS[:-1])


def _source(rng: random.Random, *, byte: bool) -> str:
    kind = rng.randrange(8)
    pointer = _pointer(rng, byte=byte)
    offset = rng.randrange(0, 32) * (1 if byte else 2)
    if kind == 0:
        return f"#0x{rng.choice((rng.randrange(0x10000), 0x8000, 0x7FFF, 0xFF, 0x80)):x}"
    if kind == 1:
        return f"#{rng.choice((0, 1, 2, 4, 8, -1))}"
    if kind == 2:
        return f"{offset}({pointer})"
    if kind == 3:
        return f"&0x{DATA + offset:x}"
    if kind == 4:
        return f"@{pointer}"
    if kind == 5:
        return f"@{pointer}+"
    return rng.choice(VALUES)


def _destination(rng: random.Random, *, byte: bool) -> str:
    kind = rng.randrange(6)
    offset = rng.randrange(0, 32) * (1 if byte else 2)
    if kind == 0:
        return f"{offset}({_pointer(rng, byte=byte)})"
    if kind == 1:
        return f"&0x{DATA + offset:x}"
    if kind == 2:
        return "r3"
    return rng.choice(VALUES)


def _line(rng: random.Random, number: int, length: int) -> str:
    """One instruction or a few that belong together."""
    kind = rng.randrange(20)
    byte = rng.random() < 0.4
    size = ".b" if byte else ""
    if kind < 10:
        name = rng.choice([name for name in TWO if name != "dadd"])
        return f"{name}{size} {_source(rng, byte=byte)}, {_destination(rng, byte=byte)}"
    if kind < 13:
        name = rng.choice(("rrc", "rra", "swpb", "sxt"))
        size = size if name in ("rrc", "rra") else ""
        odd = byte and bool(size)
        places = (rng.choice(VALUES), _source(rng, byte=odd))
        place = rng.choice([p for p in places if not p.startswith("#")])
        return f"{name}{size} {place}"
    if kind < 16:
        skipped = min(length, number + rng.randrange(1, 5))
        return f"{rng.choice(JUMPS)} L{skipped}"
    if kind == 16:
        return f"push {_source(rng, byte=False)}\nmov @sp+, {rng.choice(VALUES)}"
    if kind == 17:
        flag = rng.choice((1, 2, 4))
        return f"{rng.choice(('bis', 'bic'))} #{flag}, sr"
    if kind == 18:
        return f"mov sr, {rng.choice(VALUES)}" if rng.random() < 0.5 else "call #F"
    digits = "".join(rng.choice("0123456789") for _ in range(8))
    register = rng.choice(VALUES)
    return f"mov #0x{digits[:4]}, {register}\ndadd{size} #0x{digits[4:]}, {register}"


def random_program(seed: int, length: int = 30, rounds: int = 0) -> Program:
    """A program that runs ``length`` random lines once, or ``rounds`` times and stops in a loop."""
    rng = random.Random(seed)
    reset = [f"mov #0x{DATA + 2 * rng.randrange(0, DATA_SIZE // 8):x}, {name}" for name in POINTERS]
    lines = [f"mov #{rounds}, &0x4100", "T: " + "\n".join(reset)]
    lines += [f"L{n}: {_line(rng, n, length)}" for n in range(length)]
    lines += [f"L{length}: sub #1, &0x4100", "jne T", "E: jmp E"]
    lines += ["F: xor r8, r9", "addc r9, r10", "mov @sp+, pc"]
    return Program(
        source="\n".join(lines),
        registers={1: STACK, **{n: rng.randrange(0x10000) for n in range(4, 16)}},
        data=rng.randbytes(DATA_SIZE),
    )
