"""From an Authentic Execution descriptor to an application of ours, and a list of the differences.

    node sgx, trustzone, sancus    the same TEE, emulated
    node native (no TEE)           an emulated TEE, which the caller chooses
    module                         the same, with a source to fill in: its code is not translated
    output -> input                the same
    request -> handler             the same
    direct connection to an input  the operator's connection
    direct connection to a handler none: the operator calls entries, which are anyone's to call
    data                           bytes; a number where a module in C takes part
    aes, spongent                  aes-128-gcm, spongent-128
    periodic event                 a function that declares its own period

Whatever else the descriptor says is listed: nothing is left out without a word.
"""

import json
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from broch.app.reactive import SECRETS, Connection, Kind, Module, Node, Reactive
from broch.app.reactive_source import RESERVED, Port, Skeleton
from broch.errors import MalformedError
from broch.image import PortKind, is_name
from broch.image.interface import MAX_NAME

CIPHERS: Final = {"aes": "aes-128-gcm", "spongent": "spongent-128"}
_MAX_SHOWN: Final = 60  # characters of a value


class Outcome(StrEnum):
    """What became of something in the descriptor."""

    CHANGED = "changed"  # there is a counterpart, and it is not the same
    TO_DO = "to do"  # there is a counterpart, which a person must finish
    NONE = "no counterpart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that the application does not have as the descriptor did."""

    outcome: Outcome
    place: str  # "connections[3] (init-server)"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An application of ours, as files by relative path."""

    app: str
    files: Mapping[str, str] = field(repr=False)
    nodes: Mapping[str, str]  # name -> TEE
    modules: Mapping[str, str]  # name -> node
    connections: tuple[tuple[str, str, str], ...]  # from, to, cipher
    differences: tuple[Difference, ...]


def translate(reactive: Reactive, *, app: str, native: str) -> Imported:
    """Translate a descriptor.

    Args:
        reactive: the descriptor.
        app: what the application is called.
        native: the TEE for nodes that had none.

    Raises:
        MalformedError: two things come to have one name.
    """
    return _Translator(reactive, app, native).run()


