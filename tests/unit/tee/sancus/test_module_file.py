"""Modules' ELF files: each rule broken alone, and who it is."""

from dataclasses import replace

import pytest
from tests.unit.cpu.elf_writer import Part, elf

from broch.cpu.msp430 import (
    ElfError,
    EmptySectionError,
    OverlapError,
    TooLargeError,
    WrongMachineError,
)
from broch.errors import DecodeError, MalformedError
from broch.tee.contract import Packed
from broch.tee.sancus import TEE, memory
from broch.tee.sancus.keys import identity
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import measure, parts, read_module

TABLE = b"input set u8\0\0"
CODE = b"\x30\x40\x00\x5c"  # br #EXIT
DRIVER = CODE + b"\x03\x43"
SLOT = memory.slot(1)


def symbols(name: str, layout: Layout) -> dict[str, int]:
    edges = ("public_start", "public_end", "secret_start", "secret_end")
    return {f"__sm_{name}_{edge}": getattr(layout, edge) for edge in edges}


class File:
    """A sound module with a driver; each test breaks one thing."""

    def __init__(self) -> None:
        driver_at = SLOT.public_start + 0x100
        self.driver = Layout(
            public_start=driver_at,
            public_end=driver_at + len(DRIVER),
            secret_start=0x20,
            secret_end=0x28,
        )
        tag = identity(DRIVER, self.driver)
        self.text = CODE + TABLE + tag
        start = SLOT.public_start
        self.module = Layout(
            public_start=start,
            public_end=start + len(self.text),
            secret_start=SLOT.secret_start,
            secret_end=SLOT.secret_start + 64,
        )
        self.parts = {
            "text": Part(name=".text.sm.led", address=start, data=self.text),
            "driver": Part(name=".text.sm.pins", address=driver_at, data=DRIVER),
            "data": Part(name=".data.sm.led", address=SLOT.secret_start, zeros=64, load=False),
        }
        self.symbols = {
            **symbols("led", self.module),
            **symbols("pins", self.driver),
            "__sm_led_ports": start + len(CODE),
            "__sm_pins_tag": start + len(CODE + TABLE),
        }

    def build(self, machine: int = 105, kind: int = 2) -> bytes:
        return elf(*self.parts.values(), symbols=self.symbols, machine=machine, kind=kind)

    def move(self, name: str, layout: Layout) -> None:
        self.symbols.update(symbols(name, layout))


def test_a_sound_module() -> None:
    file = File()
    found = read_module(file.build())
    assert found.module.layout == file.module
    assert found.module.text == file.text
    (driver,) = found.drivers
    assert (driver.name, driver.layout, driver.text) == ("pins", file.driver, DRIVER)
    assert [port.name for port in found.ports.interface.ports] == ["set"]
    assert found.measure() == measure(file.text, file.module)
    packed = Packed(tee="sancus", data=file.build())
    assert TEE.measure(packed).value == found.measure()
    assert TEE.interface(packed) == found.ports.interface


def test_a_measurement_is_of_text_and_place() -> None:
    file = File()
    found = {
        measure(file.text, file.module),
        measure(file.text[:-1] + b"\0", file.module),
        measure(file.text, replace(file.module, secret_end=file.module.secret_end + 2)),
        measure(file.text, file.driver),
    }
    assert len(found) == 4


def test_for_another_machine() -> None:
    for machine, kind in ((62, 2), (243, 2), (105, 1)):
        with pytest.raises(WrongMachineError):
            read_module(File().build(machine, kind))
    with pytest.raises(ElfError):
        read_module(b"\x7fELF")
    with pytest.raises(DecodeError, match="packed for sgx"):
        TEE.measure(Packed(tee="sgx", data=b""))


def test_overlaps() -> None:
    file = File()
    file.move(
        "pins",
        replace(file.driver, public_start=SLOT.public_start, public_end=SLOT.public_start + 6),
    )
    with pytest.raises((OverlapError, ElfError)):
        read_module(file.build())
    file = File()
    file.move(
        "led",
        replace(file.module, secret_start=SLOT.public_start, secret_end=SLOT.public_start + 8),
    )
    with pytest.raises((OverlapError, TooLargeError)):
        read_module(file.build())


