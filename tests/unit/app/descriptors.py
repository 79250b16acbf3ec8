"""Descriptors for tests: the smallest, the fullest, and how one of its rules is broken alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from broch.app.descriptor import Descriptor, load
from broch.errors import BrochError, MalformedError

TEES: Final = ("keystone", "sgx", "trustzone")

SMALL: Final = """\
[app]
name = "irrigation"

[nodes.cloud]
tee = "sgx"
device = "emulated"

[modules.controller]
node = "cloud"
source = "modules/controller.py"
"""

# Every table and key that there is; each test of a rule changes one thing in it.
FULL: Final = """\
[app]
name = "irrigation"
description = "waters a field"

[nodes.cloud]
tee = "sgx"
device = "emulated"
host = "127.0.0.1"
port = 7001

[nodes.field]
tee = "trustzone"
device = "native"
host = "::1"
port = 7002

[modules.controller]
node = "cloud"
source = "modules/controller.py"
files = ["data/soil.csv", "data/rain.csv"]
version = 3
restart = "always"
max_restarts = 9

[modules.controller.limits]
memory_mb = 128
seconds = 0.5

[modules.controller.ocalls]
now = "host.py:now"

[modules.valve]
node = "field"
source = "modules/valve"

[[connections]]
from = "controller.command"
to = "valve.set"
cipher = "aes-128-gcm"

[[connections]]
from = "valve.opened"
to = "operator"

[[connections]]
from = "operator"
to = "controller.override"

[run]
until = "valve.opened"

[policy]
emulated = true
debug = true
unsandboxed = true

[report]
title = "A season"
summary = "controller.summary"

[[report.charts]]
title = "Openings"
from = "valve.opened"
x = "day"
y = ["litres", "minutes"]
unit = "l"
"""

#: A rule's name, what is replaced in FULL, by what, where the error is, message, hint.
Rule = tuple[str, str, str, str, str, str | None]


def write_files(folder: Path) -> Path:
    """All files that FULL names, empty."""
    for name in (
        "modules/controller.py",
        "modules/valve/__init__.py",
        "data/soil.csv",
        "data/rain.csv",
        "host.py",
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def read(folder: Path, text: str) -> Descriptor:
    (folder / "app.toml").write_text(text)
    return load(folder / "app.toml", tees=TEES)


def refused(folder: Path, text: str) -> BrochError:
    with pytest.raises(BrochError) as caught:
        read(folder, text)
    return caught.value


def change(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def line_of(text: str, needle: str) -> int:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if needle in line]
    assert len(lines) == 1, f"{needle!r} is on lines {lines}"
    return lines[0]


def each_rule(rules: Iterable[Rule]) -> pytest.MarkDecorator:
    """Run a test for each of these, which hands it to :func:`check_rule`."""
    return pytest.mark.parametrize(
        ("old", "new", "where", "message", "hint"),
        [pytest.param(*rule[1:], id=rule[0]) for rule in rules],
    )


def check_rule(
    folder: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    """FULL with one thing changed is malformed, and the error says where and why."""
    text = change(FULL, old, new)
    error = refused(folder, text)
    assert type(error) is MalformedError
    assert error.exit_code == 3
    place = f"app.toml:{line_of(text, where)}"
    assert (error.place, error.message, error.hint) == (place, message, hint)
