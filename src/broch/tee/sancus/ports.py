"""The port table of a module in C: names and types, in its text (docs/sancus-abi.md).

    input NAME TYPE
    output NAME TYPE
    entry NAME TYPE -> TYPE
    every NAME MILLISECONDS
    interrupt NAME VECTOR

Strings of ASCII, a zero byte behind each, an empty one at the end. The position of a string is the
port's number in the module. An interrupt is no port for others, so numbers of the
:class:`~broch.image.Interface` and of the table differ where there are interrupts.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from broch.errors import DecodeError
from broch.image import Interface, Port, PortKind, Shape, is_name

MAX_PORTS: Final = 64
MAX_LINE: Final = 512  # bytes
MAX_FIELDS: Final = 16
INTERRUPT: Final = "interrupt"
_SCALARS: Final = {"bool": "bool", **dict.fromkeys(("u8", "i8", "u16", "i16", "u32", "i32"), "int")}
_STRUCT: Final = re.compile(r"([A-Za-z_]\w*)\{([^{}]*)\}", re.ASCII)
_FIELD: Final = re.compile(r"([A-Za-z_]\w*):(\w+)", re.ASCII)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
VECTORS: Final = (2, 3, 6, 7, 8, 9)


@dataclass(frozen=True, slots=True)
class PortTable:
    """A module's ports: the interface, their numbers in the table, and its interrupts."""

    interface: Interface
    numbers: dict[str, int]  # name -> position in the table
    interrupts: frozenset[int]  # vectors

    def number(self, port: int) -> int:
        """The table's number of the interface's port ``port``."""
        return self.numbers[self.interface.ports[port].name]


def read_table(text: bytes, offset: int) -> PortTable:
    """Read the table that begins at ``offset`` of a module's text.

    Raises:
        DecodeError: it does not end, or a line is not one of those above.
    """
    ports: list[Port] = []
    numbers: dict[str, int] = {}
    interrupts: set[int] = set()
    for position in range(MAX_PORTS + 1):
        end = text.find(b"\0", offset, offset + MAX_LINE + 1)
        if end < 0:
            raise DecodeError(offset, f"a line of the port table does not end in {MAX_LINE} bytes")
        if end == offset:
            return PortTable(Interface(tuple(ports)), numbers, frozenset(interrupts))
        if position == MAX_PORTS:
            break
        name = _line(_ascii(text[offset:end], offset), offset, ports, interrupts)
        if name in numbers:
            raise DecodeError(offset, f"two ports are called {name}")
        numbers[name] = position
        offset = end + 1
    raise DecodeError(offset, f"more than {MAX_PORTS} ports")


def _ascii(line: bytes, offset: int) -> str:
    try:
        return line.decode("ascii")
    except UnicodeDecodeError:
        raise DecodeError(offset, "a line of the port table is not ASCII") from None


def _line(line: str, offset: int, ports: list[Port], interrupts: set[int]) -> str:
    """Take one line; the name in it."""
    words = line.split(" ")
    kind = words[0]
    if len(words) < 3 or not is_name(words[1]):
        raise DecodeError(offset, f"not a line of a port table: {line!r:.80}")
    name, rest = words[1], words[2:]
    if kind in ("input", "output") and len(rest) == 1:
        ports.append(Port(kind=PortKind(kind), name=name, argument=_shape(rest[0], offset)))
    elif kind == "entry" and len(rest) == 3 and rest[1] == "->":
        result = _shape(rest[2], offset)
        argument = _parameters(rest[0], offset)
        ports.append(Port(kind=PortKind.ENTRY, name=name, argument=argument, result=result))
    elif kind == "every" and len(rest) == 1 and _NUMBER.fullmatch(rest[0]):
        ports.append(Port(kind=PortKind.EVERY, name=name, seconds=int(rest[0]) / 1000))
    elif kind == INTERRUPT and len(rest) == 1 and rest[0] in map(str, VECTORS):
        interrupts.add(int(rest[0]))
    else:
        raise DecodeError(offset, f"not a line of a port table: {line!r:.80}")
    return name


def _parameters(text: str, offset: int) -> Shape:
    if text == "none":
        return {"type": "struct", "name": "none", "fields": {}, "required": []}
    shape = _shape(text, offset)
    if shape["type"] != "struct":
        raise DecodeError(offset, f"an entry takes none or a struct, not {text!r:.40}")
    return shape


def _shape(text: str, offset: int) -> dict[str, Any]:
    if text == "none":
        return {"type": "none"}
    if text in _SCALARS:
        return {"type": _SCALARS[text]}
    found = _STRUCT.fullmatch(text)
    if found is None:
        raise DecodeError(offset, f"not a type: {text!r:.80}")
    fields: dict[str, Shape] = {}
    for part in found[2].split(","):
        field = _FIELD.fullmatch(part)
        if field is None or field[2] not in _SCALARS or field[1] in fields:
            raise DecodeError(offset, f"not a field: {part!r:.80}")
        fields[field[1]] = {"type": _SCALARS[field[2]]}
    if len(fields) > MAX_FIELDS:
        raise DecodeError(offset, f"{found[1]} has {len(fields)} fields, at most {MAX_FIELDS}")
    return {"type": "struct", "name": found[1], "fields": fields, "required": list(fields)}
