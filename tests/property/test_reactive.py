"""Descriptors of others: whatever is in one, it becomes an application of ours or a named error."""

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broch.app.descriptor import load
from broch.app.reactive import read_reactive
from broch.app.reactive_app import Imported, translate
from broch.errors import MalformedError

TEES = ("sgx", "trustzone", "sancus")
names = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["a", "A", "operator", "class", "0", '"']
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@st.composite
def descriptors(draw: st.DrawFn) -> dict[str, Any]:
    """Sound ones, with names of all sorts."""
    kinds = draw(st.lists(st.sampled_from([*TEES, "native"]), min_size=2, max_size=4))
    unique = st.lists(names, min_size=len(kinds), max_size=len(kinds), unique=True)
    nodes, modules = draw(unique), draw(unique)
    connections = []
    for _ in range(draw(st.integers(0, 5))):
        source, target = draw(st.permutations(modules))[:2]
        is_request = draw(st.booleans())
        port = names | st.integers(0, 65535)
        connection: dict[str, Any] = {
            "to_module": target,
            "encryption": draw(st.sampled_from(["aes", "spongent"])),
        }
        connection["to_handler" if is_request else "to_input"] = draw(port)
        if draw(st.booleans()):
            connection |= {"direct": True, "name": draw(names)}
        else:
            connection["from_module"] = source
            connection["from_request" if is_request else "from_output"] = draw(port)
        connections.append(connection)
    return {
        "nodes": [
            {"type": kind, "name": name, "host": "h", "reactive_port": 1, "more": draw(anything)}
            for kind, name in zip(kinds, nodes, strict=True)
        ],
        "modules": [
            {"type": kind, "name": name, "node": node}
            for kind, name, node in zip(kinds, modules, nodes, strict=True)
        ],
        "connections": connections,
    }


def imported_or_error(raw: bytes) -> Imported | MalformedError:
    try:
        return translate(read_reactive(raw, "d.json"), app="app", native="sgx")
    except MalformedError as exc:
        return exc


@settings(max_examples=80, deadline=None)
@given(descriptors())
def test_a_sound_one_becomes_an_application(data: dict[str, Any]) -> None:
    imported = imported_or_error(json.dumps(data).encode())
    if isinstance(imported, MalformedError):
        assert "would be called" in imported.message  # two names that we do not tell apart
        return
    with tempfile.TemporaryDirectory() as name:
        for path, text in imported.files.items():
            Path(name, path).parent.mkdir(exist_ok=True)
            Path(name, path).write_text(text)
            if path.endswith(".py"):
                compile(text, path, "exec")
        descriptor = load(Path(name, "app.toml"), tees=TEES)
    assert len(descriptor.nodes) == len(data["nodes"])
    assert len(descriptor.modules) == len(data["modules"])
    assert len(descriptor.connections) == len(imported.connections)
    left_out = imported.files["app.toml"].count("# connections[")
    assert len(descriptor.connections) + left_out == len(data["connections"])


@settings(max_examples=150, deadline=None)
@given(descriptors(), st.data())
def test_a_broken_one_is_an_error_of_ours(data: dict[str, Any], draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(["nodes", "modules", "connections", "all", "text"]))
    if kind == "text":
        text = bytearray(json.dumps(data).encode())
        text[draw.draw(st.integers(0, len(text) - 1))] = draw.draw(st.integers(0, 255))
        raw = bytes(text)
    else:
        elements = data if kind == "all" else draw.draw(st.sampled_from(data[kind] or [{}]))
        elements[draw.draw(st.sampled_from([*elements, "type", "direct"]))] = draw.draw(anything)
        raw = json.dumps(data).encode()
    imported = imported_or_error(raw)
    if isinstance(imported, MalformedError):
        assert str(imported).startswith("d.json")
    else:
        tomllib.loads(imported.files["app.toml"])
