"""The runtime closure: the digest of every file that runs an enclave's Python module.

The manifest has one line a file, sorted: SHA-256 in hex, two blanks, name. Files are those that
the launcher's process has loaded (:mod:`broch.enclave.launcher`): the source of each imported
module, extension modules, the interpreter and the shared libraries that are mapped executable.
Names are relative to where Python found them, so that two installations of the same files agree.

Bytecode is not listed: the launcher reads it from a cache of its own, in a folder that only its
user can write and no agent can reach, and Python makes it there from the listed sources.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def manifest() -> bytes:
    """The manifest of this process."""
    lines = {f"{_digest(path)}  {_name(path)}\n" for path in _files()}
    return "".join(sorted(lines, key=lambda line: (line[66:], line))).encode()


def digest(text: bytes) -> bytes:
    """SHA-256 of a manifest (32 bytes): what images name as their runtime."""
    return hashlib.sha256(text).digest()


def _files() -> set[Path]:
    files = {Path(found) for found in _module_files()}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"):
                files.add(Path(fields[5].strip()))
    return {path.resolve() for path in files if path.is_file()}


def _module_files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.has_location and spec.origin:
            yield spec.origin


def _name(path: Path) -> str:
    """The name that does not depend on where things are installed."""
    roots = [*map(Path, sys.path), Path(sysconfig.get_path("stdlib"))]
    inside = [path.relative_to(root.resolve()) for root in roots if _is_inside(path, root)]
    return min((str(p) for p in inside), key=len, default=path.name)


def _is_inside(path: Path, root: Path) -> bool:
    return path.is_relative_to(root.resolve())


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
