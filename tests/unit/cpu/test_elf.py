"""ELF files: what is loaded where, and a named error for each thing that can be wrong."""

import shutil
import subprocess
from pathlib import Path

import pytest

from broch.cpu.msp430 import (
    Bus,
    Cpu,
    ElfError,
    EmptySectionError,
    OverlapError,
    TooLargeError,
    WrongMachineError,
    read_elf,
)
from broch.cpu.msp430.elf import MAX_FILE
from broch.errors import MalformedError

from .assembler import assemble
from .elf_writer import Part, elf

TEXT = Part(name=".text", address=0x8000, data=assemble("mov #7, r5\nE: jmp E", 0x8000))
VECTORS = Part(name=".vectors", address=0xFFFE, data=b"\x00\x80")
DATA = Part(name=".data", address=0x0200, data=b"1234", load_at=0x9000)
BSS = Part(name=".bss", address=0x0204, zeros=6)


def test_a_program_is_read_and_runs() -> None:
    program = read_elf(elf(TEXT, DATA, BSS, VECTORS, symbols={"main": 0x8000, "end": 0x8006}))
    assert program.entry == 0x8000
    assert program.symbols == {"main": 0x8000, "end": 0x8006}
    assert program.section(".data").addresses == range(0x200, 0x204)
    assert program.sections[".bss"].data == bytes(6)
    cpu = Cpu(Bus())
    program.load(cpu.bus)
    cpu.reset()
    cpu.run(10)
    assert cpu.registers[5] == 7
    assert cpu.bus.memory[0x9000:0x9004] == b"1234", "data is loaded where it is stored"
    assert cpu.bus.memory[0x200:0x204] == bytes(4)


def test_sections_that_are_not_loaded_are_not_listed() -> None:
    comment = Part(name=".comment", address=0, data=b"clang", load=False, flags=0)
    assert ".comment" not in read_elf(elf(TEXT, comment)).sections


@pytest.mark.parametrize("machine", [0, 3, 62, 243])
def test_another_machine_is_refused(machine: int) -> None:
    with pytest.raises(WrongMachineError, match="EM_MSP430"):
        read_elf(elf(TEXT, machine=machine))


@pytest.mark.parametrize("kind", [1, 3])
def test_what_is_not_linked_is_refused(kind: int) -> None:
    with pytest.raises(WrongMachineError, match="ET_EXEC"):
        read_elf(elf(TEXT, kind=kind))


def test_big_endian_is_refused() -> None:
    with pytest.raises(ElfError):
        read_elf(elf(TEXT, order=2))


def test_overlapping_sections_are_refused() -> None:
    twin = Part(name=".twin", address=0x8002, data=b"12", load=False)
    with pytest.raises(OverlapError, match=r"\.text and section \.twin overlap at 0x8002"):
        read_elf(elf(TEXT, twin))


def test_overlapping_segments_are_refused() -> None:
    twin = Part(name=".twin", address=0x9000, data=b"12", load_at=0x8004)
    with pytest.raises(OverlapError, match="segment at 0x8000"):
        read_elf(elf(TEXT, twin))


def test_two_sections_of_one_name_are_refused() -> None:
    with pytest.raises(OverlapError, match="two sections"):
        read_elf(elf(TEXT, Part(name=".text", address=0x9000, data=b"12")))


def test_nothing_to_load_is_refused() -> None:
    with pytest.raises(EmptySectionError, match="nothing to load"):
        read_elf(elf(BSS))


def test_a_section_that_must_hold_something() -> None:
    program = read_elf(elf(TEXT, Part(name=".empty", address=0x9000, load=False)))
    with pytest.raises(EmptySectionError, match=r"\.empty is empty"):
        program.section(".empty")
    with pytest.raises(EmptySectionError, match=r"no section \.absent"):
        program.section(".absent")


@pytest.mark.parametrize(
    ("address", "size"), [(0x1F0, 16), (0xFFF0, 32), (0x5BFE, 4), (0x4100, 0x1000)]
)
def test_what_does_not_fit_is_refused(address: int, size: int) -> None:
    memory = (range(0x200, 0x4200), range(0x5C00, 0x10000))
    part = Part(name=".big", address=address, data=bytes(size))
    with pytest.raises(TooLargeError):
        read_elf(elf(part), memory)


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(TooLargeError, match="more than"):
        read_elf(bytes(MAX_FILE + 1))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF" + bytes(48), b"MZ" + bytes(100)])
def test_what_is_no_elf_file(data: bytes) -> None:
    with pytest.raises(ElfError):
        read_elf(data)


def test_every_truncation_is_refused_or_harmless() -> None:
    whole = elf(TEXT, DATA, symbols={"main": 0x8000})
    refused = 0
    for size in range(len(whole)):
        try:
            read_elf(whole[:size])
        except MalformedError:
            refused += 1
    assert refused > len(whole) - 4 * 40, "the section headers are last"


def test_what_clang_and_lld_make(tmp_path: Path) -> None:
    clang = shutil.which("clang-14") or shutil.which("clang")
    lld = shutil.which("ld.lld-14") or shutil.which("ld.lld")
    if clang is None or lld is None:
        pytest.skip("clang and ld.lld are not installed: no program of theirs to run")
    source = tmp_path / "sum.c"
    source.write_text(
        "volatile unsigned result; unsigned table[] = {1, 2, 3, 5, 8};\n"
        "void start(void) { unsigned i, sum = 0; for (i = 0; i < 5; i++) sum += table[i];\n"
        "  result = sum; for (;;); }\n"
    )
    script = tmp_path / "sum.ld"
    script.write_text(
        "ENTRY(start) SECTIONS { . = 0x300; .bss : { *(.bss) *(COMMON) }\n"
        ". = 0x8000; .text : { *(.text*) } .rodata : { *(.rodata*) } .data : { *(.data*) }\n"
        ". = 0xfffe; .vectors : { SHORT(start) } /DISCARD/ : { *(.comment) } }\n"
    )
    made = tmp_path / "sum.o"
    out = tmp_path / "sum.elf"
    subprocess.run(
        [clang, "--target=msp430", "-ffreestanding", "-O1", "-c", str(source), "-o", str(made)],
        check=True,
    )
    subprocess.run(
        [lld, "-m", "msp430elf", "-T", str(script), str(made), "-o", str(out)], check=True
    )
    program = read_elf(out.read_bytes())
    cpu = Cpu(Bus())
    program.load(cpu.bus)
    cpu.reset()
    cpu.registers[1] = 0x1000
    cpu.run(1000)
    assert cpu.bus.words[program.symbols["result"] >> 1] == 19
