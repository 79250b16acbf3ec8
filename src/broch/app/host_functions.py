"""Whether host functions are there, looked up in the text of their files before anything starts."""

import ast
from pathlib import Path

from broch.app.descriptor import Descriptor
from broch.errors import MalformedError, UsageError
from broch.wire.toml_places import near


def check_defined(descriptor: Descriptor) -> None:
    """Look for all host functions of an application; runs none of their files.

    What a file makes up while it runs (``import *``, ``globals()``) is left to the agent.

    Raises:
        UsageError: a file does not define its function; its place is the descriptor's line.
        MalformedError: a file is not Python.
    """
    names: dict[Path, set[str] | None] = {}
    for module, spec in descriptor.modules.items():
        for ocall, served in spec.ocalls.items():
            if served.path not in names:
                names[served.path] = _defined(served.path, descriptor.folder)
            known = names[served.path]
            if known is not None and served.function not in known:
                raise UsageError(
                    f"{served.path.name} has no function {served.function}",
                    place=descriptor.place("modules", module, "ocalls", ocall),
                    hint=near(served.function, sorted(known)),
                )


def _defined(path: Path, folder: Path) -> set[str] | None:
    """The names that a file binds, anywhere in it; None if only running it would tell."""
    place = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    try:
        tree = ast.parse(path.read_bytes(), place)
    except OSError as exc:
        raise UsageError(f"cannot read: {exc.strerror}", place=place) from None
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None) or 1
        raise MalformedError(getattr(exc, "msg", str(exc)), place=f"{place}:{line}") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name)
            case ast.Name(id="globals" | "exec" | "setattr" | "vars"):
                return None
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return None if "*" in names else names
