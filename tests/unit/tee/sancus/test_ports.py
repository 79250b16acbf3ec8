"""The port table: what may be in it, and what is refused where."""

from typing import Any

import pytest

from broch.errors import DecodeError
from broch.image import PortKind
from broch.tee.sancus.ports import MAX_FIELDS, MAX_LINE, MAX_PORTS, read_table


def table(*lines: str) -> bytes:
    return b"".join(line.encode("latin-1") + b"\0" for line in lines) + b"\0"


def test_every_kind_of_line() -> None:
    found = read_table(
        b"\xff\xff"
        + table(
            "interrupt edge 2",
            "input set Valve{open:bool,litres:u16}",
            "output level i32",
            "entry status none -> u8",
            "entry add Sum{a:i16,b:i16} -> none",
            "every tick 1500",
        ),
        2,
    )
    ports = found.interface.ports
    assert [(p.kind, p.name) for p in ports] == [
        (PortKind.INPUT, "set"),
        (PortKind.OUTPUT, "level"),
        (PortKind.ENTRY, "status"),
        (PortKind.ENTRY, "add"),
        (PortKind.EVERY, "tick"),
    ]
    assert ports[0].argument == {
        "type": "struct",
        "name": "Valve",
        "fields": {"open": {"type": "bool"}, "litres": {"type": "int"}},
        "required": ["open", "litres"],
    }
    assert ports[1].argument == {"type": "int"}
    assert ports[2].argument == {"type": "struct", "name": "none", "fields": {}, "required": []}
    assert ports[2].result == {"type": "int"}
    assert ports[3].result == {"type": "none"}
    assert ports[4].seconds == 1.5
    assert found.interrupts == {2}
    assert found.numbers == {"edge": 0, "set": 1, "level": 2, "status": 3, "add": 4, "tick": 5}
    assert [found.number(port) for port in range(5)] == [1, 2, 3, 4, 5]
    assert type(found.interface).from_data(found.interface.to_data()) == found.interface


def test_an_empty_table() -> None:
    assert read_table(b"\0", 0).interface.ports == ()


@pytest.mark.parametrize(
    "line",
    [
        "input set",
        "input set Valve{}",
        "input set Valve{open}",
        "input set Valve{open:float}",
        "input set Valve{open:none}",
        "input set Valve{open:bool,open:bool}",
        "input set Valve{open:bool,}",
        "input set Valve{in:In{a:u8}}",
        "input set u64",
        "input  set u8",
        "input set u8 ",
        "input Set u8",
        "input 1set u8",
        "handler ask u8",
        "entry e u8 -> u8",
        "entry e none",
        "entry e none => u8",
        "every e 0",
        "every e 01",
        "every e -1",
        "every e 1.5",
        "every e 99999999999",
        "interrupt e 0",
        "interrupt e 13",
        "interrupt e x",
        "input s\xe4t u8",
        "x" * (MAX_LINE + 1),
        "input set Many{" + ",".join(f"f{n}:u8" for n in range(MAX_FIELDS + 1)) + "}",
    ],
)
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read_table(table("output first u8", line), 0)
    assert caught.value.offset == 16, "where the line begins"


def test_names_are_unique_and_tables_end() -> None:
    with pytest.raises(DecodeError, match="two ports are called a"):
        read_table(table("input a u8", "interrupt a 2"), 0)
    with pytest.raises(DecodeError, match="does not end"):
        read_table(table("input a u8")[:-2], 0)
    with pytest.raises(DecodeError, match=f"more than {MAX_PORTS} ports"):
        read_table(table(*(f"input p{n} u8" for n in range(MAX_PORTS + 1))), 0)
    most = read_table(table(*(f"input p{n} u8" for n in range(MAX_PORTS))), 0)
    assert len(most.interface.ports) == MAX_PORTS


@pytest.mark.parametrize("cut", range(30))
def test_every_truncation_is_refused(cut: int) -> None:
    whole: Any = table("input set Valve{open:bool}")
    if cut < len(whole) - 1:
        with pytest.raises(DecodeError):
            read_table(whole[:cut], 0)
