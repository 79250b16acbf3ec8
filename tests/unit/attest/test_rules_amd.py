"""Rules for SEV-SNP, each with evidence that is sound but for that."""

from dataclasses import replace

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import bent, failures, outcomes

from broch.attest.checks import Outcome
from broch.attest.result import Status
from broch.attest.rules_amd import POLICY_BITS
from broch.tee.snp.product import Product, Tcb
from broch.tee.snp.report import POLICY_CXL_ALLOW, POLICY_MIGRATE_MA, POLICY_SMT


def test_no_milan() -> None:
    case = support.snp(Product.MILAN)
    others = bent(case, products=frozenset({Product.GENOA, Product.TURIN}))
    result = case.examine(case.policy(reference=others))
    assert failures(result) == ["product_line"]
    assert "product line Milan, expected Genoa, Turin" in str(result.error)
    # A list that was forgotten names none.
    none = bent(case, products=frozenset())
    assert failures(case.examine(case.policy(reference=none))) == ["product_line"]


@pytest.mark.parametrize("product", list(Product))
def test_minimum_tcb_component_by_component(product: Product) -> None:
    case = support.snp(product)
    part = case.examine().parts[0]
    found: Tcb = part.claims.reported_tcb  # type: ignore[union-attr]
    for name in ("boot_loader", "tee", "snp", "microcode"):
        for more in (0, 1):
            wanted = replace(found, **{name: getattr(found, name) + more})
            reference = bent(case, min_tcb={product: wanted}, allow_any_tcb=False)
            expected = ["min_tcb"] if more else []
            assert failures(case.examine(case.policy(reference=reference))) == expected, name
    none = bent(case, allow_any_tcb=False)
    assert failures(case.examine(case.policy(reference=none))) == ["min_tcb"]


def test_privilege_levels() -> None:
    case = support.snp(vmpl=1)
    reference = bent(case, vmpls=frozenset({0}))
    assert failures(case.examine(case.policy(reference=reference))) == ["vmpl"]


def test_migration_agents_and_smt() -> None:
    case = support.snp(policy=0x30000 | POLICY_MIGRATE_MA)
    assert failures(case.examine()) == ["migration"]
    allowed = bent(case, allow_migration_agent=True)
    assert not failures(case.examine(case.policy(reference=allowed)))
    assert 0x30000 & POLICY_SMT
    single = bent(support.snp(policy=0x30000), forbid_smt=True)
    both = support.snp(policy=0x30000)
    assert failures(both.examine(both.policy(reference=single))) == ["smt"]


def test_what_a_guests_policy_asks_for() -> None:
    for name, bit in POLICY_BITS.items():
        for policy, expected in ((0x30000 | bit, []), (0x30000, [f"policy_{name.lower()}"])):
            case = support.snp(policy=policy)
            asked = case.policy(reference=bent(case, require_policy=frozenset({name})))
            assert failures(case.examine(asked)) == expected, name
    for policy, expected in ((0x30000, []), (0x30000 | POLICY_CXL_ALLOW, ["cxl"])):
        case = support.snp(policy=policy)
        assert (
            failures(case.examine(case.policy(reference=bent(case, forbid_cxl=True)))) == expected
        )
        assert not failures(case.examine())


def test_the_abi_that_a_guests_policy_asks_for() -> None:
    case = support.snp(policy=0x30000 | 1 << 8 | 55)
    for wanted, expected in (((1, 55), []), ((1, 0), []), ((1, 56), ["abi"]), ((2, 0), ["abi"])):
        result = case.examine(case.policy(reference=bent(case, min_abi=wanted)))
        assert failures(result) == expected, wanted


def test_whose_author_vouches_for_the_id_key() -> None:
    own = b"a" * 48
    for flags, digest, expected in (
        (1, own, []),
        (1, b"?" * 48, ["author_key"]),
        (0, own, ["author_key"]),  # a digest that the firmware has not looked at
    ):
        case = support.snp(flags=flags, author_key_digest=digest)
        reference = bent(case, author_keys=frozenset({own}))
        assert failures(case.examine(case.policy(reference=reference))) == expected


def test_assertions_see_bits_by_name() -> None:
    case = support.snp(policy=0x30000 | POLICY_BITS["SINGLE_SOCKET"] | 1 << 8 | 55)
    for expression, expected in (
        ("claims.snp.policy.single_socket && !claims.snp.policy.debug", []),
        ("claims.snp.policy.cxl_allow", ["assertion it"]),
        ("claims.snp.min_abi.minor >= 55 && !claims.snp.author_key_enabled", []),
        ("claims.snp.platform_info.tsme", ["assertion it"]),
    ):
        asserted = case.policy(assertions={"it": expression})
        assert failures(case.examine(asserted)) == expected, expression


def test_platform_bits_and_chips() -> None:
    case = support.snp(platform_info=1 << 5)
    for bits, expected in (
        ({"ALIAS_CHECK_COMPLETE"}, []),
        ({"ALIAS_CHECK_COMPLETE", "ECC"}, ["platform_ecc"]),
    ):
        reference = bent(case, require_platform=frozenset(bits))
        assert failures(case.examine(case.policy(reference=reference))) == expected
    chip = case.examine().parts[0].claims.report.chip_id  # type: ignore[union-attr]
    for chips, expected in (({chip}, []), ({b"?" * 64}, ["platform"])):
        reference = bent(case, chip_ids=frozenset(chips))
        assert failures(case.examine(case.policy(reference=reference))) == expected


def test_a_providers_key_names_no_chip() -> None:
    case = support.snp(vlek=True)
    assert outcomes(case.examine())["chip_id"] is Outcome.SKIPPED
    reference = bent(case, chip_ids=frozenset({bytes(64)}))
    assert failures(case.examine(case.policy(reference=reference))) == ["platform"]


def test_no_revocation_list_only_by_the_policys_word() -> None:
    case = support.snp()
    items = {name: value for name, value in case.endorsements.items.items() if name != "crl"}
    listless = replace(case.endorsements, items=items)
    # Without the list: undecided. With the item that says "without": only a policy may say that.
    for extra in ({}, {"unsafe_no_crl": b""}):
        given = replace(listless, items={**items, **extra})
        result = case.examine(source=lambda tee, data, given=given: given)
        assert result.exit_code == 6, extra
    lax = case.examine(case.policy(allow_no_revocation=True), source=lambda tee, data: listless)
    assert lax.status is Status.ACCEPTED
    assert outcomes(lax)["crl"] is Outcome.SKIPPED
    assert outcomes(lax)["revocation"] is Outcome.SKIPPED
    assert "allow_no_revocation" in list(lax.policy.relaxations())
    # And a list that is there is used all the same.
    assert outcomes(case.examine(case.policy(allow_no_revocation=True)))["crl"] is Outcome.PASSED


def test_host_data() -> None:
    case = support.snp(host_data=b"h" * 32)
    for value, expected in ((b"h", []), (b"?", ["host_data"])):
        reference = bent(case, host_data=frozenset({value * 32}))
        assert failures(case.examine(case.policy(reference=reference))) == expected
