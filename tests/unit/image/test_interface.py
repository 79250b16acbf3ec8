"""Interfaces: ports by their kinds, shapes by their grammar, and which fit together."""

from typing import Any, Final

import pytest

from broch.errors import DecodeError
from broch.image import Interface, Port, PortKind, Shape, fits, spell
from broch.image.interface import MAX_NAME, MAX_PORTS, check_shape

INT: Final = {"type": "int"}
STR: Final = {"type": "str"}
NOTHING: Final = {"type": "struct", "name": "status", "fields": {}, "required": []}
READING: Final = {
    "type": "struct",
    "name": "Reading",
    "fields": {"percent": {"type": "float"}, "at": INT},
    "required": ["percent", "at"],
}
COLOUR: Final = {"type": "enum", "name": "Colour", "values": ["red", "blue"]}

PORTS: Final[dict[str, dict[str, Any]]] = {
    "input": {"kind": "input", "name": "a", "argument": READING},
    "output": {"kind": "output", "name": "b", "argument": INT},
    "request": {"kind": "request", "name": "c", "argument": INT, "result": STR},
    "handler": {"kind": "handler", "name": "d", "argument": INT, "result": STR},
    "entry": {"kind": "entry", "name": "e", "argument": NOTHING, "result": STR},
    "every": {"kind": "every", "name": "f", "seconds": 0.5},
    "ocall": {"kind": "ocall", "name": "g", "argument": INT, "result": STR},
}

# Ports


def test_there_is_a_port_of_each_kind_here() -> None:
    assert set(PORTS) == {kind.value for kind in PortKind}


@pytest.mark.parametrize("kind", PORTS)
def test_a_port_comes_back_as_it_went(kind: str) -> None:
    port = Port.from_data(PORTS[kind])
    assert port.kind.value == kind
    assert port.to_data() == PORTS[kind]


@pytest.mark.parametrize(("kind", "key"), [(k, key) for k in PORTS for key in PORTS[k]])
def test_a_port_without_what_its_kind_has_is_refused(kind: str, key: str) -> None:
    data = {k: v for k, v in PORTS[kind].items() if k != key}
    with pytest.raises(DecodeError):
        Port.from_data(data)


@pytest.mark.parametrize("key", ["argument", "result", "seconds", "colour"])
@pytest.mark.parametrize("kind", PORTS)
def test_a_port_with_what_its_kind_has_not_is_refused(kind: str, key: str) -> None:
    if key in PORTS[kind]:
        return
    with pytest.raises(DecodeError, match=f"{kind} . has "):
        Port.from_data({**PORTS[kind], key: 1.0 if key == "seconds" else INT})


@pytest.mark.parametrize("data", [None, [], "input", 5])
def test_a_port_is_a_map(data: object) -> None:
    with pytest.raises(DecodeError, match="a port is a map"):
        Port.from_data(data)


@pytest.mark.parametrize(
    "kind", [None, "door", "INPUT", pytest.param(10**5000, id="huge"), ["input"]]
)
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(DecodeError, match="unknown kind of port"):
        Port.from_data({**PORTS["input"], "kind": kind})


@pytest.mark.parametrize(
    "name",
    [
        None,
        5,
        "",
        "A",
        "a b",
        "a\x1b[2J",
        "a" * (MAX_NAME + 1),
        b"a",
        pytest.param(10**5000, id="huge"),
    ],
)
def test_a_name_is_a_name(name: object) -> None:
    with pytest.raises(DecodeError, match="a port's name is") as caught:
        Port.from_data({**PORTS["input"], "name": name})
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "seconds",
    [
        None,
        1,
        0.0,
        -1.0,
        1e9,
        float("nan"),
        float("inf"),
        "1",
        True,
        pytest.param(10**5000, id="huge"),
    ],
)
def test_a_period_is_a_positive_number(seconds: object) -> None:
    with pytest.raises(DecodeError, match=r"seconds of f is .*, not a positive number"):
        Port.from_data({**PORTS["every"], "seconds": seconds})


@pytest.mark.parametrize("argument", [INT, COLOUR, {"type": "none"}])
def test_parameters_of_an_entry_are_a_struct(argument: object) -> None:
    with pytest.raises(DecodeError, match="parameters of entry e are a struct"):
        Port.from_data({**PORTS["entry"], "argument": argument})


