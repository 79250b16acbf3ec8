"""`broch import reactive`: files, streams, exit codes."""

import json
from pathlib import Path

import pytest

from broch.cli import entry

DESCRIPTOR = {
    "nodes": [{"type": "sgx", "name": "cloud", "host": "c.example", "reactive_port": 5000}],
    "modules": [{"type": "sgx", "name": "db", "node": "cloud", "id": 1}],
    "connections": [
        {"direct": True, "to_module": "db", "to_input": "count", "encryption": "aes"},
    ],
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("counter").mkdir()
    Path("counter/descriptor.json").write_text(json.dumps(DESCRIPTOR))


def test_it_says_what_it_made_and_what_it_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["import", "reactive", "counter/descriptor.json", "-o", "new"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(
        "made new/ with app.toml, modules/db.py: 1 node, 1 module, 1 connection, emulated\n"
    )
    assert "modules[0] (db): id 1: what a deployment came to" in said.out
    assert 'name = "counter"' in Path("new/app.toml").read_text()
    assert Path("new/modules/db.py").is_file()


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import", "reactive", "counter/descriptor.json", "--name", "mine", "--json"]
    assert entry.run(arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["app"] == "mine"
    assert data["folder"] == str(Path("mine").absolute())
    assert data["nodes"] == [{"name": "cloud", "tee": "sgx"}]
    assert data["modules"] == [{"name": "db", "node": "cloud"}]
    assert data["connections"] == [{"from": "operator", "to": "db.count", "cipher": "aes-128-gcm"}]
    assert {each["outcome"] for each in data["differences"]} == {
        "changed",
        "no counterpart",
        "to do",
    }


def test_the_name_of_a_descriptor_that_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("counter/descriptor.json").rename("counter/descriptor_sensing.json")
    assert entry.run(["import", "reactive", "counter/descriptor_sensing.json"]) == 0
    assert 'name = "sensing"' in Path("sensing/app.toml").read_text()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nowhere.json"], 2, "nowhere.json: cannot be read: No such file"),
        (["counter"], 2, "counter: cannot be read: Is a directory"),
        (["counter/descriptor.json"], 2, "counter: is there already; nothing was written"),
        (["counter/descriptor.json", "-o", "a/b"], 2, "a/b: cannot be made: No such file"),
        (["counter/descriptor.json", "--name", "A b"], 2, "'A b' is not a name"),
        (["counter/descriptor.json", "-o", "n", "--native", "sxg"], 2, "unknown TEE 'sxg'"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["import", "reactive", *arguments]) == code
    assert error in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["counter"]


def test_a_bad_descriptor_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.json").write_text('{"nodes": [}')
    assert entry.run(["import", "reactive", "bad.json", "-o", "new"]) == 3
    assert capsys.readouterr().err.startswith("error: bad.json:1: not JSON")
    assert not Path("new").exists()
