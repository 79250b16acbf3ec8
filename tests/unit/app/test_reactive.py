"""Authentic Execution descriptors: read, each rule refused by name, translated, nothing lost."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from broch.app.reactive import MAX_FILE, read_reactive
from broch.app.reactive_app import Imported, Outcome, translate
from broch.errors import BrochError, MalformedError

Change = Callable[[dict[str, Any]], object]


def descriptor() -> dict[str, Any]:
    """A descriptor with one of each thing."""
    return {
        "manager": "manager.yaml",
        "nodes": [
            {"type": "sgx", "name": "cloud", "host": "cloud.example", "reactive_port": 5000},
            {"type": "native", "name": "desk", "ip_address": "127.0.0.1", "reactive_port": 6000},
            {
                "type": "sancus",
                "name": "field",
                "host": "field.example",
                "reactive_port": 6000,
                "vendor_id": 4660,
                "vendor_key": "5ec2e700000000000000000000000000",
            },
        ],
        "modules": [
            {"type": "sgx", "name": "db", "node": "cloud", "ra_settings": "s", "priority": 3},
            {"type": "native", "name": "web", "node": "desk"},
            {"type": "sancus", "name": "button", "node": "field", "files": ["button.c"]},
        ],
        "connections": [
            {
                "from_module": "button",
                "from_output": "pressed",
                "to_module": "db",
                "to_input": "count",
                "encryption": "spongent",
            },
            {
                "from_module": "web",
                "from_request": "presses",
                "to_module": "db",
                "to_handler": "presses",
                "encryption": "aes",
            },
            {
                "name": "push",
                "direct": True,
                "to_module": "button",
                "to_input": 1,
                "encryption": "spongent",
            },
        ],
        "periodic-events": [{"module": "web", "entry": "refresh", "frequency": 1500}],
    }


def imported(change: Change = lambda data: None) -> Imported:
    data = descriptor()
    change(data)
    reactive = read_reactive(json.dumps(data).encode(), "d.json")
    return translate(reactive, app="app", native="keystone")


def test_nodes_modules_and_connections_are_the_same() -> None:
    result = imported()
    assert result.nodes == {"cloud": "sgx", "desk": "keystone", "field": "sancus"}
    assert result.modules == {"db": "cloud", "web": "desk", "button": "field"}
    assert result.connections == (
        ("button.pressed", "db.count", "spongent-128"),
        ("web.presses", "db.presses", "aes-128-gcm"),
        ("operator", "button.input_1", "spongent-128"),
    )


def test_every_key_without_a_counterpart_is_listed() -> None:
    listed = [each.text.split()[0].rstrip(":") for each in imported().differences]
    for key in ("manager", "vendor_id", "vendor_key", "ra_settings", "priority", "files"):
        assert key in listed

    def add(data: dict[str, Any]) -> None:
        data["surprise"] = 1
        for kind in ("nodes", "modules", "connections", "periodic-events"):
            data[kind][0][f"surprise-{kind}"] = "x"

    listed = [each.text.split()[0] for each in imported(add).differences]
    assert {each for each in listed if each.startswith("surprise")} == {
        "surprise",
        *(f"surprise-{kind}" for kind in ("nodes", "modules", "connections", "periodic-events")),
    }


def test_no_secret_is_taken_over_or_shown() -> None:
    result = imported()
    assert "5ec2e7" not in repr(result.differences) + "".join(result.files.values())


def test_what_a_person_must_finish_is_said_of_each_module() -> None:
    to_do = [each.text for each in imported().differences if each.outcome is Outcome.TO_DO]
    assert [text.split()[2].rstrip(":") for text in to_do] == [
        "modules/db.py",
        "modules/web.py",
        "modules/button.c",
    ]


def test_sources_declare_the_ports_that_are_connected() -> None:
    from broch import Module

    names: dict[str, Any] = {}
    exec(imported().files["modules/db.py"], names)
    module = names["module"]
    assert isinstance(module, Module)
    assert [(port.kind, port.name) for port in module.interface().ports] == [
        ("input", "count"),
        ("handler", "presses"),
    ]
    assert [port.argument for port in module.interface().ports] == [
        {"type": "int"},  # from a module in C, which takes no bytes
        {"type": "bytes"},
    ]
    names = {}
    exec(imported().files["modules/web.py"], names)
    (ask, tick) = names["module"].interface().ports
    assert (ask.kind, ask.name) == ("request", "presses")
    assert (tick.kind, tick.name, tick.seconds) == ("every", "refresh", 1.5)


def test_a_source_in_c_declares_them_too() -> None:
    text = imported().files["modules/button.c"]
    assert "BROCH_OUTPUT(pressed, u16);" in text
    assert "BROCH_INPUT(input_1, u16, data)" in text
    assert 'broch_refuse("input_1 is to be written");' in text


def test_a_module_in_c_answers_no_requests() -> None:
    def change(data: dict[str, Any]) -> None:
        connection = data["connections"][1]
        connection["to_module"] = "button"

    result = imported(change)
    assert len(result.connections) == 2
    assert any("no requests and handlers" in each.text for each in result.differences)
    assert "BROCH_" not in result.files["modules/web.py"]


def test_the_operator_cannot_ask_a_handler() -> None:
    def change(data: dict[str, Any]) -> None:
        connection = data["connections"][2]
        connection.update(to_module="db", to_handler="presses")
        del connection["to_input"]

    result = imported(change)
    assert len(result.connections) == 2
    (difference,) = (each for each in result.differences if "cannot ask" in each.text)
    assert difference.outcome is Outcome.NONE
    assert difference.place == "connections[2] (push)"
    assert "# connections[2] (push): the operator cannot ask" in result.files["app.toml"]


def test_a_request_keeps_its_first_handler() -> None:
    def change(data: dict[str, Any]) -> None:
        data["modules"].append({"type": "sgx", "name": "db2", "node": "cloud"})
        data["connections"].append({**data["connections"][1], "to_module": "db2"})

    result = imported(change)
    assert [c[1] for c in result.connections if c[0] == "web.presses"] == ["db.presses"]
    assert any("answered by db.presses" in each.text for each in result.differences)


def test_a_connection_that_is_there_twice_is_written_once() -> None:
    result = imported(lambda data: data["connections"].append(data["connections"][0]))
    assert len(result.connections) == 3
    assert any("is there already" in each.text for each in result.differences)


def test_names_that_we_do_not_allow_are_changed_and_said() -> None:
    def change(data: dict[str, Any]) -> None:
        data["nodes"][0]["name"] = "Cloud 9"
        data["modules"][0].update(node="Cloud 9", name="operator")
        data["connections"][0].update(to_module="operator", to_input="class")
        data["connections"][1].update(to_module="operator", to_handler="GetPresses")

    result = imported(change)
    assert result.nodes["cloud-9"] == "sgx"
    assert result.modules["operator-module"] == "cloud-9"
    assert result.connections[0][1] == "operator-module.class_"
    assert result.connections[1][1] == "operator-module.getpresses"
    said = " ".join(each.text for each in result.differences)
    assert "called cloud-9" in said
    assert "called class_" in said
    assert "called getpresses" in said


def test_a_long_name_that_two_kinds_of_ports_have_stays_a_name() -> None:
    name = "a" + "1" * 63  # as long as a name may be

    def change(data: dict[str, Any]) -> None:
        data["connections"][0]["to_input"] = name
        data["connections"][1]["to_handler"] = name

    result = imported(change)
    ends = [target for _, target, _ in result.connections if target.startswith("db.")]
    assert ends == [f"db.{name}", f"db.{name[:56]}_handler"]


def test_two_things_that_would_share_a_name() -> None:
    def nodes(data: dict[str, Any]) -> None:
        data["nodes"].append({**data["nodes"][0], "name": "CLOUD"})

    def ports(data: dict[str, Any]) -> None:
        data["connections"].append({**data["connections"][0], "from_output": "Pressed"})

    for change in (nodes, ports):
        with pytest.raises(MalformedError, match="would be called"):
            imported(change)


def drop(*keys: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        del data[keys[0]][0][keys[1]]

    return change


def put(value: object, kind: str, index: int, key: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        data[kind][index][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (drop("nodes", "name"), "nodes[0].name", "is missing"),
        (drop("nodes", "host"), "nodes[0]", "exactly one of host, ip_address"),
        (drop("modules", "node"), "modules[0].node", "is missing"),
        (drop("connections", "encryption"), "connections[0].encryption", "is missing"),
        (drop("connections", "to_input"), "connections[0]", "exactly one of to_input, to_handler"),
        (drop("connections", "from_module"), "connections[0].from_module", "is missing"),
        (drop("periodic-events", "frequency"), "periodic-events[0].frequency", "is missing"),
        (put("arm", "nodes", 0, "type"), "nodes[0].type", "unknown type 'arm'"),
        (put(0, "nodes", 0, "reactive_port"), "nodes[0].reactive_port", "from 1 to 65535"),
        (put(True, "nodes", 0, "reactive_port"), "nodes[0].reactive_port", "got true"),
        (put("", "nodes", 0, "name"), "nodes[0].name", "1 to 128 characters"),
        (put("x" * 129, "modules", 0, "name"), "modules[0].name", "1 to 128 characters"),
        (put("desk", "nodes", 0, "name"), "nodes[1].name", "is the name of nodes[0], too"),
        (put("web", "modules", 0, "name"), "modules[1].name", "is the name of modules[0], too"),
        (put("mars", "modules", 0, "node"), "modules[0].node", "there is no node 'mars'"),
        (put("desk", "modules", 0, "node"), "modules[0].type", "on a node of type native"),
        (put("x", "connections", 0, "to_module"), "connections[0].to_module", "no module 'x'"),
        (put("button", "connections", 0, "to_module"), "connections[0].to_module", "to itself"),
        (put("rot13", "connections", 0, "encryption"), "connections[0].encryption", "unknown"),
        (put("web", "connections", 2, "from_module"), "connections[2].from_module", "no module"),
        (put(1, "connections", 2, "direct"), "connections[2].direct", "true or false"),
        (put(65536, "connections", 2, "to_input"), "connections[2].to_input", "0 to 65535"),
        (put("x", "periodic-events", 0, "module"), "periodic-events[0].module", "no module 'x'"),
        (lambda data: data.update(nodes=[]), "nodes", "there is no node"),
        (lambda data: data.update(modules={}), "modules", "expected a list"),
        (lambda data: data.update(modules=[7]), "modules[0]", "expected an object"),
        (lambda data: data.update(connections=[{}] * 5000), "connections", "at most 4096"),
    ],
)
def test_a_rule_that_is_broken_is_named(change: Change, place: str, problem: str) -> None:
    with pytest.raises(MalformedError) as caught:
        imported(change)
    assert caught.value.place == f"d.json: {place}"
    assert problem in caught.value.message


def test_a_request_goes_to_no_input() -> None:
    def change(data: dict[str, Any]) -> None:
        connection = data["connections"][1]
        connection["to_input"] = connection.pop("to_handler")

    with pytest.raises(MalformedError, match="connects request to input"):
        imported(change)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nodes:\n  - type: sgx\n",
        b"\xff\xfe",
        b'{"nodes": NaN}',
        b'{"nodes": [], "nodes": []}',
        b"[" * 100_000,
        b"[]",
        b'{"nodes": ' + b"9" * 5000 + b"}",
        b" " * (MAX_FILE + 1),
    ],
)
def test_what_is_no_descriptor(data: bytes) -> None:
    with pytest.raises(BrochError) as caught:
        read_reactive(data, "d.json")
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("d.json")
