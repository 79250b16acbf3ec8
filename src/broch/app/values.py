"""Values as people write them, checked against a shape: JSON on this side, msgpack on the other.

The same values but for bytes, which JSON lacks: base64 text. What is wrong is said with the path
to it and the type that was expected.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from broch.errors import MalformedError, UsageError
from broch.image import Shape, spell

_MAX_INT: Final = 2**64 - 1
_MIN_INT: Final = -(2**63)


def encode(shape: Shape | None, value: Any, what: str) -> bytes:
    """A JSON value as msgpack.

    Args:
        shape: what is expected; None for no value at all.
        value: decoded JSON.
        what: names the value in messages: ``argument``, ``valve.set``.

    Raises:
        UsageError: not a value of ``shape``.
    """
    return msgspec.msgpack.encode(_to_wire(shape or {"type": "none"}, value, what))


def encode_arguments(shape: Shape | None, value: Any, what: str) -> bytes:
    """Arguments of an entry (an object by parameter's name, or a list in their order) as msgpack.

    Raises:
        UsageError: one is missing, unknown, or of another type.
    """
    fields: Mapping[str, Shape] = (shape or {}).get("fields", {})
    if value is None:
        value = {}
    if isinstance(value, list):
        if len(value) > len(fields):
            problem = f"{what} takes {len(fields)} arguments, got {len(value)}"
            raise UsageError(problem, hint=_signature(what, fields))
        value = dict(zip(fields, value, strict=False))
    if not isinstance(value, dict):
        problem = f"arguments of {what} are {_kind(value)}, expected an object or a list"
        raise UsageError(problem, hint=_signature(what, fields))
    for name in value:
        if name not in fields:
            raise UsageError(f"{what} has no parameter {name!r}", hint=_signature(what, fields))
    for name, inner in fields.items():
        if name not in value:
            problem = f"{what}: parameter {name} is missing, expected {spell(inner)}"
            raise UsageError(problem, hint=_signature(what, fields))
    wire = {n: _to_wire(s, value[n], f"{what}: parameter {n}") for n, s in fields.items()}
    return msgspec.msgpack.encode(wire)


def _signature(what: str, fields: Mapping[str, Shape]) -> str:
    return f"{what}({', '.join(f'{name}: {spell(shape)}' for name, shape in fields.items())})"


def decode(shape: Shape | None, data: bytes) -> Any:
    """A msgpack value as JSON can carry it; raises :class:`MalformedError`."""
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise MalformedError(f"not a value: {exc}") from None
    return _from_wire(shape or {"type": "none"}, value)


def _to_wire(shape: Shape, value: Any, what: str) -> Any:
    kind = str(shape["type"])
    if kind == "optional":
        return None if value is None else _to_wire(shape["item"], value, what)
    if kind in _PLAIN:
        accepts, convert = _PLAIN[kind]
        if not accepts(value):
            raise _wrong(shape, value, what)
        return convert(value)
    if kind == "bytes":
        return _from_base64(shape, value, what)
    if kind == "enum":
        for candidate in shape["values"]:
            if type(candidate) is type(value) and candidate == value:
                return value
        raise _wrong(shape, value, what)
    return _container_to_wire(kind, shape, value, what)


def _container_to_wire(kind: str, shape: Shape, value: Any, what: str) -> Any:
    if kind == "list" and isinstance(value, list):
        return [_to_wire(shape["items"], v, f"{what}[{i}]") for i, v in enumerate(value)]
    if kind == "tuple" and isinstance(value, list) and len(value) == len(shape["items"]):
        pairs = zip(shape["items"], value, strict=True)
        return [_to_wire(s, v, f"{what}[{i}]") for i, (s, v) in enumerate(pairs)]
    if kind == "dict" and isinstance(value, dict):
        return {key: _to_wire(shape["values"], v, f"{what}.{key}") for key, v in value.items()}
    if kind == "struct" and isinstance(value, dict):
        return _struct_to_wire(shape, value, what)
    raise _wrong(shape, value, what)


def _struct_to_wire(shape: Shape, value: Mapping[str, Any], what: str) -> dict[str, Any]:
    fields = shape["fields"]
    for name in value:
        if name not in fields:
            raise UsageError(f"{what}: {shape['name']} has no field {name!r}", hint=spell(shape))
    for name in shape["required"]:
        if name not in value:
            problem = f"{what}: field {name} is missing, expected {spell(fields[name])}"
            raise UsageError(problem, hint=spell(shape))
    return {name: _to_wire(fields[name], v, f"{what}.{name}") for name, v in value.items()}


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


_PLAIN: Final[dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]]] = {
    "none": (lambda v: v is None, lambda v: v),
    "bool": (lambda v: type(v) is bool, lambda v: v),
    "int": (lambda v: type(v) is int and _MIN_INT <= v <= _MAX_INT, lambda v: v),
    "float": (_is_number, float),
    "str": (lambda v: type(v) is str, lambda v: v),
}


def _from_base64(shape: Shape, value: Any, what: str) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _wrong(shape, value, what, "bytes as base64 text")


def _wrong(shape: Shape, value: Any, what: str, expected: str | None = None) -> UsageError:
    return UsageError(f"{what} is {_kind(value)}, expected {expected or spell(shape)}")


def _kind(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    return text if len(text) <= 60 else text[:57] + "..."


def _from_wire(shape: Shape, value: Any) -> Any:
    kind = shape["type"]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if kind == "optional":
        return None if value is None else _from_wire(shape["item"], value)
    if isinstance(value, list) and kind == "list":
        return [_from_wire(shape["items"], item) for item in value]
    if isinstance(value, list) and kind == "tuple" and len(value) == len(shape["items"]):
        return [_from_wire(s, v) for s, v in zip(shape["items"], value, strict=True)]
    if isinstance(value, dict) and kind == "dict":
        return {key: _from_wire(shape["values"], item) for key, item in value.items()}
    if isinstance(value, dict) and kind == "struct" and value.keys() <= shape["fields"].keys():
        return {key: _from_wire(shape["fields"][key], item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    if _fits(kind, value, shape):
        return value
    raise MalformedError(f"expected {spell(shape)}, got {_kind(value)}")


def _fits(kind: str, value: Any, shape: Shape) -> bool:
    if kind == "enum":
        return value in shape["values"]
    if kind == "float" and type(value) is int:
        return True
    return kind in _PLAIN and _PLAIN[kind][0](value)
