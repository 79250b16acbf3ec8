"""What the runtime of modules in C promises (docs/sancus-abi.md), on the emulated hardware."""

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from broch.tee.hosting import Function
from broch.tee.sancus import memory
from broch.tee.sancus.board import Board

from .c_module import NODE_KEY, Running, opened, records, sealed

KEY, OTHER_KEY = b"k" * 16, b"o" * 16


@cache
def started() -> Running:
    return Running()


@cache
def ready() -> Running:
    led = started().copy()
    assert led.attest()
    assert led.grant(KEY, "set", serial=1) == 0
    assert led.grant(OTHER_KEY, "changed", connection=2, serial=2) == 0
    return led


@pytest.fixture
def led() -> Running:
    return started().copy()


@pytest.fixture
def joined() -> Running:
    """Attested, with an input (connection 1) and an output (connection 2)."""
    return ready().copy()


def put(led: Running, value: Any, **more: int) -> int:
    return led.enter(Function.INPUT, sealed(KEY, value, **more)).status


def is_lit(led: Running) -> bool:
    return bool(led.board.ports[2].output & 1)


# Start, attest, grant


def test_start_runs_the_authors_function_and_prints() -> None:
    led = Running(start=False)
    assert list(records(led.enter(Function.START).output)) == [(3, b"ready")]
    assert led.board.ports[2].driven == 1


def test_attestation_proves_the_module_and_is_fresh() -> None:
    count = iter(range(1, 100))
    led = Running(random=lambda size: bytes([next(count)] * size))
    assert led.attest(b"c" * 32)
    first = led.nonce
    assert led.attest(b"c" * 32)
    assert led.nonce != first


@pytest.mark.parametrize("size", [0, 31, 33, 1024])
def test_a_challenge_has_32_bytes(led: Running, size: int) -> None:
    assert led.enter(Function.ATTEST, bytes(size)).status == 9


def test_a_grant_needs_an_attestation(led: Running) -> None:
    led.nonce = bytes(16)
    assert led.grant(KEY, "set") == 6


def test_a_grant_is_for_this_attestation(joined: Running) -> None:
    assert joined.grant(KEY, "set", serial=3, nonce=b"n" * 16) == 6


def test_a_grant_is_authentic(joined: Running) -> None:
    real, joined.key = joined.key, bytes(16)
    assert joined.grant(KEY, "set", serial=3, epoch=2) == 3
    joined.key = real
    assert joined.grant(KEY, "set", serial=3, epoch=2) == 0


@pytest.mark.parametrize("size", [0, 63, 65, 62, 66])
def test_a_grant_has_64_bytes(joined: Running, size: int) -> None:
    assert joined.enter(Function.GRANT, bytes(size)).status == 9


def test_serials_and_epochs_rise(joined: Running) -> None:
    assert joined.grant(KEY, "set", serial=2, epoch=5) == 2
    assert joined.grant(KEY, "set", serial=3, epoch=1) == 2
    assert joined.grant(KEY, "set", serial=3, epoch=2) == 0
    assert joined.grant(KEY, "set", serial=256, epoch=256) == 0
    assert joined.grant(KEY, "set", serial=255, epoch=257) == 2


@pytest.mark.parametrize(
    ("port", "role"),
    [("set", 2), ("changed", 1), ("count", 1), ("tick", 2), ("set", 0), ("set", 3)],
)
def test_a_grant_is_for_a_port_of_its_kind(joined: Running, port: str, role: int) -> None:
    assert joined.grant(KEY, port, connection=9, serial=9, role=role) == 5


def test_sixteen_connections_fit(led: Running) -> None:
    led.attest()
    for number in range(1, 17):
        assert led.grant(KEY, "set", connection=number, serial=number) == 0
    assert led.grant(KEY, "set", connection=17, serial=17) == 7
    assert led.grant(KEY, "set", connection=16, serial=18, epoch=2) == 0


def test_attestation_forgets_connections(joined: Running) -> None:
    assert joined.attest()
    assert put(joined, {"on": True, "level": 1}) == 1
    assert joined.grant(KEY, "set") == 0  # serials begin again


