"""The floors of the house (docs/architecture.md): imports go down only, and print lives in cli.

:func:`violations` reads a source tree without importing it. Below, it reads ours, and then small
houses that each break one rule: a checker that finds nothing must not pass for a clean house.

1. Every module is on a floor that is named here; it imports from lower floors and its own folder.
2. A TEE folder imports no other TEE folder; only ``tee/dcap`` is shared. The contract imports none.
3. ``broch/__init__.py`` imports ``sdk`` and ``errors`` only, and is imported above ``sdk`` only.
4. No circles among the imports that run when a module is imported.
5. ``print``, ``sys.exit`` and ``rich`` are in ``cli/`` only.
6. Every module has a docstring and at most 500 lines.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parents[2] / "src" / "broch"
MAX_LINES: Final = 500
FLOORS: Final = {
    "errors": 0,
    "crypto": 1,
    "wire": 1,
    "cpu": 2,
    "image": 3,
    "tee": 4,
    "sdk": 5,
    "enclave": 6,
    "attest": 7,
    "app": 8,
    "fleet": 9,
    "vault": 9,
    "release": 9,
    "sgx": 9,
    "cli": 10,
    "__main__": 11,
}
FRONT: Final = ("sdk", "errors")  # what broch/__init__.py may import
SHARED_TEE: Final = (
    "contract",
    "registry",
    "counter",
    "verifier",
    "hosting",
    "kernel",
    "guest",
    "tsm",
    "steps",
    "cache",
    "roots",
    "dcap",
)  # of tee/
DYNAMIC: Final = ("import_module", "__import__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file."""

    name: str  # "broch.tee.sgx"
    path: str  # "tee/sgx/__init__.py"
    lines: int
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported name, resolved: ``broch.image`` and not ``Image`` of it."""

    target: str
    line: int
    at_import: bool  # runs when the module is imported: in no function, not only for type checkers


def read(root: Path) -> dict[str, Module]:
    """Every module under ``root``, by name."""
    modules = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        inner = parts[:-1] if parts[-1] == "__init__" else parts
        text = file.read_text()
        name = ".".join(("broch", *inner))
        modules[name] = Module(
            name=name,
            path=file.relative_to(root).as_posix(),
            lines=len(text.splitlines()),
            tree=ast.parse(text, str(file)),
        )
    return modules


def only_for_types(node: ast.AST) -> bool:
    """Whether ``node`` is ``if TYPE_CHECKING:``."""
    if not isinstance(node, ast.If):
        return False
    return ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"


def walk(node: ast.AST, *, at_import: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below ``node``, and whether it runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        yield child, at_import
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from walk(child, at_import=False)
        elif isinstance(child, ast.If) and only_for_types(child):
            for part in child.body:
                yield part, False
                yield from walk(part, at_import=False)
            for part in child.orelse:
                yield part, at_import
                yield from walk(part, at_import=at_import)
        else:
            yield from walk(child, at_import=at_import)


def base_of(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of what ``from ... import`` imports from."""
    if not node.level:
        return node.module or ""
    up = node.level - (1 if module.is_package else 0)
    parts = module.name.split(".")
    kept = parts[: len(parts) - up]
    return ".".join([*kept, *([node.module] if node.module else [])])


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[Import]:
    """What ``module`` imports, wherever it does."""
    for node, at_import in walk(module.tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = base_of(module, node)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in known else base for name in inner]
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[0]
            if called in DYNAMIC and isinstance(name, ast.Constant) and isinstance(name.value, str):
                targets = [name.value]
        for target in sorted(set(targets)):
            yield Import(target=target, line=getattr(node, "lineno", 0), at_import=at_import)


def folder(name: str) -> str:
    """The folder on a floor: ``tee`` of ``broch.tee.sgx``, nothing of ``broch``."""
    return [*name.split("."), ""][1]


def tee_folder(name: str) -> str:
    """The folder of a TEE: ``sgx`` of ``broch.tee.sgx.quote``, nothing elsewhere."""
    parts = name.split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "tee" else ""


def refused(importer: str, target: str) -> str | None:
    """Why ``importer`` may not import ``target`` (both of broch), or None."""
    here, there = folder(importer), folder(target)
    if not here:
        return None if there in FRONT else f"broch/__init__.py imports only {' and '.join(FRONT)}"
    if not there:
        if FLOORS[here] > FLOORS["sdk"]:
            return None
        return f"{here} is below broch/__init__.py, which opens on the sdk"
    if there not in FLOORS:
        return f"{there} is on no floor"
    if here == there == "tee":
        return refused_in_tee(tee_folder(importer), tee_folder(target))
    if here != there and FLOORS[here] <= FLOORS[there]:
        return f"{here} (floor {FLOORS[here]}) is not above {there} (floor {FLOORS[there]})"
    return None


