"""One microcontroller, shared with the adversary: hostile modules, a hostile host, resets anywhere.

The adversary has all of the microcontroller but its hardware: he writes the unprotected code, loads
modules of his own beside the lamp's, enters whatever he likes, and cuts a run off where he likes.
What he must not get: a secret, or a lamp that changes without an event of its connection.
"""

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import pytest
from tests.unit.cpu.assembler import assemble
from tests.unit.cpu.machine import VECTORS
from tests.unit.tee.sancus.c_module import Running, compiled, sealed
from tests.unit.tee.sancus.nodes import device

from broch.cpu.msp430 import Access, Cpu, Instruction, OverlapError
from broch.crypto.spongent import SpongeWrap
from broch.errors import UntrustedError
from broch.image import Interface
from broch.tee.contract import Packed
from broch.tee.hosting import Function
from broch.tee.sancus import TEE, instructions, memory
from broch.tee.sancus.board import Board, Outcome
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import ModuleFile, Part
from broch.tee.sancus.ports import PortTable

from .lamp import LED

KEY: Final = b"k" * 16
EVIL: Final = memory.slot(2)
HOST: Final = 0x5D00  # where the hostile host keeps its code


class Joined(Running):
    """A lamp that has joined, and what the adversary wants of it."""

    def __init__(self) -> None:
        super().__init__(LED)
        assert self.attest()
        assert self.grant(KEY, "set", serial=1) == 0

    @property
    def is_lit(self) -> bool:
        return bool(self.board.ports[2].output & 1)

    @property
    def secret(self) -> bytes:
        """What is in its secret section, as only the test can see it."""
        layout = self.file.module.layout
        return bytes(self.board.cpu.bus.memory[layout.secret_start : layout.secret_end])

    def event(self, counter: int = 1) -> bytes:
        return sealed(KEY, {"count": counter}, counter=counter)


@pytest.fixture(scope="module")
def shared() -> Joined:
    return Joined()


@pytest.fixture
def lamp(shared: Joined) -> Iterator[Joined]:
    """The same one for all: what attacks leave is looked at after each."""
    assert KEY in shared.secret, "the test knows where the key is"
    yield shared
    for other in [each for each in shared.board.loaded if each is not shared.loaded]:
        shared.board.unload(other)
    assert not shared.is_lit
    assert KEY in shared.secret
    assert KEY not in visible(shared.board)


def visible(board: Board) -> bytes:
    """Memory that unprotected code can read."""
    content = bytearray(board.cpu.bus.memory)
    for module in board.protection.modules.values():
        for part in (module.layout.text, module.layout.secret):
            content[part.start : part.stop] = bytes(len(part))
    return bytes(content)


def beside(lamp: Joined, code: str, secret: range | None = None) -> ModuleFile:
    """A hostile module of the adversary's own."""
    text = assemble(code, EVIL.public_start)
    place = secret or range(EVIL.secret_start, EVIL.secret_start + 64)
    layout = Layout(
        public_start=EVIL.public_start,
        public_end=EVIL.public_start + len(text),
        secret_start=place.start,
        secret_end=place.stop,
    )
    part = Part(name="evil", layout=layout, text=text)
    return ModuleFile(module=part, drivers=(), ports=PortTable(Interface(()), {}, frozenset()))


def places(lamp: Joined) -> dict[str, int]:
    module, driver = lamp.file.module.layout, lamp.file.drivers[0].layout
    return {
        "text": module.public_start + 64,
        "secret": module.secret_start + 2,
        "key": module.secret_start + lamp.secret.index(KEY) // 2 * 2,
        "driver": driver.public_start,
        "pins": 0x28,
    }


ATTACKS: Final = {
    "read a word": ("mov &{at}, r5", Access.READ),
    "read a byte": ("mov.b &{at}, r5", Access.READ),
    "read by a pointer": ("mov #{at}, r4\n mov @r4+, r5", Access.READ),
    "write": ("mov #0xffff, &{at}", Access.WRITE),
    "toggle": ("xor #1, &{at}", Access.READ),
    "stack in it": ("mov #{at}, sp\n incd sp\n push r5", Access.WRITE),
    "wrap it": (
        "mov #{at}, r9\n clr r10\n clr r11\n clr r12\n clr r13\n mov #0x3000, r14\n"
        " mov #0x3100, r15\n .word 0x1384",
        Access.READ,
    ),
    "unwrap into it": (
        "clr r9\n mov #0x400, r10\n mov #0x402, r11\n mov #0x404, r12\n mov #0x406, r13\n"
        " mov #{at}, r14\n mov #{at}, r15\n .word 0x1385",
        Access.READ,
    ),
}


@pytest.mark.parametrize("who", ["host", "module"])
@pytest.mark.parametrize("what", ["text", "secret", "key", "driver", "pins"])
@pytest.mark.parametrize("how", ATTACKS)
def test_what_is_protected_is_not_touched(lamp: Joined, how: str, what: str, who: str) -> None:
    code, access = ATTACKS[how]
    before = lamp.secret
    text = code.format(at=hex(places(lamp)[what])) + "\n br #0x5c00"
    outcome = run(lamp, text, who)
    assert outcome.fault == "was cut off by a violation"
    assert outcome.violations[0].access is access
    assert outcome.violations[0].address in range(places(lamp)[what] - 2, places(lamp)[what] + 4)
    assert lamp.secret == before


