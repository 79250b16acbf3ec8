"""The table in the threat model and these tests say the same."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "docs" / "threat-model.md"


def rows() -> list[str]:
    return re.findall(
        r"^\| [^|]+ \| `(test_\w+\.py::test_\w+)` \| [^|]+ \|$", TABLE.read_text(), re.M
    )


def attacks() -> set[str]:
    return {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        if path != Path(__file__)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_row_names_a_test_and_each_test_has_a_row() -> None:
    assert set(rows()) - attacks() == set(), "rows without a test"
    assert attacks() - set(rows()) == set(), "tests without a row"


def test_no_row_is_there_twice() -> None:
    assert len(rows()) == len(set(rows()))
