"""The wheel that users get: what is in it, and that it works when installed far from the source.

Built and installed without a network: hatchling is in the environment of the tests, and the fresh
environment sees the dependencies of this one through a ``.pth`` file.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from configparser import RawConfigParser
from email.parser import Parser
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated")


def run(command: Iterable[str | Path], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``command`` where nothing of the source tree is in sight."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BROCH", "PIP"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**env, "NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, ROOT)
    done = run(build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; the folder of its programs."""
    home = tmp_path_factory.mktemp("installed")
    venv.EnvBuilder(symlinks=True).create(home)
    programs = home / "bin"
    install = (*PIP, "--python", programs / "python", "install", "--no-deps", "--no-index", wheel)
    done = run(install, cwd=home)
    assert done.returncode == 0, done.stderr
    (packages,) = home.glob("lib/python3.*/site-packages")
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(places)) + "\n")
    return programs


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def read(wheel: Path, suffix: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(suffix)]
        return archive.read(name).decode()


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert tops == {"broch", f"broch-{PROJECT['version']}.dist-info"}
    assert wheel.name == f"broch-{PROJECT['version']}-py3-none-any.whl"
    parts = {part for name in names(wheel) for part in Path(name).parts}
    assert not parts & {"tests", "test", "conftest.py", "__pycache__", "examples", "bench"}
    assert not [part for part in parts if part.startswith("test_")]


def test_it_holds_every_file_of_the_source(wheel: Path) -> None:
    source = ROOT / "src"
    files = {
        file.relative_to(source).as_posix()
        for file in (source / "broch").rglob("*.py")
        if not file.name.startswith(".")
    }
    assert len(files) > 10
    assert files <= set(names(wheel))


def test_it_is_typed_and_licensed(wheel: Path) -> None:
    assert "broch/py.typed" in names(wheel)
    assert "Apache License" in read(wheel, ".dist-info/licenses/LICENSE")
    facts = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Requires-Python"] == ">=3.11"


def test_its_entry_points_are_those_of_the_project(wheel: Path) -> None:
    parser = RawConfigParser(delimiters="=")
    parser.read_string(read(wheel, ".dist-info/entry_points.txt"))
    assert dict(parser["console_scripts"]) == PROJECT["scripts"]
    assert dict(parser["broch.tees"]) == PROJECT["entry-points"]["broch.tees"]


def test_broch_imports_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    show = "import broch; print(broch.__file__)"
    done = run((installed / "python", "-c", show), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


def test_every_tee_is_found_and_loads(installed: Path, tmp_path: Path) -> None:
    show = (
        "from broch.tee import registry\n"
        "for name in registry.names(): print(name, registry.find(name).report_data_size)"
    )
    done = run((installed / "python", "-c", show), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert found == sorted(PROJECT["entry-points"]["broch.tees"])


def test_every_kind_of_real_hardware_is_found_and_loads(installed: Path, tmp_path: Path) -> None:
    show = (
        "from broch.tee import registry\n"
        "for name in registry.native_names(): print(name, registry.find_native(name).title)"
    )
    done = run((installed / "python", "-c", show), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert found == sorted(PROJECT["entry-points"]["broch.native"])


def test_version(installed: Path, tmp_path: Path) -> None:
    done = run((installed / "broch", "--version"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"broch {PROJECT['version']}\n"


def test_help_names_the_commands(installed: Path, tmp_path: Path) -> None:
    done = run((installed / "broch", "--help"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("up", "down", "status", "call", "emit", "events", "doctor", "new"):
        assert re.search(rf"\b{command}\b", done.stdout), f"{command} is not in the help"


def test_an_unknown_command_is_a_usage_error(installed: Path, tmp_path: Path) -> None:
    done = run((installed / "broch", "nonsense"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error:" in done.stderr.lower()
    assert "Traceback" not in done.stderr
