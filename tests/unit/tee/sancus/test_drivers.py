"""Drivers: only their module reaches the peripherals, and nobody comes back in their place."""

import struct
from typing import Any

import pytest

from broch.cpu.msp430 import read_elf
from broch.tee.hosting import Function
from broch.tee.sancus.board import Board
from broch.tee.sancus.layout import Layout

from .c_module import NODE_KEY, VENDOR, Running, compiled

CODE = 0x0300  # where the host's code goes
ON = 0x43D2  # mov.b #1, &address
BR = 0x4030
EVERYTHING = """
#include "broch.h"
BROCH_DRIVER(pins, 0x28, 0x30);
BROCH_DRIVER(clock, 0x160, 0x180);
BROCH_STRUCT(What, (u8, operation), (u16, address), (u16, value));
BROCH_ENTRY(drive, What, ask, u16, reply)
{
    switch (ask->operation) {
    case 0: *reply = broch_read(pins, ask->address); break;
    case 1: *reply = broch_write(pins, ask->address, ask->value); break;
    case 2: *reply = broch_set(pins, ask->address, ask->value); break;
    case 3: *reply = broch_clear(pins, ask->address, ask->value); break;
    case 4: *reply = broch_toggle(pins, ask->address, ask->value); break;
    case 8: *reply = broch_read_word(clock, ask->address); break;
    case 9: *reply = broch_write_word(clock, ask->address, ask->value); break;
    }
}
"""


@pytest.fixture(scope="module")
def everything() -> Running:
    return Running(EVERYTHING, "everything")


@pytest.fixture
def led() -> Running:
    return Running()


def is_lit(led: Running) -> bool:
    return bool(led.board.ports[2].output & 1)


def host(board: Board, *words: int) -> Any:
    """Let the host run a few instructions."""
    board.cpu.bus.load(CODE, struct.pack(f"<{len(words)}H", *words))
    return board.run_code(CODE, cycles=100_000)


def drive(module: Running, operation: int, address: int, value: int = 0) -> Any:
    question = {"operation": operation, "address": address, "value": value}
    return module.call("drive", question)


def test_operations_on_bytes(everything: Running) -> None:
    port = everything.board.ports[2]
    assert drive(everything, 1, 0x2A, 0xFF) == (0, 0)  # all are outputs
    assert drive(everything, 1, 0x29, 0x0F) == (0, 0)
    assert port.output == 0x0F
    assert drive(everything, 0, 0x29) == (0, 0x0F)
    assert drive(everything, 2, 0x29, 0x31) == (0, 0x0F)
    assert port.output == 0x3F
    assert drive(everything, 3, 0x29, 0x03) == (0, 0x3F)
    assert port.output == 0x3C
    assert drive(everything, 4, 0x29, 0xFF) == (0, 0x3C)
    assert port.output == 0xC3


def test_operations_on_words(everything: Running) -> None:
    assert drive(everything, 9, 0x172, 0x1234) == (0, 0)
    assert drive(everything, 8, 0x172) == (0, 0x1234)


@pytest.mark.parametrize(
    ("operation", "address"),
    [(0, 0x27), (0, 0x30), (1, 0x31), (2, 0xFFFF), (8, 0x173), (9, 0x15E), (9, 0x180), (4, 0x172)],
)
def test_an_address_that_is_not_the_drivers(
    everything: Running, operation: int, address: int
) -> None:
    data = struct.pack("<H", everything.port("drive")) + b"\x83\xa9operation" + bytes([operation])
    data += b"\xa7address\xcd" + struct.pack(">H", address) + b"\xa5value\x01"
    assert everything.enter(Function.ENTRY, data).status == 8
    assert drive(everything, 0, 0x28)[0] == 0, "it goes on"


def test_the_host_does_not_reach_the_pins(led: Running) -> None:
    assert host(led.board, ON, 0x29).violations
    assert not is_lit(led)


