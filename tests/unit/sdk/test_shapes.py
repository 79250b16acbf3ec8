"""From types to shapes: each type that may cross, and each kind of type that may not."""

import dataclasses
import datetime
import decimal
import enum
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Optional, TypedDict, Union

import msgspec
import pytest

from broch import Struct
from broch.image import Shape
from broch.image.interface import check_shape
from broch.sdk.shapes import UnknownTypeError, parameters_struct, shape_of

INT: Final = {"type": "int"}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    AUTO = enum.auto()


class Reading(Struct):
    percent: float
    tags: list[str] = msgspec.field(default_factory=list)
    colour: Colour | None = None


class Renamed(Struct, rename="camel"):
    soil_moisture: float


class Outer(Struct):
    inner: Reading


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (None, {"type": "none"}),
        (type(None), {"type": "none"}),
        (bool, {"type": "bool"}),
        (int, INT),
        (float, {"type": "float"}),
        (str, {"type": "str"}),
        (bytes, {"type": "bytes"}),
        (list[int], {"type": "list", "items": INT}),
        (tuple[int, str], {"type": "tuple", "items": [INT, {"type": "str"}]}),
        (tuple[()], {"type": "tuple", "items": []}),
        (dict[str, int], {"type": "dict", "values": INT}),
        (int | None, {"type": "optional", "item": INT}),
        (Optional[int], {"type": "optional", "item": INT}),  # noqa: UP045
        (Literal["a", 1], {"type": "enum", "name": "Literal", "values": [1, "a"]}),
        (Literal[None], {"type": "none"}),
        (
            Literal["a", None],
            {"type": "optional", "item": {"type": "enum", "name": "Literal", "values": ["a"]}},
        ),
        (Colour, {"type": "enum", "name": "Colour", "values": ["red", "blue"]}),
        (Level, {"type": "enum", "name": "Level", "values": [1, 2]}),
        (Mode, {"type": "enum", "name": "Mode", "values": ["auto"]}),
        (
            Reading,
            {
                "type": "struct",
                "name": "Reading",
                "fields": {
                    "percent": {"type": "float"},
                    "tags": {"type": "list", "items": {"type": "str"}},
                    "colour": {
                        "type": "optional",
                        "item": {"type": "enum", "name": "Colour", "values": ["red", "blue"]},
                    },
                },
                "required": ["percent"],
            },
        ),
        (
            Renamed,
            {
                "type": "struct",
                "name": "Renamed",
                "fields": {"soilMoisture": {"type": "float"}},
                "required": ["soilMoisture"],
            },
        ),
    ],
)
def test_what_may_cross(kind: object, shape: Shape) -> None:
    found = shape_of(kind)
    if found.get("name") == "Literal":
        found = {**found, "values": sorted(found["values"], key=str)}
    assert found == shape
    check_shape(found)
    msgspec.msgpack.Decoder(kind)  # what was accepted can be decoded


class NotOurs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    x: int


class Tagged(Struct, tag=True):
    x: int


class AsArray(Struct, array_like=True):
    x: int


class Lenient(Struct, forbid_unknown_fields=False):
    x: int


class Tree(Struct):
    left: Optional["Tree"]


Lost: Final = msgspec.defstruct("Lost", [("x", "Nowhere")], bases=(Struct,))
Careless: Final = msgspec.defstruct("Careless", [("x", "1 / 0")], bases=(Struct,))


class Holder(Struct):
    x: list[Any]


@dataclasses.dataclass
class Data:
    x: int


class Record(TypedDict):
    x: int


class Pair(NamedTuple):
    x: int


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Fractions(enum.Enum):
    HALF = 0.5


class Nothing(enum.Enum):
    pass


