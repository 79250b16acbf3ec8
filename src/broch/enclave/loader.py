"""Running a module's code from the bytes of its image, with no file system in sight.

An image's files can be imported by one another: ``import helpers`` and ``from .helpers import f``
both find ``helpers.py``. Beyond these a module may import ``broch`` and the modules that
:mod:`broch.enclave.preload` names; :func:`check_imports` says so before anything runs.
"""

import ast
import importlib
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Final

from broch.enclave.preload import FOR_MODULES
from broch.sdk import DeclarationError, Module

PACKAGE: Final = "module"  # the name under which the main file runs
NOT_INSIDE: Final = "cannot be imported inside an enclave"  # how the message of a missing one ends


def check_imports(files: Mapping[str, bytes]) -> None:
    """Raise :class:`DeclarationError` (file and line) for code that cannot run in an enclave."""
    for path, code in sorted(files.items()):
        if path.endswith(".py"):
            _check_text(path, code)
            for name, line in _imports(path, code):
                if _path_of(name, files) is not None and _is_hidden(name):
                    raise DeclarationError(
                        f"import of {name} finds another module of this name, not the file here",
                        place=f"{path}:{line}",
                        hint=f"rename the file, or write: from .{name} import ...",
                    )
                if not _may_import(name, files):
                    raise DeclarationError(
                        f"{name} {NOT_INSIDE}",
                        place=f"{path}:{line}",
                        hint=f"available: broch, the module's own files, {', '.join(FOR_MODULES)}",
                    )


def _imports(path: str, code: bytes) -> Iterator[tuple[str, int]]:
    for node in ast.walk(_parse(path, code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno


def _check_text(path: str, code: bytes) -> None:
    """Refuse what Python refuses in a file, and takes from memory: bytes that are not its text."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(code).readline)
    except SyntaxError as exc:
        raise DeclarationError(str(exc.msg), place=f"{path}:1") from None
    try:
        code.decode(encoding)
    except UnicodeDecodeError as exc:
        raise DeclarationError(
            f"byte 0x{code[exc.start]:02x} is not {encoding}",
            place=f"{path}:{code.count(bytes([10]), 0, exc.start) + 1}",
            hint="save the file as UTF-8",
        ) from None


def _parse(path: str, code: bytes) -> ast.Module:
    try:
        return ast.parse(code, path)
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None) or 1
        message = getattr(exc, "msg", None) or str(exc)
        raise DeclarationError(message, place=f"{path}:{line}") from None


def _may_import(name: str, files: Mapping[str, bytes]) -> bool:
    return (
        name in ("broch", "broch.sdk")
        or name.startswith("broch.sdk.")
        or name in FOR_MODULES
        or _path_of(name, files) is not None
    )


def _is_hidden(name: str) -> bool:
    """Whether the launcher has imported something of this name before any image's file."""
    return name in FOR_MODULES or name in sys.modules


def _path_of(name: str, files: Mapping[str, bytes]) -> str | None:
    stem = name.removeprefix(f"{PACKAGE}.").replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        if path in files:
            return path
    return None


class _ImageFinder(MetaPathFinder, Loader):
    """Finds an image's own files, and refuses whatever was not imported before.

    A file is one module under all of its names: ``module.helpers``, and ``helpers`` for short.
    """

    def __init__(self, files: Mapping[str, bytes], main: str, space: ModuleType) -> None:
        self._files = files
        self._modules = {main: space}
        self._specs: dict[str, ModuleSpec | None] = {main: space.__spec__}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec:
        file = _path_of(fullname, self._files)
        if file is None:
            raise ImportError(f"{fullname} {NOT_INSIDE}")
        if file not in self._modules and not fullname.startswith(f"{PACKAGE}."):
            importlib.import_module(f"{PACKAGE}.{fullname}")
        return ModuleSpec(fullname, self, origin=file, is_package=file.endswith("/__init__.py"))

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._modules.get(str(spec.origin))

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        file = str(spec.origin)
        if file in self._modules:
            module.__spec__ = self._specs[file]
            return
        self._modules[file], self._specs[file] = module, spec
        try:
            exec(_compile(file, self._files[file]), module.__dict__)  # noqa: S102
        except BaseException:
            del self._modules[file], self._specs[file]
            raise


def _compile(path: str, code: bytes) -> CodeType:
    return compile(_parse(path, code), path, "exec", dont_inherit=True)


def run(files: Mapping[str, bytes], main: str) -> Module:
    """Run ``main`` and return the one module that it declares.

    For a process that is an enclave's, or about to end: imports are the image's alone from now on.

    Raises:
        DeclarationError: it declares no module, or several, or declares one wrongly.
    """
    space = ModuleType(PACKAGE)
    sys.meta_path[:] = [_ImageFinder(files, main, space)]
    sys.path[:] = []
    space.__path__ = []
    space.__package__ = PACKAGE
    space.__file__ = main
    sys.modules[PACKAGE] = space
    exec(_compile(main, files[main]), space.__dict__)  # noqa: S102
    found = {id(v): v for v in vars(space).values() if isinstance(v, Module)}
    if len(found) != 1:
        raise DeclarationError(
            f"declares {len(found) or 'no'} modules, expected one",
            place=f"{main}:1",
            hint='write: module = Module("name")',
        )
    return next(iter(found.values()))