class _Translator:
    """Builds up the parts, and notes each difference where it arises."""

    def __init__(self, reactive: Reactive, app: str, native: str) -> None:
        self._from = reactive
        self._app = app
        self._native = native
        self._differences: list[Difference] = []
        self._nodes: dict[str, str] = {}
        self._modules: dict[str, str] = {}
        self._connections: dict[tuple[str, str], str] = {}
        self._names: dict[
            str, str
        ] = {}  # of nodes and modules, old -> new, by "node x", "module x"
        self._skeletons: dict[str, Skeleton] = {}
        self._node_tables: list[str] = []
        self._module_tables: list[str] = []
        self._answered: dict[str, str] = {}  # request -> its handler

    def run(self) -> Imported:
        self._rest("", self._from.rest)
        for node in self._from.nodes:
            self._node(node)
        for module in self._from.modules:
            self._module(module)
        tables = [self._connect(each) for each in self._from.connections]
        for event in self._from.periodic:
            place = f"periodic-events[{event.index}]"
            skeleton = self._skeletons[event.module]
            port = self._port(skeleton, event.entry, PortKind.EVERY, place)
            skeleton.periods[port] = event.milliseconds / 1000
            self._note(Outcome.CHANGED, place, "a module of ours declares its periods itself")
            self._rest(place, event.rest)
        self._choose_types()
        for module in self._from.modules:
            skeleton = self._skeletons[module.name]
            text = f"fill in {skeleton.path}: the code of a module is not translated"
            self._note(Outcome.TO_DO, _place("modules", module.index, module.name), text)
        head = f'[app]\nname = "{self._app}"\n'
        policy = (
            "[policy]\nemulated = true  # no real hardware yet: fine to learn with, not to trust\n"
        )
        text = "\n".join([head, *self._node_tables, *self._module_tables, *tables, policy])
        files = {"app.toml": text}
        files.update({each.path: each.text() for each in self._skeletons.values()})
        return Imported(
            app=self._app,
            files=files,
            nodes=self._nodes,
            modules=self._modules,
            connections=tuple((a, b, cipher) for (a, b), cipher in self._connections.items()),
            differences=tuple(self._differences),
        )

    def _node(self, node: Node) -> None:
        place = _place("nodes", node.index, node.name)
        name = self._renamed("node", node.name, place)
        tee = node.kind.value
        if node.kind is Kind.NATIVE:
            tee = self._native
            self._note(Outcome.CHANGED, place, f"had no TEE, and gets an emulated one: {tee}")
        self._nodes[name] = tee
        text = f"{node.host}:{node.port}: agents are on this machine, at any free port of loopback"
        self._note(Outcome.CHANGED, place, text)
        self._rest(place, node.rest)
        self._node_tables.append(f'[nodes.{name}]\ntee = "{tee}"\ndevice = "emulated"\n')

    def _module(self, module: Module) -> None:
        place = _place("modules", module.index, module.name)
        name = self._renamed("module", module.name, place)
        node = self._names[f"node {module.node}"]
        in_c = self._nodes[node] == Kind.SANCUS
        skeleton = self._skeletons[module.name] = Skeleton(name=name, in_c=in_c)
        self._modules[name] = node
        self._rest(place, module.rest)
        self._module_tables.append(
            f'[modules.{name}]\nnode = "{node}"\nsource = "{skeleton.path}"\n'
        )

    def _connect(self, connection: Connection) -> str:
        """The connection's table, or a comment where it has none of its own."""
        place = _place("connections", connection.index, connection.name)
        if connection.name is not None:
            self._note(Outcome.NONE, place, "connections have no names: their two ends name them")
        self._rest(place, connection.rest)
        cipher = CIPHERS[connection.encryption]
        ends = {connection.source, connection.target} - {None}
        if connection.is_request and any(self._skeletons[str(end)].in_c for end in ends):
            return self._left_out(Outcome.NONE, place, "a module in C has no requests and handlers")
        kind = PortKind.HANDLER if connection.is_request else PortKind.INPUT
        target = self._end(connection.target, connection.target_port, kind, place)
        if connection.source is None:
            source = "operator"
            if connection.is_request:
                text = (
                    f"the operator cannot ask the handler {target}: he calls entries, which anyone "
                    "may call; make it one only if that will do"
                )
                return self._left_out(Outcome.NONE, place, text)
        else:
            kind = PortKind.REQUEST if connection.is_request else PortKind.OUTPUT
            assert connection.source_port is not None, "read_reactive sees to it"
            source = self._end(connection.source, connection.source_port, kind, place)
            if kind is PortKind.REQUEST and source in self._answered:
                first = self._answered[source]
                text = f"{source} is answered by {first}; a request has exactly one handler"
                return self._left_out(Outcome.NONE, place, text)
            self._answered[source] = target
        if (source, target) in self._connections:
            return self._left_out(Outcome.CHANGED, place, f"{source} -> {target} is there already")
        self._connections[source, target] = cipher
        return f'[[connections]]\nfrom = "{source}"\nto = "{target}"\ncipher = "{cipher}"\n'

    def _choose_types(self) -> None:
        """What crosses is bytes; where a module in C takes part it is a number, at both ends."""
        by_name = {skeleton.name: skeleton for skeleton in self._skeletons.values()}

        def port(end: str) -> tuple[Skeleton, Port]:
            module, _, name = end.partition(".")
            return by_name[module], by_name[module].ports[name]

        pairs = [[port(end) for end in pair if end != "operator"] for pair in self._connections]
        changed = True
        while changed:  # a port that has become a number makes numbers of its peers
            changed = False
            for ends in pairs:
                numbers = any(skeleton.in_c or port.is_number for skeleton, port in ends)
                for _, each in ends:
                    changed |= numbers and not each.is_number
                    each.is_number |= numbers
        for pair in self._connections:
            if any(port(end)[1].is_number for end in pair if end != "operator"):
                text = "what crosses is a number (u16): modules in C take no bytes"
                self._note(Outcome.CHANGED, " -> ".join(pair), text)

    def _left_out(self, outcome: Outcome, place: str, text: str) -> str:
        self._note(outcome, place, text)
        plain = "".join(c if c.isprintable() else "?" for c in f"{place}: {text}")
        comment = textwrap.wrap(plain, 98, break_on_hyphens=False)
        return "".join(f"# {line}\n" for line in comment)

    def _end(self, module: str, port: str | int, kind: PortKind, place: str) -> str:
        name = self._port(self._skeletons[module], port, kind, place)
        return f"{self._names[f'module {module}']}.{name}"

    def _port(self, skeleton: Skeleton, port: str | int, kind: PortKind, place: str) -> str:
        """The name of a port, which is declared with it."""
        name = f"{kind}_{port}" if isinstance(port, int) else _as_port(port)
        held = skeleton.ports.get(name)
        if held is not None and held.kind is not kind:
            name = f"{name[: MAX_NAME - len(kind) - 1]}_{kind}"
        if name not in skeleton.ports:
            skeleton.ports[name] = Port(kind=kind, was=port)
            if name != port:
                what = f"number {port}" if isinstance(port, int) else repr(port)
                text = f"{kind} {what} of {skeleton.name} is called {name}"
                self._note(Outcome.CHANGED, place, text)
        elif skeleton.ports[name] != Port(kind=kind, was=port):
            problem = f"two ports of module {skeleton.name} would be called {name}"
            raise MalformedError(problem, place=f"{self._from.file}: {place}")
        return name

    def _renamed(self, what: str, old: str, place: str) -> str:
        """A name that we allow; a note where it is another one."""
        taken: Collection[str] = self._nodes if what == "node" else self._modules
        new = old if is_name(old) else _as_name(old)
        if new == "operator" and what == "module":
            new = "operator-module"
        if new in taken:
            problem = f"two {what}s would be called {new!r}"
            raise MalformedError(problem, place=f"{self._from.file}: {place}")
        if new != old:
            self._note(Outcome.CHANGED, place, f"the {what} is called {new}")
        self._names[f"{what} {old}"] = new
        return new

    def _rest(self, place: str, rest: Mapping[str, Any]) -> None:
        for key, text in _spell_rest(rest):
            why = _WHY.get(key, "means nothing to us")
            self._note(Outcome.NONE, place or "descriptor", f"{key}{text}: {why}")

    def _note(self, outcome: Outcome, place: str, text: str) -> None:
        self._differences.append(Difference(outcome=outcome, place=place, text=text))


