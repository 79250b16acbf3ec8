"""The declared interface of a module: what may cross its boundary, under which name and type.

A *shape* describes a type as plain data, so that it can be measured with the image and compared
across modules:

    {"type": "none" | "bool" | "int" | "float" | "str" | "bytes"}
    {"type": "list", "items": shape}
    {"type": "tuple", "items": [shape, ...]}
    {"type": "dict", "values": shape}            keys are strings
    {"type": "optional", "item": shape}
    {"type": "enum", "name": str, "values": [str | int, ...]}
    {"type": "struct", "name": str, "fields": {field: shape}, "required": [field, ...]}

Names of structs and enums are for people, and the order of an enum's values and of required fields
says nothing: two shapes fit when all else is equal. Which port has what:

    input, output             argument
    request, handler, ocall   argument, result
    entry                     argument (a struct of the parameters), result
    every                     seconds
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from broch.errors import DecodeError

_TYPE_NAMES: Final = frozenset({"none", "bool", "int", "float", "str", "bytes"})
MAX_PORTS: Final = 256
MAX_NAME: Final = 64  # characters of a port's or module's name
#: :func:`is_name` for people.
NAME_RULE: Final = (
    f"a name begins with a-z and goes on with a-z, 0-9, - or _, at most {MAX_NAME} in all"
)
_MAX_DEPTH: Final = 16
_MAX_INT: Final = 2**63 - 1  # of an enum's values
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")

Shape = Mapping[str, Any]


class PortKind(StrEnum):
    """How values cross at a port."""

    INPUT = "input"
    OUTPUT = "output"
    REQUEST = "request"
    HANDLER = "handler"
    ENTRY = "entry"
    EVERY = "every"
    OCALL = "ocall"


_HAS: Final = {  # what a port of each kind has, besides kind and name
    PortKind.INPUT: {"argument"},
    PortKind.OUTPUT: {"argument"},
    PortKind.REQUEST: {"argument", "result"},
    PortKind.HANDLER: {"argument", "result"},
    PortKind.ENTRY: {"argument", "result"},
    PortKind.EVERY: {"seconds"},
    PortKind.OCALL: {"argument", "result"},
}


def is_name(text: str) -> bool:
    """Whether ``text`` may name an app, node, module or port."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One named way in or out of a module."""

    kind: PortKind
    name: str
    argument: Shape | None = None  # what is given; entries: a struct of the parameters
    result: Shape | None = None  # what comes back: request, handler, entry, ocall
    seconds: float | None = None  # every: the period

    def to_data(self) -> dict[str, Any]:
        """Plain data for CBOR and JSON, without what is absent."""
        data: dict[str, Any] = {"kind": self.kind.value, "name": self.name}
        if self.argument is not None:
            data["argument"] = self.argument
        if self.result is not None:
            data["result"] = self.result
        if self.seconds is not None:
            data["seconds"] = self.seconds
        return data

    @classmethod
    def from_data(cls, data: object) -> Self:
        """The inverse of :meth:`to_data`; raises :class:`DecodeError`."""
        if not isinstance(data, dict):
            raise DecodeError(0, f"a port is a map, not {_show(data)}")
        kind, name, seconds = data.get("kind"), data.get("name"), data.get("seconds")
        if kind not in list(PortKind):
            raise DecodeError(0, f"unknown kind of port {_show(kind)}")
        if not isinstance(name, str) or not is_name(name):
            raise DecodeError(0, f"a port's name is {_show(name)}, not lower case, digits, - _")
        if data.keys() != {"kind", "name"} | _HAS[PortKind(kind)]:
            raise DecodeError(0, f"{kind} {name} has {', '.join(sorted(_HAS[PortKind(kind)]))}")
        if "seconds" in data and not (isinstance(seconds, float) and 0 < seconds < 1e9):
            raise DecodeError(0, f"seconds of {name} is {_show(seconds)}, not a positive number")
        for key in ("argument", "result"):
            if key in data:
                check_shape(data[key])
        if kind == PortKind.ENTRY and data["argument"]["type"] != "struct":
            raise DecodeError(0, f"parameters of entry {name} are a struct")
        return cls(
            kind=PortKind(kind),
            name=name,
            argument=data.get("argument"),
            result=data.get("result"),
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Interface:
    """All ports of a module, in the order of declaration; a port's index is its number."""

    ports: tuple[Port, ...] = ()

    def find(self, name: str, *kinds: PortKind) -> Port | None:
        """The port of that name, if it is of one of ``kinds`` (any kind when none is given)."""
        for port in self.ports:
            if port.name == name and (not kinds or port.kind in kinds):
                return port
        return None

    def of(self, *kinds: PortKind) -> tuple[Port, ...]:
        """The ports of these kinds."""
        return tuple(port for port in self.ports if port.kind in kinds)

    def number(self, name: str) -> int:
        """The index of the port called ``name``; raises :class:`KeyError`."""
        for index, port in enumerate(self.ports):
            if port.name == name:
                return index
        raise KeyError(name)

    def to_data(self) -> list[dict[str, Any]]:
        """Plain data for CBOR and JSON."""
        return [port.to_data() for port in self.ports]

    @classmethod
    def from_data(cls, data: object) -> Self:
        """The inverse of :meth:`to_data`; raises :class:`DecodeError`."""
        if not isinstance(data, list) or len(data) > MAX_PORTS:
            raise DecodeError(0, f"an interface is a list of at most {MAX_PORTS} ports")
        ports = tuple(Port.from_data(item) for item in data)
        if len({port.name for port in ports}) != len(ports):
            raise DecodeError(0, "two ports of one name")
        return cls(ports)


def check_shape(shape: object, depth: int = 0) -> None:
    """Raise :class:`DecodeError` unless ``shape`` is one of those in the module's docstring."""
    if depth > _MAX_DEPTH:
        raise DecodeError(0, f"types nest deeper than {_MAX_DEPTH}")
    if not isinstance(shape, dict) or not isinstance(shape.get("type"), str):
        raise DecodeError(0, f"not a shape: {_show(shape)}")
    kind = shape["type"]
    if kind in _TYPE_NAMES:
        _expect_keys(shape)
    elif kind in ("list", "dict", "optional"):
        inner = {"list": "items", "dict": "values", "optional": "item"}[kind]
        _expect_keys(shape, inner)
        check_shape(shape[inner], depth + 1)
    elif kind == "tuple":
        _expect_keys(shape, "items")
        for item in _expect_list(shape["items"]):
            check_shape(item, depth + 1)
    elif kind == "enum":
        _check_enum(shape)
    elif kind == "struct":
        _check_struct(shape, depth)
    else:
        raise DecodeError(0, f"unknown type {kind!r:.40}")


def _check_enum(shape: Mapping[str, Any]) -> None:
    _expect_keys(shape, "name", "values")
    _expect_text(shape["name"])
    values = _expect_list(shape["values"])
    for value in values:
        is_int = type(value) is int and -_MAX_INT - 1 <= value <= _MAX_INT
        if not is_int and type(value) is not str:
            raise DecodeError(0, "values of an enum are strings or 64-bit integers")
    if not values or len(set(values)) != len(values):
        raise DecodeError(0, "an enum has values, each of them once")


def _check_struct(shape: Mapping[str, Any], depth: int) -> None:
    _expect_keys(shape, "name", "fields", "required")
    _expect_text(shape["name"])
    fields = shape["fields"]
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise DecodeError(0, "fields of a struct are a map from names to shapes")
    for item in fields.values():
        check_shape(item, depth + 1)
    required = _expect_list(shape["required"])
    if not all(isinstance(name, str) and name in fields for name in required):
        raise DecodeError(0, "a required field that the struct does not have")
    if len(set(required)) != len(required):
        raise DecodeError(0, "a required field named twice")


def _expect_keys(shape: Mapping[str, Any], *keys: str) -> None:
    if shape.keys() != {"type", *keys}:
        raise DecodeError(0, f"a {shape['type']} shape has the keys {sorted({'type', *keys})}")


def _expect_text(value: object) -> None:
    if not isinstance(value, str):
        raise DecodeError(0, f"expected a name, got {_show(value)}")


def _show(value: object) -> str:
    """A value in an error's text: at most 80 characters, whatever it is."""
    return f"{value!r:.80}" if isinstance(value, str | float) else type(value).__name__


def _expect_list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise DecodeError(0, f"expected a list, got {type(value).__name__}")
    return value


def fits(given: Shape | None, wanted: Shape | None) -> bool:
    """Whether every value of ``given`` is a value of ``wanted`` and the other way round."""
    return _nameless(given) == _nameless(wanted)


def _nameless(shape: object) -> object:
    if isinstance(shape, list):
        return [_nameless(item) for item in shape]
    if not isinstance(shape, Mapping):
        return shape
    if shape["type"] == "enum":
        return {"type": "enum", "values": frozenset(shape["values"])}
    if shape["type"] == "struct":
        return {
            "type": "struct",
            "fields": {name: _nameless(item) for name, item in shape["fields"].items()},
            "required": frozenset(shape["required"]),
        }
    return {key: _nameless(value) for key, value in shape.items()}


def spell(shape: Shape | None) -> str:
    """A shape as a person would write the type: ``list[int]``, ``Moisture(percent: float)``."""
    if shape is None:
        return "nothing"
    kind = str(shape["type"])
    if kind == "none":
        return "None"
    if kind == "list":
        return f"list[{spell(shape['items'])}]"
    if kind == "tuple":
        return f"tuple[{', '.join(spell(item) for item in shape['items'])}]"
    if kind == "dict":
        return f"dict[str, {spell(shape['values'])}]"
    if kind == "optional":
        return f"{spell(shape['item'])} | None"
    if kind == "enum":
        return f"{shape['name']}({' | '.join(repr(value) for value in shape['values'])})"
    if kind == "struct":
        fields = ", ".join(f"{name}: {spell(item)}" for name, item in shape["fields"].items())
        return f"{shape['name']}({fields})"
    return kind
