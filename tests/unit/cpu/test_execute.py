"""What each instruction does, to values and to status bits; interpreted and translated."""

import pytest

from broch.cpu.msp430 import IllegalInstructionError

from .machine import machine, state, steps
from .programs import CODE, DATA

C, Z, N, V = 1, 2, 4, 0x100

# instruction, R5, R6, status before -> R6, status after
CASES = [
    ("mov r5, r6", 0x8000, 1, C | V, 0x8000, C | V),
    ("mov.b r5, r6", 0x1280, 0xFFFF, 0, 0x80, 0),
    ("add r5, r6", 1, 0x7FFF, C, 0x8000, N | V),
    ("add r5, r6", 0x8000, 0x8000, 0, 0, C | Z | V),
    ("add r5, r6", 1, 0xFFFF, 0, 0, C | Z),
    ("add.b r5, r6", 0x1201, 0x34FF, 0, 0, C | Z),
    ("add.b r5, r6", 0x7F, 1, 0, 0x80, N | V),
    ("addc r5, r6", 1, 0xFFFE, C, 0, C | Z),
    ("addc r5, r6", 1, 0xFFFE, 0, 0xFFFF, N),
    ("addc.b r5, r6", 0x7F, 0, C, 0x80, N | V),
    ("sub r5, r6", 1, 1, 0, 0, C | Z),
    ("sub r5, r6", 2, 1, 0, 0xFFFF, N),
    ("sub r5, r6", 1, 0x8000, 0, 0x7FFF, C | V),
    ("sub.b r5, r6", 1, 0x1280, 0, 0x7F, C | V),
    ("subc r5, r6", 1, 3, 0, 1, C),
    ("subc r5, r6", 1, 3, C, 2, C),
    ("subc.b r5, r6", 0, 0, 0, 0xFF, N),
    ("cmp r5, r6", 5, 4, 0, 4, N),
    ("cmp r5, r6", 0xFFFF, 0x7FFF, 0, 0x7FFF, N | V),
    ("cmp.b r5, r6", 0x105, 0x205, 0, 0x205, C | Z),
    ("dadd r5, r6", 0x1999, 0x8001, 0, 0, C | Z),
    ("dadd r5, r6", 0x0999, 0x0001, C, 0x1001, 0),
    ("dadd r5, r6", 0x4000, 0x4000, 0, 0x8000, N),
    ("dadd.b r5, r6", 0x99, 0x99, C, 0x99, C | N),
    ("and r5, r6", 0xF0F0, 0x8181, V, 0x8080, C | N),
    ("and r5, r6", 1, 2, C | V, 0, Z),
    ("and.b r5, r6", 0xF0, 0xFF90, 0, 0x90, C | N),
    ("bit r5, r6", 0x8000, 0xFFFF, V, 0xFFFF, C | N),
    ("bit.b r5, r6", 0x100, 0x1FF, C, 0x1FF, Z),
    ("bic r5, r6", 0xFF, 0x1234, C | V, 0x1200, C | V),
    ("bic.b r5, r6", 0x0F, 0x1234, 0, 0x30, 0),
    ("bis r5, r6", 0xFF, 0x1200, N, 0x12FF, N),
    ("bis.b r5, r6", 0x0F, 0x1230, N, 0x3F, N),
    ("xor r5, r6", 0x8001, 0x8000, 0, 1, C | V),
    ("xor r5, r6", 5, 5, C | V, 0, Z),
    ("xor.b r5, r6", 0x80, 0x1201, 0, 0x81, C | N),
    ("rrc r6", 0, 1, C | V, 0x8000, C | N),
    ("rrc r6", 0, 1, 0, 0, C | Z),
    ("rrc.b r6", 0, 0x1202, C, 0x81, N),
    ("rra r6", 0, 0x8001, V, 0xC000, C | N),
    ("rra.b r6", 0, 0x7F80, 0, 0xC0, N),
    ("swpb r6", 0, 0x1234, C | V, 0x3412, C | V),
    ("sxt r6", 0, 0x1280, V, 0xFF80, C | N),
    ("sxt r6", 0, 0xFF00, C, 0, Z),
    ("bis #1, sr", 0, 7, Z, 7, C | Z),
    ("bic #2, sr", 0, 7, Z | N, 7, N),
    ("bis #4, sr", 0, 7, Z, 7, Z | N),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]:x},{case[2]:x}")
@pytest.mark.parametrize("translating", [False, True])
def test_values_and_status(case: tuple[str, int, int, int, int, int], translating: bool) -> None:
    text, r5, r6, before, after, status = case
    loop = (
        f"mov #40, r8\nL: mov #{r5}, r5\n mov #{r6}, r6\n mov #{before}, sr\n jmp T\n"
        f"T: {text}\n mov r6, r10\n mov sr, r9\n sub #1, r8\n jne L\nE: jmp E"
    )
    cpu = machine(loop, translating=translating)
    cpu.run(3000)
    assert (cpu.registers[10], cpu.registers[9]) == (after, status)


@pytest.mark.parametrize("translating", [False, True])
@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("jne", lambda s: not s & Z),
        ("jeq", lambda s: bool(s & Z)),
        ("jnc", lambda s: not s & C),
        ("jc", lambda s: bool(s & C)),
        ("jn", lambda s: bool(s & N)),
        ("jge", lambda s: bool(s & N) == bool(s & V)),
        ("jl", lambda s: bool(s & N) != bool(s & V)),
        ("jmp", lambda _: True),
    ],
)
def test_jumps(name: str, taken: object, translating: bool) -> None:
    assert callable(taken)
    for status in (c | z | n | v for c in (0, C) for z in (0, Z) for n in (0, N) for v in (0, V)):
        cpu = machine(
            f"mov #40, r8\nL: mov #0, r9\n mov #{status}, sr\n jmp T\nT: {name} K\n mov #1, r9\n"
            "K: sub #1, r8\n jne L\nE: jmp E",
            translating=translating,
        )
        cpu.run(2000)
        assert cpu.registers[9] == (0 if taken(status) else 1), (name, status)


