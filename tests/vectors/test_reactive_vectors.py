"""The descriptors of the Authentic Execution examples: every one of them becomes an application."""

import json
from pathlib import Path
from typing import Any

import pytest

from broch.app.descriptor import load
from broch.app.wiring import wire
from broch.cli import entry
from broch.crypto.channel import CIPHERS
from broch.errors import UsageError
from broch.image import Interface
from broch.image.toolchain import find
from broch.tee.contract import CompileSettings
from broch.tee.sancus import TEE as SANCUS

TEES = ("sgx", "trustzone", "sancus", "keystone")
COUNT = 20  # descriptors


@pytest.fixture(scope="module")
def files(vectors: Path) -> list[Path]:
    return sorted((vectors / "descriptors").rglob("*.json"))


def run(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    assert entry.run(["import", "reactive", str(path), "-o", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_are_imported_whole(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(files) == COUNT
    for number, path in enumerate(files):
        theirs = json.loads(path.read_text())
        ours = run(path, tmp_path / str(number), capsys)
        descriptor = load(tmp_path / str(number) / "app.toml", tees=TEES)
        assert list(descriptor.nodes) == [node["name"] for node in theirs["nodes"]]
        assert {name: spec.node for name, spec in descriptor.modules.items()} == {
            module["name"]: module["node"] for module in theirs["modules"]
        }
        left_out = [each for each in ours["differences"] if "cannot ask" in each["text"]]
        assert len(descriptor.connections) + len(left_out) == len(theirs["connections"])
        direct_requests = [c for c in theirs["connections"] if "direct" in c and "to_handler" in c]
        assert len(left_out) == len(direct_requests)


def test_the_connections_fit_the_ports_of_the_sources(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those in C are compiled."""
    try:
        find("msp430")
    except UsageError as exc:
        pytest.skip(f"{exc.message}: {exc.hint}")
    for number, path in enumerate(files):
        ours = run(path, tmp_path / str(number), capsys)
        descriptor = load(tmp_path / str(number) / "app.toml", tees=TEES)
        interfaces = {name: _declared(spec.source) for name, spec in descriptor.modules.items()}
        wiring = wire(descriptor, interfaces, ciphers={*CIPHERS, "spongent-128"})
        assert len(wiring.connections) == len(ours["connections"])


_COMPILED: dict[str, Interface] = {}  # by source: the same one is there several times


def _declared(source: Path) -> Interface:
    if source.suffix == ".c":
        text = source.read_text()
        if text not in _COMPILED:
            settings = CompileSettings(name=source.stem)
            _COMPILED[text] = SANCUS.interface(SANCUS.compile(source, settings).packed)
        return _COMPILED[text]
    names: dict[str, Any] = {}
    exec(compile(source.read_text(), source.name, "exec"), names)
    found = names["module"].interface()
    assert isinstance(found, Interface)
    return found