_KEYS: Final = "keys are made anew at each start, and kept in no descriptor"
_STATE: Final = "what a deployment came to is not part of a descriptor"
_BUILD: Final = "the image is built from the source alone"
_AESM: Final = "emulated devices quote for themselves"
#: Keys without a counterpart, and why.
_WHY: Final = {
    "manager": "the deployer, `broch up`, attests",
    "connections_current_id": _STATE,
    "events_current_id": _STATE,
    "deploy_port": "an agent has one port",
    "vendor_id": "vendors are not told in the descriptor",
    "vendor_key": _KEYS,
    "node_key": "an emulated device makes its own secret",
    "key": _KEYS,
    "nonce": _STATE,
    "id": _STATE,
    "deployed": "every module is loaded and attested at each start",
    "attested": _STATE,
    "established": _STATE,
    "old_node": _STATE,
    "deploy_name": _STATE,
    "module_id": _STATE,
    "uuid": "it follows from the names of app and module",
    "data": _STATE,
    "aesm_host": _AESM,
    "aesm_port": _AESM,
    "ra_settings": "evidence is DCAP, which needs no account",
    "priority": "modules are loaded together, and none runs before all have joined",
    "features": _BUILD,
    "cflags": _BUILD,
    "ldflags": _BUILD,
    "folder": _BUILD,
    "files": "its code is for another framework",
    "binary": _BUILD,
    "symtab": _BUILD,
    "sgxs": _BUILD,
    "signature": _BUILD,
    "port": "modules have no ports of their own",
    "name": "it has no name",
}


def _spell_rest(rest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in rest.items():
        text = "" if key in SECRETS or isinstance(value, dict) else f" {_short(value)}"
        yield key[:_MAX_SHOWN], text


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _place(key: str, index: int, name: str | None) -> str:
    return f"{key}[{index}] ({name})" if name else f"{key}[{index}]"


def _as_name(text: str) -> str:
    """The nearest thing to ``text`` that is a name."""
    plain = re.sub(r"[^a-z0-9_-]", "-", text.lower())
    return (plain if plain[0].isalpha() else f"n{plain}")[:MAX_NAME]


def _as_port(text: str) -> str:
    """The nearest thing to ``text`` that can name a port, and a function in Python and C."""
    plain = re.sub(r"[^a-z0-9_]", "_", text.lower())
    plain = plain if plain[0].isalpha() else f"p{plain}"
    return f"{plain[: MAX_NAME - 1]}_" if plain in RESERVED else plain[:MAX_NAME]
