"""Connections against interfaces: what fits, and each rule, broken alone."""

from pathlib import Path

import pytest

from broch.app.descriptor import OPERATOR, Descriptor, load
from broch.app.wiring import CIPHERS, Connection, ConnectionKind, End, Wiring, wire
from broch.errors import BrochError, MalformedError
from broch.image import Interface, Port, PortKind, Shape

INT: Shape = {"type": "int"}
TEXT: Shape = {"type": "str"}


def struct(name: str, **fields: Shape) -> Shape:
    return {"type": "struct", "name": name, "fields": fields, "required": list(fields)}


DAY = struct("Day", day=TEXT, litres={"type": "float"}, count=INT)
COMMAND = struct("Command", open={"type": "bool"})
ASK = struct("Ask", field=TEXT)
REPLY = struct("Reply", level=INT)

INTERFACES = {
    "controller": Interface(
        (
            Port(kind=PortKind.OUTPUT, name="command", argument=COMMAND),
            Port(kind=PortKind.REQUEST, name="forecast", argument=ASK, result=REPLY),
            Port(kind=PortKind.INPUT, name="override", argument=COMMAND),
            Port(kind=PortKind.ENTRY, name="summary", argument=struct("P"), result=REPLY),
            Port(kind=PortKind.ENTRY, name="above", argument=struct("P", low=INT), result=REPLY),
            Port(kind=PortKind.ENTRY, name="days", result={"type": "list", "items": INT}),
            Port(kind=PortKind.EVERY, name="tick", seconds=1.0),
            Port(kind=PortKind.OCALL, name="now", argument={"type": "none"}, result=INT),
            Port(kind=PortKind.OUTPUT, name="tally", argument=INT),
        )
    ),
    "valve": Interface(
        (
            Port(kind=PortKind.INPUT, name="set", argument={**COMMAND, "name": "Valve"}),
            Port(kind=PortKind.OUTPUT, name="opened", argument=DAY),
            Port(kind=PortKind.INPUT, name="level", argument=INT),
        )
    ),
    "weather": Interface(
        (
            Port(kind=PortKind.HANDLER, name="forecast", argument=ASK, result=REPLY),
            Port(kind=PortKind.HANDLER, name="past", argument=ASK, result=TEXT),
            Port(kind=PortKind.HANDLER, name="next", argument=INT, result=REPLY),
            Port(kind=PortKind.INPUT, name="set", argument=COMMAND),
        )
    ),
}  # fmt: skip

TEXT_OF_APP = """\
[app]
name = "irrigation"
[nodes.cloud]
tee = "sgx"
device = "emulated"
[modules.controller]
node = "cloud"
source = "m.py"
[modules.controller.ocalls]
now = "m.py:now"
[modules.valve]
node = "cloud"
source = "m.py"
[modules.weather]
node = "cloud"
source = "m.py"

[[connections]]
from = "controller.command"
to = "valve.set"
[[connections]]
from = "controller.forecast"
to = "weather.forecast"
[[connections]]
from = "valve.opened"
to = "operator"
[[connections]]
from = "operator"
to = "controller.override"

[report]
summary = "controller.summary"
[[report.charts]]
title = "Openings"
from = "valve.opened"
x = "day"
y = ["litres",
     "count"]
"""


def described(folder: Path, text: str) -> Descriptor:
    (folder / "m.py").touch()
    (folder / "app.toml").write_text(text)
    return load(folder / "app.toml", tees=["sgx"])


def change(old: str, new: str) -> str:
    assert TEXT_OF_APP.count(old) == 1, f"{old!r} is there {TEXT_OF_APP.count(old)} times"
    return TEXT_OF_APP.replace(old, new)


def refused(folder: Path, text: str) -> BrochError:
    descriptor = described(folder, text)
    with pytest.raises(BrochError) as caught:
        wire(descriptor, INTERFACES)
    return caught.value


def line_of(text: str, needle: str) -> int:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if needle in line]
    assert len(lines) == 1, f"{needle!r} is on lines {lines}"
    return lines[0]


