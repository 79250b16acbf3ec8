"""What a package exports is said once, in a literal ``__all__``, and means one thing.

Two packages may export a name if it is the same object: then one hands on what the other has
(``broch.Module`` is ``broch.sdk.Module``). TEE folders are held to one contract and so share its
names (``TEE``) among themselves, and with nobody else.
"""

import ast
import importlib
import itertools
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import broch

SOURCE: Final = Path(__file__).parents[2] / "src" / "broch"
TEES: Final = "broch.tee."

Exports = Mapping[str, Mapping[str, object]]  # package -> name -> object


def packages() -> list[str]:
    """Every package of Broch, by dotted name."""
    found = pkgutil.walk_packages(broch.__path__, "broch.", onerror=_refuse)
    return ["broch", *(module.name for module in found if module.ispkg)]


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} cannot be imported")


def literal_all(tree: ast.Module) -> list[str] | None:
    """The names in ``__all__`` if it is assigned once, as a plain list of strings; else None."""
    assigned = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["__all__"]
    ]
    mentions = [
        node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "__all__"
    ]
    if len(assigned) != 1 or len(mentions) != 1 or not isinstance(assigned[0], ast.List):
        return None
    names = [item.value for item in assigned[0].elts if isinstance(item, ast.Constant)]
    strings = [name for name in names if isinstance(name, str)]
    return strings if len(strings) == len(assigned[0].elts) else None


def offers_something(tree: ast.Module) -> bool:
    """Whether an ``__init__`` holds more than a docstring."""
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    )


def problems_in(source: str) -> list[str]:
    """What is wrong with the ``__all__`` in the source of one ``__init__.py``."""
    tree = ast.parse(source)
    names = literal_all(tree)
    if names is None:
        return ["no literal __all__"] if offers_something(tree) else []
    twice = sorted({name for name in names if names.count(name) > 1})
    private = [name for name in names if name.startswith("_")]
    return [f"{name} twice" for name in twice] + [f"{name} is private" for name in private]


def clashes(exports: Exports) -> Iterator[str]:
    """Names that two packages export for two things."""
    for (first, here), (second, there) in itertools.combinations(exports.items(), 2):
        if first.startswith(TEES) and second.startswith(TEES):
            continue
        for name in sorted(here.keys() & there.keys()):
            if here[name] is not there[name]:
                yield f"{name} of {first} is not {name} of {second}"


def test_every_package_has_a_literal_all() -> None:
    found = [
        f"{file.relative_to(SOURCE)}: {problem}"
        for file in sorted(SOURCE.rglob("__init__.py"))
        for problem in problems_in(file.read_text())
    ]
    assert not found, "\n".join(found)


def test_every_public_name_exists_and_means_one_thing() -> None:
    exports: dict[str, dict[str, object]] = {}
    missing = []
    for package in packages():
        module = importlib.import_module(package)
        names: list[str] = getattr(module, "__all__", [])
        missing += [f"{package}.{name}" for name in names if not hasattr(module, name)]
        exports[package] = {name: getattr(module, name, None) for name in names}
    assert not missing, f"in __all__, and not there: {', '.join(missing)}"
    assert len(exports) > 5, "the test found no packages to look at"
    found = list(clashes(exports))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param('"""Doc."""', [], id="only a docstring"),
        pytest.param("__all__ = []", [], id="exports nothing"),
        pytest.param('from x import A\n__all__ = ["A"]', [], id="one name"),
        pytest.param("from x import A", ["no literal __all__"], id="none"),
        pytest.param('__all__ = ["A"] + x.__all__', ["no literal __all__"], id="computed"),
        pytest.param('__all__ = ["A", B]', ["no literal __all__"], id="a variable"),
        pytest.param('__all__ = ["A"]\n__all__ += ["B"]', ["no literal __all__"], id="grown"),
        pytest.param('__all__ = ["A", "A"]', ["A twice"], id="twice"),
        pytest.param('__all__ = ["_a"]', ["_a is private"], id="private"),
    ],
)
def test_the_checker_of_all(source: str, expected: list[str]) -> None:
    assert problems_in(source) == expected


def test_the_checker_of_clashes() -> None:
    one, other = object(), object()
    assert not list(clashes({"broch": {"A": one}, "broch.sdk": {"A": one}}))
    assert not list(clashes({"broch.tee.sgx": {"TEE": one}, "broch.tee.tdx": {"TEE": other}}))
    assert list(clashes({"broch.app": {"A": one}, "broch.sdk": {"A": other}})) == [
        "A of broch.app is not A of broch.sdk"
    ]
    assert list(clashes({"broch.tee.sgx": {"A": one}, "broch.sdk": {"A": other}})) == [
        "A of broch.tee.sgx is not A of broch.sdk"
    ]