@pytest.mark.parametrize("key", ["argument", "result"])
def test_the_shapes_of_a_port_are_checked(key: str) -> None:
    with pytest.raises(DecodeError, match="unknown type 'complex'"):
        Port.from_data({**PORTS["ocall"], key: {"type": "complex"}})


# Interfaces


def test_ports_are_numbered_in_order() -> None:
    interface = Interface.from_data(list(PORTS.values()))
    assert [port.name for port in interface.ports] == list("abcdefg")
    assert [interface.number(name) for name in "abcdefg"] == list(range(7))
    assert Interface.from_data(interface.to_data()) == interface
    with pytest.raises(KeyError):
        interface.number("z")


def test_ports_are_found_by_name_and_kind() -> None:
    interface = Interface.from_data(list(PORTS.values()))
    found = interface.find("a")
    assert found is not None
    assert found.kind is PortKind.INPUT
    assert interface.find("a", PortKind.OUTPUT, PortKind.INPUT) == found
    assert interface.find("a", PortKind.OUTPUT) is None
    assert interface.find("z") is None
    assert [port.name for port in interface.of(PortKind.ENTRY, PortKind.OUTPUT)] == ["b", "e"]


def test_two_ports_of_one_name_are_refused() -> None:
    with pytest.raises(DecodeError, match="two ports of one name"):
        Interface.from_data([PORTS["input"], {**PORTS["output"], "name": "a"}])


@pytest.mark.parametrize("data", [None, {}, "ab", [None]])
def test_an_interface_is_a_list_of_ports(data: object) -> None:
    with pytest.raises(DecodeError, match=r"an interface is a list|a port is a map"):
        Interface.from_data(data)


def test_an_interface_has_a_limit() -> None:
    ports = [{**PORTS["output"], "name": f"p{n}"} for n in range(MAX_PORTS + 1)]
    assert len(Interface.from_data(ports[:-1]).ports) == MAX_PORTS
    with pytest.raises(DecodeError, match=f"at most {MAX_PORTS} ports"):
        Interface.from_data(ports)


# Shapes


def nested(depth: int) -> Shape:
    shape: Shape = INT
    for _ in range(depth):
        shape = {"type": "list", "items": shape}
    return shape


@pytest.mark.parametrize(
    "shape",
    [
        *({"type": name} for name in ("none", "bool", "int", "float", "str", "bytes")),
        nested(16),
        {"type": "tuple", "items": []},
        {"type": "tuple", "items": [INT, STR]},
        {"type": "dict", "values": READING},
        {"type": "optional", "item": COLOUR},
        {"type": "enum", "name": "", "values": [-(2**63), 2**63 - 1, "x"]},
        {**READING, "required": []},
        NOTHING,
    ],
)
def test_shapes_of_the_grammar(shape: Shape) -> None:
    check_shape(shape)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        pytest.param(None, "not a shape: NoneType", id="nothing"),
        pytest.param([], "not a shape: list", id="list"),
        pytest.param({}, "not a shape: dict", id="no type"),
        pytest.param({"type": 10**5000}, "not a shape: dict", id="huge type"),
        pytest.param({"type": "complex"}, "unknown type 'complex'", id="unknown type"),
        pytest.param({"type": "int", "min": 0}, "a int shape has the keys", id="int with more"),
        pytest.param({"type": "list"}, "a list shape has the keys", id="list of nothing"),
        pytest.param({"type": "list", "items": [INT]}, "not a shape", id="list of a list"),
        pytest.param(
            {"type": "dict", "items": INT}, "a dict shape has the keys", id="dict of items"
        ),
        pytest.param({"type": "optional", "item": None}, "not a shape", id="optional nothing"),
        pytest.param({"type": "tuple", "items": INT}, "expected a list", id="tuple of no list"),
        pytest.param({"type": "tuple", "items": [1]}, "not a shape: int", id="tuple of 1"),
        pytest.param(nested(17), "nest deeper than 16", id="too deep"),
        pytest.param({**COLOUR, "values": []}, "an enum has values", id="empty enum"),
        pytest.param({**COLOUR, "values": ["a", "a"]}, "each of them once", id="value twice"),
        pytest.param({**COLOUR, "values": "ab"}, "expected a list", id="values as text"),
        pytest.param({**COLOUR, "values": [1.0]}, "strings or 64-bit", id="enum of floats"),
        pytest.param({**COLOUR, "values": [True]}, "strings or 64-bit", id="enum of bools"),
        pytest.param({**COLOUR, "values": [None]}, "strings or 64-bit", id="enum of None"),
        pytest.param({**COLOUR, "values": [2**63]}, "strings or 64-bit", id="65 bits"),
        pytest.param({**COLOUR, "name": 5}, "expected a name, got int", id="enum named 5"),
        pytest.param({**READING, "name": None}, "expected a name", id="struct without a name"),
        pytest.param({**READING, "fields": []}, "a map from names to shapes", id="fields as list"),
        pytest.param({**READING, "fields": {1: INT}}, "a map from names", id="field named 1"),
        pytest.param({**READING, "fields": {"a": 1}}, "not a shape", id="field of no shape"),
        pytest.param({**READING, "required": None}, "expected a list", id="required nothing"),
        pytest.param({**READING, "required": ["x"]}, "does not have", id="required unknown"),
        pytest.param({**READING, "required": [1]}, "does not have", id="required 1"),
        pytest.param({**READING, "required": [[]]}, "does not have", id="required list"),
        pytest.param({**READING, "required": ["at", "at"]}, "named twice", id="required twice"),
    ],
)
def test_what_is_no_shape_is_refused(shape: object, match: str) -> None:
    with pytest.raises(DecodeError, match=match):
        check_shape(shape)


