"""Ports, timer and UART: as programs see them, and as the outside does."""

import itertools
from collections.abc import Callable

import pytest

from broch.cpu.msp430 import Bus, Cpu, DigitalPort, Peripheral, TimerA, Uart
from broch.errors import UsageError

from .assembler import assemble
from .machine import VECTORS, machine
from .programs import CODE

ISR = 0x9000


def board(source: str, *, isr: str = "", vector: int = 0) -> tuple[Cpu, DigitalPort, TimerA, Uart]:
    """A microcontroller with port 1, port 3, a timer and a UART."""
    cpu = Cpu(Bus())
    port, timer, uart = DigitalPort(cpu, 1), TimerA(cpu), Uart(cpu)
    peripherals: list[Peripheral] = [port, DigitalPort(cpu, 3), timer, uart]
    for peripheral in peripherals:
        cpu.bus.attach(peripheral)
    if isr:
        cpu.bus.load(ISR, assemble(isr, ISR))
        cpu.bus.load(VECTORS + 2 * vector, ISR.to_bytes(2, "little"))
    machine(source, cpu=cpu, translating=True)
    return cpu, port, timer, uart


# Ports (SLAU049F, chapter 9)


def test_outputs_are_seen_and_read_back() -> None:
    cpu, port, _, _ = board("mov.b #0xff, &0x21\n mov.b #0x0f, &0x22\n mov.b &0x20, r5\nE: jmp E")
    seen: list[tuple[int, int]] = []
    port.changed = lambda port: seen.append((port.output, port.driven))
    port.drive(7, high=True)
    cpu.run(100)
    assert seen == [(0x0F, 0x0F)]
    assert cpu.registers[5] == 0x8F


def test_in_cannot_be_written() -> None:
    cpu, port, _, _ = board("mov.b #0xff, &0x20\n mov.b &0x20, r5\nE: jmp E")
    cpu.run(100)
    assert (port.input, cpu.registers[5]) == (0, 0)


@pytest.mark.parametrize(("select", "edges"), [(0, (1, 0)), (1, (0, 1))])
def test_the_selected_edge_sets_the_flag(select: int, edges: tuple[int, int]) -> None:
    cpu, port, _, _ = board(f"mov.b #{select}, &0x24\nE: jmp E")
    cpu.run(100)
    for high, flag in zip((True, False), edges, strict=True):
        port.drive(0, high=high)
        assert port.read(0x23, byte=True) == flag
        port.write(0x23, 0, byte=True)


def test_a_press_interrupts() -> None:
    cpu, port, _, _ = board(
        "mov.b #2, &0x25\n eint\nE: jmp E", isr="bic.b #2, &0x23\n add #1, r5\n reti", vector=2
    )
    cpu.run(500)
    for presses in (1, 2):
        port.drive(0, high=True)  # another pin, whose interrupt is not enabled
        port.drive(1, high=True)
        port.drive(1, high=False)
        cpu.run(500)
        assert cpu.registers[5] == presses


def test_a_flag_that_is_not_cleared_interrupts_again() -> None:
    cpu, port, _, _ = board("mov.b #1, &0x25\n eint\nE: jmp E", isr="add #1, r5\n reti", vector=2)
    cpu.run(100)
    port.drive(0, high=True)
    cpu.run(1000)
    assert cpu.registers[5] > 10


def test_ports_without_interrupts_have_four_registers() -> None:
    cpu, _, _, _ = board("mov.b #0xff, &0x19\n mov #0x5511, &0x1a\n mov &0x1a, r5\nE: jmp E")
    cpu.run(100)
    assert cpu.registers[5] == 0x5511, "direction and select, as one word"


def test_reset_makes_all_pins_inputs() -> None:
    cpu, port, _, _ = board("mov.b #0xff, &0x21\n mov.b #0x0f, &0x22\nE: jmp E")
    cpu.run(100)
    port.drive(6, high=True)
    cpu.reset()
    assert (port.output, port.driven, port.input) == (0, 0, 0x40)


@pytest.mark.parametrize("number", [0, 7])
def test_there_are_ports_1_to_6(number: int) -> None:
    with pytest.raises(UsageError, match=f"no port {number}"):
        DigitalPort(Cpu(Bus()), number)