DEEP: Any = int
for _ in range(13):
    DEEP = list[DEEP]


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        pytest.param(Any, "any may not cross: use None, bool", id="Any"),
        pytest.param(object, "object may not cross", id="object"),
        pytest.param(complex, "complex may not cross", id="complex"),
        pytest.param(bytearray, "bytearray may not cross", id="bytearray"),
        pytest.param(memoryview, "memoryview may not cross", id="memoryview"),
        pytest.param(list, "any may not cross", id="list of anything"),
        pytest.param(dict, r"keys of type any may not cross: use dict\[str", id="dict of anything"),
        pytest.param(dict[int, int], r"a dict with keys of type int may not", id="dict by number"),
        pytest.param(set[int], "set may not cross", id="set"),
        pytest.param(frozenset[int], "frozenset may not cross", id="frozenset"),
        pytest.param(tuple[int, ...], "vartuple may not cross", id="tuple of any length"),
        pytest.param(datetime.datetime, "datetime may not cross", id="datetime"),
        pytest.param(decimal.Decimal, "decimal may not cross", id="Decimal"),
        pytest.param(Data, "dataclass may not cross", id="dataclass"),
        pytest.param(Record, "typeddict may not cross", id="TypedDict"),
        pytest.param(Pair, "namedtuple may not cross", id="NamedTuple"),
        pytest.param(msgspec.Raw, "raw may not cross", id="Raw"),
        pytest.param(msgspec.msgpack.Ext, "ext may not cross", id="Ext"),
        pytest.param(Callable[[], int], "may not cross", id="function"),
        pytest.param(int | str, "a union of several types may not cross", id="union"),
        pytest.param(
            Union[int, str, None],  # noqa: UP007
            "a union of several types",
            id="union with None",
        ),
        pytest.param(Literal[True], "str, int or None", id="Literal of bool"),
        pytest.param(Literal[2**70], "may not cross", id="Literal of 71 bits"),
        pytest.param(Mixed, "Mixed may not cross", id="enum of int and str"),
        pytest.param(Fractions, "may not cross", id="enum of floats"),
        pytest.param(Nothing, "Nothing may not cross", id="enum of nothing"),
        pytest.param(NotOurs, "NotOurs is not a plain broch.Struct", id="another Struct"),
        pytest.param(Tagged, "Tagged is not a plain broch.Struct", id="tagged"),
        pytest.param(AsArray, "AsArray is not a plain broch.Struct", id="as array"),
        pytest.param(Lenient, "Lenient is not a plain broch.Struct", id="unknown fields"),
        pytest.param(Tree, "a struct holds itself", id="recursive"),
        pytest.param(DEEP, "nest too deep", id="too deep"),
        pytest.param(Lost, "Lost may not cross: name 'Nowhere' is not defined", id="unknown name"),
        pytest.param(Careless, "Careless may not cross: division by zero", id="raises"),
        pytest.param(Holder, "any may not cross", id="inside a list in a struct"),
        pytest.param("Reading", "Reading may not cross", id="text"),
        pytest.param(5, "5 may not cross", id="a number"),
        pytest.param(Reading(percent=1.0), "may not cross", id="a value"),
    ],
)
def test_what_may_not_cross(kind: object, match: str) -> None:
    with pytest.raises(UnknownTypeError, match=match):
        shape_of(kind)


@pytest.mark.parametrize("kind", [Sequence[int]])
def test_types_that_msgspec_reads_as_lists(kind: object) -> None:
    assert shape_of(kind) == {"type": "list", "items": INT}


def test_a_struct_in_a_struct() -> None:
    assert shape_of(Outer)["fields"]["inner"]["name"] == "Reading"


# Struct


def test_a_struct_does_not_change() -> None:
    reading = Reading(percent=1.0)
    with pytest.raises(AttributeError):
        setattr(reading, "percent", 2.0)  # noqa: B010
    assert reading == Reading(percent=1.0)


def test_a_struct_takes_no_unknown_fields() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.msgpack.decode(b"\x82\xa7percent\x01\xa1x\x01", type=Reading)


def test_parameters_become_a_struct_like_the_authors() -> None:
    struct = parameters_struct("set", [("valve", str), ("reading", Reading)])
    assert issubclass(struct, Struct)
    assert shape_of(struct)["required"] == ["valve", "reading"]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"valve": "a", "reading": {"percent": 1.0}, "x": 1}, struct)