# Events


def test_an_event_goes_in_acts_and_goes_out(joined: Running) -> None:
    event = sealed(KEY, {"on": True, "level": 700})
    outcome = joined.enter(Function.INPUT, event)
    assert outcome.status == 0
    assert is_lit(joined)
    ((kind, record),) = records(outcome.output)
    assert kind == 1
    assert opened(OTHER_KEY, record) == (2, 1, 1, {"on": True, "level": 700})
    assert put(joined, {"level": 0, "on": False}, counter=2) == 0
    assert not is_lit(joined)


def test_every_connection_of_an_output_gets_an_event(joined: Running) -> None:
    assert joined.grant(KEY, "changed", connection=3, serial=3) == 0
    assert joined.grant(KEY, "unused", connection=4, serial=4) == 0
    outcome = joined.enter(Function.INPUT, sealed(KEY, {"on": True, "level": 1}))
    sent = [record[:4] for kind, record in records(outcome.output) if kind == 1]
    assert sent == [struct.pack(">I", 2), struct.pack(">I", 3)]


def test_counters_of_an_output_rise(joined: Running) -> None:
    for counter in (1, 2, 3):
        event = sealed(KEY, {"on": True, "level": 1}, counter=counter)
        ((_, record),) = records(joined.enter(Function.INPUT, event).output)
        assert opened(OTHER_KEY, record)[2] == counter


@pytest.mark.parametrize("counter", [0, 1, 5, 1 << 63, (1 << 63) + 6, (1 << 64) - 1])
def test_replays_are_refused(joined: Running, counter: int) -> None:
    assert put(joined, {"on": False, "level": 1}, counter=5) == 0
    assert put(joined, {"on": True, "level": 1}, counter=counter) == 2
    assert not is_lit(joined)


@pytest.mark.parametrize(
    ("counter", "missing"),
    [(2, 0), (3, 1), (258, 256), (0x1_0000_0001, 0xFFFFFFFF), ((1 << 63) - 1, 0xFFFFFFFF)],
)
def test_gaps_are_told(joined: Running, counter: int, missing: int) -> None:
    assert put(joined, {"on": False, "level": 1}) == 0
    event = sealed(KEY, {"on": True, "level": 1}, counter=counter)
    outcome = joined.enter(Function.INPUT, event)
    assert outcome.status == 0
    gaps = [record for kind, record in records(outcome.output) if kind == 4]
    assert gaps == ([struct.pack(">II", 1, missing)] if missing else [])


def test_each_bit_of_an_event_counts(joined: Running) -> None:
    event = sealed(KEY, {"on": True, "level": 1})
    for at in range(len(event)):
        flipped = bytearray(event)
        flipped[at] ^= 1
        outcome = joined.enter(Function.INPUT, bytes(flipped))
        assert outcome.status in (1, 2, 3)
        assert outcome.output == b""
        assert not is_lit(joined)
    assert joined.enter(Function.INPUT, event).status == 0


def test_what_was_sent_does_not_come_back_as_an_input(joined: Running) -> None:
    """A connection has two ends; its key alone does not make this one both."""
    event = sealed(OTHER_KEY, {"on": True, "level": 1}, connection=2)
    assert joined.enter(Function.INPUT, event).status == 1


def test_an_old_epoch_is_over(joined: Running) -> None:
    assert joined.grant(OTHER_KEY, "set", serial=3, epoch=2) == 0
    assert put(joined, {"on": True, "level": 1}) == 1
    event = sealed(OTHER_KEY, {"on": True, "level": 1}, epoch=2)
    assert joined.enter(Function.INPUT, event).status == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        {},
        {"on": True},
        {"on": 1, "level": 1},
        {"on": True, "level": True},
        {"on": True, "level": -1},
        {"on": True, "level": 65536},
        {"on": True, "level": 1.0},
        {"on": True, "level": 1, "more": 1},
        {"on": True, "leve": 1},
        b"\x82\xa2on\xc3\xa2on\xc3",
        b"\x82\xa2on\xc3\xa5level\x01\x00",
        b"\x82\xa2on\xc3\xa5level",
        b"\x80",
        b"",
    ],
)
def test_a_value_of_another_type_reaches_no_author(joined: Running, value: Any) -> None:
    assert put(joined, value) == 4
    assert joined.call("count") == (0, 0)
    assert put(joined, {"on": True, "level": 1}) == 2, "it was authentic: its counter is used up"


