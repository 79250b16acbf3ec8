"""A node: its keys, what it loads, its panel."""

from dataclasses import replace

import pytest

from broch.cpu.msp430 import OverlapError, TooLargeError
from broch.errors import BrochError, DecodeError, PolicyError, UntrustedError, UsageError
from broch.tee.contract import Packed, SealBinding, SealKeyRequest
from broch.tee.hosting import Function, HostedModule, Microcontroller, SharedKeyTee
from broch.tee.sancus import TEE, memory
from broch.tee.sancus.device import SancusDevice
from broch.tee.sancus.panel import MAX_SEND

from .c_module import LED, compiled
from .nodes import device
from .test_module_file import File

ECHO = """
#include "broch.h"
BROCH_DRIVER(line, 0x80, 0x86);
BROCH_START
{
    broch_write(line, 0x83, 0x10); /* some 40,000 cycles a byte: time enough for each */
    broch_write(line, 0x80, 0x11);
}
BROCH_INTERRUPT(heard, 7)
{
    u8 byte = broch_read(line, 0x85);
    broch_write(line, 0x81, 0x10);
    broch_write(line, 0x84, byte + 1);
}
"""


def signed(node: SancusDevice, data: bytes) -> Packed:
    packed = Packed(tee="sancus", data=data)
    return Packed(tee="sancus", data=data, signature=TEE.authorise(packed, node.endorsements()))


def test_it_is_what_the_contract_says() -> None:
    tee: SharedKeyTee = TEE
    node: Microcontroller = device()
    assert isinstance(tee, SharedKeyTee)
    assert isinstance(node, Microcontroller)


def test_keys_are_the_installations_own() -> None:
    keys = {
        device(name, secret).endorsements().items["emulated_vendor_key"]
        for name in ("a", "b")
        for secret in (bytes(32), b"s" * 32)
    }
    assert len(keys) == 4
    assert device().endorsements() == device().endorsements()
    assert "emulated_vendor_key" not in repr(device().endorsements())


def test_a_module_with_drivers_needs_its_deployers_word() -> None:
    node, data = device(), File().build()
    packed = Packed(tee="sancus", data=data)
    for signature in (None, b"", bytes(16), TEE.authorise(packed, device("b").endorsements())):
        with pytest.raises(UntrustedError, match="its deployer did not say so") as caught:
            node.install(Packed(tee="sancus", data=data, signature=signature))
        assert caught.value.hint
    module: HostedModule = node.install(signed(node, data))
    assert module.measurement == TEE.measure(packed)


def test_others_need_none() -> None:
    file = File()
    del file.parts["driver"]
    for symbol in [s for s in file.symbols if s.startswith("__sm_pins")]:
        del file.symbols[symbol]
    packed = Packed(tee="sancus", data=file.build())
    node = device()
    assert TEE.authorise(packed, node.endorsements()) is None
    node.install(packed)


def test_places_are_taken_once_and_given_free() -> None:
    node, data = device(), File().build()
    module = node.install(signed(node, data))
    with pytest.raises(OverlapError, match="led and led, which is loaded, both want"):
        node.install(signed(node, data))
    node.remove(module)
    assert bytes(node.board.cpu.bus.memory[0x0C00:0x4200]) == bytes(0x3600)
    assert not node.board.protection.modules
    node.install(signed(node, data))


def test_what_is_no_module() -> None:
    node = device()
    with pytest.raises(DecodeError, match="packed for sgx"):
        node.install(Packed(tee="sgx", data=b""))
    file = File()
    file.move("led", replace(file.module, secret_end=0x4400))
    with pytest.raises(TooLargeError):
        node.install(Packed(tee="sancus", data=file.build()))


def test_what_a_microcontroller_does_not_do() -> None:
    node = device()
    identity = object()
    with pytest.raises(UsageError, match="runs modules in C"):
        node.load(Packed(tee="sancus", data=b""))
    with pytest.raises(PolicyError, match="no sealing keys"):
        node.seal_key(identity, SealKeyRequest(label=b"", binding=SealBinding.CODE))  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="no counters"):
        node.counter(identity, "c")  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="from the module alone"):
        node.evidence(identity, bytes(32))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not signed"):
        TEE.new_signing_key()
    with pytest.raises(UsageError, match="there is no place for module 5"):
        memory.slot(4)


# The panel


@pytest.fixture(scope="module")
def lamp() -> SancusDevice:
    node = device()
    module = node.install(signed(node, compiled(LED, "led")))
    assert module.enter(Function.START, b"").status == 0
    return node