def test_every_kind_of_connection(tmp_path: Path) -> None:
    wiring = wire(described(tmp_path, TEXT_OF_APP), INTERFACES)
    command = End(module="controller", port="command", number=0)
    assert wiring.connections == (
        Connection(
            id=1,
            source=command,
            target=End(module="valve", port="set", number=0),
            kind=ConnectionKind.EVENT,
            cipher="aes-128-gcm",
            argument=COMMAND,
        ),
        Connection(
            id=2,
            source=End(module="controller", port="forecast", number=1),
            target=End(module="weather", port="forecast", number=0),
            kind=ConnectionKind.REQUEST,
            cipher="aes-128-gcm",
            argument=ASK,
            result=REPLY,
        ),
        Connection(
            id=3,
            source=End(module="valve", port="opened", number=1),
            target=OPERATOR,
            kind=ConnectionKind.EVENT,
            cipher="aes-128-gcm",
            argument=DAY,
        ),
        Connection(
            id=4,
            source=OPERATOR,
            target=End(module="controller", port="override", number=2),
            kind=ConnectionKind.EVENT,
            cipher="aes-128-gcm",
            argument=COMMAND,
        ),
    )


def test_the_connections_of_a_module(tmp_path: Path) -> None:
    wiring = wire(described(tmp_path, TEXT_OF_APP), INTERFACES)
    assert [connection.id for connection in wiring.of("controller")] == [1, 2, 4]
    assert [connection.id for connection in wiring.of("valve")] == [1, 3]
    assert wiring.of("nobody") == ()
    assert [str(connection) for connection in wiring.of("valve")] == [
        "controller.command -> valve.set",
        "valve.opened -> operator",
    ]


def test_an_output_may_go_to_many_and_an_input_may_hear_many(tmp_path: Path) -> None:
    text = TEXT_OF_APP + (
        '[[connections]]\nfrom = "controller.command"\nto = "weather.set"\n'
        '[[connections]]\nfrom = "controller.command"\nto = "operator"\n'
        '[[connections]]\nfrom = "operator"\nto = "weather.set"\n'
    )
    wiring = wire(described(tmp_path, text), INTERFACES)
    assert [connection.id for connection in wiring.connections] == [1, 2, 3, 4, 5, 6, 7]


def test_two_modules_may_ask_one_handler(tmp_path: Path) -> None:
    text = TEXT_OF_APP + '[[connections]]\nfrom = "valve.ask"\nto = "weather.forecast"\n'
    ask = Port(kind=PortKind.REQUEST, name="ask", argument=ASK, result=REPLY)
    valve = Interface((*INTERFACES["valve"].ports, ask))
    wiring = wire(described(tmp_path, text), {**INTERFACES, "valve": valve})
    assert wiring.connections[-1].source == End(module="valve", port="ask", number=3)


def test_other_ports_may_stay_unconnected(tmp_path: Path) -> None:
    text = '[app]\nname = "a"\n[nodes.n]\ntee = "sgx"\ndevice = "emulated"\n'
    text += '[modules.valve]\nnode = "n"\nsource = "m.py"\n'
    assert wire(described(tmp_path, text), INTERFACES) == Wiring(())


def test_ciphers_of_others_can_be_allowed(tmp_path: Path) -> None:
    text = change('to = "valve.set"', 'to = "valve.set"\ncipher = "spongent-128"')
    descriptor = described(tmp_path, text)
    wiring = wire(descriptor, INTERFACES, ciphers=[*CIPHERS, "spongent-128"])
    assert wiring.connections[0].cipher == "spongent-128"


