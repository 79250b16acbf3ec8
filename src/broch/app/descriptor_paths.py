"""Paths that a descriptor names: below its folder, plainly written, no link leading out."""

import os
import posixpath
from pathlib import Path

from broch.errors import UsageError
from broch.wire.toml_places import Keys, Table, describe


def check_file(table: Table, keys: Keys, text: str, path: Path) -> None:
    """Note a file that is not there."""
    if not os.path.isfile(path):
        problem = f"there is no file {describe(text)}"
        hint = "paths begin at the descriptor's folder"
        table.problems.add((*table.keys, *keys), problem, hint=hint, kind=UsageError)


def inside(table: Table, keys: Keys, text: str, folder: Path) -> str | None:
    """``text`` as a plain path below ``folder``, where symbolic links may not lead out of."""
    relative = posixpath.normpath(text)
    is_plain = len(text) <= 255 and "\\" not in text and "\0" not in text
    is_below = relative not in (".", "..") and not relative.startswith(("/", "../"))
    if is_plain and is_below and real(folder / relative).is_relative_to(folder):
        return relative
    problem = f"{describe(text)} is not a path inside the descriptor's folder"
    table.problems.add((*table.keys, *keys), problem)
    return None


def real(path: Path) -> Path:
    """Absolute and without symbolic links; unlike Path.resolve, never fails."""
    return Path(os.path.realpath(path))
