"""`broch new`: what it writes is an application, and nothing is overwritten."""

import json
from pathlib import Path

import pytest

from broch.app.build import read_sources
from broch.app.descriptor import load
from broch.cli import entry
from broch.enclave.loader import check_imports


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_writes_a_sound_application(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["new", "greenhouse", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["app"] == "greenhouse"
    assert all(Path(made["folder"], name).is_file() for name in made["files"])
    descriptor = load(Path("greenhouse/app.toml"), tees=["sgx", "trustzone"])
    assert descriptor.app.name == "greenhouse"
    for spec in descriptor.modules.values():
        check_imports(read_sources(spec, descriptor.folder).files)
    assert "{" not in Path("greenhouse/README.md").read_text().replace('{"celsius": 20}', "")


def test_it_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("greenhouse").mkdir()
    Path("greenhouse/app.toml").write_text("mine")
    assert entry.run(["new", "greenhouse"]) == 2
    assert capsys.readouterr().err.startswith("error: greenhouse: is there already")
    assert [path.name for path in Path("greenhouse").iterdir()] == ["app.toml"]
    assert Path("greenhouse/app.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/a", "Caps", "with space", "a" * 65])
def test_it_wants_a_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert entry.run(["new", name]) == 2
    assert "not a name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert entry.run(["new", "greenhouse"]) == 2
    assert capsys.readouterr().err == "error: greenhouse: cannot be written: Permission denied\n"
