"""Sancus' instructions beyond what the RTL's vectors show (tests/vectors/test_sancus_access.py)."""

import pytest
from tests.unit.cpu.assembler import assemble

from broch.cpu.msp430 import Access, Bus, Cpu
from broch.cpu.msp430.decode import GIE, SR, ZERO
from broch.crypto.spongent import SpongeWrap
from broch.tee.sancus.instructions import MAX_CLIX, Sancus
from broch.tee.sancus.keys import identity, module_key, vendor_key
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.protection import LAST_ID, VIOLATION_VECTOR, Protection

NODE = b"n" * 16
CODE, TEXT, HANDLER = 0x5C00, 0x6000, 0x5F00
PLACE = Layout(public_start=TEXT, public_end=TEXT + 0x40, secret_start=0x2000, secret_end=0x2020)
PROTECT = (
    "clr r10\n mov #1, r11\n mov #0x6000, r12\n mov #0x6040, r13\n mov #0x2000, r14\n"
    " mov #0x2020, r15\n .word 0x1381\n mov r15, &0x3000\n"
)
END = "\nE: jmp E"


def machine(code: str, module: str = "br #0x5e00", *, as_rtl: bool = False) -> Cpu:
    protection = Protection(4, as_rtl=as_rtl)
    cpu = Cpu(Bus(), protection)
    Sancus(cpu, protection, NODE)
    cpu.bus.load(CODE, assemble(code + END, CODE))
    cpu.bus.load(TEXT, assemble(module, TEXT))
    cpu.bus.load(0x5E00, assemble("add #1, &0x3020\nH: jmp H", 0x5E00))
    cpu.bus.load(HANDLER, assemble("add #1, &0x3030\nH: jmp H", HANDLER))
    for vector in (2, VIOLATION_VECTOR):
        cpu.bus.load(0xFFE0 + 2 * vector, HANDLER.to_bytes(2, "little"))
    cpu.bus.load(0xFFFE, CODE.to_bytes(2, "little"))
    cpu.reset()
    cpu.registers[1] = 0x4000
    return cpu


def protection(cpu: Cpu) -> Protection:
    assert isinstance(cpu.policy, Protection)
    return cpu.policy


def word(cpu: Cpu, address: int) -> int:
    return cpu.bus.words[address >> 1]


def text_of(cpu: Cpu) -> bytes:
    return bytes(cpu.bus.memory[PLACE.public_start : PLACE.public_end])


def test_verify_knows_a_module_by_its_text_and_place() -> None:
    cpu = machine(PROTECT + "mov #0x6004, r14\n mov #0x3100, r15\n .word 0x1382\n mov r15, &0x3002")
    cpu.bus.load(0x3100, identity(text_of(cpu), PLACE))
    cpu.run(500_000)
    assert (word(cpu, 0x3000), word(cpu, 0x3002)) == (1, 1)
    assert not cpu.registers[SR] & ZERO


@pytest.mark.parametrize("at", [0x3100, 0x310F])
def test_verify_refuses_another_tag(at: int) -> None:
    cpu = machine(PROTECT + "mov #0x6000, r14\n mov #0x3100, r15\n .word 0x1382\n mov r15, &0x3002")
    cpu.bus.load(0x3100, identity(text_of(cpu), PLACE))
    cpu.bus.memory[at] ^= 1
    cpu.run(500_000)
    assert word(cpu, 0x3002) == 0


def test_verify_caller() -> None:
    """Another module asks who called it, by identity."""
    second = (
        "clr r10\n mov #1, r11\n mov #0x6100, r12\n mov #0x6140, r13\n mov #0x2100, r14\n"
        " mov #0x2120, r15\n .word 0x1381\n br #0x6000"
    )
    cpu = machine(PROTECT + second, "br #0x6100")
    callee = "mov #0x3100, r15\n .word 0x1383\n mov r15, &0x3002\n br #0x5e00"
    cpu.bus.load(0x6100, assemble(callee, 0x6100))
    cpu.bus.load(0x3100, identity(text_of(cpu), PLACE))
    cpu.run(900_000)
    assert word(cpu, 0x3002) == 1
    assert word(cpu, 0x3020) == 1


def test_wrap_and_unwrap_with_a_key_in_memory() -> None:
    wrap = (
        "mov #0x3100, r9\n mov #0x3200, r10\n mov #0x3204, r11\n mov #0x3300, r12\n"
        " mov #0x3306, r13\n mov #0x3400, r14\n mov #0x3500, r15\n .word 0x1384\n"
        " mov r15, &0x3000\n"
    )
    unwrap = (
        "mov #0x3400, r12\n mov #0x3406, r13\n mov #0x3600, r14\n mov #0x3500, r15\n"
        " .word 0x1385\n mov r15, &0x3002"
    )
    cpu = machine(wrap + unwrap)
    cpu.bus.load(0x3100, b"k" * 16)
    cpu.bus.load(0x3200, b"head")
    cpu.bus.load(0x3300, b"secret")
    cpu.run(500_000)
    cipher, tag = SpongeWrap(b"k" * 16).wrap(b"head", b"secret")
    assert bytes(cpu.bus.memory[0x3400:0x3406]) == cipher
    assert bytes(cpu.bus.memory[0x3500:0x3510]) == tag
    assert (word(cpu, 0x3000), word(cpu, 0x3002)) == (1, 1)
    assert bytes(cpu.bus.memory[0x3600:0x3606]) == b"secret"


