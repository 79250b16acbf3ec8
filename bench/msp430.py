"""The MSP430 emulator: CRC and hash loops, in million emulated cycles a second.

``mcycles_per_s`` is the slower of the two loops, with translation as always; ``interpreted`` is
the interpreter alone. Where mspdebug is installed, its simulator (written in C) runs the same
code from start to end, must come to the same result, and is timed beside ours in turns. All times
are of CPU, so that other work on the machine counts little.
"""

import re
import resource
import shutil
import subprocess
import time

from common import Figure, run

from broch.cpu.msp430 import Bus, Cpu

# CRC-16 (polynomial 0xa001) of 256 bytes at 0x4000, as often as the word at 0x0302 says.
CRC = bytes.fromhex(
    "3c400040"  # start: mov #0x4000, r12
    "3b400001"  #        mov #256, r11
    "3d43"  #            mov #0xffff, r13
    "7f4c"  #     byte:  mov.b @r12+, r15
    "0def"  #            xor r15, r13
    "3e42"  #            mov #8, r14
    "12c3"  #     bit:   clrc
    "0d10"  #            rrc r13
    "0228"  #            jnc skip
    "3de001a0"  #        xor #0xa001, r13
    "1e83"  #     skip:  dec r14
    "f923"  #            jne bit
    "1b83"  #            dec r11
    "f423"  #            jne byte
    "824d0003"  #        mov r13, &0x0300
    "92830203"  #        dec &0x0302
    "ea23"  #            jne start
    "ff3f"  #     done:  jmp done
)
# A hash that adds, shifts and mixes 32 bits for each of the same bytes.
HASH = bytes.fromhex(
    "3c400040"  # start: mov #0x4000, r12
    "3b400001"  #        mov #256, r11
    "0843 0943"  #       clr r8, clr r9
    "7f4c"  #     byte:  mov.b @r12+, r15
    "085f 0963"  #       add r15, r8; addc #0, r9
    "0648 0749"  #       mov r8, r6; mov r9, r7
    "8610 8710"  #       swpb r6; swpb r7
    "47e6 07e6"  #       xor.b r6, r7; xor r6, r7
    "36f000ff"  #        and #0xff00, r6
    "0656 0767"  #       rla r6; rlc r7
    "0656 0767"  #       rla r6; rlc r7
    "0856 0967"  #       add r6, r8; addc r7, r9
    "0648 0749"  #       mov r8, r6; mov r9, r7
    "0711 0610"  #       rra r7; rrc r6
    "0711 0610"  #       rra r7; rrc r6
    "08e6 09e7"  #       xor r6, r8; xor r7, r9
    "1b83"  #            dec r11
    "e523"  #            jne byte
    "82480003"  #        mov r8, &0x0300
    "92830203"  #        dec &0x0302
    "da23"  #            jne start
    "ff3f"  #     done:  jmp done
)
DATA = bytes((7 * i + 3) & 0xFF for i in range(256))
CODE, AT_DATA, RESULT, COUNT = 0x8000, 0x4000, 0x0300, 0x0302
PASSES = 400  # over the data
TURNS = 5


def _machine(code: bytes) -> Cpu:
    bus = Bus()
    bus.load(CODE, code)
    bus.load(AT_DATA, DATA)
    bus.load(0xFFFE, CODE.to_bytes(2, "little"))
    bus.load(COUNT, PASSES.to_bytes(2, "little"))
    cpu = Cpu(bus)
    cpu.reset()
    return cpu


def _cycles(code: bytes) -> int:
    """How long the program takes until its last jump, to within a thousand cycles."""
    cpu = _machine(code)
    while cpu.registers[0] != CODE + len(code) - 2:
        cpu.run(1000)
    return cpu.cycles


def _ours(code: bytes, cycles: int, *, translating: bool) -> tuple[float, int]:
    """Million cycles a second from a cold start, and the result."""
    cpu = _machine(code)
    cpu.translating = translating
    begin = time.thread_time()
    cpu.run(cycles)
    taken = time.thread_time() - begin
    return cycles / taken / 1e6, cpu.bus.words[RESULT >> 1]


def _theirs(code: bytes, cycles: int) -> tuple[float, int]:
    """The same with mspdebug, without the time that it takes to start."""

    def commands(*last: str) -> str:
        lines = ["set 2 0", f"set 0 {CODE}", f"setbreak {CODE + len(code) - 2}"]
        counts = PASSES.to_bytes(2, "little")
        for address, data in ((CODE, code), (AT_DATA, DATA), (COUNT, counts)):
            lines.append(f"mw {address} " + data.hex(" "))
        return "\n".join([*lines, *last]) + "\n"

    def timed(text: str) -> tuple[float, str]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["mspdebug", "-q", "sim"], input=text, capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return taken, done.stdout

    nothing, _ = timed(commands(f"md {RESULT} 2"))
    taken, output = timed(commands("run", f"md {RESULT} 2"))
    low, high = re.findall(r"0300: (..) (..)", output)[-1]
    return cycles / max(taken - nothing, 1e-6) / 1e6, int(high + low, 16)


def figures() -> list[Figure]:
    """Measure."""
    present = shutil.which("mspdebug") is not None
    found: dict[str, list[float]] = {}
    for name, code in (("crc", CRC), ("hash", HASH)):
        cycles = _cycles(code)
        for _ in range(TURNS):
            speed, result = _ours(code, cycles, translating=True)
            found.setdefault(name, []).append(speed)
            if present:
                speed, theirs = _theirs(code, cycles)
                if theirs != result:
                    raise RuntimeError(f"{name}: {result:#x}, and mspdebug says {theirs:#x}")
                found.setdefault(f"mspdebug_{name}", []).append(speed)
        speed, _ = _ours(code, cycles // 40, translating=False)
        found.setdefault(f"interpreted_{name}", []).append(speed)
    best = {name: max(speeds) for name, speeds in found.items()}
    unit = "Mcycles/s"
    slowest = min(best["crc"], best["hash"])
    return [
        Figure(name="mcycles_per_s", value=slowest, unit=unit, bar=">= 5"),
        *(Figure(name=f"{name}_mcycles_per_s", value=best[name], unit=unit) for name in best),
    ]


if __name__ == "__main__":
    run(figures)