RULES = [
    # id, what is replaced, by what, where the error is, message, hint
    ("unknown cipher", 'to = "valve.set"', 'to = "valve.set"\ncipher = "rot13"', "rot13",
     "unknown cipher 'rot13'", "known ciphers: aes-128-gcm, spongent-128"),
    ("unknown source", "controller.command", "controller.comand", "comand",
     "module controller has no port 'comand', expected an output or a request",
     "did you mean 'command'?"),
    ("unknown target", "valve.set", "valve.sett", "valve.sett",
     "module valve has no port 'sett', expected an input", "did you mean 'set'?"),
    ("unknown source for the operator", 'from = "operator"\nto = "controller.override"',
     'from = "controller.valv"\nto = "operator"', "controller.valv",
     "module controller has no port 'valv', expected an output", "known: command, tally"),
    ("from an input", 'from = "controller.command"', 'from = "weather.set"', "weather.set",
     "weather.set is an input, expected an output or a request", None),
    ("from a handler", 'from = "controller.command"', 'from = "weather.past"', "weather.past",
     "weather.past is a handler, expected an output or a request", None),
    ("from an entry", 'from = "controller.command"', 'from = "controller.above"', "above",
     "controller.above is an entry, expected an output or a request",
     "entries are called, not connected: broch call controller.above"),
    ("from a periodic function", "controller.command", "controller.tick", "tick",
     "controller.tick is a periodic function, expected an output or a request", None),
    ("from an ocall", "controller.command", "controller.now", "controller.now",
     "controller.now is an ocall, expected an output or a request", None),
    ("output to an output", "valve.set", "valve.opened\" # second", "# second",
     "valve.opened is an output, expected an input", None),
    ("output to a handler", "valve.set", "weather.past", "weather.past",
     "weather.past is a handler, expected an input", None),
    ("request to an input", "weather.forecast", "weather.set", "weather.set",
     "weather.set is an input, expected a handler", None),
    ("request to the operator", '"weather.forecast"', '"operator"', 'from = "controller.forecast"',
     "controller.forecast is a request, expected an output", None),
    ("operator to a handler", "controller.override", "weather.past", "weather.past",
     "weather.past is a handler, expected an input", None),
    ("operator to an entry", "controller.override", "controller.above", "controller.above",
     "controller.above is an entry, expected an input",
     "entries are called, not connected: broch call controller.above"),
    ("events of another type", "valve.set", "valve.level", "valve.level",
     "controller.command sends Command(open: bool), but valve.level takes int",
     "give both ends the same type"),
    ("requests that ask something else", "weather.forecast", "weather.next", "weather.next",
     "controller.forecast asks Ask(field: str) -> Reply(level: int), "
     "but weather.next answers int -> Reply(level: int)", "give both ends the same type"),
    ("requests that get something else", "weather.forecast", "weather.past", "weather.past",
     "controller.forecast asks Ask(field: str) -> Reply(level: int), "
     "but weather.past answers Ask(field: str) -> str", "give both ends the same type"),
    ("unconnected request", 'from = "controller.forecast"\nto = "weather.forecast"',
     'from = "controller.tally"\nto = "valve.level"', "[modules.controller]",
     "the request controller.forecast is not connected to a handler",
     'add [[connections]] with from = "controller.forecast"'),
    ("ocall that nothing serves", '[modules.controller.ocalls]\nnow = "m.py:now"\n', "",
     "[modules.controller]", "nothing serves the ocall now of module controller",
     'add [modules.controller.ocalls] with now = "path.py:function"'),
    ("ocall that is not declared", 'now = "m.py:now"', 'now = "m.py:now"\nnoww = "m.py:now"',
     "noww", "module controller declares no ocall 'noww'", "did you mean 'now'?"),
    ("ocall with a slip", 'now = "m.py:now"', 'nwo = "m.py:now"', "nwo",
     "module controller declares no ocall 'nwo'", "did you mean 'now'?"),
    ("summary that is unknown", "controller.summary", "controller.sumary", "sumary",
     "module controller has no port 'sumary', expected an entry", "did you mean 'summary'?"),
    ("summary that is no entry", "controller.summary", "controller.tick", "tick",
     "controller.tick is a periodic function, expected an entry", None),
    ("summary with parameters", "controller.summary", "controller.above", "above",
     "controller.above takes low; a summary is an entry without parameters", None),
    ("summary that is no table", "controller.summary", "controller.days", "days",
     "controller.days gives list[int], expected numbers and text by name",
     "a struct or a dict of int, float, bool, str"),
    ("chart's x", 'x = "day"', 'x = "days"', "days",
     "Day(day: str, litres: float, count: int) has no field 'days'", "did you mean 'day'?"),
    ("chart's y", '"count"', '"cout"', "cout",
     "Day(day: str, litres: float, count: int) has no field 'cout'", "did you mean 'count'?"),
    ("chart of text", '"count"', '"day"]#', "]#", "day is str, expected a number to draw", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "where", "message", "hint"),
    [pytest.param(*rule[1:], id=rule[0]) for rule in RULES],
)
def test_each_rule(
    tmp_path: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    text = change(old, new)
    error = refused(tmp_path, text)
    assert type(error) is MalformedError
    place = f"app.toml:{line_of(text, where)}"
    assert (error.place, error.message, error.hint) == (place, message, hint)


def test_a_request_has_one_handler_only(tmp_path: Path) -> None:
    text = TEXT_OF_APP + '[[connections]]\nfrom = "controller.forecast"\nto = "weather.second"\n'
    second = Port(kind=PortKind.HANDLER, name="second", argument=ASK, result=REPLY)
    weather = Interface((*INTERFACES["weather"].ports, second))
    descriptor = described(tmp_path, text)
    with pytest.raises(MalformedError) as caught:
        wire(descriptor, {**INTERFACES, "weather": weather})
    first = line_of(TEXT_OF_APP, 'from = "controller.forecast"') - 1
    assert caught.value.place == f"app.toml:{len(text.splitlines()) - 1}"
    assert caught.value.message == (
        f"the request controller.forecast has a handler already, at app.toml:{first}"
    )
    assert caught.value.hint == "a request is answered by exactly one handler"


def test_a_chart_of_events_without_fields(tmp_path: Path) -> None:
    text = change(
        'to = "operator"',
        'to = "operator"\n[[connections]]\nfrom = "controller.tally"\nto = "operator"',
    )
    text = text.replace('from = "valve.opened"\nx', 'from = "controller.tally"#\nx')
    error = refused(tmp_path, text)
    assert error.place == f"app.toml:{line_of(text, '#')}"
    assert error.message == "controller.tally sends int, which has no fields to draw"


@pytest.mark.parametrize(
    "result",
    [
        {"type": "dict", "values": INT},
        {"type": "dict", "values": {"type": "optional", "item": TEXT}},
        struct("S", a=TEXT, b={"type": "enum", "name": "E", "values": [1]}),
    ],
    ids=["dict", "optional", "struct"],
)
def test_summaries_that_are_tables(tmp_path: Path, result: Shape) -> None:
    entry = Port(kind=PortKind.ENTRY, name="summary", result=result)
    ports = [port for port in INTERFACES["controller"].ports if port.name != "summary"]
    controller = Interface((*ports, entry))
    wire(described(tmp_path, TEXT_OF_APP), {**INTERFACES, "controller": controller})


@pytest.mark.parametrize(
    "result",
    [None, INT, {"type": "dict", "values": DAY}, struct("S", a=DAY)],
    ids=["nothing", "number", "dict of structs", "struct of structs"],
)
def test_summaries_that_are_none(tmp_path: Path, result: Shape | None) -> None:
    entry = Port(kind=PortKind.ENTRY, name="summary", result=result)
    ports = [port for port in INTERFACES["controller"].ports if port.name != "summary"]
    controller = Interface((*ports, entry))
    with pytest.raises(MalformedError, match="expected numbers and text by name"):
        wire(described(tmp_path, TEXT_OF_APP), {**INTERFACES, "controller": controller})


def test_a_slip_in_a_connection_comes_before_the_request_it_leaves_alone(tmp_path: Path) -> None:
    error = refused(tmp_path, change('"controller.forecast"', '"controller.forcast"'))
    assert error.message.startswith("module controller has no port 'forcast'")


def test_the_first_problem_in_the_file_is_the_one_reported(tmp_path: Path) -> None:
    text = change('x = "day"', 'x = "days"').replace("valve.set", "valve.level")
    assert refused(tmp_path, text).message.startswith("controller.command sends")
    text = text.replace('now = "m.py:now"', 'nwo = "m.py:now"')
    assert refused(tmp_path, text).message == "module controller declares no ocall 'nwo'"


def test_a_target_of_an_unknown_source_is_checked_by_its_own_kind(tmp_path: Path) -> None:
    text = change('from = "controller.command"\nto = "valve.set"',
                  'to = "valve.opened"\nfrom = "controller.x"')  # fmt: skip
    error = refused(tmp_path, text)
    assert error.message == "valve.opened is an output, expected an input or a handler"


SPOKEN = ("spongent-128",)


@pytest.mark.parametrize("module", ["valve", "controller"])
def test_a_module_that_speaks_one_cipher_gets_no_other(tmp_path: Path, module: str) -> None:
    descriptor = described(tmp_path, TEXT_OF_APP)
    with pytest.raises(MalformedError) as caught:
        wire(descriptor, INTERFACES, speaks={module: SPOKEN})
    end = {"valve": "valve.set", "controller": "controller.command"}[module]
    expected = f"{end} does not speak aes-128-gcm: its node speaks spongent-128"
    assert caught.value.message == expected
    assert caught.value.place == f"app.toml:{line_of(TEXT_OF_APP, end) - (module == 'valve') - 1}"
    assert caught.value.hint == 'write cipher = "spongent-128"'


def test_a_cipher_that_both_ends_speak(tmp_path: Path) -> None:
    text = TEXT_OF_APP.replace('\nto = "', '\ncipher = "spongent-128"\nto = "')
    found = wire(described(tmp_path, text), INTERFACES, speaks={"valve": SPOKEN})
    assert {connection.cipher for connection in found.connections} == set(SPOKEN)