def test_pins_are_pressed_and_released(lamp: SancusDevice) -> None:
    assert lamp.operate("press", "2.7", None)["ports"][1]["in"] == 0x80
    assert lamp.operate("release", "2.7", None)["ports"][1]["in"] == 0
    assert lamp.operate("set", "2", 0x5A)["ports"][1]["in"] == 0x5A
    assert lamp.operate("set", "2", 0)["ports"][1]["owner"] == "led"
    assert lamp.operate("show", "", None)["modules"] == ["led"]


@pytest.mark.parametrize(
    ("action", "target", "value", "kind", "text"),
    [
        ("press", "1.0", None, PolicyError, "no driver owns port 1"),
        ("set", "3", 1, PolicyError, "no driver owns port 3"),
        ("send", "uart", "x", PolicyError, "no driver owns uart"),
        ("press", "2.8", None, UsageError, "unknown peripheral '2.8'"),
        ("press", "7.0", None, UsageError, "unknown peripheral '7.0', expected a pin"),
        ("press", "0.0", None, UsageError, "unknown peripheral '0.0'"),
        ("press", "2", None, UsageError, "unknown peripheral '2'"),
        ("press", "", None, UsageError, "unknown peripheral ''"),
        ("set", "uart", 1, UsageError, "unknown peripheral 'uart', expected a port"),
        ("set", "1.0", 1, UsageError, "unknown peripheral '1.0', expected a port"),
        ("set", "2", 256, UsageError, "expected 0 to 255, got 256"),
        ("set", "2", -1, UsageError, "expected 0 to 255, got -1"),
        ("set", "2", True, UsageError, "expected 0 to 255, got True"),
        ("set", "2", None, UsageError, "expected 0 to 255, got None"),
        ("send", "2", "x", UsageError, "unknown peripheral '2'"),
        ("send", "uart", "", UsageError, f"expected 1 to {MAX_SEND} bytes"),
        ("send", "uart", "x" * (MAX_SEND + 1), UsageError, f"expected 1 to {MAX_SEND} bytes"),
        ("send", "uart", 5, UsageError, f"expected 1 to {MAX_SEND} bytes"),
        ("explode", "2.0", None, UsageError, "no such action: 'explode'"),
    ],
)
def test_what_cannot_be_done(
    lamp: SancusDevice, action: str, target: str, value: object, kind: type[BrochError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        lamp.operate(action, target, value)
    assert caught.value.exit_code in (2, 5)


def test_the_serial_line() -> None:
    node = device()
    module = node.install(signed(node, compiled(ECHO, "echo")))
    assert module.enter(Function.START, b"").status == 0
    node.operate("send", "uart", "HAL")
    heard = 0
    while vectors := node.interrupts():
        assert vectors == [7]
        heard += 1
        assert heard < 10
        assert module.enter(Function.INTERRUPT, b"\x07\x00").status == 0
    assert node.operate("show", "", None)["uart"] == {"owner": "echo", "said": "IBM"}


# Modules that do not come back


LOOP = """
#include "broch.h"
BROCH_EVERY(tick, 1000) { for (;;) ; }
BROCH_ENTRY(add, none, ask, u16, reply) { (void)ask; *reply = 4; }
"""


def test_a_module_that_loops_is_cut_off_and_others_go_on() -> None:
    node = device()
    looping = node.install(Packed(tee="sancus", data=compiled(LOOP, "loop")))
    other = node.install(Packed(tee="sancus", data=compiled(LOOP, "other", 1)))
    assert looping.enter(Function.START, b"").status == 0
    assert other.enter(Function.START, b"").status == 0
    outcome = node.board.enter(looping.loaded, Function.TICK, b"\0\0", cycles=200_000)
    assert outcome.fault == "took too many cycles"
    assert 200_000 <= outcome.cycles < 201_000
    assert looping.enter(Function.START, b"").status == 255
    assert other.enter(Function.ENTRY, b"\1\0\x80").status == 0


def test_a_power_cut_leaves_nothing() -> None:
    node = device()
    node.install(signed(node, compiled(LED, "led")))
    node.board.reset()
    assert node.board.loaded == []
    memory_now = bytes(node.board.cpu.bus.memory)
    assert not any(memory_now[0x0200:0x5C00])
    assert not any(memory_now[0x5E00:0xFFE0])
    assert node.operate("show", "", None)["modules"] == []
    node.install(signed(node, compiled(LED, "led")))
