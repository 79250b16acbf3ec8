"""The MSP430: translated code does what interpreted code does; files that lie give our errors."""

import contextlib
import struct
from typing import Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from broch.cpu.msp430 import Bus, Cpu, IllegalInstructionError, decode, disassemble, read_elf
from broch.errors import MalformedError

CODE: Final = 0x8000
DATA: Final = 0x4000
LOOP: Final = 400  # cycles before the first stop, so that the loop is hot

registers = st.integers(4, 15)
constants = st.one_of(
    st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF])
)
Words = tuple[int, ...]


@st.composite
def two_operands(draw: st.DrawFn) -> Words:
    """Any two-operand instruction on R4 to R15, its operands anywhere in the address space."""
    opcode = draw(st.integers(4, 15))
    byte = draw(st.booleans())
    source, mode = draw(st.one_of(st.tuples(registers, st.integers(0, 3)), generated))
    to, to_indexed = draw(st.tuples(registers, st.booleans()))
    words = [opcode << 12 | source << 8 | to_indexed << 7 | byte << 6 | mode << 4 | to]
    if mode == 1 and source != 3:
        words.append(draw(constants))
    if source == 0 and mode == 3:
        words.append(draw(constants))
    if to_indexed:
        words.append(draw(constants))
    return tuple(words)


generated = st.sampled_from([(3, 0), (3, 1), (3, 2), (3, 3), (2, 1), (2, 2), (2, 3), (0, 3)])


@st.composite
def one_operand(draw: st.DrawFn) -> Words:
    """rrc, swpb, rra, sxt, push."""
    opcode = draw(st.integers(0, 4))
    byte = draw(st.booleans()) and opcode not in (1, 3)
    mode = draw(st.integers(0, 3))
    word = 0x1000 | opcode << 7 | byte << 6 | mode << 4 | draw(registers)
    return (word, draw(constants)) if mode == 1 else (word,)


skips = st.tuples(st.integers(0, 6), st.integers(0, 2)).map(lambda j: (0x2000 | j[0] << 10 | j[1],))
programs = st.lists(st.one_of(two_operands(), two_operands(), one_operand(), skips), max_size=14)
values = st.lists(st.one_of(constants, st.integers(DATA, DATA + 0x100)), min_size=12, max_size=12)


def machine(body: list[Words], start: list[int], *, translating: bool) -> Cpu:
    """A loop around ``body``; three nops behind it take what skips skip."""
    words = [word for instruction in body for word in instruction] + [0x4303] * 3
    words.append(0x4030)  # br #CODE
    words.append(CODE)
    bus = Bus()
    bus.load(CODE, struct.pack(f"<{len(words)}H", *words))
    bus.load(0xFFFE, struct.pack("<H", CODE))
    bus.load(DATA, bytes(range(256)))
    cpu = Cpu(bus)
    cpu.translating = translating
    cpu.reset()
    cpu.registers[1] = 0x3000
    cpu.registers[4:] = start
    return cpu


def run(cpu: Cpu, cycles: int) -> str:
    try:
        cpu.run(cycles)
    except IllegalInstructionError as exc:
        return str(exc)
    return ""


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, values, st.integers(1, 60))
@example([(0x2000,), (0x2000,), (0x1008,)], [0, 0, 0, 0, 1] + [0] * 7, 1)  # stopped on the way back
def test_translated_and_interpreted_agree(body: list[Words], start: list[int], more: int) -> None:
    """Also where a program writes over itself, runs into nothing, or wraps around the memory."""
    fast, slow = (machine(body, start, translating=t) for t in (True, False))
    for cycles in (LOOP, more, more + 1, 2 * LOOP):
        assert run(fast, cycles) == run(slow, cycles)
        assert fast.registers == slow.registers
        assert fast.cycles == slow.cycles
        assert fast.bus.memory == slow.bus.memory


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=3, max_size=3), st.integers(0, 0x7FFF))
def test_any_words_decode_and_have_a_text(words: list[int], half: int) -> None:
    places = {(2 * half + 2 * n) & 0xFFFF: word for n, word in enumerate(words)}
    instruction = decode(places.__getitem__, 2 * half)
    assert instruction.size in (2, 4, 6)
    assert 1 <= instruction.cycles <= 6
    assert disassemble(instruction)


def small_elf() -> bytes:
    """One segment, one section: 52 + 32 + 4 + 24 + 3 * 40 bytes."""
    names = b"\0.text\0.shstrtab\0".ljust(24, b"\0")
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 105, 1, CODE, 52, 112, 0, 52, 32, 1, 40, 3, 2)
    segment = struct.pack("<8I", 1, 84, CODE, CODE, 4, 4, 7, 1)
    text = struct.pack("<10I", 1, 1, 2, CODE, 84, 4, 0, 0, 1, 0)
    table = struct.pack("<10I", 7, 3, 0, 0, 88, 24, 0, 0, 1, 0)
    return head + segment + b"\x03\x43\xff\x3f" + names + bytes(40) + text + table


def test_the_small_elf_file_is_sound() -> None:
    assert read_elf(small_elf()).section(".text").data == b"\x03\x43\xff\x3f"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 231), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_bent_elf_file_gives_our_errors_or_loads(changes: list[tuple[int, int]]) -> None:
    data = bytearray(small_elf())
    for at, value in changes:
        data[at] = value
    with contextlib.suppress(MalformedError):
        read_elf(bytes(data)).load(Bus())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_no_elf_file(noise: bytes) -> None:
    for data in (noise, small_elf()[:52] + noise):
        with contextlib.suppress(MalformedError):
            read_elf(data)
