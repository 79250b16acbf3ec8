"""Descriptors of the Authentic Execution framework (``reactive-tools`` 0.6.5), read and checked.

    {"nodes": [...], "modules": [...], "connections": [...], "periodic-events": [...], ...}

Required keys, types and rules are those of its ``reactive_tools/descriptor`` as far as they decide
what an application is; everything else that a file holds is kept in ``rest``, so that a translation
can say of each thing what became of it. Only the JSON form is read.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn

from broch.errors import MalformedError

MAX_FILE: Final = 4 << 20  # bytes
MAX_ITEMS: Final = 4096  # of nodes, modules, connections, periodic events each
_MAX_NAME: Final = 128  # characters
_MAX_PORT: Final = 65535

#: Keys whose values are secrets: they are never shown, and never taken over.
SECRETS: Final = frozenset({"key", "node_key", "vendor_key"})


class Kind(StrEnum):
    """What a node is, and a module on it."""

    SGX = "sgx"
    TRUSTZONE = "trustzone"
    SANCUS = "sancus"
    NATIVE = "native"  # no TEE at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine with an event manager."""

    index: int
    kind: Kind
    name: str
    host: str
    port: int
    rest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module; what it declares is in its code, which the descriptor does not hold."""

    index: int
    kind: Kind
    name: str
    node: str
    rest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """From an output to an input, or from a request to a handler.

    ``source`` is None for a direct connection: the deployer's own. Ports of modules that were
    deployed beforehand can be numbers.
    """

    index: int
    name: str | None
    source: str | None
    source_port: str | int | None
    target: str
    target_port: str | int
    is_request: bool
    encryption: str
    rest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """An entry that the node calls again and again."""

    index: int
    module: str
    entry: str
    milliseconds: int
    rest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactive:
    """A whole descriptor. Only :func:`read_reactive` makes one."""

    file: str
    nodes: tuple[Node, ...]
    modules: tuple[Module, ...]
    connections: tuple[Connection, ...]
    periodic: tuple[Periodic, ...]
    rest: Mapping[str, Any] = field(repr=False)


def read_reactive(data: bytes, file: str) -> Reactive:
    """Read a descriptor.

    Args:
        data: the file, UTF-8.
        file: what errors call it.

    Raises:
        MalformedError: not JSON, or not such a descriptor; the place names the element.
    """
    root = _Element(file, "", _parse(data, file))
    nodes = tuple(_node(i, element) for i, element in enumerate(root.elements("nodes")))
    if not nodes:
        root.fail("nodes", "there is no node")
    modules = tuple(_module(i, element) for i, element in enumerate(root.elements("modules")))
    if not modules:
        root.fail("modules", "there is no module")
    _check_names(root, "nodes", [node.name for node in nodes])
    _check_names(root, "modules", [module.name for module in modules])
    kinds = {node.name: node.kind for node in nodes}
    for module in modules:
        place = f"modules[{module.index}]"
        if module.node not in kinds:
            root.fail(f"{place}.node", f"there is no node {module.node!r}", hint=_known(kinds))
        if module.kind is not kinds[module.node]:
            problem = f"a module of type {module.kind} on a node of type {kinds[module.node]}"
            root.fail(f"{place}.type", problem)
    names = {module.name for module in modules}
    connections = tuple(
        _connection(i, element, names) for i, element in enumerate(root.elements("connections"))
    )
    periodic = tuple(
        _periodic(i, element, names) for i, element in enumerate(root.elements("periodic-events"))
    )
    return Reactive(
        file=file,
        nodes=nodes,
        modules=modules,
        connections=connections,
        periodic=periodic,
        rest=root.rest(),
    )


class _Element:
    """A JSON object from which keys are taken; what is left over is its ``rest``."""

    def __init__(self, file: str, path: str, values: Any) -> None:
        self._file = file
        self._path = path
        if not isinstance(values, dict):
            raise MalformedError(f"expected an object, got {_name(values)}", place=self._place(""))
        self._values: dict[str, Any] = values
        self._taken: set[str] = set()

    def fail(self, key: str, problem: str, *, hint: str | None = None) -> NoReturn:
        raise MalformedError(problem, place=self._place(key), hint=hint)

    def has(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
            self.fail(key, f"expected a text of 1 to {_MAX_NAME} characters, got {_name(value)}")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            self.fail(key, f"expected a whole number from {low} to {high}, got {_name(value)}")
        return value

    def flag(self, key: str) -> bool:
        if key not in self._values:
            return False
        value = self._take(key)
        if type(value) is not bool:
            self.fail(key, f"expected true or false, got {_name(value)}")
        return value

    def port(self, key: str) -> str | int:
        is_number = type(self._values.get(key)) is int
        return self.integer(key, 0, _MAX_PORT) if is_number else self.text(key)

    def one_of(self, *keys: str) -> str:
        """Which one of ``keys`` there is."""
        found = [key for key in keys if key in self._values]
        if len(found) != 1:
            got = " and ".join(found) or "none of them"
            self.fail("", f"expected exactly one of {', '.join(keys)}, got {got}")
        return found[0]

    def elements(self, key: str) -> list["_Element"]:
        if key not in self._values:
            return []
        value = self._take(key)
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            self.fail(key, f"expected a list of at most {MAX_ITEMS}, got {_name(value)}")
        return [_Element(self._file, f"{key}[{i}]", item) for i, item in enumerate(value)]

    def rest(self) -> dict[str, Any]:
        return {key: value for key, value in self._values.items() if key not in self._taken}

    def _take(self, key: str) -> Any:
        if key not in self._values:
            self.fail(key, "is missing")
        self._taken.add(key)
        return self._values[key]

    def _place(self, key: str) -> str:
        path = ".".join(filter(None, (self._path, key)))
        return f"{self._file}: {path}" if path else self._file


def _parse(data: bytes, file: str) -> Any:
    if len(data) > MAX_FILE:
        raise MalformedError(f"has more than {MAX_FILE} bytes", place=file)
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        hint = "a descriptor in YAML must be converted to JSON first"
        raise MalformedError(
            f"not JSON: {exc.msg}", place=f"{file}:{exc.lineno}", hint=hint
        ) from None
    except (ValueError, RecursionError) as exc:
        raise MalformedError(f"not JSON: {exc}", place=file) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.80} is there twice in one object")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _node(index: int, element: _Element) -> Node:
    kind, name = _kind(element), element.text("name")
    host_key = element.one_of("host", "ip_address")  # the latter until April 2022
    return Node(
        index=index,
        kind=kind,
        name=name,
        host=element.text(host_key),
        port=element.integer("reactive_port", 1, _MAX_PORT),
        rest=element.rest(),
    )


def _module(index: int, element: _Element) -> Module:
    return Module(
        index=index,
        kind=_kind(element),
        name=element.text("name"),
        node=element.text("node"),
        rest=element.rest(),
    )


def _kind(element: _Element) -> Kind:
    text = element.text("type")
    if text not in list(Kind):
        element.fail("type", f"unknown type {text!r}", hint=_known(Kind))
    return Kind(text)


def _connection(index: int, element: _Element, modules: Collection[str]) -> Connection:
    target_key = element.one_of("to_input", "to_handler")
    is_request = target_key == "to_handler"
    source: str | None = None
    source_port: str | int | None = None
    if element.flag("direct"):
        for key in ("from_module", "from_output", "from_request"):
            if element.has(key):
                element.fail(key, "a direct connection comes from no module")
    else:
        source = _named_module(element, "from_module", modules)
        source_key = element.one_of("from_output", "from_request")
        if (source_key == "from_request") != is_request:
            problem = f"connects {source_key[5:]} to {target_key[3:]}"
            element.fail("", problem, hint="outputs go to inputs, requests to handlers")
        source_port = element.port(source_key)
    target = _named_module(element, "to_module", modules)
    if source == target:
        element.fail("to_module", f"connects module {target!r} to itself")
    encryption = element.text("encryption")
    if encryption not in ("aes", "spongent"):
        element.fail("encryption", f"unknown encryption {encryption!r}", hint="aes or spongent")
    return Connection(
        index=index,
        name=element.text("name") if element.has("name") else None,
        source=source,
        source_port=source_port,
        target=target,
        target_port=element.port(target_key),
        is_request=is_request,
        encryption=encryption,
        rest=element.rest(),
    )


def _periodic(index: int, element: _Element, modules: Collection[str]) -> Periodic:
    return Periodic(
        index=index,
        module=_named_module(element, "module", modules),
        entry=element.text("entry"),
        milliseconds=element.integer("frequency", 1, 2**32 - 1),
        rest=element.rest(),
    )


def _named_module(element: _Element, key: str, modules: Collection[str]) -> str:
    name = element.text(key)
    if name not in modules:
        element.fail(key, f"there is no module {name!r}", hint=_known(modules))
    return name


def _check_names(root: _Element, key: str, names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        earlier = first.setdefault(name, index)
        if earlier != index:
            root.fail(f"{key}[{index}].name", f"{name!r} is the name of {key}[{earlier}], too")


def _known(names: Iterable[str]) -> str:
    return f"known: {', '.join(sorted(str(name) for name in names))}"


_NAMES: Final[Mapping[type, Callable[[Any], str]]] = {
    bool: lambda value: str(value).lower(),
    int: str,
    str: lambda value: f"a text of {len(value)} characters",
    type(None): lambda _: "null",
    list: lambda value: f"a list of {len(value)}",
    dict: lambda _: "an object",
}


def _name(value: object) -> str:
    """A JSON value in an error's text; never its content, which may be a secret."""
    return _NAMES.get(type(value), lambda _: "a number")(value)[:40]
