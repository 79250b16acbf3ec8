"""Wiring: whether the descriptor's connections fit what the modules declare, and their ids.

    output  -> input       an event; the types are equal
    output  -> operator    an event that the operator sees
    operator -> input      an event that the operator may send
    request -> handler     a call; both types are equal; a request has exactly one handler

Also checked here, because it needs the modules' interfaces: that ocalls are served, and that the
report asks for entries and fields that there are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broch.app.descriptor import (
    DEFAULT_CIPHER,
    OPERATOR,
    Chart,
    ConnectionSpec,
    Descriptor,
    Operator,
    PortName,
)
from broch.image import Interface, Port, PortKind, Shape, fits, spell
from broch.wire.toml_places import Keys, Problems, describe, near

CIPHERS: Final[tuple[str, ...]] = (DEFAULT_CIPHER, "spongent-128")


class ConnectionKind(StrEnum):
    """Whether the sender waits for a reply."""

    EVENT = "event"
    REQUEST = "request"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A module's end of a connection."""

    module: str
    port: str
    number: int  # of the port in the module's interface

    def __str__(self) -> str:
        return f"{self.module}.{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection that fits at both ends."""

    id: int  # from 1, in the order of the file
    source: End | Operator
    target: End | Operator
    kind: ConnectionKind
    cipher: str
    argument: Shape | None  # what crosses: the event, or what is asked
    result: Shape | None = None  # what a request gets back

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, slots=True)
class Wiring:
    """All connections of an application."""

    connections: tuple[Connection, ...] = ()

    def of(self, module: str) -> tuple[Connection, ...]:
        """The connections with an end in ``module``."""
        return tuple(
            connection
            for connection in self.connections
            if any(
                isinstance(end, End) and end.module == module
                for end in (connection.source, connection.target)
            )
        )


