"""The descriptor: what an application consists of, read from ``app.toml``.

:func:`load` gives a :class:`Descriptor` whose values have the right types and ranges, whose files
exist and whose names refer to something. Whether connections fit the modules' interfaces is known
only once modules are built: :mod:`broch.app.wiring`. Nothing here runs a module.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Final

from broch.app.descriptor_nodes import Node, check_addresses, check_name, read_node
from broch.app.descriptor_paths import check_file, inside, real
from broch.errors import UsageError
from broch.wire.toml_places import (
    Key,
    Place,
    Problems,
    Table,
    describe,
    near,
    nearest,
    parse,
    read,
)

DEFAULT_CIPHER: Final = "aes-128-gcm"
MAX_RESTARTS: Final = 1000


class Restart(StrEnum):
    """When a module that ended is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Operator(StrEnum):
    """The one who runs the application, as an end of a connection."""

    OPERATOR = "operator"


OPERATOR: Final = Operator.OPERATOR


@dataclass(frozen=True, slots=True)
class PortName:
    """A port as the descriptor names it: ``module.port``."""

    module: str
    port: str

    def __str__(self) -> str:
        return f"{self.module}.{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The application itself."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a module may use."""

    memory_mb: int = 64
    seconds: float = 5.0  # how long one call may take


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFunction:
    """A function outside the enclave that serves an ocall."""

    path: Path  # absolute
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """A module, as far as the descriptor knows it."""

    name: str
    node: str
    source: Path  # absolute: a .py or .c file, or a folder with __init__.py
    files: tuple[str, ...] = ()  # more files to measure, relative to the descriptor's folder
    version: int = 0
    restart: Restart = Restart.ON_FAILURE
    max_restarts: int = 5
    limits: Limits = field(default_factory=Limits)
    ocalls: Mapping[str, HostFunction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSpec:
    """A connection as written; its position in the file is its index."""

    source: PortName | Operator
    target: PortName | Operator
    cipher: str = DEFAULT_CIPHER


_Found = Sequence[ConnectionSpec | None]  # all that are written; None where one is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When a run ends by itself."""

    until: PortName | None = None  # at this output's first event to the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the deployer accepts. The defaults are the strict ones."""

    emulated: bool = False
    debug: bool = False
    unsandboxed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of what an output sent to the operator."""

    title: str
    source: PortName
    x: str
    y: tuple[str, ...]
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is shown at the end of a run."""

    title: str = ""
    summary: PortName | None = None  # an entry without parameters
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A whole application. Only :func:`load` makes one."""

    path: Path
    folder: Path  # absolute, without symbolic links; relative paths begin here
    app: App
    nodes: Mapping[str, Node]
    modules: Mapping[str, ModuleSpec]
    connections: tuple[ConnectionSpec, ...]
    run: Run
    policy: Policy
    report: Report
    places: Place = field(repr=False, compare=False)

    def problems(self) -> Problems:
        """A collector for what later steps find wrong with this descriptor."""
        return Problems(self.path.name, self.places)

    def place(self, *keys: Key) -> str:
        """``app.toml:LINE`` of the path ``keys``, or of as much of it as is written."""
        return self.problems().place(*keys)


def load(
    path: Path, *, tees: Collection[str] | None = None, natives: Collection[str] = ()
) -> Descriptor:
    """Read and check the descriptor at ``path``; the defaults are the TEEs that are installed.

    Raises:
        UsageError: a file that is missing, or a TEE that is not installed.
        MalformedError: not TOML, or not a descriptor; the first problem in the file.
    """
    if tees is None:
        from broch.tee import registry  # brings cryptography, which this module does without

        tees, natives = registry.names(), registry.native_names()
    root, places = parse(read(path), path.name)
    problems = root.problems
    folder = real(path.parent)
    app = _app(root.table("app", is_required=True))
    node_tables = _named(root, "nodes", "node")
    module_tables = _named(root, "modules", "module")
    nodes = {
        name: read_node(name, table, tees, natives, folder) for name, table in node_tables.items()
    }
    check_addresses(nodes, problems)
    modules = {
        name: _module(name, table, folder, node_tables) for name, table in module_tables.items()
    }
    found = [_connection(table, module_tables) for table in root.array("connections")]
    _check_connections(found, problems)
    policy_table = root.table("policy")
    policy = Policy(**{each.name: policy_table.flag(each.name) for each in fields(Policy)})
    policy_table.close()
    run = _run(root.table("run"), module_tables, found)
    report = _report(root.table("report"), module_tables, found)
    root.close()
    problems.raise_first()
    connections = tuple(connection for connection in found if connection is not None)
    return Descriptor(
        path=path,
        folder=folder,
        app=app,
        nodes=nodes,
        modules=modules,
        connections=connections,
        run=run,
        policy=policy,
        report=report,
        places=places,
    )


def _app(table: Table) -> App:
    app = App(name=table.text("name"), description=table.text("description", ""))
    if app.name:
        check_name(table, "name", app.name)
    table.close()
    return app


def _named(root: Table, key: str, what: str) -> dict[str, Table]:
    """The tables ``[key.NAME]``: at least one, all with names."""
    outer = root.table(key)
    tables = outer.tables()
    if not tables:
        hint = f"add [{key}.NAME]"
        root.problems.add((key,), f"there is no {what}", hint=hint, missing_in=(key,))
    for name in tables:
        check_name(outer, name, name)
        if name == OPERATOR and what == "module":
            hint = "'operator' names the one who runs the application"
            outer.wrong(name, "a module cannot be called 'operator'", hint)
    return tables


def _module(name: str, table: Table, folder: Path, nodes: Collection[str]) -> ModuleSpec:
    node = table.text("node")
    if node and node not in nodes:
        table.wrong("node", f"there is no node {describe(node)}", near(node, nodes))
    limits = table.table("limits")
    ocalls = table.table("ocalls")
    module = ModuleSpec(
        name=name,
        node=node,
        source=_source(table, folder),
        files=_files(table, folder),
        version=table.integer("version", 0, 0, 2**32 - 1),
        restart=table.choice("restart", Restart, Restart.ON_FAILURE),
        max_restarts=table.integer("max_restarts", 5, 0, MAX_RESTARTS),
        limits=Limits(
            memory_mb=limits.integer("memory_mb", 64, 8, 4096),
            seconds=limits.seconds("seconds", 5.0, 3600),
        ),
        ocalls={key: _host_function(ocalls, key, folder) for key in ocalls.names()},
    )
    limits.close()
    table.close()
    return module


def _source(table: Table, folder: Path) -> Path:
    text = table.text("source")
    relative = inside(table, ("source",), text, folder) if text else None
    path = folder / (relative or ".")
    if relative is None:
        pass  # noted already
    elif not os.path.isdir(path):
        check_file(table, ("source",), text, path)
        if path.suffix not in (".py", ".c", ".elf"):
            expected = "a .py, .c or .elf file or a folder with __init__.py"
            table.wrong("source", f"source is {describe(text)}, expected {expected}")
    elif not os.path.isfile(path / "__init__.py"):
        problem = f"the folder {describe(text)} has no __init__.py"
        table.wrong("source", problem, kind=UsageError)
    return path


def _files(table: Table, folder: Path) -> tuple[str, ...]:
    files = []
    for index, text in enumerate(table.texts("files")):
        relative = inside(table, ("files", index), text, folder)
        if relative is not None:
            check_file(table, ("files", index), text, folder / relative)
            files.append(relative)
    return tuple(files)


def _host_function(table: Table, key: str, folder: Path) -> HostFunction:
    text = table.text(key)
    file, colon, function = text.rpartition(":")
    if not text:
        pass  # noted already
    elif not colon or not file.endswith(".py") or not function.isidentifier():
        problem = f"{key} is {describe(text)}, expected a function of a file"
        table.wrong(key, problem, f'write {key} = "path.py:function"')
    elif (relative := inside(table, (key,), file, folder)) is not None:
        check_file(table, (key,), file, folder / relative)
        file = relative
    return HostFunction(path=folder / file, function=function)


def _end(table: Table, key: str, modules: Collection[str]) -> PortName | Operator | None:
    """One end of a connection; None where a problem was noted."""
    text = table.text(key)
    if text == OPERATOR:
        return OPERATOR
    return _port_name(table, key, text, modules, "'MODULE.PORT' or 'operator'")


def _port_name(
    table: Table, key: str, text: str, modules: Collection[str], expected: str = "'MODULE.PORT'"
) -> PortName | None:
    module, dot, port = text.partition(".")
    if not text:
        return None  # noted already
    if not (dot and module and port):
        slip = nearest(text, [OPERATOR.value]) if OPERATOR in expected else None
        hint = f"did you mean {slip!r}?" if slip else None
        table.wrong(key, f"{key} is {describe(text)}, expected {expected}", hint)
        return None
    if module not in modules:
        problem = f"there is no module {describe(module)}"
        table.wrong(key, problem, near(module, modules))
        return None
    return PortName(module, port)


def _connection(table: Table, modules: Collection[str]) -> ConnectionSpec | None:
    source = _end(table, "from", modules)
    target = _end(table, "to", modules)
    cipher = table.text("cipher", DEFAULT_CIPHER)
    table.close()
    if source is None or target is None:
        return None
    if source == target == OPERATOR:
        table.wrong("to", "connects the operator to itself")
    elif (
        isinstance(source, PortName)
        and isinstance(target, PortName)
        and source.module == target.module
    ):
        table.wrong("to", f"connects module {source.module} to itself")
    return ConnectionSpec(source=source, target=target, cipher=cipher)


def _check_connections(found: _Found, problems: Problems) -> None:
    first: dict[tuple[PortName | Operator, PortName | Operator], int] = {}
    for index, connection in enumerate(found):
        if connection is None:
            continue
        earlier = first.setdefault((connection.source, connection.target), index)
        if earlier != index:
            problem = (
                f"{connection.source} is connected to {connection.target} twice, "
                f"first at {problems.place('connections', earlier)}"
            )
            problems.add(("connections", index), problem)


def _run(table: Table, modules: Collection[str], found: _Found) -> Run:
    until = _seen_output(table, "until", modules, found) if table.has("until") else None
    table.close()
    return Run(until=until)


def _report(table: Table, modules: Collection[str], found: _Found) -> Report:
    title = table.text("title", "")
    summary = None
    if table.has("summary"):
        summary = _port_name(table, "summary", table.text("summary"), modules)
    charts = [_chart(inner, modules, found) for inner in table.array("charts")]
    table.close()
    return Report(
        title=title,
        summary=summary,
        charts=tuple(chart for chart in charts if chart is not None),
    )


def _chart(table: Table, modules: Collection[str], found: _Found) -> Chart | None:
    title = table.text("title")
    source = _seen_output(table, "from", modules, found)
    x = table.text("x")
    y = table.texts("y", is_required=True)
    unit = table.text("unit", "")
    table.close()
    return None if source is None else Chart(title=title, source=source, x=x, y=y, unit=unit)


def _seen_output(
    table: Table, key: str, modules: Collection[str], found: _Found
) -> PortName | None:
    """The output that ``key`` names, which must be connected to the operator."""
    port = _port_name(table, key, table.text(key), modules)
    if port is not None and None not in found:  # a connection that is wrong may be the one
        seen = [str(spec.source) for spec in found if spec and spec.target == OPERATOR]
        if str(port) not in seen:
            problem = f"{describe(str(port))} is not connected to the operator"
            slip = nearest(str(port), seen)
            add = f'add [[connections]] with from = "{port}" and to = "operator"'
            table.wrong(key, problem, f"did you mean {slip!r}?" if slip else add)
    return port
