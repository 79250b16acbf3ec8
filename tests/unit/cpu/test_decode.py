"""Instruction formats, addressing modes and cycle counts (SLAU144J, chapter 3)."""

import pytest

from broch.cpu.msp430 import Instruction, decode, disassemble

from .assembler import assemble
from .programs import CODE


def decoded(source: str, *, generator: bool = True) -> Instruction:
    code = assemble(source, CODE, generator=generator) + bytes(6)
    return decode(lambda at: int.from_bytes(code[at - CODE : at - CODE + 2], "little"), CODE)


# SLAU144J, table 3-16: a source (row) to a register, to PC, and to memory.
TWO_OPERANDS = {
    "r5": (1, 2, 4),
    "@r5": (2, 2, 5),
    "@r5+": (2, 3, 5),
    "#0x1234": (2, 3, 5),
    "2(r5)": (3, 3, 6),
    "2(pc)": (3, 3, 6),
    "&0x200": (3, 3, 6),
    "#1": (1, 2, 4),  # from the constant generator: as a register
    "#8": (1, 2, 4),
}
# Table 3-15: rra and its like, push, call.
ONE_OPERAND = {
    "r5": (1, 3, 4),
    "@r5": (3, 4, 4),
    "@r5+": (3, 5, 5),
    "#0x1234": (None, 4, 5),
    "2(r5)": (4, 5, 5),
    "2(pc)": (4, 5, 5),
    "&0x200": (4, 5, 5),
}


@pytest.mark.parametrize(("source", "cycles"), TWO_OPERANDS.items())
def test_cycles_of_two_operands(source: str, cycles: tuple[int, int, int]) -> None:
    register, pc, memory = cycles
    assert decoded(f"add {source}, r6").cycles == register
    assert decoded(f"mov {source}, pc").cycles == pc
    for destination in ("2(r6)", "2(pc)", "&0x200"):
        assert decoded(f"mov.b {source}, {destination}").cycles == memory


@pytest.mark.parametrize(("operand", "cycles"), ONE_OPERAND.items())
def test_cycles_of_one_operand(operand: str, cycles: tuple[int | None, int, int]) -> None:
    turn, push, call = cycles
    if turn is not None:
        for name in ("rra", "rrc.b", "swpb", "sxt"):
            assert decoded(f"{name} {operand}").cycles == turn
    assert decoded(f"push {operand}").cycles == push
    assert decoded(f"call {operand}").cycles == call


@pytest.mark.parametrize("name", ["jne", "jeq", "jnc", "jc", "jn", "jge", "jl", "jmp"])
def test_jumps_take_two_cycles(name: str) -> None:
    jump = decoded(f"L: {name} L")
    assert (jump.name, jump.cycles, jump.target) == (name, 2, CODE)


@pytest.mark.parametrize(("offset", "target"), [(0x1FF, CODE + 1024), (0x200, CODE - 1022)])
def test_reach_of_jumps(offset: int, target: int) -> None:
    assert decode(lambda _: 0x3C00 | offset, CODE).target == target


def test_reti_takes_five_cycles() -> None:
    assert (decoded("reti").name, decoded("reti").cycles) == ("reti", 5)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("mov r5, r6", "mov r5, r6"),
        ("mov.b 2(r5), &0x200", "mov.b 0x2(r5), &0x0200"),
        ("add @r5+, 4(r6)", "add @r5+, 0x4(r6)"),
        ("xor #0x1234, sp", "xor #0x1234, sp"),
        ("mov #-1, r5", "mov #0xffff, r5"),
        ("mov.b #-1, r5", "mov.b #0xff, r5"),
        ("bis #8, sr", "bis #0x8, sr"),
        ("mov 4(pc), r5", "mov &0x8006, r5"),
        ("mov r5, 4(pc)", "mov r5, &0x8006"),
        ("mov 4(pc), 6(pc)", "mov &0x8006, &0x800a"),
        ("push @r5", "push @r5"),
        ("reti", "reti"),
        ("L: jne L", "jne 0x8000"),
        (".word 0x1384", ".word 0x1384"),
        (".word 0x0000", ".word 0x0000"),
    ],
)
def test_text(source: str, text: str) -> None:
    assert disassemble(decoded(source)) == text


@pytest.mark.parametrize("number", [0, 1, 2, 4, 8, -1])
def test_the_constant_generator_gives_the_same_as_a_word(number: int) -> None:
    short, long = (decoded(f"mov #{number}, r5", generator=g) for g in (True, False))
    assert short.source is not None
    assert long.source is not None
    assert (short.size, long.size) == (2, 4)
    assert short.source.value == long.source.value == number & 0xFFFF


def test_every_word_decodes_and_has_a_text() -> None:
    names = set()
    for word in range(0x10000):
        instruction = decode({CODE: word, CODE + 2: 0x200, CODE + 4: 0x202}.__getitem__, CODE)
        assert disassemble(instruction)
        assert instruction.size in (2, 4, 6)
        names.add(instruction.name)
    assert len(names) == 27 + 2, "27 instructions, extensions and what is illegal"


@pytest.mark.parametrize("word", [0x0000, 0x0FFF, 0x1400, 0x1FFF, 0x10C0, 0x11C5, 0x12C5])
def test_what_is_no_instruction(word: int) -> None:
    assert decode(lambda _: word, CODE).name == "illegal"