def run(lamp: Joined, text: str, who: str) -> Outcome:
    """Let unprotected code, or a module of the adversary's, do this."""
    if who == "host":
        lamp.board.cpu.bus.load(HOST, assemble(text, HOST))
        return lamp.board.run_code(HOST, cycles=100_000)
    evil = lamp.board.load(beside(lamp, text), vendor=666)
    return lamp.board.enter(evil, 0, b"")


@pytest.mark.parametrize("who", ["host", "module"])
def test_a_module_is_entered_at_its_beginning_only(lamp: Joined, who: str) -> None:
    for part in lamp.file.parts:
        for address in range(part.layout.public_start + 2, part.layout.public_end, 94):
            outcome = run(lamp, f"br #{hex(address)}", who)
            assert outcome.fault == "was cut off by a violation"
            assert outcome.violations[0].access is Access.EXECUTE
            for other in [e for e in lamp.board.loaded if e is not lamp.loaded]:
                lamp.board.unload(other)


@pytest.mark.parametrize("who", ["host", "module"])
@pytest.mark.parametrize("operation", range(10))
def test_a_driver_obeys_its_module_only(lamp: Joined, operation: int, who: str) -> None:
    """Light the lamp by the driver itself."""
    driver = lamp.file.drivers[0].layout.public_start
    text = f"mov #{operation}, r6\n mov #1, r7\n mov #1, r8\n br #{hex(driver)}"
    outcome = run(lamp, text, who)
    assert not outcome.fault, "it leaves, and has done nothing"
    assert not lamp.is_lit


@pytest.mark.parametrize("who", ["host", "module"])
@pytest.mark.parametrize("function", [3, 0xFFFF, 7, 0x8000])
def test_entering_the_lamp_with_anything_lights_nothing(
    lamp: Joined, function: int, who: str
) -> None:
    entry = lamp.loaded.entry
    event = bytearray(lamp.event())
    event[-1] ^= 1
    lamp.board.cpu.bus.load(memory.IN, bytes(event))
    text = (
        f"mov #{function}, r6\n mov #{len(event)}, r14\n mov #1, r15\n mov #0x4200, sp\n"
        f" br #{hex(entry)}"
    )
    if who == "host":
        lamp.board.cpu.bus.load(HOST, assemble(text, HOST))
        outcome = lamp.board.run_code(HOST, cycles=2_000_000)
    else:
        evil = lamp.board.load(beside(lamp, text), vendor=666)
        outcome = lamp.board.enter(evil, 0, bytes(event))
    assert outcome.status != 0 or function == 0xFFFF
    assert not lamp.is_lit


def test_a_hostile_module_cannot_own_the_pins(lamp: Joined) -> None:
    """Not those of the lamp, whose driver has them; nor others without the deployer's word."""
    with pytest.raises(OverlapError, match="both want 0x0028"):
        lamp.board.load(beside(lamp, "br #0x5c00", range(0x28, 0x30)), vendor=666)
    node = device()
    with pytest.raises(UntrustedError, match="its deployer did not say so"):
        node.install(Packed(tee="sancus", data=compiled(LED)))
    other = device(secret=b"s" * 32)
    packed = Packed(tee="sancus", data=compiled(LED))
    word = TEE.authorise(packed, other.endorsements())
    with pytest.raises(UntrustedError, match="its deployer did not say so"):
        node.install(Packed(tee="sancus", data=packed.data, signature=word))


def test_the_hardware_gives_nobody_anothers_key(lamp: Joined) -> None:
    """The same text at another place, and another text at its place, have other keys."""
    evil = lamp.board.load(
        beside(
            lamp,
            "clr r9\n mov #0x400, r10\n mov #0x402, r11\n clr r12\n clr r13\n"
            " clr r14\n mov #0x800, r15\n .word 0x1384\n clr r6\n mov #16, r14\n clr r15\n"
            " br #0x5c00",
        ),
        vendor=1,
    )
    outcome = lamp.board.enter(evil, 0, b"\4\0")
    assert outcome.status == 0
    assert len(outcome.output) == 16
    assert outcome.output != SpongeWrap(lamp.key).mac(b"\4\0")


def test_interrupts_tell_a_handler_nothing(lamp: Joined) -> None:
    """Let the lamp be cut off in the midst of its work: no register is left for the handler."""
    copy = Running(LED, board=None)
    assert copy.attest()
    assert copy.grant(KEY, "set") == 0
    board = copy.board
    handler = assemble("".join(f" mov r{n}, &{hex(0x3000 + 2 * n)}\n" for n in range(4, 16)), HOST)
    board.cpu.bus.load(HOST, handler + assemble("br #0x5c00", HOST))
    board.cpu.bus.load(VECTORS + 2 * 13, struct.pack("<H", HOST))
    cut = 0
    for cycles in range(50, 9000, 97):
        board.cpu.bus.load(0x3000, b"\xff" * 32)
        board.cpu.trace = once_after(board, cycles)
        board.enter(copy.loaded, Function.INPUT, sealed(KEY, {"count": 1}))
        board.cpu.trace = None
        left = bytes(board.cpu.bus.memory[0x3008:0x3020])
        assert left in (b"\xff" * 24, bytes(24)), "it saw nothing, or was not called"
        cut += left == bytes(24)
    assert cut > 3