def test_the_host_does_not_reach_the_driver(led: Running) -> None:
    """r6 write, r7 offset of OUT, r8 value: as the module would ask."""
    entry = led.file.drivers[0].layout.public_start
    outcome = host(led.board, 0x4316, 0x4317, 0x4318, BR, entry)
    assert (outcome.fault, outcome.violations) == ("", ())  # it is sent away, by EXIT
    assert not is_lit(led)
    assert host(led.board, 0x4316, 0x4317, 0x4318, BR, entry + 0x20).violations


def test_another_module_reaches_neither(led: Running) -> None:
    entry = led.file.drivers[0].layout.public_start
    source = f"""
#include "broch.h"
BROCH_EVERY(pin, 1) {{ *(volatile u8 *)0x29 = 1; }}
BROCH_EVERY(driver, 2)
{{
    __asm__ volatile("mov #1, r6\\n mov #1, r7\\n mov #1, r8\\n br #{entry}");
}}
"""
    for port, status in (("pin", 255), ("driver", 0)):
        other = Running(source, "other", board=led.board, slot=1)
        outcome = other.enter(Function.TICK, struct.pack("<H", other.port(port)))
        assert (outcome.fault != "") == (status == 255)
        assert not is_lit(led)
        led.board.unload(other.loaded)
    assert led.call("count") == (0, 0)


def without_driver(led: Running) -> Layout:
    """Take the driver away, as no real hardware would."""
    number = led.loaded.ids[1]
    led.board.protection.remove(led.board.protection.modules[number])
    led.board.cpu.policy_changed()
    return led.file.drivers[0].layout


def test_a_driver_that_is_not_there() -> None:
    led = Running(start=False)
    without_driver(led)
    assert led.enter(Function.START).status == 8
    assert led.enter(Function.ATTEST, bytes(32)).status == 8
    assert led.enter(Function.INTERRUPT, b"\3\0").status == 8, "nor is it asked"


def impostor(led: Running) -> Layout:
    """Other code in the driver's place, with its peripherals: it only comes back."""
    layout = without_driver(led)
    entry = led.file.module.layout.public_start
    led.board.cpu.bus.load(layout.public_start, struct.pack("<HHH", 0x4336, BR, entry))
    assert led.board.protect(layout, vendor=VENDOR)
    return layout


def test_an_impostor_is_not_attested() -> None:
    led = Running(start=False)
    impostor(led)
    assert led.enter(Function.START).status == 8
    assert led.enter(Function.ATTEST, bytes(32)).status == 8


def waiting(led: Running) -> bytes:
    """The secret section while the module waits for its driver."""
    found: list[bytes] = []
    secret, text = led.file.module.layout.secret, led.file.drivers[0].layout.text

    def look(instruction: Any, cpu: Any) -> None:
        if instruction.address in text:
            found.append(bytes(cpu.bus.memory[secret.start : secret.stop]))

    led.board.cpu.trace = look
    assert led.enter(Function.INTERRUPT, b"\3\0").status == 0
    led.board.cpu.trace = None
    return found[-1]


@pytest.mark.parametrize("is_same_node", [True, False])
def test_nobody_resumes_a_module_with_a_stack_of_his_own(
    led: Running, *, is_same_node: bool
) -> None:
    """The state of a waiting module, chosen by a loader who also plays the driver.

    With the same node key it is the module's own state, and it does go on: the cookie, which is a
    MAC under the module's key, is all the difference.
    """
    state = waiting(led)
    board = Board(NODE_KEY if is_same_node else b"another node key", random=bytes)
    other = Running(board=board, start=False)
    board.cpu.bus.load(other.file.module.layout.secret_start, state)
    layout = impostor(other)
    seen: set[int] = set()
    board.cpu.trace = lambda instruction, cpu: seen.add(instruction.address)
    outcome = host(board, BR, layout.public_start)
    assert outcome.fault == ""
    assert (leave(other) in seen) == is_same_node


def leave(led: Running) -> int:
    """Where the runtime's own calls end."""
    return read_elf(compiled(led.source, led.name)).symbols["broch_leave"]
