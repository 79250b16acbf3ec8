"""Interrupts, time, low power, breakpoints, code that changes: the CPU as a whole."""

import pytest

from broch.cpu.msp430 import Bus, Cpu
from broch.errors import UsageError

from .assembler import assemble
from .machine import VECTORS, machine, of_program, state, steps
from .programs import CODE, DATA, STACK, random_program

GIE, CPU_OFF = 8, 0x10
ISR = 0x9000


def with_isr(cpu: Cpu, source: str, vector: int) -> Cpu:
    cpu.bus.load(ISR, assemble(source, ISR))
    cpu.bus.load(VECTORS + 2 * vector, ISR.to_bytes(2, "little"))
    return cpu


# Interrupts (SLAU049F, section 2.2)


def test_an_interrupt_saves_pc_and_sr_and_reti_restores_them() -> None:
    cpu = with_isr(machine("mov #0x10d, sr\n nop\n nop"), "nop\n reti", 4)
    steps(cpu, 2)
    cpu.request(4)
    before = cpu.cycles
    cpu.step()
    assert cpu.cycles == before + 6
    assert cpu.registers[:3] == [ISR, STACK - 4, 0]
    assert list(cpu.bus.words[(STACK - 4) >> 1 : STACK >> 1]) == [0x10D, CODE + 6]
    steps(cpu, 2)
    assert cpu.registers[:3] == [CODE + 6, STACK, 0x10D]
    assert not cpu.pending


def test_hot_code_is_interrupted_one_instruction_after_eint() -> None:
    source = "mov #0, r5\nL: add #1, r5\n cmp #90, r5\n jne L\n eint\n jmp L\n"
    cpu = with_isr(machine(source, translating=True), "mov r5, r6\nE: jmp E", 4)
    cpu.run(400)
    cpu.request(4)
    cpu.run(1000)
    assert cpu.registers[6] == 90


def test_without_gie_an_interrupt_waits() -> None:
    cpu = with_isr(machine("nop\n nop\n eint\n nop\n nop"), "reti", 4)
    cpu.request(4)
    steps(cpu, 3)
    assert cpu.registers[0] == CODE + 6
    cpu.step()
    assert cpu.registers[0] == CODE + 8, "the instruction after EINT is still done"
    cpu.step()
    assert cpu.registers[0] == ISR


def test_the_non_maskable_interrupt_does_not_wait() -> None:
    cpu = with_isr(machine("nop"), "reti", 14)
    cpu.request(14)
    cpu.step()
    assert cpu.registers[0] == ISR


def test_the_highest_vector_comes_first_and_withdrawn_ones_do_not_come() -> None:
    cpu = with_isr(machine("eint\n nop\n nop\n nop"), "mov #5, r5\n reti", 5)
    steps(cpu, 2)
    for vector in (2, 5, 9):
        cpu.request(vector)
    cpu.withdraw(9)
    steps(cpu, 2)
    assert cpu.registers[5] == 5
    assert cpu.pending == 1 << 2


def test_cpu_off_sleeps_until_an_interrupt() -> None:
    cpu = with_isr(machine("bis #0x18, sr\n mov #1, r5"), "bic #0x10, 0(sp)\n reti", 4)
    cpu.run(100)
    assert cpu.registers[0] == CODE + 4
    assert cpu.cycles == 104, "time passes"
    cpu.request(4)
    steps(cpu, 4)
    assert cpu.registers[5] == 1


def test_reset_takes_four_cycles_and_forgets_registers_but_not_memory() -> None:
    cpu = machine("mov #5, r5\n mov r5, &0x300")
    steps(cpu, 2)
    cpu.request(4)
    before = cpu.cycles
    cpu.reset()
    assert cpu.registers == [CODE, *[0] * 15]
    assert cpu.bus.words[0x180] == 5
    assert not cpu.pending
    assert cpu.cycles == before + 4


# Time


@pytest.mark.parametrize("seed", range(12))
def test_translated_and_interpreted_agree_at_every_stop(seed: int) -> None:
    program = random_program(seed, rounds=60)
    fast, slow = (of_program(program, translating=t) for t in (True, False))
    for cycles in (700, 1, 2, 3, 1500, 5000, 5001, 20000):
        fast.run(cycles)
        slow.run(cycles)
        assert state(fast) == state(slow), (seed, cycles)
    assert fast._regions, "nothing was translated"


