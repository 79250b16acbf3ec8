"""The loader: an image's files find one another, and nothing else is found."""

import sys
from collections.abc import Mapping

import pytest

from broch.enclave import loader
from broch.enclave.preload import FOR_MODULES, preload
from broch.sdk import DeclarationError

from .harness import Kit, fork, wait

HEAD = "from broch import Module\nmodule = Module('probe')\n"


def encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {path: text.encode() for path, text in files.items()}


def check(files: Mapping[str, str]) -> None:
    loader.check_imports(encoded(files))


def run(files: Mapping[str, str], main: str = "main.py") -> int:
    """Run it in a child: 0, 1 for a DeclarationError, 2 for an ImportError, 99 for others."""

    def child() -> int:
        try:
            loader.run(encoded(files), main)
        except DeclarationError:
            return 1
        except ImportError:
            return 2
        return 0

    return wait(fork(child))


def wrong(kit: Kit, files: Mapping[str, str], main: str = "main.py") -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        kit.launcher.declare(encoded(files), main)
    return caught.value


# What may be imported.


@pytest.mark.parametrize(
    "line",
    [
        *(f"import {name}" for name in FOR_MODULES),
        "import broch",
        "from broch import Module, Struct",
        "from broch.sdk import Refused",
        "import collections.abc as abc",
        "from datetime import date, timedelta",
        "import other",
        "import other as o, json",
        "from other import x",
        "from . import other",
        "from .other import x",
        "import package.inner",
        "from .package import inner",
        "from ..anywhere import x",  # fails when it runs
    ],
)
def test_what_may_be_imported(line: str) -> None:
    check({"main.py": line, "other.py": "x = 1", "package/__init__.py": "", "package/inner.py": ""})


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "import os.path",
        "import sys",
        "import json, socket",
        "from subprocess import run",
        "import broch.enclave",
        "from broch.enclave import ring",
        "import broch.sdkx",
        "import ctypes",
        "import another",
        "import package.outer",
        "from importlib import import_module",
        "def f():\n  if False:\n    import threading",
        "class A:\n  import signal",
    ],
)
def test_what_may_not_be_imported_is_named_with_its_line(line: str) -> None:
    with pytest.raises(DeclarationError, match="cannot be imported inside an enclave") as caught:
        check({"main.py": "x = 1", "a/b.py": "\n\n" + line, "package/__init__.py": ""})
    assert caught.value.place == f"a/b.py:{3 + line.count(chr(10))}"
    assert "available: broch, the module's own files, __future__ abc".replace(" abc", "") in str(
        caught.value.hint
    )


def test_files_that_are_not_python_are_not_read() -> None:
    check({"main.py": "", "data.json": "import os"})


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("x = (\n", 1),
        ("x = 1\ny = = 2", 2),
        ("def f(:\n  pass", 1),
        ("x = 1\n\tif", 2),
        ("x = '\0'", 1),
    ],
)
def test_what_is_not_python_is_named_with_its_line(code: str, line: int) -> None:
    with pytest.raises(DeclarationError) as caught:
        check({"main.py": "", "bad.py": code})
    assert caught.value.place == f"bad.py:{line}"


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        (b"x = '\xff\xfe'", 1, "invalid or missing encoding declaration"),
        (b"x = 1\n\n# caf\xe9\ny = 2\n", 3, "byte 0xe9 is not utf-8"),
        (b'x = 1\n\ny = """\n\xe9"""\n', 4, "byte 0xe9 is not utf-8"),
        (b"# coding: ascii\n#\n# caf\xc3\xa9\n", 3, "byte 0xc3 is not ascii"),
        (b"# coding: nonsense\n", 1, "unknown encoding: nonsense"),
    ],
)
def test_a_file_that_is_not_text(code: bytes, line: int, message: str) -> None:
    """``compile`` takes some of these from memory; Python takes none of them from a file."""
    with pytest.raises(DeclarationError) as caught:
        loader.check_imports({"main.py": code})
    assert caught.value.place == f"main.py:{line}"
    assert message in caught.value.message


@pytest.mark.parametrize("code", [b"# coding: latin-1\n# caf\xe9\n", "# café".encode("utf-8-sig")])
def test_a_file_that_says_what_its_text_is(code: bytes) -> None:
    loader.check_imports({"main.py": code})