@pytest.mark.parametrize("translating", [False, True])
@pytest.mark.parametrize("byte", ["", ".b"])
def test_addressing_modes(byte: str, translating: bool) -> None:
    where = {"@r5": 2, "@r5+": 2, "2(r5)": 4, "-2(r5)": 0, "&0x4004": 4}
    for place, offset in where.items():
        cpu = machine(
            f"mov #40, r8\nL: mov #{DATA + 2}, r5\n mov{byte} {place}, r6\n mov r5, r7\n"
            "sub #1, r8\n jne L\nE: jmp E",
            translating=translating,
        )
        cpu.bus.load(DATA, bytes.fromhex("1122 3344 5566 7788"))
        cpu.run(2000)
        data = cpu.bus.memory[DATA + offset : DATA + offset + (1 if byte else 2)]
        assert cpu.registers[6] == int.from_bytes(data, "little"), place
        stepped = {"@r5+": 1 if byte else 2}.get(place, 0)
        assert cpu.registers[7] == DATA + 2 + stepped


@pytest.mark.parametrize("translating", [False, True])
def test_the_source_steps_before_the_destination_is_found(translating: bool) -> None:
    cpu = machine(
        f"mov #40, r8\nL: mov #{DATA}, r5\n mov @r5+, 2(r5)\n sub #1, r8\n jne L\nE: jmp E",
        translating=translating,
    )
    cpu.bus.load(DATA, bytes.fromhex("1122 3344 5566"))
    cpu.run(2000)
    assert cpu.bus.memory[DATA : DATA + 6].hex() == "112233441122"


@pytest.mark.parametrize("translating", [False, True])
def test_stack_calls_and_branches(translating: bool) -> None:
    cpu = machine(
        "mov #40, r8\n mov #0, r9\n mov #F, r10\nL: call #F\n call r10\n push #0x1234\n"
        "mov @sp+, r11\n push sp\n mov @sp+, r12\n mov #K, pc\n mov #0, r9\nK: sub #1, r8\n"
        "jne L\nE: jmp E\nF: add #1, r9\n ret",
        translating=translating,
    )
    stack = cpu.registers[1]
    cpu.run(4000)
    assert cpu.registers[9] == 80
    assert cpu.registers[11] == 0x1234
    assert cpu.registers[12] == stack, "push sp pushes what it was"
    assert cpu.registers[1] == stack


def test_push_byte_leaves_the_upper_half() -> None:
    cpu = machine("push #0x1234\n mov @sp+, r5\n push.b #0x56\n mov @sp+, r5")
    steps(cpu, 4)
    assert cpu.registers[5] == 0x1256


def test_writes_to_pc_and_sp_are_even_and_to_r3_lost() -> None:
    cpu = machine("mov #0x201, sp\n mov #0x55, r3\n mov r3, r5\n add r3, r3\n mov #0x9001, pc")
    cpu.run(9)
    assert (cpu.registers[1], cpu.registers[5], cpu.registers[0]) == (0x200, 0, 0x9000)


def test_pc_as_a_source_is_the_next_word() -> None:
    cpu = machine("mov pc, r5\n mov pc, &0x300")
    cpu.run(5)
    assert cpu.registers[5] == CODE + 2
    assert cpu.bus.words[0x180] == CODE + 4


@pytest.mark.parametrize("translating", [False, True])
def test_a_word_at_an_odd_address_is_the_one_below(translating: bool) -> None:
    cpu = machine(
        f"mov #40, r8\nL: mov #{DATA + 1}, r5\n mov @r5, r6\n mov r6, 4(r5)\n"
        "sub #1, r8\n jne L\nE: jmp E",
        translating=translating,
    )
    cpu.bus.load(DATA, bytes.fromhex("1122"))
    cpu.run(2000)
    assert cpu.registers[6] == 0x2211
    assert cpu.bus.memory[DATA + 4 : DATA + 6].hex() == "1122"


@pytest.mark.parametrize("index", ["0x7000", "0x8000", "-2"])
def test_indices_wrap_around_the_address_space(index: str) -> None:
    both = []
    for translating in (False, True):
        cpu = machine(
            f"mov #40, r8\nL: mov #0x9400, r5\n mov {index}(r5), r6\n mov #0x1, r7\n"
            f"mov {index}(r7), r9\n add r6, {index}(r5)\n sub #1, r8\n jne L\nE: jmp E",
            translating=translating,
        )
        cpu.bus.load(0x400, b"\x34\x12" * 16)
        cpu.run(3000)
        both.append(state(cpu))
    assert both[0] == both[1]


@pytest.mark.parametrize("translating", [False, True])
def test_what_is_no_instruction_stops_the_program_at_it(translating: bool) -> None:
    cpu = machine("mov #40, r8\nL: sub #1, r8\n jne L\n .word 0x0bad", translating=translating)
    with pytest.raises(IllegalInstructionError, match="0x0bad") as caught:
        cpu.run(1000)
    assert caught.value.address == cpu.registers[0] == CODE + 8
    assert caught.value.code == "malformed"


def test_extensions_are_called_and_unknown_ones_are_illegal() -> None:
    cpu = machine(".word 0x1384\n .word 0x1385")
    called = []
    cpu.extensions[0x1384] = lambda cpu: called.append(cpu.registers[0])
    cpu.step()
    assert called == [CODE + 2]
    with pytest.raises(IllegalInstructionError):
        cpu.step()
