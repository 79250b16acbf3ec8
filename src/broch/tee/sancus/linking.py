"""Where the parts of a module in C go: a script for the linker, and drivers' identities afterwards.

    text of the slot      module: entry, tables, tags, initial values, code, constants; then drivers
    secret of the slot    module: what the entry needs, variables, the stack down from the end

The symbols that come of it are those of docs/sancus-abi.md, and a few for the runtime.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from elftools.elf.elffile import ELFFile

from broch.cpu.msp430 import read_elf
from broch.errors import InternalError
from broch.tee.sancus.keys import identity
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import TAG_SIZE, parts_of

MIN_STACK: Final = 384  # bytes: STACK_RESERVE and as much for the author
TEXT_FULL: Final = "the text does not fit its place"
NO_STACK: Final = "the variables leave no room for the stack"

_SCRIPT: Final = """\
ENTRY(broch_entry)
SECTIONS
{{
  .text.sm.{name} {place.public_start} : {{
    __sm_{name}_public_start = .;
    KEEP(*(.broch.entry))
    . = ALIGN(2);
    broch_table_start = .;
    KEEP(*(.broch.table))
    broch_table_end = .;
    broch_drivers_start = .;
    KEEP(*(.broch.drivers))
    broch_drivers_end = .;
    KEEP(*(.broch.tags))
    __sm_{name}_ports = .;
    KEEP(*(.broch.ports))
    BYTE(0)
    . = ALIGN(2);
    broch_init_start = .;
    KEEP(*(.broch.init))
    . = ALIGN(2);
    *(.text .text.*)
    *(.rodata .rodata.* .data.rel.ro .data.rel.ro.*)
    . = ALIGN(2);
    __sm_{name}_public_end = .;
  }}
{drivers}
  ASSERT(. <= {place.public_end}, "{text_full}")
  .data.sm.{name} {place.secret_start} {noload}: {{
    __sm_{name}_secret_start = .;
    broch_secret_start = .;
    *(.bss.broch_entry)
    . = ALIGN(2);
    broch_data_start = .;
    *(.data .data.*)
    . = ALIGN(2);
    broch_data_end = .;
    *(.bss .bss.* COMMON)
    . = ALIGN(2);
    broch_stack_end = .;
    . = MAX(. + {min_stack}, {place.secret_end});
    __sm_{name}_secret_end = .;
    broch_secret_end = .;
  }}
  ASSERT(broch_secret_end <= {place.secret_end}, "{no_stack}")
  .symtab 0 : {{ *(.symtab) }}
  .strtab 0 : {{ *(.strtab) }}
  .shstrtab 0 : {{ *(.shstrtab) }}
  /DISCARD/ : {{ *(.comment .note.* .eh_frame .MSP430.attributes .broch.driver_names) }}
}}
"""

_DRIVER: Final = """\
  .text.sm.{name} ALIGN(2) : {{
    __sm_{name}_public_start = .;
    KEEP(*(.broch.driver.{name}))
    . = ALIGN(2);
    __sm_{name}_public_end = .;
  }}
  __sm_{name}_secret_start = {start};
  __sm_{name}_secret_end = {end};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver that a module declares."""

    name: str
    start: int  # of its peripherals
    end: int


def linker_script(
    name: str, place: Layout, drivers: Sequence[Driver], *, with_values: bool = False
) -> str:
    """The script for a module called ``name`` (an identifier of C).

    Args:
        name: of the module's part.
        place: all that it may fill.
        drivers: its drivers.
        with_values: keep the values that variables begin with in the secret section, to read them.
    """
    return _SCRIPT.format(
        name=name,
        place=place,
        drivers="".join(
            _DRIVER.format(name=each.name, start=each.start, end=each.end) for each in drivers
        ),
        noload="" if with_values else "(NOLOAD) ",
        min_stack=MIN_STACK,
        text_full=TEXT_FULL,
        no_stack=NO_STACK,
    )


def first_values(data: bytes) -> bytes:
    """What the variables of a program begin with; its script had ``with_values``."""
    program = read_elf(data)
    start, end = program.symbols["broch_data_start"], program.symbols["broch_data_end"]
    for section in program.sections.values():
        if start in section.addresses and start < end:
            return section.data[start - section.address : end - section.address]
    return b""


def put_identities(data: bytes, drivers: Sequence[Driver]) -> bytes:
    """The program with the identity of each driver where the module's text has room for it."""
    program = read_elf(data)
    found = parts_of(program)
    patched = bytearray(data)
    for driver in drivers:
        part = found[driver.name]
        at = _file_offset(data, program.symbols[f"__sm_{driver.name}_tag"])
        patched[at : at + TAG_SIZE] = identity(part.text, part.layout)
    return bytes(patched)


def _file_offset(data: bytes, address: int) -> int:
    for section in ELFFile(io.BytesIO(data)).iter_sections():
        inside = section["sh_addr"] <= address < section["sh_addr"] + section["sh_size"]
        if section["sh_type"] == "SHT_PROGBITS" and inside:
            return int(section["sh_offset"] + address - section["sh_addr"])
    raise InternalError(f"0x{address:04x} is in no section of the linked module")