def test_a_shape_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {"type": "list"}
    loop["items"] = loop
    with pytest.raises(DecodeError, match="nest deeper"):
        check_shape(loop)


# What fits


def struct(**fields: Shape) -> Shape:
    return {"type": "struct", "name": "S", "fields": fields, "required": list(fields)}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param(READING, READING, id="same"),
        pytest.param(READING, {**READING, "name": "Moisture"}, id="another name"),
        pytest.param(READING, {**READING, "required": ["at", "percent"]}, id="order of required"),
        pytest.param(COLOUR, {**COLOUR, "name": "Color"}, id="another name of an enum"),
        pytest.param(COLOUR, {**COLOUR, "values": ["blue", "red"]}, id="order of values"),
        pytest.param(
            {"type": "list", "items": {"type": "dict", "values": READING}},
            {"type": "list", "items": {"type": "dict", "values": {**READING, "name": "M"}}},
            id="another name inside",
        ),
    ],
)
def test_what_fits(given: Shape | None, wanted: Shape | None) -> None:
    assert fits(given, wanted)
    assert fits(wanted, given)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(None, INT, id="nothing for a value"),
        pytest.param(INT, STR, id="int for str"),
        pytest.param(INT, {"type": "optional", "item": INT}, id="optional"),
        pytest.param(INT, {"type": "float"}, id="int for float"),
        pytest.param(READING, {**READING, "required": ["at"]}, id="not required"),
        pytest.param(COLOUR, {**COLOUR, "values": ["red"]}, id="fewer values"),
        pytest.param(struct(a=INT), struct(b=INT), id="another field"),
        pytest.param(struct(a=INT), struct(a=STR), id="another type of a field"),
        pytest.param(struct(name=INT), struct(name=STR), id="field called name"),
        pytest.param(struct(required=INT), struct(required=STR), id="field called required"),
        pytest.param(struct(type=INT), struct(type=STR), id="field called type"),
        pytest.param(struct(values=INT), struct(values=STR), id="field called values"),
        pytest.param(
            {"type": "tuple", "items": [INT, STR]},
            {"type": "tuple", "items": [STR, INT]},
            id="order",
        ),
    ],
)
def test_what_does_not_fit(given: Shape | None, wanted: Shape | None) -> None:
    assert not fits(given, wanted)
    assert not fits(wanted, given)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (None, "nothing"),
        ({"type": "none"}, "None"),
        ({"type": "list", "items": INT}, "list[int]"),
        ({"type": "tuple", "items": [INT, STR]}, "tuple[int, str]"),
        ({"type": "dict", "values": STR}, "dict[str, str]"),
        ({"type": "optional", "item": INT}, "int | None"),
        (COLOUR, "Colour('red' | 'blue')"),
        (READING, "Reading(percent: float, at: int)"),
    ],
)
def test_shapes_are_spelled_as_people_write_types(shape: Shape | None, text: str) -> None:
    assert spell(shape) == text