@pytest.mark.parametrize("size", [0, 1, 33, 35, 16 + 260 + 16, 1024])
def test_events_of_impossible_length(joined: Running, size: int) -> None:
    assert joined.enter(Function.INPUT, bytes(size)).status == 9


def test_an_input_may_refuse(joined: Running) -> None:
    outcome = joined.enter(Function.INPUT, sealed(KEY, {"on": True, "level": 13}))
    assert (outcome.status, list(records(outcome.output))) == (11, [(3, b"unlucky")])
    assert not is_lit(joined)


# Entries, ticks, interrupts


def test_entries_answer_and_refuse(led: Running) -> None:
    assert led.call("count") == (0, 0)
    assert led.call("check", {"n": 9}) == (0, None)
    assert led.call("check", {"n": 10}) == (1, "above nine")
    assert led.call("check", {"n": "x"}) == (2, "not its arguments")
    assert led.call("count", {"n": 1}) == (2, "not its arguments")


@pytest.mark.parametrize("port", [0, 2, 5, 64, 0xFFFF])
def test_only_entries_are_called(led: Running, port: int) -> None:
    assert led.enter(Function.ENTRY, struct.pack("<H", port) + b"\x80").status == 5


def test_ticks_and_interrupts(led: Running) -> None:
    outcome = led.enter(Function.TICK, struct.pack("<H", led.port("tick")))
    assert list(records(outcome.output)) == [(3, b"tick")]
    assert led.enter(Function.TICK, struct.pack("<H", led.port("count"))).status == 5
    assert led.enter(Function.INTERRUPT, struct.pack("<H", 3)).status == 0
    assert led.call("count") == (0, 100)
    assert led.enter(Function.INTERRUPT, struct.pack("<H", 2)).status == 5
    for function in (Function.ENTRY, Function.TICK, Function.INTERRUPT):
        assert led.enter(function, b"\0").status == 9


@pytest.mark.parametrize("function", [7, 100, 0x8000, 0xFFFE])
def test_there_are_no_other_functions(led: Running, function: int) -> None:
    assert led.enter(function).status == 5


def test_a_second_start_forgets_everything(joined: Running) -> None:
    put(joined, {"on": True, "level": 1})
    assert joined.enter(Function.START).status == 0
    assert joined.call("count") == (0, 0)
    assert put(joined, {"on": True, "level": 1}, counter=9) == 1


def test_out_is_full() -> None:
    source = '#include "broch.h"\nBROCH_EVERY(talk, 1) { for (;;) broch_print("much to say"); }'
    module = Running(source, "talker")
    outcome = module.enter(Function.TICK, struct.pack("<H", 0))
    assert outcome.status == 10
    assert [kind for kind, _ in records(outcome.output)] == [3] * 64
    assert module.enter(Function.TICK, struct.pack("<H", 0)).status == 10, "it goes on"


# What nobody sees


def at_exit(module: Running, function: int, data: bytes = b"") -> list[int]:
    """All registers where the host takes over."""
    board = module.board
    found: list[list[int]] = []
    trap = board.cpu.extensions[0x13F0]

    def look(cpu: Any) -> None:
        found.append(list(cpu.registers))
        trap(cpu)

    board.cpu.extensions[0x13F0] = look
    module.enter(function, data)
    board.cpu.extensions[0x13F0] = trap
    (registers,) = found
    return registers