@pytest.mark.parametrize("wrong", [False, True])
def test_confidential_loading(wrong: bool) -> None:
    """The vendor wrapped the text; what does not open is not protected."""
    cpu = machine(PROTECT.replace("clr r10", "mov #0x77, r10\n mov #0x3100, r9"))
    plain = text_of(cpu)
    vendor = vendor_key(NODE, 1)
    cipher, tag = SpongeWrap(vendor).wrap(b"\x77\x00", plain)
    cpu.bus.load(TEXT, cipher)
    cpu.bus.load(0x3100, bytes([tag[0] ^ wrong]) + tag[1:])
    cpu.run(500_000)
    if wrong:
        assert word(cpu, 0x3000) == 0
        assert text_of(cpu) == cipher
        assert not protection(cpu).modules
    else:
        assert word(cpu, 0x3000) == 1
        assert text_of(cpu) == plain
        assert protection(cpu).modules[1].key == module_key(vendor, plain, PLACE)


def test_unprotect_wipes_and_goes_on() -> None:
    cpu = machine(PROTECT + "br #0x6000", "mov #0x5e00, r15\n .word 0x1380")
    cpu.bus.load(0x2000, b"\x11" * 32)
    cpu.run(500_000)
    assert word(cpu, 0x3020) == 1
    assert text_of(cpu) == bytes(64)
    assert bytes(cpu.bus.memory[0x2000:0x2020]) == bytes(32)
    assert not protection(cpu).modules


def test_ids_are_not_used_again_and_end() -> None:
    policy = Protection(2)
    for number in (1, 2, 3):
        module = policy.add(PLACE, b"")
        assert module.id == number
        policy.remove(module)
    policy._next_id = LAST_ID
    assert not policy.is_full
    policy.remove(policy.add(PLACE, b""))
    assert policy.is_full


@pytest.mark.parametrize("translating", [False, True])
def test_a_stack_that_grows_past_its_guard(translating: bool) -> None:
    push = "mov #40, r8\nP: push r5\n push r5\n push r5\n incd sp\n incd sp\n sub #1, r8\n jne P"
    for guard, refused in ((0x3FD0, True), (0x3F00, False), (0, False)):
        cpu = machine(f"mov #{guard}, r15\n .word 0x1388\n mov #1, r5\n {push}")
        cpu.translating = translating
        cpu.run(20_000)
        assert bool(protection(cpu).violations) is refused
        assert bool(word(cpu, 0x3030)) is refused
        if refused:
            assert protection(cpu).violations[0].access is Access.WRITE
            assert protection(cpu).violations[0].address < guard


@pytest.mark.parametrize("translating", [False, True])
def test_a_guard_that_is_set_when_the_program_is_hot_already(translating: bool) -> None:
    grow = "A: mov #40, r8\nP: push r5\n push r5\n push r5\n incd sp\n sub #1, r8\n jne P"
    cpu = machine(f"{grow}\n mov #0x4000, sp\n mov #0x3fd0, r15\n .word 0x1388\n jmp A")
    cpu.translating = translating
    cpu.run(20_000)
    assert word(cpu, 0x3030)
    assert protection(cpu).violations[0].address == 0x3FCE, "the first push past it"


def test_clix_holds_interrupts_back() -> None:
    cpu = machine("eint\n nop\n mov #100, r15\n .word 0x1389\n mov #1, &0x3000\nL: jmp L")
    for _ in range(4):
        cpu.step()
    begin = cpu.cycles
    cpu.request(2)
    while not word(cpu, 0x3030) and cpu.cycles < begin + 1000:
        cpu.step()
    assert 95 <= cpu.cycles - begin <= 125
    assert word(cpu, 0x3000) == 1


def test_a_clix_ends_early_where_interrupts_are_enabled() -> None:
    cpu = machine("mov #5000, r15\n .word 0x1389\n eint\n nop\nL: jmp L")
    cpu.request(2)
    cpu.run(100)
    assert word(cpu, 0x3030) == 1


@pytest.mark.parametrize("code", ["mov #100, r15\n .word 0x1389\n .word 0x1389", None])
def test_clix_is_bounded_and_does_not_nest(code: str | None) -> None:
    cpu = machine(code or f"mov #{MAX_CLIX + 1}, r15\n .word 0x1389")
    cpu.run(300)
    assert word(cpu, 0x3030) == 1
    assert protection(cpu).violations


def test_who_called_after_an_interrupt() -> None:
    cpu = machine(PROTECT + "eint\n nop\nL: jmp L", ".word 0x1387\n mov r15, &0x3002\n br #0x5e00")
    cpu.bus.load(0xFFE4, TEXT.to_bytes(2, "little"))  # the handler of port 1 is the module
    cpu.run(300_000)
    cpu.request(2)
    cpu.run(1000)
    assert word(cpu, 0x3002) == 0xFFF2


def test_a_reset_protects_nothing() -> None:
    cpu = machine(PROTECT)
    cpu.run(500_000)
    assert protection(cpu).modules
    cpu.reset()
    assert not protection(cpu).modules
    assert not cpu.registers[SR] & GIE
    cpu.run(500_000)
    assert word(cpu, 0x3000) == 1, "ids begin again"