def refused_in_tee(here: str, there: str) -> str | None:
    """The same within ``tee/``: ``here`` and ``there`` are its folders and files."""
    if here == there or there in SHARED_TEE[:-1]:
        return None
    if there == "dcap":
        return None if here not in ("", *SHARED_TEE) else f"tee/{here or '__init__'} imports a TEE"
    if not there:
        return None  # the package itself, which imports only the contract
    return f"tee/{here or '__init__'} imports tee/{there}, and a TEE knows no other"


def bad_imports(module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    """Rules 1 to 3, and rich of rule 5."""
    for found in imports(module, known):
        top = found.target.split(".")[0]
        place = f"{module.path}:{found.line}"
        if top == "broch":
            why = refused(module.name, found.target)
            if why:
                yield f"{place}: import of {found.target}: {why}"
        elif top == "rich" and folder(module.name) != "cli":
            yield f"{place}: rich outside cli/"


def bad_calls(module: Module) -> Iterator[str]:
    """Rule 5."""
    if folder(module.name) == "cli":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{module.path}:{node.lineno}: print outside cli/"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit":
            yield f"{module.path}:{node.lineno}: sys.exit outside cli/"
        elif isinstance(node, ast.ImportFrom) and node.module == "sys":
            names = {alias.name for alias in node.names}
            if "exit" in names:
                yield f"{module.path}:{node.lineno}: sys.exit outside cli/"


def circles(modules: Mapping[str, Module]) -> Iterator[str]:
    """Rule 4: one line for each circle that a walk along the imports runs into."""
    edges = {
        name: sorted({i.target for i in imports(module, modules) if i.at_import} & modules.keys())
        for name, module in modules.items()
    }
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> Iterator[str]:
        if name in trail:
            yield "circle: " + " -> ".join([*trail[trail.index(name) :], name])
            return
        if name in done:
            return
        trail.append(name)
        for target in edges[name]:
            yield from visit(target)
        trail.pop()
        done.add(name)

    for name in edges:
        yield from visit(name)


def violations(root: Path) -> list[str]:
    """Everything under ``root`` that breaks a rule, one line each."""
    modules = read(root)
    found: list[str] = []
    for module in modules.values():
        if not ast.get_docstring(module.tree):
            found.append(f"{module.path}: no docstring")
        if module.lines > MAX_LINES:
            found.append(f"{module.path}: {module.lines} lines, more than {MAX_LINES}")
        found += bad_calls(module)
        if folder(module.name) and folder(module.name) not in FLOORS:
            found.append(f"{module.path}: {folder(module.name)} is on no floor")
            continue
        found += bad_imports(module, modules)
    found += circles(modules)
    return found


def test_our_house() -> None:
    assert SOURCE.is_dir()
    assert len(read(SOURCE)) > 10, "the test found no house to look at"
    found = violations(SOURCE)
    assert not found, "\n".join(found)


# Small houses. A file's content is put after a docstring.

SOUND: Final = {
    "__init__.py": "from broch.errors import BrochError\nfrom broch.sdk import Module",
    "__main__.py": "from broch.cli import main\nmain()",
    "errors.py": "class BrochError(Exception): ...",
    "crypto/__init__.py": "from broch.errors import BrochError",
    "wire/__init__.py": "import json",
    "image/__init__.py": "from broch.image.image import Image",
    "image/image.py": "from ..errors import BrochError\nfrom . import names",
    "image/names.py": "def late():\n    from broch.image import Image",
    "tee/__init__.py": "from broch.tee.contract import Tee",
    "tee/contract.py": "from broch.image import Image",
    "tee/registry.py": "from broch.tee.contract import Tee",
    "tee/dcap/__init__.py": "from broch.tee.contract import Tee",
    "tee/sgx/__init__.py": "from broch.tee.dcap import verify\nfrom .quote import Quote",
    "tee/sgx/quote.py": "from broch.tee import contract\nfrom broch.crypto import aead",
    "tee/tdx/__init__.py": "from ..dcap import verify",
    "sdk/__init__.py": "from broch.image import Image\nfrom broch.sdk.module import Module",
    "sdk/module.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import broch.sdk",
    "enclave/__init__.py": "import broch\nfrom broch import Module, sdk",
    "fleet/__init__.py": "from broch.app import Descriptor",
    "app/__init__.py": "from broch.enclave import launch",
    "vault/__init__.py": "",
    "release/__init__.py": "",
    "cli/__init__.py": "import sys\nimport rich\nprint(1)\nsys.exit(0)\nfrom broch.fleet import x",
}


def build(root: Path, changes: Mapping[str, str]) -> Path:
    for path, content in {**SOUND, **changes}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'"""What this is for."""\n{content}\n')
    return root