@pytest.mark.parametrize("pin", [-1, 8])
def test_there_are_pins_0_to_7(pin: int) -> None:
    with pytest.raises(UsageError, match=f"no pin {pin}"):
        DigitalPort(Cpu(Bus()), 1).drive(pin, high=True)


def test_two_peripherals_cannot_share_an_address() -> None:
    cpu, _, _, _ = board("E: jmp E")
    with pytest.raises(UsageError, match="port 1 overlaps port 1 at 0x0020"):
        cpu.bus.attach(DigitalPort(cpu, 1))


# Timer A (SLAU049F, chapter 11): TACTL 0x160, TACCTL0 0x162, TAR 0x170, TACCR0 0x172

SMCLK, UP, CONTINUOUS, UP_DOWN, TAIE = 0x200, 0x10, 0x20, 0x30, 2


def counter(timer: TimerA) -> int:
    return timer.read(0x170, byte=False)


def test_the_timer_counts_cycles() -> None:
    cpu, _, timer, _ = board(f"mov #{SMCLK | CONTINUOUS}, &0x160\nE: jmp E")
    cpu.run(5)
    start = cpu.cycles
    for cycles in (10, 100, 70000):
        cpu.run(cycles)
        assert counter(timer) == (cpu.cycles - start) & 0xFFFF


@pytest.mark.parametrize(("divider", "factor"), [(0, 1), (1, 2), (2, 4), (3, 8)])
def test_dividers(divider: int, factor: int) -> None:
    cpu, _, timer, _ = board(f"mov #{SMCLK | CONTINUOUS | divider << 6}, &0x160\nE: jmp E")
    cpu.run(5 + 1000 * factor)
    assert counter(timer) in (1000, 1001)


@pytest.mark.parametrize("clock", [0x000, 0x300])
def test_external_clocks_do_not_tick(clock: int) -> None:
    cpu, _, timer, _ = board(f"mov #{clock | CONTINUOUS}, &0x160\nE: jmp E")
    cpu.run(1000)
    assert counter(timer) == 0


def test_aclk_is_slower() -> None:
    cpu, _, timer, _ = board(f"mov #{0x100 | CONTINUOUS}, &0x160\nE: jmp E")
    cpu.run(5 + 3200)
    assert counter(timer) in (100, 101)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (UP, lambda t: t % 101),
        (CONTINUOUS, lambda t: t % 65536),
        (UP_DOWN, lambda t: min(t % 200, 200 - t % 200)),
        (0, lambda _: 0),
    ],
)
def test_modes(mode: int, expected: Callable[[int], int]) -> None:
    cpu, _, timer, _ = board(f"mov #100, &0x172\n mov #{SMCLK | mode}, &0x160\nE: jmp E")
    cpu.run(10)
    start = cpu.cycles
    for _ in range(400):
        cpu.run(1)
        assert counter(timer) == expected(cpu.cycles - start)


def test_up_mode_interrupts_every_period_exactly() -> None:
    cpu, _, _, _ = board(
        f"mov #99, &0x172\n mov #0x10, &0x162\n mov #{SMCLK | UP}, &0x160\n eint\nE: jmp E",
        isr="add #1, r5\n reti",
        vector=9,
    )
    cpu.run(100_000)
    assert cpu.registers[5] in (999, 1000)


def test_compare_and_overflow_share_a_vector_and_taiv_says_which() -> None:
    cpu, _, _, _ = board(
        "mov #99, &0x172\n mov #30, &0x174\n mov #60, &0x176\n mov #0x10, &0x164\n"
        f"mov #0x10, &0x166\n mov #{SMCLK | UP | TAIE}, &0x160\n eint\nE: jmp E",
        isr="mov &0x12e, r6\n cmp #2, r6\n jne A\n add #1, r7\nA: cmp #4, r6\n jne B\n add #1, r8\n"
        "B: cmp #10, r6\n jne C\n add #1, r9\nC: reti",
        vector=8,
    )
    cpu.run(10_000)
    for register in (7, 8, 9):
        assert 98 <= cpu.registers[register] <= 101


