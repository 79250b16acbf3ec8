"""Our CPU against mspdebug's simulator, instruction by instruction, on random programs.

``mspdebug_traces.json`` holds traces that mspdebug 0.22 made (``python -m pytest`` with
``BROCH_RECORD=1`` makes it anew), so that the comparison needs no mspdebug.
"""

import json
import os
from pathlib import Path

import pytest

from broch.cpu.msp430 import Instruction, decode, disassemble

from . import mspdebug
from .machine import of_program
from .mspdebug import Steps, ours
from .programs import random_program

RECORDED = Path(__file__).with_name("mspdebug_traces.json")
RECORDED_SEEDS = range(1000, 1003)
LENGTH, ROUNDS, STEPS = 40, 3, 110


def compare(seed: int, expected: Steps) -> set[str]:
    """Step through a program; return the names of its instructions."""
    cpu = of_program(random_program(seed, LENGTH, ROUNDS), translating=False)
    assert len(expected) == STEPS
    names = set()
    for number, state in enumerate(expected):
        instruction = current(cpu.bus.words, cpu.registers[0])
        names.add(instruction.name)
        cpu.step()
        text = f"seed {seed}, step {number}: {disassemble(instruction)}"
        assert ours(cpu.registers) == state, text
    return names


def current(words: memoryview, pc: int) -> Instruction:
    return decode(lambda at: words[at >> 1], pc)


def test_recorded_traces() -> None:
    if os.environ.get("BROCH_RECORD") and mspdebug.present():
        made = {
            str(s): mspdebug.run(random_program(s, LENGTH, ROUNDS), STEPS) for s in RECORDED_SEEDS
        }
        lines = [f'"{seed}": {json.dumps(trace)}' for seed, trace in made.items()]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    recorded = json.loads(RECORDED.read_text())
    assert recorded.keys() == {str(seed) for seed in RECORDED_SEEDS}
    for seed, steps in recorded.items():
        compare(int(seed), [tuple(state) for state in steps])


def test_random_programs() -> None:
    if not mspdebug.present():
        pytest.skip("mspdebug is not installed: only its recorded traces were compared")
    names: set[str] = set()
    for seed in range(30):
        names |= compare(seed, mspdebug.run(random_program(seed, LENGTH, ROUNDS), STEPS))
    assert len(names) >= 26, "all but reti"
