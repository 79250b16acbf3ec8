"""From Python types to shapes (see :mod:`broch.image.interface`), by msgspec's own reading of them.

What may cross a boundary is closed: None, bool, int, float, str, bytes, list, tuple of fixed
length, dict with text keys, Optional, Literal, Enum and :class:`broch.Struct`.
"""

import enum
from typing import Any, Final, dataclass_transform

import msgspec
from msgspec import inspect as types

from broch.image import Shape

_PLAIN: Final[dict[type, str]] = {
    types.NoneType: "none",
    types.BoolType: "bool",
    types.IntType: "int",
    types.FloatType: "float",
    types.StrType: "str",
    types.BytesType: "bytes",
}
_ALLOWED: Final = (
    "None, bool, int, float, str, bytes, list, tuple, dict[str, ...], Optional, Literal, Enum or a "
    "broch.Struct of these"
)


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the values that cross a boundary: typed fields, immutable, nothing unknown.

    >>> class Moisture(Struct):
    ...     percent: float
    """


class UnknownTypeError(TypeError):
    """A type that may not cross a boundary."""


def shape_of(kind: object) -> Shape:
    """The shape of a type annotation.

    Raises:
        UnknownTypeError: it holds a type that may not cross a boundary.
    """
    if kind is None or kind is type(None):
        return {"type": "none"}
    try:
        info = types.type_info(kind)
    except Exception as exc:  # noqa: BLE001 (it evaluates annotations, which are author's code)
        raise UnknownTypeError(f"{_name(kind)} may not cross: {exc}") from None
    return _shape(info, 0)


def _shape(info: types.Type, depth: int) -> Shape:
    if depth > 12:
        raise UnknownTypeError("types nest too deep, or a struct holds itself")
    plain = _PLAIN.get(type(info))
    if plain is not None:
        return {"type": plain}
    if isinstance(info, types.ListType):
        return {"type": "list", "items": _shape(info.item_type, depth + 1)}
    if isinstance(info, types.TupleType):
        return {"type": "tuple", "items": [_shape(t, depth + 1) for t in info.item_types]}
    if isinstance(info, types.DictType):
        return _dict(info, depth)
    if isinstance(info, types.UnionType):
        return _optional(info, depth)
    if isinstance(info, types.LiteralType):
        return _literal(info)
    if isinstance(info, types.EnumType):
        return _enum(info.cls)
    if isinstance(info, types.StructType):
        return _struct(info, depth)
    raise UnknownTypeError(f"{_name(info)} may not cross: use {_ALLOWED}")


def _dict(info: types.DictType, depth: int) -> Shape:
    if not isinstance(info.key_type, types.StrType):
        key = _name(info.key_type)
        raise UnknownTypeError(f"a dict with keys of type {key} may not cross: use dict[str, ...]")
    return {"type": "dict", "values": _shape(info.value_type, depth + 1)}


def _optional(info: types.UnionType, depth: int) -> Shape:
    inner = [t for t in info.types if not isinstance(t, types.NoneType)]
    if len(inner) != 1 or len(info.types) != 2:
        raise UnknownTypeError(f"a union of several types may not cross: use {_ALLOWED}")
    return {"type": "optional", "item": _shape(inner[0], depth + 1)}


def _literal(info: types.LiteralType) -> Shape:
    values: list[Any] = [value for value in info.values if value is not None]
    if not values:
        return {"type": "none"}
    if not all(type(value) in (str, int) for value in values):
        raise UnknownTypeError("values of a Literal that crosses are str, int or None")
    shape: Shape = {"type": "enum", "name": "Literal", "values": values}
    return shape if None not in info.values else {"type": "optional", "item": shape}


def _enum(cls: type[enum.Enum]) -> Shape:
    values = [member.value for member in cls]
    if not all(type(value) in (str, int) for value in values):
        raise UnknownTypeError(f"{cls.__name__}: values of an enum that crosses are str or int")
    return {"type": "enum", "name": cls.__name__, "values": values}


def _struct(info: types.StructType, depth: int) -> Shape:
    config = info.cls.__struct_config__
    is_ours = issubclass(info.cls, Struct)
    if (
        not is_ours
        or not config.frozen
        or not config.forbid_unknown_fields
        or config.tag is not None
        or config.array_like
    ):
        raise UnknownTypeError(f"{info.cls.__name__} is not a plain broch.Struct")
    return {
        "type": "struct",
        "name": info.cls.__name__,
        "fields": {f.encode_name: _shape(f.type, depth + 1) for f in info.fields},
        "required": [f.encode_name for f in info.fields if f.required],
    }


def _name(thing: object) -> str:
    if isinstance(thing, types.CustomType):
        thing = thing.cls
    if isinstance(thing, types.Type):
        return type(thing).__name__.removesuffix("Type").lower()
    return getattr(thing, "__name__", None) or str(thing)


def parameters_struct(name: str, parameters: list[tuple[str, Any]]) -> type[msgspec.Struct]:
    """A struct of an entry's parameters; ``parameters`` are (name, type), all of them required."""
    return msgspec.defstruct(name, parameters, bases=(Struct,))
