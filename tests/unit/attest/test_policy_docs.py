"""The policies in docs/policy.md are policies."""

import re
from pathlib import Path

from broch.attest.policy_file import from_toml
from broch.attest.reference import SnpReference
from broch.tee.snp.product import Product

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"


def test_every_example_is_a_policy() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    first, second = (from_toml(text.replace("…", "00" * 48), "policy.md") for text in blocks)
    assert list(first.relaxations()) == ["accept_tcb = ['ConfigurationAndSWHardeningNeeded']"]
    reference = second.references["snp"]
    assert isinstance(reference, SnpReference)
    assert reference.products == {Product.GENOA, Product.TURIN}
    assert not list(second.relaxations())


def test_every_key_is_told() -> None:
    """What can be written is on the page, and the names there can be written."""
    page = PAGE.read_text()
    source = (Path(__file__).parents[3] / "src/broch/attest/policy_file.py").read_text()
    keys = set(
        re.findall(r'(?:table|root)\.(?:flag|texts|integers|integer|table)\("(\w+)"', source)
    )
    keys |= set(re.findall(r'_hexes\(table, "(\w+)"', source))
    assert len(keys) > 20
    assert {key for key in keys if f"`{key}" not in page and f".{key}" not in page} <= {
        "assertions",
    }
