"""Paths of a descriptor: below its folder, plainly written, no link leading out."""

import os
from pathlib import Path
from typing import Final

import pytest

from broch.app.descriptor import load
from broch.errors import MalformedError, UsageError

from .descriptors import (
    FULL,
    SMALL,
    TEES,
    Rule,
    change,
    check_rule,
    each_rule,
    line_of,
    read,
    refused,
    write_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path)


def test_paths_are_relative_to_the_descriptor_wherever_one_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "app.toml").write_text(SMALL)
    monkeypatch.chdir(folder / "modules")
    descriptor = load(Path("../app.toml"), tees=TEES)
    assert descriptor.folder == folder
    assert descriptor.modules["controller"].source == folder / "modules/controller.py"


def test_plain_spellings_of_a_path_are_made_one(folder: Path) -> None:
    text = change(FULL, '"modules/controller.py"', '"./modules//controller.py"')
    text = change(text, '"data/soil.csv"', '"./data/../data/soil.csv"')
    controller = read(folder, text).modules["controller"]
    assert controller.source == folder / "modules/controller.py"
    assert controller.files == ("data/soil.csv", "data/rain.csv")


MALFORMED: Final[tuple[Rule, ...]] = (
    ("module: source outside", '"modules/valve"', '"../valve.py"', "../valve.py",
     "'../valve.py' is not a path inside the descriptor's folder", None),
    ("module: source absolute", '"modules/valve"', '"/valve.py"', "/valve.py",
     "'/valve.py' is not a path inside the descriptor's folder", None),
    ("module: source is the folder", '"modules/valve"', '"."', 'source = "."',
     "'.' is not a path inside the descriptor's folder", None),
    ("module: source with NUL", '"modules/valve"', '"a\\u0000.py"', "u0000",
     "'a\\x00.py' is not a path inside the descriptor's folder", None),
    ("module: source with a backslash", '"modules/valve"', "'a\\b.py'", "'a\\b.py'",
     "'a\\\\b.py' is not a path inside the descriptor's folder", None),
    ("module: file outside", '"data/rain.csv"]', '\n"../x"]', '"../x"]',
     "'../x' is not a path inside the descriptor's folder", None),
    ("ocall: outside", '"host.py:now"', '"../host.py:now"', "host.py",
     "'../host.py' is not a path inside the descriptor's folder", None),
)  # fmt: skip


@each_rule(MALFORMED)
def test_each_rule(
    folder: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    check_rule(folder, old, new, where, message, hint)


MISSING_FILES = [
    ("source", '"modules/controller.py"', '"modules/control.py"', "modules/control.py",
     "there is no file 'modules/control.py'"),
    ("source folder", '"modules/valve"', '"modules"', 'source = "modules"',
     "the folder 'modules' has no __init__.py"),
    ("more files", '"data/rain.csv"]', '\n"data/snow.csv"]', "snow",
     "there is no file 'data/snow.csv'"),
    ("ocall", '"host.py:now"', '"hosts.py:now"', "hosts.py", "there is no file 'hosts.py'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [pytest.param(*rule[1:], id=rule[0]) for rule in MISSING_FILES],
)
def test_a_missing_file_is_an_error_of_usage(
    folder: Path, old: str, new: str, where: str, message: str
) -> None:
    text = change(FULL, old, new)
    error = refused(folder, text)
    assert type(error) is UsageError
    assert error.exit_code == 2
    assert (error.place, error.message) == (f"app.toml:{line_of(text, where)}", message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"modules/valve"', '"link.py"', id="source"),
        pytest.param('"data/rain.csv"', '"link.py"', id="file"),
        pytest.param('"host.py:now"', '"link.py:now"', id="ocall"),
    ],
)
def test_symbolic_links_do_not_lead_out(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, old: str, new: str
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.py"
    outside.touch()
    (folder / "link.py").symlink_to(outside)
    error = refused(folder, change(FULL, old, new))
    assert type(error) is MalformedError
    assert error.message == "'link.py' is not a path inside the descriptor's folder"


def test_symbolic_links_inside_are_fine(folder: Path) -> None:
    (folder / "link.py").symlink_to(folder / "host.py")
    read(folder, change(FULL, '"modules/valve"', '"link.py"'))


def test_the_folder_itself_may_be_reached_by_a_link(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "app.toml").write_text(FULL)
    link = tmp_path_factory.mktemp("links") / "app"
    link.symlink_to(folder)
    assert load(link / "app.toml", tees=TEES).folder == Path(os.path.realpath(folder))