def wire(
    descriptor: Descriptor,
    interfaces: Mapping[str, Interface],
    *,
    ciphers: Collection[str] = CIPHERS,
    speaks: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Wiring:
    """Check ``descriptor`` against the interfaces of all its modules.

    Args:
        descriptor: the application.
        interfaces: of each module.
        ciphers: all that there are.
        speaks: those of modules that do not speak all of them.

    Raises:
        MalformedError: the first thing in the file that does not fit.
    """
    problems = descriptor.problems()
    wirer = _Wirer(interfaces, ciphers, speaks, problems)
    for index, spec in enumerate(descriptor.connections):
        wirer.connect(index, spec)
    _check_requests(descriptor, interfaces, problems)
    _check_ocalls(descriptor, interfaces, problems)
    _check_summary(descriptor, interfaces, problems)
    for index, chart in enumerate(descriptor.report.charts):
        _check_chart(("report", "charts", index), chart, interfaces, problems)
    problems.raise_first()
    return Wiring(tuple(wirer.connections))


class _Wirer:
    """Makes connections, one after the other; notes why where one cannot be made."""

    def __init__(
        self,
        interfaces: Mapping[str, Interface],
        ciphers: Collection[str],
        speaks: Mapping[str, Collection[str]],
        problems: Problems,
    ) -> None:
        self.connections: list[Connection] = []
        self._interfaces = interfaces
        self._ciphers = ciphers
        self._speaks = speaks
        self._problems = problems
        self._answered: dict[PortName, int] = {}  # requests -> index of their connection

    def connect(self, index: int, spec: ConnectionSpec) -> None:
        """Add the connection that ``spec`` asks for."""
        keys: Keys = ("connections", index)
        before = len(self._problems)
        if spec.cipher not in self._ciphers:
            hint = f"known ciphers: {', '.join(self._ciphers)}"
            problem = f"unknown cipher {describe(spec.cipher)}"
            self._problems.add((*keys, "cipher"), problem, hint=hint)
        else:
            self._check_spoken(keys, spec)
        source = self._source((*keys, "from"), spec)
        target = self._target((*keys, "to"), spec, source)
        if source and target and not _fit(source, target):
            problem = f"{spec.source} {_says(source)}, but {spec.target} {_says(target)}"
            self._problems.add((*keys, "to"), problem, hint="give both ends the same type")
        if len(self._problems) == before:
            port = source or target
            assert port is not None, "the operator is connected to itself"
            is_request = port.kind is PortKind.REQUEST
            self.connections.append(
                Connection(
                    id=index + 1,
                    source=self._end(spec.source),
                    target=self._end(spec.target),
                    kind=ConnectionKind.REQUEST if is_request else ConnectionKind.EVENT,
                    cipher=spec.cipher,
                    argument=port.argument,
                    result=port.result if is_request else None,
                )
            )

    def _check_spoken(self, keys: Keys, spec: ConnectionSpec) -> None:
        for end in (spec.source, spec.target):
            if isinstance(end, Operator) or end.module not in self._speaks:
                continue
            spoken = self._speaks[end.module]
            if spec.cipher not in spoken:
                problem = f"{end} does not speak {spec.cipher}: its node speaks {', '.join(spoken)}"
                hint = f'write cipher = "{next(iter(spoken), "")}"'
                self._problems.add((*keys, "cipher"), problem, hint=hint)
                return

    def _source(self, keys: Keys, spec: ConnectionSpec) -> Port | None:
        if isinstance(spec.source, Operator):
            return None
        to_operator = spec.target == OPERATOR
        kinds = (PortKind.OUTPUT,) if to_operator else (PortKind.OUTPUT, PortKind.REQUEST)
        port = _port(keys, spec.source, kinds, self._interfaces, self._problems)
        if port is not None and port.kind is PortKind.REQUEST:
            self._check_only_one(keys, spec.source)
        return port

    def _check_only_one(self, keys: Keys, request: PortName) -> None:
        index = int(keys[1])
        first = self._answered.setdefault(request, index)
        if first != index:
            place = self._problems.place("connections", first)
            problem = f"the request {request} has a handler already, at {place}"
            self._problems.add(keys, problem, hint="a request is answered by exactly one handler")

    def _target(self, keys: Keys, spec: ConnectionSpec, source: Port | None) -> Port | None:
        if isinstance(spec.target, Operator):
            return None
        kinds: tuple[PortKind, ...] = (PortKind.INPUT, PortKind.HANDLER)
        if source is not None:
            kinds = (_PARTNERS[source.kind],)
        elif spec.source == OPERATOR:
            kinds = (PortKind.INPUT,)
        return _port(keys, spec.target, kinds, self._interfaces, self._problems)

    def _end(self, name: PortName | Operator) -> End | Operator:
        if isinstance(name, Operator):
            return name
        number = self._interfaces[name.module].number(name.port)
        return End(module=name.module, port=name.port, number=number)


_PARTNERS: Final = {PortKind.OUTPUT: PortKind.INPUT, PortKind.REQUEST: PortKind.HANDLER}
_SPELLED: Final = {
    PortKind.INPUT: "an input",
    PortKind.OUTPUT: "an output",
    PortKind.REQUEST: "a request",
    PortKind.HANDLER: "a handler",
    PortKind.ENTRY: "an entry",
    PortKind.EVERY: "a periodic function",
    PortKind.OCALL: "an ocall",
}


def _port(
    keys: Keys,
    name: PortName,
    kinds: tuple[PortKind, ...],
    interfaces: Mapping[str, Interface],
    problems: Problems,
) -> Port | None:
    """The port called ``name`` if it is one of ``kinds``; None where a problem was noted."""
    interface = interfaces[name.module]
    port = interface.find(name.port)
    expected = " or ".join(_SPELLED[kind] for kind in kinds)
    if port is None:
        problem = f"module {name.module} has no port {describe(name.port)}, expected {expected}"
        problems.add(keys, problem, hint=near(name.port, [p.name for p in interface.of(*kinds)]))
        return None
    if port.kind not in kinds:
        is_entry = port.kind is PortKind.ENTRY
        hint = f"entries are called, not connected: broch call {name}" if is_entry else None
        problem = f"{name} is {_SPELLED[port.kind]}, expected {expected}"
        problems.add(keys, problem, hint=hint)
        return None
    return port


def _fit(source: Port, target: Port) -> bool:
    if source.kind is PortKind.REQUEST and not fits(source.result, target.result):
        return False
    return fits(source.argument, target.argument)


def _says(port: Port) -> str:
    """What a port gives or takes, for a message."""
    argument = spell(port.argument)
    if port.kind is PortKind.OUTPUT:
        return f"sends {argument}"
    if port.kind is PortKind.INPUT:
        return f"takes {argument}"
    verb = "asks" if port.kind is PortKind.REQUEST else "answers"
    return f"{verb} {argument} -> {spell(port.result)}"


def _check_requests(
    descriptor: Descriptor, interfaces: Mapping[str, Interface], problems: Problems
) -> None:
    sources = {str(spec.source) for spec in descriptor.connections}
    for module in descriptor.modules:
        for port in interfaces[module].of(PortKind.REQUEST):
            name = f"{module}.{port.name}"
            if name not in sources:
                problem = f"the request {name} is not connected to a handler"
                hint = f'add [[connections]] with from = "{name}"'
                problems.add(("modules", module), problem, hint=hint, missing_in=())


def _check_ocalls(
    descriptor: Descriptor, interfaces: Mapping[str, Interface], problems: Problems
) -> None:
    for module, spec in descriptor.modules.items():
        keys: Keys = ("modules", module, "ocalls")
        declared = [port.name for port in interfaces[module].of(PortKind.OCALL)]
        for name in spec.ocalls:
            if name not in declared:
                problem = f"module {module} declares no ocall {describe(name)}"
                problems.add((*keys, name), problem, hint=near(name, declared))
        for name in declared:
            if name not in spec.ocalls:
                problem = f"nothing serves the ocall {name} of module {module}"
                hint = f'add [modules.{module}.ocalls] with {name} = "path.py:function"'
                problems.add(keys, problem, hint=hint, missing_in=keys)


def _check_summary(
    descriptor: Descriptor, interfaces: Mapping[str, Interface], problems: Problems
) -> None:
    summary, keys = descriptor.report.summary, ("report", "summary")
    if summary is None:
        return
    port = _port(keys, summary, (PortKind.ENTRY,), interfaces, problems)
    if port is None:
        return
    if port.argument is not None and port.argument.get("fields"):
        names = ", ".join(port.argument["fields"])
        problem = f"{summary} takes {names}; a summary is an entry without parameters"
        problems.add(keys, problem)
    elif not _is_row(port.result):
        problem = f"{summary} gives {spell(port.result)}, expected numbers and text by name"
        problems.add(keys, problem, hint="a struct or a dict of int, float, bool, str")


def _is_row(shape: Shape | None) -> bool:
    if shape is None:
        return False
    if shape["type"] == "dict":
        return _is_plain(shape["values"])
    return shape["type"] == "struct" and all(map(_is_plain, shape["fields"].values()))


def _is_plain(shape: Shape) -> bool:
    if shape["type"] == "optional":
        return _is_plain(shape["item"])
    return shape["type"] in ("bool", "int", "float", "str", "enum")


def _check_chart(
    keys: Keys, chart: Chart, interfaces: Mapping[str, Interface], problems: Problems
) -> None:
    port = interfaces[chart.source.module].find(chart.source.port, PortKind.OUTPUT)
    if port is None or port.argument is None:
        return  # it is connected to the operator, and was noted there
    if port.argument["type"] != "struct":
        problem = f"{chart.source} sends {spell(port.argument)}, which has no fields to draw"
        problems.add((*keys, "from"), problem)
        return
    fields = port.argument["fields"]
    named = [((*keys, "x"), chart.x), *(((*keys, "y", i), y) for i, y in enumerate(chart.y))]
    for place, name in named:
        if name not in fields:
            problem = f"{spell(port.argument)} has no field {describe(name)}"
            problems.add(place, problem, hint=near(name, fields))
        elif place[-1] != "x" and not _is_number(fields[name]):
            problem = f"{name} is {spell(fields[name])}, expected a number to draw"
            problems.add(place, problem)


def _is_number(shape: Shape) -> bool:
    return shape["type"] in ("int", "float", "bool")