def once_after(board: Board, cycles: int) -> "Callable[[Instruction, Cpu], None]":
    """Ask for the violation interrupt once, when so many cycles have gone by."""
    left = [board.cpu.cycles + cycles]

    def look(_: Instruction, cpu: Cpu) -> None:
        inside = board.protection.domain(cpu.registers[0]) == 1
        if left and cpu.cycles > left[0] and inside:
            left.clear()
            cpu.request(13)

    return look


# Reset at every cycle of a run.


@lru_cache(maxsize=4096)
def _wrap_once(key: bytes) -> SpongeWrap:
    return _Remembering(key)


class _Remembering(SpongeWrap):
    """Computes each thing once: thousands of runs are alike up to where they are cut off."""

    __slots__ = ("known",)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.known: dict[tuple[bytes, ...], bytes] = {}

    def unwrap(self, associated_data: bytes, cipher: bytes, tag: bytes) -> bytes:
        at = (associated_data, cipher, tag)
        if at not in self.known:
            self.known[at] = super().unwrap(*at)
        return self.known[at]

    def wrap(self, associated_data: bytes, body: bytes) -> tuple[bytes, bytes]:
        at = (associated_data, body)
        if at not in self.known:
            cipher, tag = super().wrap(*at)
            self.known[at] = cipher + tag
        return self.known[at][: len(body)], self.known[at][len(body) :]


class Snapshot:
    """A board's state, to go back to."""

    def __init__(self, board: Board) -> None:
        self.memory = bytes(board.cpu.bus.memory)
        self.port = dict(board.ports[2]._registers)
        self.board = board

    def restore(self) -> None:
        cpu = self.board.cpu
        cpu.bus.load(0x0C00, self.memory[0x0C00:0x4200])  # secret sections: the rest is the host's
        self.board.ports[2]._registers.update(self.port)
        cpu.pending = 0
        self.board.protection.previous = self.board.protection._current = 0
        self.board.protection._interrupted = None


def boundaries(lamp: Joined, event: bytes) -> list[int]:
    """After how many cycles of a run each instruction of it begins."""
    found: list[int] = []
    start = lamp.board.cpu.cycles
    lamp.board.cpu.trace = lambda _, cpu: found.append(cpu.cycles - start)
    lamp.board.enter(lamp.loaded, Function.INPUT, event)
    lamp.board.cpu.trace = None
    return found


def sweep(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "_keyed", _wrap_once)
    lamp = Joined()
    assert lamp.enter(Function.INPUT, lamp.event(1)).status == 0
    assert lamp.board.ports[2].output & 1
    before = Snapshot(lamp.board)
    event, forged = lamp.event(2), bytearray(lamp.event(2))
    forged[-1] ^= 1
    cuts = boundaries(lamp, event)
    assert not lamp.is_lit, "the second event turns it off"
    assert len(cuts) > 500
    before.restore()
    darkened = 0
    for cut in cuts[::step]:
        # Cut off there; then say it all again, and something forged, something old, something new.
        lamp.board.enter(lamp.loaded, Function.INPUT, event, cycles=max(1, cut))
        was_dark = not lamp.is_lit
        darkened += was_dark
        said = [lamp.enter(Function.INPUT, m).status for m in (event, bytes(forged), lamp.event(1))]
        if said[0] == 255:
            assert said == [255] * 3, "a module that was cut off takes nothing any more"
            assert lamp.is_lit != was_dark, "acted upon at most once"
        elif was_dark:
            assert said == [2, 2, 2], "it had come to its end"
            assert not lamp.is_lit
        else:
            assert said == [0, 2, 2], "it was cut off before it began"
            assert not lamp.is_lit
        assert KEY not in visible(lamp.board)
        before.restore()
    assert 0 < darkened < len(cuts[::step])
    # Power off in the midst: nothing of the run is left, and nothing of it can be said again.
    lamp.board.enter(lamp.loaded, Function.INPUT, event, cycles=cuts[len(cuts) // 2])
    lamp.board.reset()
    assert KEY not in bytes(lamp.board.cpu.bus.memory)
    assert lamp.board.ports[2].output == 0


def test_cut_off_at_some_instructions_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(61, monkeypatch)


@pytest.mark.slow
def test_cut_off_at_every_instruction_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(1, monkeypatch)


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda lamp: lamp.enter(Function.START), id="start"),
        pytest.param(lambda lamp: lamp.enter(Function.ATTEST, bytes(32)), id="attest"),
    ],
)
def test_a_module_that_begins_again_forgets_its_keys(
    again: Callable[[Joined], object],
) -> None:
    lamp = Joined()
    again(lamp)
    assert lamp.enter(Function.INPUT, lamp.event()).status in (1, 6)
    assert not lamp.is_lit