def calls(module: Running) -> Iterator[tuple[int, bytes]]:
    """All ways through a module, those that end early too."""
    good = sealed(KEY, {"on": True, "level": 1})
    yield Function.INPUT, good
    yield Function.INPUT, good  # a replay
    yield Function.INPUT, good[:-1] + b"\0"
    yield Function.INPUT, sealed(KEY, {"on": True, "level": 13}, counter=7)
    yield Function.ENTRY, struct.pack("<H", module.port("count")) + b"\x80"
    yield Function.ENTRY, struct.pack("<H", module.port("check")) + b"\x81\xa1n\x0a"
    yield Function.TICK, struct.pack("<H", module.port("tick"))
    yield Function.INTERRUPT, b"\3\0"
    yield Function.GRANT, bytes(64)
    yield 0xFFFF, b""
    yield 1234, b""
    yield Function.ATTEST, bytes(32)
    yield Function.START, b""


def test_registers_are_cleared_on_every_way_out(joined: Running) -> None:
    for function, data in calls(joined):
        registers = at_exit(joined, function, data)
        kept = [n for n, value in enumerate(registers) if value and n not in (0, 14, 15)]
        assert not kept, f"function {function}: r{kept} hold something"
    broken = Running(start=False)
    assert at_exit(broken, Function.ENTRY)[15] == 6
    assert not any(at_exit(broken, Function.ENTRY)[1:14])


@pytest.mark.parametrize("part", range(24))
def test_an_interrupt_that_cannot_be_masked_learns_nothing(part: int) -> None:
    """At some moment of a call: registers are cleared, and the module is done for, or untouched."""
    led = ready().copy()
    board, begin = led.board, led.board.cpu.cycles
    event = sealed(KEY, {"on": True, "level": 0x5AC3})
    seen: list[list[int]] = []
    trap = board.cpu.extensions[0x13F0]

    def look(cpu: Any) -> None:
        seen.append(list(cpu.registers))
        trap(cpu)

    def interrupt(instruction: Any, cpu: Any) -> None:
        if cpu.cycles - begin >= 27_000 * part // 24:
            cpu.trace = None
            cpu.request(14)

    board.cpu.extensions[0x13F0] = look
    board.cpu.trace = interrupt
    outcome = led.enter(Function.INPUT, event)
    assert (outcome.fault != "") == (seen[0][0] != memory.EXIT + 2)
    assert not any(seen[0][1:14]), "nothing is left in registers"
    visible = bytes(board.cpu.bus.memory[0x0200 : memory.SECRET.start])
    assert not any(secret in visible for secret in (KEY, OTHER_KEY, led.key, b"\xc3\x5a"))
    board.cpu.trace = None
    after = led.enter(Function.INPUT, sealed(KEY, {"on": False, "level": 1}, counter=2)).status
    assert after in (0, 255)
    assert after == 255 or not is_lit(led)


def test_the_module_has_a_stack_of_its_own(joined: Running) -> None:
    seen: set[int] = set()
    secret = joined.file.module.layout.secret
    joined.board.cpu.trace = lambda instruction, cpu: (
        seen.add(cpu.registers[1])
        if instruction.address in joined.file.module.layout.text
        else None
    )
    put(joined, {"on": True, "level": 1})
    stacks = seen - {0, memory.STACK}  # 0: while a driver works, and at the end
    assert stacks
    assert all(secret.start < pointer <= secret.stop for pointer in stacks)


def test_no_secret_is_left_where_the_host_can_look(joined: Running) -> None:
    value = {"on": True, "level": 0x5AC3}
    put(joined, value)
    joined.enter(Function.ENTRY, struct.pack("<H", joined.port("count")) + b"\x80")
    visible = bytes(joined.board.cpu.bus.memory[0x0200 : memory.SECRET.start])
    for secret in (KEY, OTHER_KEY, joined.key, b"\x5a\xc3", b"\xc3\x5a"):
        assert secret not in visible


def test_the_host_cannot_look_into_the_module(led: Running) -> None:
    code = struct.pack("<HH", 0x4215, led.file.module.layout.secret_start)  # mov &secret, r5
    led.board.cpu.bus.load(0x0300, code)
    outcome = led.board.run_code(0x0300, cycles=100)
    assert outcome.violations


# Broken, and preloaded


