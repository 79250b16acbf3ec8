"""C without a Sancus instruction gives the same on our CPU, on mspdebug's simulator, and in Python.

The code is compiled as modules are, with the runtime's own arithmetic and codec; all of memory is
compared at the end.
"""

import random
import re
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import pytest

from broch.cpu.msp430 import Bus, Cpu, Program, read_elf
from broch.image.toolchain import find
from broch.tee.sancus.compiling import FLAGS, KIT

from .c_module import needs_compiler

CASES: Final = 12
OPERATIONS: Final = 18
END: Final = 0x5C08
RAM: Final = range(0x0400, 0x4000)
SCRIPT: Final = """
ENTRY(_start)
SECTIONS {
  .text 0x5c00 : { *(.start) *(.text*) *(.rodata*) }
  .data 0x400 (NOLOAD) : { *(.data*) *(.bss*) }
  /DISCARD/ : { *(.eh_frame) *(.comment) }
}
"""
START: Final = """
        .section .start,"ax",@progbits
        .globl  _start
_start: mov     #0x4000, r1
        call    #run
        jmp     .
"""
SOURCE: Final = r"""
#include "runtime.h"
#define F(n, t, e) static __attribute__((noinline)) t n(t a, t b) { return e; }
#define ALL(p, u, s) F(p##mul, u, a * b) F(p##div, u, b ? a / b : 0) F(p##rem, u, b ? a % b : 0) \
    F(p##sdiv, s, b && b != -1 ? a / b : 0) F(p##srem, s, b && b != -1 ? a % b : 0)
ALL(w, uint16_t, int16_t)
ALL(l, uint32_t, int32_t)
ALL(q, uint64_t, int64_t)
F(shl, uint32_t, a << (b & 31))
F(shr, uint32_t, a >> (b & 31))
F(sar, int32_t, a >> (b & 31))

struct pair { uint64_t a, b; };
extern const struct pair cases[];
extern const u16 count;
uint64_t results[18 * 12];
u16 crc;
u8 sorted[64];
u8 text[64];
u16 size;

BROCH_STRUCT(Mixed, (bool, yes), (i16, minus), (u32, many));

static void arithmetic(void)
{
    uint64_t *to = results;
    for (u16 i = 0; i < count; i++) {
        uint64_t a = cases[i].a, b = cases[i].b;
        *to++ = wmul(a, b); *to++ = wdiv(a, b); *to++ = wrem(a, b);
        *to++ = wsdiv(a, b); *to++ = wsrem(a, b);
        *to++ = lmul(a, b); *to++ = ldiv(a, b); *to++ = lrem(a, b);
        *to++ = lsdiv(a, b); *to++ = lsrem(a, b);
        *to++ = qmul(a, b); *to++ = qdiv(a, b); *to++ = qrem(a, b);
        *to++ = qsdiv(a, b); *to++ = qsrem(a, b);
        *to++ = shl(a, b); *to++ = shr(a, b); *to++ = sar(a, b);
    }
}

static u16 crc16(const u8 *data, u16 length) /* CCITT, from 0xffff */
{
    u16 sum = 0xffff;
    while (length--) {
        sum ^= (u16)*data++ << 8;
        for (u8 i = 0; i < 8; i++)
            sum = sum & 0x8000 ? sum << 1 ^ 0x1021 : sum << 1;
    }
    return sum;
}

static void sort(u8 *data, u16 length)
{
    for (u16 i = 1; i < length; i++)
        for (u16 j = i; j && data[j - 1] > data[j]; j--) {
            u8 other = data[j];
            data[j] = data[j - 1];
            data[j - 1] = other;
        }
}

void run(void)
{
    arithmetic();
    crc = crc16((const u8 *)results, sizeof results);
    memcpy(sorted, results, sizeof sorted);
    sort(sorted, sizeof sorted);
    Mixed mixed = {true, -300, 70000}, back;
    size = broch_encode(&broch_type_Mixed, &mixed, text);
    if (!broch_decode(&broch_type_Mixed, text, size, &back) || memcmp(&mixed, &back, sizeof back))
        size = 0;
    memmove(text + 33, text + 32, 30);
    memmove(text + 1, text, 30);
}
"""


def operands() -> list[tuple[int, int]]:
    """Numbers of all lengths, and those at the edges."""
    source = random.Random(1)

    def one() -> int:
        value = source.getrandbits(source.choice([8, 15, 16, 17, 31, 32, 33, 63, 64]))
        return source.choice([value, -value % 2**64, 0, 1, 2**64 - 1, 2**63, 2**31, 2**15, value])

    return [(one(), one()) for _ in range(CASES)]