@pytest.mark.parametrize("name", ["json", "random", "socket", "asyncio"])
def test_a_file_whose_name_is_taken_is_an_error_where_it_is_imported(kit: Kit, name: str) -> None:
    """Plain Python would take the file, an enclave would take what is in memory."""
    files = {"main.py": HEAD, f"{name}.py": "x = 1", "use.py": f"\nimport {name}"}
    if name == "asyncio":  # not in the closure: the file is found
        files["main.py"] = "from asyncio import x\n" + HEAD
        kit.launcher.declare(encoded(files), "main.py")
        return
    error = wrong(kit, files)
    assert error.place == "use.py:2"
    assert "not the file here" in error.message
    assert f"from .{name} import" in str(error.hint)
    files["use.py"] = f"from .{name} import x"
    kit.launcher.declare(encoded(files), "main.py")


# Running.


@pytest.mark.parametrize(
    "first",
    [
        "import other; x = other.x",
        "from other import x",
        "from . import other; x = other.x",
        "from .other import x",
        "import package.inner; x = package.inner.x",
        "from package.inner import x",
        "from .package.inner import x",
        "from package import up as x",
    ],
)
def test_files_import_one_another_both_ways(first: str) -> None:
    files = {
        "main.py": f"{first}\n{HEAD}assert x == 5",
        "other.py": "from .deep import x",
        "deep.py": "import package\nx = package.inner.x",
        "package/__init__.py": "from . import inner\nfrom .inner import x as up",
        "package/inner.py": "from ..base import x",
        "base.py": "x = 5",
    }
    assert run(files) == 0


def test_a_file_is_one_module_under_both_names() -> None:
    files = {
        "main.py": HEAD
        + "import a, b\nfrom . import a as relative\n"
        + "assert relative is a and b.a is a and a.count == [1]\n"
        + "assert a.__name__ == 'module.a' and a.__package__ == 'module'",
        "a.py": "count = []\ncount.append(1)",
        "b.py": "from . import a",
    }
    assert run(files) == 0


def test_files_that_import_one_another_in_a_circle() -> None:
    files = {
        "main.py": HEAD + "import a\nassert a.b.a is a",
        "a.py": "import b",
        "b.py": "from . import a",
    }
    assert run(files) == 0


@pytest.mark.parametrize("how", ["import main", "from . import main", "from .main import module"])
def test_a_file_that_imports_the_main_one_gets_the_one_that_runs(how: str) -> None:
    files = {"main.py": HEAD + "import a", "a.py": how}
    if how == "from .main import module":
        files["a.py"] += "\nassert module.name == 'probe'"
    assert run(files) == 0


def test_what_failed_to_import_is_not_there_afterwards() -> None:
    files = {
        "main.py": HEAD
        + "for _ in range(2):\n    try:\n        import bad\n    except ZeroDivisionError: pass\n"
        + "    else: raise SystemExit",
        "bad.py": "1 // 0",
    }
    assert run(files) == 0


@pytest.mark.parametrize("name", ["sqlite3", "nothing", "broch.cli", "antigravity"])
def test_nothing_is_imported_from_elsewhere(name: str) -> None:
    """What no launcher has loaded: asked for by a name that no check can see."""
    code = f"import importlib\n{HEAD}importlib.import_module('{name}')"
    sys.modules.pop(name, None)
    assert run({"main.py": code}) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "declares no modules, expected one"),
        ("from broch import Module\na = Module('a')\nb = Module('b')", "declares 2 modules"),
    ],
)
def test_a_main_file_declares_one_module(kit: Kit, code: str, message: str) -> None:
    error = wrong(kit, {"main.py": code})
    assert message in error.message
    assert error.place == "main.py:1"


def test_two_names_of_one_module_are_one(kit: Kit) -> None:
    kit.launcher.declare({"m.py": (HEAD + "same = module").encode()}, "m.py")


def test_preload_twice_is_no_more_than_once() -> None:
    preload()
    before = set(sys.modules)
    preload()
    assert set(sys.modules) == before
    assert set(FOR_MODULES) <= before