def test_empty_sections() -> None:
    for name, layout in (
        ("led", replace(File().module, public_end=SLOT.public_start)),
        ("pins", replace(File().driver, public_end=File().driver.public_start)),
        ("led", replace(File().module, secret_start=SLOT.secret_start + 66)),
    ):
        file = File()
        file.move(name, layout)
        with pytest.raises(EmptySectionError):
            read_module(file.build())
    file = File()
    file.symbols = {}
    with pytest.raises(EmptySectionError, match="no protected module"):
        read_module(file.build())


def test_too_large() -> None:
    file = File()
    file.move("led", replace(file.module, secret_end=0x4400))
    with pytest.raises(TooLargeError, match="the secret section of led is at 0x1980-0x43ff"):
        read_module(file.build())
    file = File()
    text = Part(name=".text.sm.led", address=0x5C00, data=bytes(0x400))
    file.parts["text"] = text
    file.move("led", replace(file.module, public_start=0x5C00, public_end=0x6000))
    with pytest.raises(TooLargeError, match="the text of led is at 0x5c00-0x5fff"):
        read_module(file.build())


@pytest.mark.parametrize("edge", ["public_end", "secret_start", "secret_end"])
def test_odd_addresses(edge: str) -> None:
    file = File()
    file.move("led", replace(file.module, **{edge: getattr(file.module, edge) - 1}))
    with pytest.raises(ElfError, match="an odd address"):
        read_module(file.build())


def test_what_is_loaded_is_measured() -> None:
    file = File()
    file.parts["more"] = Part(name=".text.more", address=SLOT.public_start + 0x200, data=CODE)
    with pytest.raises(ElfError, match="is in no part of the module"):
        read_module(file.build())
    file = File()
    file.parts["data"] = Part(name=".data.sm.led", address=SLOT.secret_start, data=b"\1" * 64)
    with pytest.raises(ElfError, match="has values to begin with"):
        read_module(file.build())


@pytest.mark.parametrize("symbol", ["__sm_led_ports", "__sm_pins_tag", "__sm_led_secret_end"])
def test_symbols_must_be_there(symbol: str) -> None:
    file = File()
    del file.symbols[symbol]
    with pytest.raises(ElfError, match=f"there is no symbol {symbol}"):
        read_module(file.build())


@pytest.mark.parametrize("symbol", ["__sm_led_ports", "__sm_pins_tag"])
@pytest.mark.parametrize("address", [0x5C00, 0x0C00, SLOT.public_start - 2])
def test_tables_and_tags_are_in_the_text(symbol: str, address: int) -> None:
    file = File()
    file.symbols[symbol] = address
    with pytest.raises(ElfError, match="not in the text of led"):
        read_module(file.build())


def test_a_tag_is_the_drivers_identity() -> None:
    file = File()
    changed = bytearray(DRIVER)
    changed[-1] ^= 1
    file.parts["driver"] = replace(file.parts["driver"], data=bytes(changed))
    with pytest.raises(MalformedError, match="tag of driver pins in led is not its identity"):
        read_module(file.build())


def test_one_module_and_few_drivers() -> None:
    file = File()
    for number in range(4):
        at = SLOT.public_start + 0x200 + 16 * number
        layout = Layout(public_start=at, public_end=at + 4, secret_start=0x80, secret_end=0x80)
        file.parts[f"d{number}"] = Part(name=f".text.sm.d{number}", address=at, data=CODE)
        file.move(f"d{number}", layout)
    with pytest.raises(ElfError, match="has 5 drivers, at most 3"):
        read_module(file.build())
    file = File()
    file.move("pins", replace(file.driver, secret_start=0x3000, secret_end=0x3010))
    with pytest.raises(ElfError, match="has 2 modules, expected one"):
        read_module(file.build())


def test_parts_of_any_program() -> None:
    found = parts(File().build())
    assert sorted(found) == ["led", "pins"]
