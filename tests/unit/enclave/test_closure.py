"""The runtime closure: every file that runs, by names that do not depend on the place."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from broch.enclave import closure

PROGRAM: Final = """
import importlib.util, sys
sys.path[:0] = sys.argv[1:]
import helper
for index, folder in enumerate(sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(f"other{index}", folder + "/same.py")
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
from broch.enclave import closure
sys.stdout.buffer.write(closure.manifest())
"""


def manifest_of(*folders: Path, seed: str = "0") -> dict[str, list[str]]:
    """Name -> digests, of a process that loaded ``helper`` and a ``same`` of each folder."""
    lines = manifest_bytes(*folders, seed=seed).decode().splitlines()
    names: dict[str, list[str]] = {}
    for line in lines:
        names.setdefault(line[66:], []).append(line[:64])
    return names


def manifest_bytes(*folders: Path, seed: str = "0") -> bytes:
    environment = {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = [sys.executable, "-c", PROGRAM, *map(str, folders)]
    return subprocess.run(
        arguments, env={**os.environ, **environment}, capture_output=True, check=True
    ).stdout


def site(folder: Path, *, helper: str = "x = 1\n", same: str = "y = 1\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "helper.py").write_text(helper)
    (folder / "same.py").write_text(same)
    return folder


def test_a_line_is_digest_and_name() -> None:
    lines = closure.manifest().decode().splitlines()
    name = "broch/enclave/closure.py"
    digest = hashlib.sha256(Path(closure.__file__).read_bytes()).hexdigest()
    assert f"{digest}  {name}" in lines
    assert all(len(line) > 66 and line[64:66] == "  " for line in lines)
    assert lines == sorted(lines, key=lambda line: line[66:])
    assert len(set(lines)) == len(lines)


def test_interpreter_libraries_and_extensions_are_in_it() -> None:
    names = [line[66:] for line in closure.manifest().decode().splitlines()]
    assert Path(sys.executable).resolve().name in names
    assert any(name.startswith("libc.so") for name in names)
    assert any(name.startswith("msgspec/_core") for name in names)
    assert "dataclasses.py" in names, "os.py and others are frozen into the interpreter"


def test_every_file_is_read_once_however_often_it_is_mapped() -> None:
    lines = closure.manifest().decode().splitlines()
    assert len([line for line in lines if line.endswith("  broch/errors.py")]) == 1


def test_the_digest_is_sha256() -> None:
    assert closure.digest(b"x") == hashlib.sha256(b"x").digest()


def test_two_installations_of_the_same_files_agree(tmp_path: Path) -> None:
    one = site(tmp_path / "here")
    two = tmp_path / "somewhere" / "else" / "entirely"
    shutil.copytree(one, two)
    assert manifest_bytes(one) == manifest_bytes(two)
    assert "helper.py" in manifest_of(one)


def test_a_changed_file_changes_it(tmp_path: Path) -> None:
    one = site(tmp_path / "one")
    two = site(tmp_path / "two", helper="x = 2\n")
    assert manifest_of(one)["helper.py"] != manifest_of(two)["helper.py"]
    assert manifest_bytes(one) != manifest_bytes(two)


def test_two_files_of_one_name_are_both_in_it_in_one_order(tmp_path: Path) -> None:
    """Whatever order their set has: two processes of one installation must agree."""
    one = site(tmp_path / "one", same="y = 1\n")
    two = site(tmp_path / "two", same="y = 2\n")
    three = site(tmp_path / "three", same="y = 3\n")
    names = manifest_of(one, two, three)
    assert len(names["same.py"]) == 3
    manifests = {manifest_bytes(one, two, three, seed=str(seed)) for seed in range(4)}
    assert len(manifests) == 1
