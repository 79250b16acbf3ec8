"""``broch import reactive``: an Authentic Execution descriptor as an application of ours."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from broch.app.reactive import MAX_FILE, read_reactive
from broch.app.reactive_app import Imported, Outcome, translate
from broch.cli import binary, output
from broch.errors import UsageError
from broch.image import NAME_RULE, is_name
from broch.tee import registry

_HEADS = {
    Outcome.CHANGED: "what is not as it was:",
    Outcome.NONE: "what has no counterpart, and was left out:",
    Outcome.TO_DO: "what is to be done:",
}


def import_reactive(
    path: Path, *, out: Path | None, name: str | None, native: str, as_json: bool
) -> int:
    """Read, translate, write, print; the exit code."""
    registry.find(native)
    app = name if name is not None else _name_of(path)
    if not is_name(app):
        hint = f"{NAME_RULE}: give one with --name"
        raise UsageError(f"{app!r} is not a name", place="--name", hint=hint)
    imported = translate(
        read_reactive(binary.read(path, MAX_FILE + 1), path.name), app=app, native=native
    )
    folder = out if out is not None else Path(app)
    _write(folder, imported.files)
    if as_json:
        output.print_json(_data(imported, folder))
    else:
        _print(imported, folder)
    return 0


def _name_of(path: Path) -> str:
    """``button-led/descriptor.json`` is button-led, ``descriptor_sensing.json`` sensing."""
    stem = path.stem.removeprefix("descriptor").lstrip("-_.")
    text = stem or path.absolute().parent.name
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Make ``folder`` with all files in it, or leave nothing."""
    try:
        folder.mkdir()
    except FileExistsError:
        hint = "choose another folder with -o"
        raise UsageError(
            "is there already; nothing was written", place=str(folder), hint=hint
        ) from None
    except OSError as exc:
        raise UsageError(f"cannot be made: {exc.strerror}", place=str(folder)) from None
    try:
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as exc:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"cannot be written: {exc.strerror}", place=str(folder)) from None


def _data(imported: Imported, folder: Path) -> dict[str, object]:
    return {
        "app": imported.app,
        "folder": str(folder.absolute()),
        "files": list(imported.files),
        "nodes": [{"name": name, "tee": tee} for name, tee in imported.nodes.items()],
        "modules": [{"name": name, "node": node} for name, node in imported.modules.items()],
        "connections": [
            {"from": source, "to": target, "cipher": cipher}
            for source, target, cipher in imported.connections
        ],
        "differences": [asdict(difference) for difference in imported.differences],
    }


def _print(imported: Imported, folder: Path) -> None:
    counts = ", ".join(
        f"{len(found)} {what}{'' if len(found) == 1 else 's'}"
        for what, found in (
            ("node", imported.nodes),
            ("module", imported.modules),
            ("connection", imported.connections),
        )
    )
    output.say(f"made {folder}/ with {', '.join(imported.files)}: {counts}, emulated")
    for outcome, head in _HEADS.items():
        found = [each for each in imported.differences if each.outcome is outcome]
        if not found:
            continue
        output.say()
        output.say(head)
        for each in found:
            output.say(output.clean(f"  {each.place}: {each.text}"))