def test_a_sound_house_has_no_violations(tmp_path: Path) -> None:
    assert violations(build(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        pytest.param("app/x.py", "import broch.cli", "app (floor 8) is not above cli", id="up"),
        pytest.param("errors.py", "import broch.crypto", "errors (floor 0)", id="up from 0"),
        pytest.param("image/x.py", "from broch import sdk", "image (floor 3)", id="up by name"),
        pytest.param("image/x.py", "from ..tee import contract", "(floor 4)", id="up, relative"),
        pytest.param("image/__init__.py", "from .. import tee", "(floor 4)", id="up, of a package"),
        pytest.param("wire/x.py", "import broch.crypto", "wire (floor 1)", id="sideways on 1"),
        pytest.param("vault/x.py", "import broch.fleet", "vault (floor 9)", id="sideways on 9"),
        pytest.param(
            "app/x.py", "def f():\n    import broch.vault", "app (floor 8)", id="in a function"
        ),
        pytest.param(
            "app/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import broch.vault",
            "app (floor 8)",
            id="for types only",
        ),
        pytest.param(
            "app/x.py",
            "try:\n    import json\nexcept ImportError:\n    import broch.vault",
            "app (floor 8)",
            id="in a handler",
        ),
        pytest.param(
            "app/x.py",
            "import importlib\nimportlib.import_module('broch.vault')",
            "app (floor 8)",
            id="by a string",
        ),
        pytest.param("attic/__init__.py", "", "attic is on no floor", id="a new folder"),
        pytest.param("cli/x.py", "import broch.attic", "attic is on no floor", id="to nowhere"),
        pytest.param("tee/sgx/x.py", "import broch.tee.tdx", "a TEE knows no other", id="tee"),
        pytest.param("tee/sgx/x.py", "from .. import tdx", "a TEE knows no other", id="tee, rel."),
        pytest.param("tee/dcap/x.py", "import broch.tee.sgx", "a TEE knows no other", id="dcap"),
        pytest.param("tee/contract.py", "import broch.tee.sgx", "no other", id="contract"),
        pytest.param("tee/contract.py", "import broch.tee.dcap", "a TEE", id="contract, dcap"),
        pytest.param("tee/__init__.py", "import broch.tee.sgx", "no other", id="tee package"),
        pytest.param("__init__.py", "import broch.image", "imports only sdk", id="front"),
        pytest.param("sdk/x.py", "import broch", "sdk is below", id="front, from below"),
        pytest.param("image/x.py", "from broch import Module", "image is below", id="front, name"),
        pytest.param("app/x.py", "print(1)", "print outside cli/", id="print"),
        pytest.param("app/x.py", "import sys\nsys.exit(1)", "sys.exit outside", id="exit"),
        pytest.param("app/x.py", "from sys import exit", "sys.exit outside", id="exit by name"),
        pytest.param("__main__.py", "print(1)", "print outside cli/", id="print in glue"),
        pytest.param("app/x.py", "import rich", "rich outside cli/", id="rich"),
        pytest.param("app/x.py", "from rich.table import Table", "rich outside", id="part of rich"),
        pytest.param("app/x.py", "def f():\n    import rich", "rich outside", id="rich, later"),
        pytest.param("image/x.py", "\n" * 500, "more than 500", id="too long"),
        pytest.param(
            "image/names.py",
            "from broch.image import Image",
            "circle: broch.image -> broch.image.image -> broch.image.names -> broch.image",
            id="circle",
        ),
        pytest.param("sdk/module.py", "class A:\n    import broch.sdk", "circle", id="in a class"),
        pytest.param(
            "sdk/module.py",
            "import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import broch.sdk",
            "circle",
            id="circle, not for types",
        ),
    ],
)
def test_each_rule_is_enforced(tmp_path: Path, path: str, content: str, expected: str) -> None:
    found = violations(build(tmp_path, {path: content}))
    named = [line for line in found if expected in line]
    assert len(named) == 1, found
    assert path in named[0] or named[0].startswith("circle")
    # An import that goes up often closes a circle too; nothing else is to be found.
    assert all(line.startswith("circle") for line in found if line not in named), found


@pytest.mark.parametrize("content", ["", "X = 1\n", "# only a comment\n"])
def test_a_module_without_a_docstring_is_found(tmp_path: Path, content: str) -> None:
    (build(tmp_path, {}) / "image/x.py").write_text(content)
    assert violations(tmp_path) == ["image/x.py: no docstring"]


def test_a_module_of_500_lines_is_not_too_long(tmp_path: Path) -> None:
    (build(tmp_path, {}) / "image/x.py").write_text('"""Long."""\n' + "\n" * 499)
    assert violations(tmp_path) == []
