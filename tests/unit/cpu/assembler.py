"""A small MSP430 assembler for tests: ``assemble("loop: add.b @r5+, 2(r6)\\n jne loop", 0x8000)``.

It knows the core instructions, the emulated ones that tests use, labels, and ``.word``. Constants
that the generator has are not put in words unless ``generator`` is false.
"""

import re
from typing import Final

TWO: Final = "mov add addc subc sub cmp dadd bit bic bis xor and".split()
ONE: Final = "rrc swpb rra sxt push call".split()
JUMPS: Final = "jne jeq jnc jc jn jge jl jmp".split()
_ALIASES: Final = {"jnz": "jne", "jz": "jeq", "jlo": "jnc", "jhs": "jc"}
_EMULATED: Final = {
    "ret": "mov @sp+, pc",
    "pop": "mov @sp+, {0}",
    "br": "mov {0}, pc",
    "clrc": "bic #1, sr",
    "setc": "bis #1, sr",
    "eint": "bis #8, sr",
    "dint": "bic #8, sr",
    "nop": "mov #0, r3",
    "clr": "mov #0, {0}",
    "inc": "add #1, {0}",
    "incd": "add #2, {0}",
    "dec": "sub #1, {0}",
    "decd": "sub #2, {0}",
    "tst": "cmp #0, {0}",
    "rla": "add {0}, {0}",
    "rlc": "addc {0}, {0}",
    "inv": "xor #0xffff, {0}",
}
_REGISTERS: Final = {"pc": 0, "sp": 1, "sr": 2, **{f"r{n}": n for n in range(16)}}
_GENERATED: Final = {0: (3, 0), 1: (3, 1), 2: (3, 2), 4: (2, 2), 8: (2, 3), 0xFFFF: (3, 3)}

_Labels = dict[str, int]


def _number(text: str, labels: _Labels | None) -> int:
    """A number, or a label; without labels (first pass) a number that needs a word."""
    if re.fullmatch(r"[A-Za-z_]\w*", text):
        return 0x7777 if labels is None else labels[text]
    return int(text, 0) & 0xFFFF


def _operand(
    text: str, labels: _Labels | None, *, byte: bool, generator: bool
) -> tuple[int, int, list[int]]:
    """Register, addressing mode, words that follow."""
    if text.startswith("#"):
        value = _number(text[1:], labels)
        if byte and value == 0xFF:
            value = 0xFFFF
        if generator and text[1:2] in "-0123456789" and value in _GENERATED:
            return *_GENERATED[value], []
        return 0, 3, [value]
    if text.startswith("&"):
        return 2, 1, [_number(text[1:], labels)]
    if text.startswith("@"):
        return _REGISTERS[text.strip("@+")], 3 if text.endswith("+") else 2, []
    if text.endswith(")"):
        index, _, register = text[:-1].partition("(")
        return _REGISTERS[register], 1, [_number(index, labels)]
    return _REGISTERS[text], 0, []


def _encode(text: str, at: int, labels: _Labels | None, *, generator: bool) -> list[int]:
    name, _, rest = text.partition(" ")
    name, _, size = name.partition(".")
    byte = size == "b"
    operands = [part.strip() for part in rest.split(",")] if rest.strip() else []
    if name == "" and size == "word":
        return [_number(part, labels) for part in operands]
    if name in _EMULATED:
        core, _, form = _EMULATED[name].partition(" ")
        text = f"{core}{'.b' if byte else ''} {form.format(*operands)}"
        return _encode(text, at, labels, generator=generator)
    name = _ALIASES.get(name, name)
    if name == "reti":
        return [0x1300]
    if name in JUMPS:
        target = at if labels is None else _number(operands[0], labels)
        offset = (target - at - 2) // 2
        assert -512 <= offset <= 511, f"{text}: too far"
        return [0x2000 | JUMPS.index(name) << 10 | offset & 0x3FF]
    register, mode, words = _operand(operands[0], labels, byte=byte, generator=generator)
    if name in ONE:
        return [0x1000 | ONE.index(name) << 7 | byte << 6 | mode << 4 | register, *words]
    first = 0x4000 + (TWO.index(name) << 12) | register << 8 | byte << 6 | mode << 4
    to, to_mode, to_words = _operand(operands[1], labels, byte=byte, generator=False)
    assert to_mode in (0, 1), f"{text}: no such destination"
    return [first | to_mode << 7 | to, *words, *to_words]


def assemble(source: str, origin: int, *, generator: bool = True) -> bytes:
    """Machine code of ``source``, to be loaded at ``origin``."""
    lines = []
    for line in source.splitlines():
        text = line.partition(";")[0].strip()
        while match := re.match(r"(\w+):\s*", text):
            lines.append((match[1], ""))
            text = text[match.end() :]
        if text:
            lines.append(("", text))
    labels: _Labels = {}
    at = origin
    for label, text in lines:
        if label:
            labels[label] = at
        else:
            at += 2 * len(_encode(text, at, None, generator=generator))
    words: list[int] = []
    for _, text in lines:
        if text:
            words += _encode(text, origin + 2 * len(words), labels, generator=generator)
    return b"".join(word.to_bytes(2, "little") for word in words)