def test_run_stops_at_the_first_boundary_at_or_past_its_end() -> None:
    cpu = machine("L: add #1, r5\n jmp L", translating=True)
    cpu.run(1000)
    for cycles in range(1, 50):
        before = cpu.cycles
        cpu.run(cycles)
        assert cycles <= cpu.cycles - before <= cycles + 1


def test_run_and_single_steps_agree() -> None:
    program = random_program(99, rounds=3)
    running, stepping = (of_program(program, translating=t) for t in (True, False))
    running.run(900)
    while stepping.cycles < running.cycles:
        stepping.step()
    assert state(running) == state(stepping)


# Translation


def test_a_program_may_change_its_own_code() -> None:
    # The loop's "add #1" becomes "add #2" (0x5325 has the constant generator's As = 2).
    source = (
        "mov #100, r8\nL: add #1, r5\n sub #1, r8\n jne L\n"
        "cmp #0, r9\n jne E\n mov #1, r9\n mov #0x5325, &0x8004\n mov #100, r8\n jmp L\nE: jmp E"
    )
    both = []
    for translating in (True, False):
        cpu = machine(source, translating=translating)
        cpu.run(5000)
        assert cpu.registers[5] == 100 + 200
        both.append(state(cpu))
    assert both[0] == both[1]


def test_code_that_changes_what_comes_right_after_it() -> None:
    # Each round writes the constant of the instruction that follows the write.
    source = (
        "mov #200, r8\nL: mov r8, &0x800a\nT: mov #0x1111, r5\n add r5, r6\n"
        "sub #1, r8\n jne L\nE: jmp E"
    )
    both = []
    for translating in (True, False):
        cpu = machine(source, translating=translating)
        cpu.run(5000)
        assert cpu.registers[6] == sum(range(201))
        both.append(state(cpu))
    assert both[0] == both[1]


def test_loading_over_a_running_program() -> None:
    cpu = machine("L: add #1, r5\n jmp L", translating=True)
    cpu.run(1000)
    assert cpu._regions
    cpu.bus.load(CODE, assemble("L: add #1, r6\n jmp L", CODE))
    assert not cpu._regions
    cpu.run(300)
    assert cpu.registers[6] == 100


def test_rom_cannot_be_written_by_programs() -> None:
    cpu = Cpu(Bus())
    cpu.bus.make_read_only(range(0x5C00, 0x6000))
    cpu = machine(
        "mov #40, r8\nL: mov #0x5c00, r5\n mov #7, 0(r5)\n mov #7, &0x5c02\n mov @r5, r6\n"
        "sub #1, r8\n jne L\nE: jmp E",
        cpu=cpu,
        translating=True,
    )
    cpu.bus.load(0x5C00, b"\x34\x12\x78\x56")
    cpu.run(3000)
    assert cpu.registers[6] == 0x1234
    assert cpu.bus.words[0x5C02 >> 1] == 0x5678


def test_breakpoints_stop_in_front_of_an_instruction() -> None:
    cpu = machine("mov #3, r8\nL: sub #1, r8\n jne L\nE: jmp E", translating=True)
    cpu.breakpoints.add(CODE + 4)
    assert cpu.run(1000)
    assert (cpu.registers[0], cpu.registers[8]) == (CODE + 4, 3)
    assert cpu.run(1000)
    assert cpu.registers[8] == 2
    cpu.breakpoints.clear()
    assert not cpu.run(1000)
    assert cpu.registers[8] == 0


# The bus


def test_what_does_not_fit_or_overlaps_is_refused() -> None:
    bus = Bus()
    with pytest.raises(UsageError, match="fit"):
        bus.load(0xFFFF, b"12")
    with pytest.raises(UsageError, match="fit"):
        bus.load(-1, b"1")


@pytest.mark.parametrize("translating", [False, True])
def test_addresses_without_a_peripheral_read_as_zero(translating: bool) -> None:
    cpu = machine(
        f"mov #40, r8\nL: mov #0x1f0, r5\n mov #7, 0(r5)\n mov.b #7, &0x10\n mov @r5, r6\n"
        f"mov.b &0x10, r7\n mov #{DATA}, r9\n sub #1, r8\n jne L\nE: jmp E",
        translating=translating,
    )
    cpu.run(3000)
    assert cpu.registers[6:8] == [0, 0]
