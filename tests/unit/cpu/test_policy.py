"""Access policies: what one domain may not do to another, however the program is run."""

from collections.abc import Iterable

import pytest

from broch.cpu.msp430 import Access, Bus, Cpu

from .assembler import assemble
from .machine import machine, steps
from .programs import CODE

TEXT = range(0x9000, 0x9040)
SECRET = range(0x4000, 0x4010)
NMI = 14
Found = tuple[Access, int, int]


class OneModule:
    """One protected module: entered at its start only, its data for itself only."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.entered: list[tuple[int, int]] = []

    def domains(self) -> Iterable[int]:
        return (1,)

    def domain(self, pc: int) -> int:
        return int(pc in TEXT)

    def span(self, pc: int) -> range:
        if pc in TEXT:
            return TEXT
        return range(TEXT.start) if pc < TEXT.start else range(TEXT.stop, 0x10000)

    def refused(self, domain: int) -> Iterable[tuple[range, bool, bool]]:
        if domain == 0:
            return ((TEXT, True, True), (SECRET, True, True))
        return ((TEXT, False, True),)

    def enter(self, cpu: Cpu, source: int, target: int) -> bool:
        del cpu
        self.entered.append((source, target))
        return target not in TEXT or target == TEXT.start

    def violation(self, cpu: Cpu, access: Access, address: int, pc: int) -> None:
        self.found.append((access, address, pc))
        cpu.request(NMI)

    def interrupt(self, cpu: Cpu, vector: int, pc: int) -> bool:
        del cpu, vector, pc
        return False


def protected(
    source: str, module: str = "ret", *, translating: bool = False
) -> tuple[Cpu, OneModule]:
    policy = OneModule()
    cpu = machine(source, cpu=Cpu(Bus(), policy), translating=translating)
    cpu.bus.load(TEXT.start, assemble(module, TEXT.start))
    cpu.bus.load(SECRET.start, b"\x34\x12" * 8)
    cpu.bus.load(0xFFFC, (0x8100).to_bytes(2, "little"))
    cpu.bus.load(0x8100, assemble("V: add #1, r15\n jmp V", 0x8100))
    return cpu, policy


@pytest.mark.parametrize("translating", [False, True])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mov @r5, r6", (Access.READ, 0x4000)),
        ("mov 2(r5), r6", (Access.READ, 0x4002)),
        ("mov.b 3(r5), r6", (Access.READ, 0x4003)),
        ("cmp @r5+, r6", (Access.READ, 0x4000)),
        ("mov &0x4004, r6", (Access.READ, 0x4004)),
        ("mov r6, 0(r5)", (Access.WRITE, 0x4000)),
        ("mov.b r6, 1(r5)", (Access.WRITE, 0x4001)),
        ("mov r6, &0x4004", (Access.WRITE, 0x4004)),
        ("bis r6, 0(r5)", (Access.READ, 0x4000)),
        ("rra @r5", (Access.READ, 0x4000)),
        ("mov &0x9000, r6", (Access.READ, 0x9000)),
        ("mov r6, &0x9002", (Access.WRITE, 0x9002)),
        ("push r6", (Access.WRITE, 0x400E)),
        ("call #0x8000", (Access.WRITE, 0x400E)),
        ("mov @sp+, r6", (Access.READ, 0x400E)),
    ],
)
def test_each_access_is_refused(text: str, found: tuple[Access, int], translating: bool) -> None:
    # Forty harmless rounds first, so that the code is hot; then the pointers turn to the secret.
    stack = 0x400E if "@sp" in text else 0x4010
    source = (
        "mov #40, r8\nL: mov #0x4100, r5\n cmp #1, r8\n jne K\n"
        f"mov #0x4000, r5\n mov #{stack}, sp\nK: cmp #1, r8\n jne M\n"
        f"T: {text}\n nop\nM: sub #1, r8\n jne L\nE: jmp E"
    )
    cpu, policy = protected(source, translating=translating)
    cpu.run(3000)
    assert policy.found[0][:2] == found
    secret = bytes(cpu.bus.memory[SECRET.start : SECRET.stop])
    assert secret == b"\x34\x12" * 8, "a refused write is lost"
    if text.startswith("mov") and text.endswith("r6"):
        assert cpu.registers[6] == 0, "a refused read gives nothing"
    assert cpu.registers[15] > 10, "the violation's interrupt was taken"


@pytest.mark.parametrize("translating", [False, True])
def test_a_module_reads_and_writes_its_own(translating: bool) -> None:
    cpu, policy = protected(
        "mov #100, r8\nL: call #0x9000\n sub #1, r8\n jne L\nE: jmp E",
        "mov &0x4000, r6\n mov &0x9000, r7\n add #1, &0x4000\n ret",
        translating=translating,
    )
    cpu.run(10_000)
    assert policy.found == []
    assert cpu.bus.words[0x2000] == 0x1234 + 100
    assert cpu.registers[7] == 0x4216
    assert len(policy.entered) == 200, "in and out each time"
    assert bool(cpu._regions) == translating


@pytest.mark.parametrize("translating", [False, True])
def test_a_module_is_entered_at_its_start_only(translating: bool) -> None:
    cpu, policy = protected(
        "mov #40, r8\nL: mov #0x9000, r9\n cmp #1, r8\n jne K\n mov #0x9002, r9\nK: call r9\n"
        "sub #1, r8\n jne L\nE: jmp E",
        "nop\n mov #7, &0x300\n ret",
        translating=translating,
    )
    cpu.run(3000)
    assert policy.found == [(Access.EXECUTE, 0x9002, policy.found[0][2])]
    assert cpu.registers[8] == 1
    assert policy.domain(policy.found[0][2]) == 0


def test_falling_into_a_module_past_its_start_is_refused() -> None:
    cpu, policy = protected("jmp E\nE: mov #0x8ffe, pc")
    cpu.bus.load(0x8FFE, bytes.fromhex("3540"))  # mov #..., r5: its constant is the module's
    steps(cpu, 3)
    assert policy.found == [(Access.EXECUTE, 0x9002, 0x8FFE)]
    assert cpu.registers[5] == 0


def test_a_module_cannot_write_its_own_text() -> None:
    cpu, policy = protected("call #0x9000", "mov #7, &0x9010\n ret")
    steps(cpu, 2)
    assert policy.found == [(Access.WRITE, 0x9010, 0x9000)]
    assert cpu.bus.words[0x9010 >> 1] == 0


def test_without_a_policy_everything_is_plain_again() -> None:
    cpu, policy = protected("L: mov &0x4000, r6\n jmp L", translating=True)
    cpu.step()
    assert len(policy.found) == 1
    cpu.policy = None
    cpu.policy_changed()
    cpu.withdraw(NMI)
    cpu.run(1000)
    assert cpu.registers[6] == 0x1234
    assert len(policy.found) == 1
    assert cpu.registers[0] in range(CODE, CODE + 8)