@cache
def program() -> bytes:
    """The ELF file."""
    needs_compiler()
    tools = find("msp430")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("arith.S", "codec.c", "layout.h", "runtime.h"):
            shutil.copyfile(KIT / file, folder / file)
        pairs = ",".join(f"{{{a}ull,{b}ull}}" for a, b in operands())
        (folder / "cases.c").write_text(
            "struct pair { unsigned long long a, b; };\n"
            f"const struct pair cases[] = {{{pairs}}};\nconst unsigned short count = {CASES};\n"
        )
        (folder / "main.c").write_text(SOURCE)
        (folder / "start.S").write_text(START)
        (folder / "plain.ld").write_text(SCRIPT)
        tools.compile(
            [*FLAGS, "-c", "main.c", "cases.c", "codec.c", "arith.S", "start.S"], cwd=folder
        )
        objects = ["main.o", "cases.o", "codec.o", "arith.o", "start.o"]
        tools.link(["--gc-sections", "-T", "plain.ld", *objects, "-o", "plain.elf"], cwd=folder)
        return (folder / "plain.elf").read_bytes()


@cache
def ours() -> tuple[Program, bytes]:
    """The program, and RAM after it ran on our CPU."""
    found = read_elf(program())
    cpu = Cpu(Bus())
    found.load(cpu.bus)
    cpu.reset()
    cpu.registers[0] = found.entry
    for _ in range(100):
        cpu.run(100_000)
        if cpu.registers[0] == END:
            return found, bytes(cpu.bus.memory[RAM.start : RAM.stop])
    raise AssertionError("it does not end")


def variable(name: str, size: int) -> bytes:
    found, memory = ours()
    at = found.symbols[name] - RAM.start
    return memory[at : at + size]


def signed(value: int, bits: int) -> int:
    value &= 2**bits - 1
    return value - 2**bits if value >> bits - 1 else value


def divided(a: int, b: int) -> int:
    """As C divides: towards zero."""
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def expected(a: int, b: int) -> list[int]:
    found = []
    for bits in (16, 32, 64):
        mask = 2**bits - 1
        x, y, sx, sy = a & mask, b & mask, signed(a, bits), signed(b, bits)
        found += [x * y & mask, x // y if y else 0, x % y if y else 0]
        quotient = divided(sx, sy) if sy not in (0, -1) else None
        found += [0, 0] if quotient is None else [quotient, sx - sy * quotient]
    places = b & 31
    found += [(a << places) & 0xFFFFFFFF, (a & 0xFFFFFFFF) >> places, signed(a, 32) >> places]
    return [value % 2**64 for value in found]


def test_arithmetic_is_that_of_python() -> None:
    size = CASES * OPERATIONS
    results = struct.unpack(f"<{size}Q", variable("results", 8 * size))
    for index, (a, b) in enumerate(operands()):
        mine = list(results[index * OPERATIONS : (index + 1) * OPERATIONS])
        assert mine == expected(a, b), f"{a:#x}, {b:#x}"


def test_sorting_copying_and_values() -> None:
    results = variable("results", 8 * CASES * OPERATIONS)
    assert variable("sorted", 64) == bytes(sorted(results[:64]))
    value = msgspec.msgpack.encode({"yes": True, "minus": -300, "many": 70000})
    assert int.from_bytes(variable("size", 2), "little") == len(value)
    text = variable("text", 64)
    assert text[1 : 1 + len(value)] == value
    assert text[0] == value[0]


def test_mspdebug_gives_the_same() -> None:
    if shutil.which("mspdebug") is None:
        pytest.skip("mspdebug is not installed (Debian: apt install mspdebug)")
    _, memory = ours()
    with TemporaryDirectory() as folder:
        path = Path(folder, "plain.elf")
        path.write_bytes(program())
        commands = [
            f"prog {path}",
            f"fill 0x{RAM.start:x} {len(RAM)} 0",
            "set 0 0x5c00",
            f"setbreak 0x{END:x}",
            "run",
            f"md 0x{RAM.start:x} {len(RAM)}",
        ]
        done = subprocess.run(
            ["mspdebug", "-q", "sim", *commands],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
    lines = re.findall(
        r"^\s+0?([0-9a-f]{4,5}): ((?:[0-9a-f]{2} ){1,16})",
        done.stdout.rpartition("memory")[2],
        re.M,
    )
    theirs = b"".join(bytes.fromhex(line) for _, line in lines[-len(RAM) // 16 :])
    assert len(theirs) == len(RAM), done.stdout[-2000:]
    assert theirs == memory


@pytest.mark.parametrize(
    "name", ["mpyi", "mpyl", "mpyll", "divu", "remi", "divul", "remli", "divull", "remlli"]
)
def test_arithmetic_takes_the_same_time_whatever_the_numbers(name: str) -> None:
    found, _ = ours()
    address = found.symbols.get(f"__mspabi_{name}")
    assert address is not None
    source = random.Random(2)
    taken = set()
    for _ in range(12):
        cpu = Cpu(Bus())
        found.load(cpu.bus)
        cpu.bus.load(0x3FFE, struct.pack("<H", END))
        fill = source.choice([0, 0xFFFF, 1, 0x8000, None])
        cpu.registers[:] = [address, 0x3FFE] + [
            source.getrandbits(16) if fill is None else fill for _ in range(14)
        ]
        cpu.registers[2] = 0
        cpu.breakpoints = {END}
        assert cpu.run(100_000)
        taken.add(cpu.cycles)
    assert len(taken) == 1
