"""Runs programs on the simulator of mspdebug, which others wrote."""

import re
import shutil
import subprocess
from typing import Final

from .assembler import assemble
from .programs import CODE, DATA, Program

NAMES: Final = {"PC": 0, "SP": 1, "SR": 2, **{f"R{n}": n for n in range(4, 16)}}
_REGISTER: Final = re.compile(r"\(\s*(PC|SP|SR|R\d+):\s*([0-9a-f]{5})\)")

State = tuple[int, ...]  # registers without R3
Steps = list[State]


def present() -> bool:
    """Whether mspdebug is installed."""
    return shutil.which("mspdebug") is not None


def _write(address: int, data: bytes) -> list[str]:
    """Commands that put ``data`` in memory."""
    return [
        f"mw 0x{address + at:x} " + " ".join(f"0x{byte:02x}" for byte in data[at : at + 32])
        for at in range(0, len(data), 32)
    ]


def run(program: Program, steps: int) -> Steps:
    """Registers after each of ``steps`` instructions."""
    commands = [*_write(CODE, assemble(program.source, CODE)), *_write(DATA, program.data)]
    registers = {0: CODE, 2: 0, **program.registers}
    commands += [f"set {number} 0x{value:x}" for number, value in registers.items()]
    commands += ["echo stepping", *["step"] * steps]
    done = subprocess.run(
        ["mspdebug", "-q", "sim"],
        input="\n".join(commands) + "\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=60,
    )
    return parse(done.stdout, steps)


def parse(output: str, steps: int) -> Steps:
    """The states in what mspdebug printed for the last ``steps`` commands."""
    found = _REGISTER.findall(output)
    states = []
    for at in range(len(found) - 16 * steps, len(found), 16):
        values = {name: int(value, 16) for name, value in found[at : at + 16]}
        states.append(tuple(values[name] for name in NAMES))
    return states


def ours(registers: list[int]) -> State:
    """Our registers, in the same order."""
    return tuple(registers[number] for number in NAMES.values())