def test_a_stopped_or_cleared_timer() -> None:
    cpu, _, timer, _ = board(f"mov #{SMCLK | CONTINUOUS}, &0x160\nE: jmp E")
    cpu.run(1000)
    timer.write(0x160, SMCLK, byte=False)
    stopped = counter(timer)
    cpu.run(1000)
    assert counter(timer) == stopped > 900
    timer.write(0x160, SMCLK | CONTINUOUS | 4, byte=False)
    assert counter(timer) == 0
    assert timer.read(0x160, byte=False) == SMCLK | CONTINUOUS, "clear reads as zero"


def test_bytes_of_timer_registers() -> None:
    cpu, _, timer, _ = board("E: jmp E")
    timer.write(0x172, 0x1234, byte=False)
    timer.write(0x173, 0x56, byte=True)
    assert timer.read(0x172, byte=False) == 0x5634
    assert timer.read(0x172, byte=True) == 0x34
    cpu.reset()
    assert timer.read(0x172, byte=False) == 0


def test_timed_interrupts_come_at_the_same_cycle_translated_or_not() -> None:
    ends = []
    for translating in (True, False):
        cpu, _, _, _ = board(
            f"mov #76, &0x172\n mov #0x10, &0x162\n mov #{SMCLK | UP}, &0x160\n eint\n"
            "L: add r5, r6\n xor r6, r7\n rrc r7\n sub #1, r8\n jne L\n jmp L",
            isr="add #1, r5\n push r6\n pop r9\n reti",
            vector=9,
        )
        cpu.translating = translating
        cpu.run(30_000)
        ends.append((cpu.registers, cpu.cycles))
    assert ends[0] == ends[1]


# UART: CTL 0x80, STAT 0x81, BAUD 0x82, TXD 0x84, RXD 0x85

HELLO = (
    "mov.b #1, &0x80\n mov #9, &0x82\n mov #T, r5\nL: mov.b @r5+, r6\n cmp #0, r6\n jeq E\n"
    "W: bit.b #8, &0x81\n jne W\n mov.b r6, &0x84\n jmp L\nE: jmp E\n"
    "T: .word 0x6548, 0x6c6c, 0x006f"
)


def test_what_is_sent_goes_out_at_its_speed() -> None:
    cpu, _, _, uart = board(HELLO)
    out: list[tuple[int, int]] = []
    uart.sent = lambda byte: out.append((byte, cpu.cycles))
    cpu.run(2000)
    assert bytes(byte for byte, _ in out) == b"Hello"
    gaps = [later - before for (_, before), (_, later) in itertools.pairwise(out)]
    assert all(abs(gap - 100) < 10 for gap in gaps), "ten bits of ten cycles"


def test_what_comes_is_received_by_interrupt() -> None:
    cpu, _, _, uart = board(
        "mov #0x300, r5\n mov.b #0x11, &0x80\n mov #9, &0x82\n eint\nE: jmp E",
        isr="mov.b &0x85, 0(r5)\n add #1, r5\n mov.b #0x10, &0x81\n reti",
        vector=7,
    )
    cpu.run(100)
    uart.receive(b"abc")
    cpu.run(350)
    assert cpu.bus.memory[0x300:0x303] == b"abc"


def test_what_is_not_taken_in_time_overflows() -> None:
    cpu, _, _, uart = board("mov.b #1, &0x80\n mov #9, &0x82\nE: jmp E")
    cpu.run(100)
    uart.receive(b"ab")
    cpu.run(1000)
    assert uart.read(0x81, byte=True) & 0x30 == 0x30
    assert uart.read(0x85, byte=True) == ord("b")
    uart.write(0x81, 0x20, byte=True)
    assert uart.read(0x81, byte=True) & 0x30 == 0x10


def test_what_comes_while_it_is_off_is_lost() -> None:
    cpu, _, _, uart = board("E: jmp E")
    uart.receive(b"ab")
    cpu.run(1000)
    assert uart.read(0x81, byte=True) == 0


def test_sending_says_when_it_is_done() -> None:
    cpu, _, _, uart = board(
        "mov.b #0xc1, &0x80\n mov #9, &0x82\n mov.b #65, &0x84\n eint\nE: jmp E",
        isr="mov.b &0x81, r5\n mov.b r5, &0x81\n reti",
        vector=6,
    )
    cpu.run(60)
    assert uart.read(0x81, byte=True) == 0x04, "busy"
    cpu.run(200)
    assert cpu.registers[5] == 0xC0
    assert uart.read(0x81, byte=True) == 0
    assert CODE < cpu.registers[0] < CODE + 32