BAD = """
#include "broch.h"
static u16 count;
BROCH_ENTRY(add, none, ask, u16, reply) { (void)ask; *reply = ++count; }
BROCH_EVERY(wrong, 1) { *(volatile u16 *)0x5e00 = 1; }
static __attribute__((noinline)) u16 down(u16 n, volatile u8 *last)
{
    volatile u8 mine[64];
    mine[n & 63] = last[n & 63];
    return n ? down(n - 1, mine) + mine[3] : 0;
}
BROCH_EVERY(deep, 2) { count += down(20, (u8 *)&count); }
BROCH_EVERY(deeper, 3) { count += down(60, (u8 *)&count); }
"""


def test_a_module_that_was_cut_off_is_broken_for_good() -> None:
    module = Running(BAD, "bad")
    assert module.call("add") == (0, 1)
    outcome = module.enter(Function.TICK, struct.pack("<H", module.port("wrong")))
    assert outcome.fault == "was cut off by a violation"
    for function in (*Function, 77):
        assert module.enter(function).status == 255


def test_a_stack_that_ran_over_is_noticed() -> None:
    module = Running(BAD, "bad")
    assert module.enter(Function.TICK, struct.pack("<H", module.port("deep"))).status == 0
    outcome = module.enter(Function.TICK, struct.pack("<H", module.port("deeper")))
    assert outcome.fault or outcome.status == 255
    assert module.enter(Function.ENTRY, bytes(2) + b"\x80").status == 255


def test_nothing_is_done_before_start() -> None:
    led = Running(start=False)
    for function in (*Function, 77):
        if function not in (Function.START, Function.ATTEST):
            assert led.enter(function).status == 6


def test_attestation_starts_a_module() -> None:
    led = Running(start=False)
    assert led.attest()
    assert led.call("count") == (0, 0)
    assert led.board.ports[2].driven == 1


def test_a_secret_section_that_was_chosen_is_not_believed(joined: Running) -> None:
    """The best guess there is: what the same module holds on another node of the same vendor."""
    layout = joined.file.module.layout
    put(joined, {"on": True, "level": 1})
    image = bytes(joined.board.cpu.bus.memory[layout.secret_start : layout.secret_end])
    board = Board(b"another node key", random=bytes)
    led = Running(board=board, start=False)
    board.cpu.bus.load(layout.secret_start, image)
    assert led.enter(Function.INPUT, sealed(KEY, {"on": True, "level": 1}, counter=9)).status == 6
    assert led.enter(Function.ENTRY, struct.pack("<H", led.port("count")) + b"\x80").status == 6
    assert led.enter(Function.ATTEST, bytes(32)).status == 0
    assert led.enter(Function.INPUT, sealed(KEY, {"on": True, "level": 1}, counter=9)).status == 1
    assert led.call("count") == (0, 0)
    assert not is_lit(led)


def test_the_same_section_of_the_same_module_is_what_it_was(joined: Running) -> None:
    """The control to the test above: it is the key that makes the difference."""
    layout = joined.file.module.layout
    put(joined, {"on": True, "level": 1})
    image = bytes(joined.board.cpu.bus.memory[layout.secret_start : layout.secret_end])
    led = Running(start=False)
    led.board.cpu.bus.load(layout.secret_start, image)
    assert led.call("count") == (0, 1)


def test_nobody_comes_back_for_a_driver(joined: Running) -> None:
    """Function 0xffff with all of the state that a waiting module has, from the host."""
    outcome = joined.enter(0xFFFF)
    assert (outcome.status, outcome.output) == (0, b"")
    assert joined.call("count") == (0, 0)


def test_two_modules_on_one_microcontroller() -> None:
    board = Board(NODE_KEY, random=bytes)
    led, other = Running(board=board), Running(BAD, "bad", board=board, slot=1)
    assert other.call("add") == (0, 1)
    assert led.call("count") == (0, 0)
    other.enter(Function.TICK, struct.pack("<H", other.port("wrong")))  # writes the other's text
    assert other.enter(Function.START).status == 255
    assert led.call("count") == (0, 0)
