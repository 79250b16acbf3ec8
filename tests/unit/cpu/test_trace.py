"""Traces for people."""

from broch.cpu.msp430 import Recorder

from .machine import machine


def test_a_trace_has_a_line_for_each_instruction() -> None:
    cpu = machine("mov #0x7fff, r5\n add #1, r5\n push r5\nE: jmp E")
    recorder = Recorder(cpu)
    cpu.run(8)
    assert recorder.lines() == [
        "        4  8000  mov #0x7fff, r5          r5=7fff",
        "        6  8004  add #0x1, r5             r5=8000 sr=0104 [vn]",
        "        7  8006  push r5                  sp=41fe",
        "       10  8008  jmp 0x8008",
    ]


def test_only_the_last_lines_are_kept_and_stop_stops() -> None:
    cpu = machine("L: add #1, r5\n jmp L", translating=True)
    recorder = Recorder(cpu, lines=3)
    cpu.run(900)
    assert len(recorder.lines()) == 3
    assert not cpu._regions, "nothing is translated while it is traced"
    recorder.stop()
    cpu.run(900)
    assert cpu._regions
    assert len(recorder.lines()) == 3
