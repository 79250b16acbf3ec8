"""One test a rule of a kind of hardware: evidence that is sound but for that, and who says so."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import CASES, Case, failures, outcomes

from broch.attest.checks import Outcome
from broch.attest.reference import Reference
from broch.attest.result import Status
from broch.attest.rules_amd import POLICY_BITS
from broch.attest.steps import STEPS
from broch.tee.dcap.report import EINITTOKENKEY, INIT, MODE64BIT, PROVISIONKEY
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.snp.product import Product, Tcb
from broch.tee.snp.report import POLICY_CXL_ALLOW, POLICY_DEBUG, POLICY_MIGRATE_MA, POLICY_SMT
from broch.tee.tdx.report import DEBUG, MIGRATABLE, PERFMON, SEPT_VE_DISABLE


def bent(case: Case, **changes: Any) -> Reference:
    """The reference values of a case, changed."""
    return replace(case.reference, **changes)


@pytest.mark.parametrize("tee", sorted(CASES))
def test_sound_evidence_is_accepted(tee: str) -> None:
    result = CASES[tee]().examine()
    assert result.status is Status.ACCEPTED, result.error
    assert result.exit_code == 0
    assert not failures(result)


@pytest.mark.parametrize("tee", sorted(CASES))
def test_of_another_kind_it_is_refused(tee: str) -> None:
    case = CASES[tee]()
    result = case.examine(replace(case.policy(), references={"abacus": case.reference}))
    assert result.exit_code == 5
    assert failures(result)[0] == "kind"


@pytest.mark.parametrize("tee", sorted(CASES))
def test_other_code_is_refused(tee: str) -> None:
    case = CASES[tee]()
    changes: dict[str, Any] = {"measurements": frozenset({b"?" * 32})}
    result = case.examine(case.policy(reference=bent(case, **changes)))
    assert result.exit_code == 5
    assert failures(result) == ["measurement"]


@pytest.mark.parametrize("tee", sorted(CASES))
def test_a_reference_that_names_no_code_accepts_none(tee: str) -> None:
    case = CASES[tee]()
    empty = type(case.reference)()
    assert "measurement" in failures(case.examine(case.policy(reference=empty)))


@pytest.mark.parametrize(
    ("tee", "changes", "known"),
    [
        ("cca", {"firmware": frozenset({b"m" * 32})}, False),  # the platform's, not the realm's
        ("psa", {"firmware": frozenset({b"m" * 32})}, True),
        ("nitro", {"pcrs": {2: frozenset({b"\3" * 48})}}, True),
        ("nitro", {"pcrs": {4: frozenset({b"\5" * 48})}}, False),  # which instance
        ("tdx", {"rtmrs": {1: frozenset({b"1" * 48})}}, False),
        ("tpm", {"pcrs": {"sha256": {0: frozenset({b"\1" * 32})}}}, True),
    ],
)
def test_what_names_code_without_a_measurement(
    tee: str, changes: dict[str, Any], known: bool
) -> None:
    case = CASES[tee]()
    result = case.examine(case.policy(reference=type(case.reference)(**changes)))
    assert failures(result) == ([] if known else ["measurement"])


@pytest.mark.parametrize("tee", sorted(CASES))
def test_the_nonce(tee: str) -> None:
    case = CASES[tee]()
    assert failures(case.examine(nonce=b"another nonce")) == ["nonce"]
    assert failures(case.examine(nonce=None)) == ["nonce"]
    assert not failures(case.examine(case.policy(allow_no_nonce=True), nonce=None))


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro"])
def test_emulated_devices_only_by_name(tee: str) -> None:
    case = CASES[tee]()
    assert failures(case.examine(case.policy(emulated=False))) == ["emulated"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: support.sgx(body_fields={"flags": INIT | MODE64BIT | 2}), id="sgx"),
        pytest.param(lambda: tdx_with(td_attributes=SEPT_VE_DISABLE | DEBUG), id="tdx"),
        pytest.param(lambda: support.snp(policy=0x30000 | POLICY_DEBUG), id="snp"),
        pytest.param(
            lambda: support.nitro(pcrs=dict.fromkeys(range(4), bytes(48))), id="nitro: zero PCRs"
        ),
        pytest.param(lambda: support.psa(claims={2395: 0x4000}), id="psa"),
        pytest.param(lambda: support.cca(platform={2395: 0x5000}), id="cca"),
    ],
)
def test_debug_only_by_name(case: Any) -> None:
    found = case()
    assert "debug" in failures(found.examine())
    assert "debug" not in failures(found.examine(found.policy(allow_debug=True)))


# Intel


def tdx_with(**report: Any) -> Case:
    theirs = support.module("tdx", "attester")
    return support.tdx(report=replace(theirs.REPORT, **report))


def leveled(*levels: dict[str, Any], **changes: Any) -> Case:
    return support.tdx(levels=list(levels), **changes)


def level(status: str, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = support.module("tdx", "attester").level(status, **values)
    return found


@pytest.mark.parametrize(
    "status",
    [status for status in TcbStatus if not status.startswith("TDRelaunch")],
)
def test_every_status_but_up_to_date_needs_its_name(status: TcbStatus) -> None:
    if status is TcbStatus.NOT_SUPPORTED:
        case = leveled(level("UpToDate", sgx=200))
    else:
        case = leveled(level(status))
    strict = case.examine()
    assert failures(strict) == ([] if status is TcbStatus.UP_TO_DATE else ["tcb_status"])
    # What is accepted by name is accepted; Revoked and unknown platforms never are.
    lax = case.examine(case.policy(accept_tcb=frozenset(TcbStatus)))
    never = status in (TcbStatus.REVOKED, TcbStatus.NOT_SUPPORTED)
    assert failures(lax) == (["tcb_status"] if never else [])


def test_grace_begins_with_the_date_of_the_platforms_own_level() -> None:
    case = leveled(level("OutOfDate"))  # of 1 February 2025; the module's of 1 January
    days = (case.at - case.at.replace(year=2025, month=1, day=1, hour=0)).days
    for grace, good in ((0, False), (days, False), (days + 1, True)):
        result = case.examine(case.policy(grace_days=grace))
        assert (failures(result) == []) is good, grace


@pytest.mark.parametrize(
    "status", ["Revoked", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"]
)
def test_grace_covers_nothing_else(status: str) -> None:
    case = leveled(level(status))
    assert failures(case.examine(case.policy(grace_days=3650))) == ["tcb_status"]


def test_grace_and_a_configuration_that_is_accepted() -> None:
    case = leveled(level("OutOfDateConfigurationNeeded"))
    lax = case.policy(grace_days=3650, accept_tcb=frozenset({TcbStatus.CONFIGURATION_NEEDED}))
    assert not failures(case.examine(lax))


def test_advisories_that_are_rejected() -> None:
    case = leveled({**level("SWHardeningNeeded"), "advisoryIDs": ["INTEL-SA-1", "INTEL-SA-2"]})
    accept = frozenset({TcbStatus.SW_HARDENING_NEEDED})
    for rejected, bad in (("INTEL-SA-2", True), ("INTEL-SA-3", False)):
        policy = case.policy(accept_tcb=accept, reject_advisories=frozenset({rejected}))
        assert failures(case.examine(policy)) == (["advisories"] if bad else [])


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_old_collateral_and_platforms_of_others(tee: str) -> None:
    case = CASES[tee]()
    for changes, rule in (
        ({"min_tcb_evaluation": 1_000_000}, "tcb_evaluation"),
        ({"ppids": frozenset({b"?" * 16})}, "platform"),
    ):
        assert failures(case.examine(case.policy(reference=bent(case, **changes)))) == [rule]
    own = bent(case, ppids=frozenset({b"P" * 16}))
    assert outcomes(case.examine(case.policy(reference=own)))["platform"] is Outcome.PASSED


@pytest.mark.parametrize(
    ("name", "bit"), [("PROVISIONKEY", PROVISIONKEY), ("EINITTOKENKEY", EINITTOKENKEY)]
)
def test_sgx_attributes_that_give_power_away(name: str, bit: int) -> None:
    case = support.sgx(body_fields={"flags": INIT | MODE64BIT | bit})
    assert failures(case.examine()) == ["attributes"]
    allowed = bent(case, allow_attributes=frozenset({name}))
    assert not failures(case.examine(case.policy(reference=allowed)))


def test_sgx_signers_products_and_versions() -> None:
    case = support.sgx()
    signed = bent(case, measurements=frozenset(), signers=frozenset({b"S" * 32}))
    for changes, expected in (
        ({}, []),
        ({"signers": frozenset({b"?" * 32})}, ["signer"]),
        ({"product_ids": frozenset({1, 7})}, []),
        ({"product_ids": frozenset({7})}, ["product"]),
        ({"min_version": 2}, []),
        ({"min_version": 3}, ["version"]),
    ):
        reference = replace(signed, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes


@pytest.mark.parametrize(("name", "bit"), [("MIGRATABLE", MIGRATABLE), ("PERFMON", PERFMON)])
def test_td_attributes_that_give_power_away(name: str, bit: int) -> None:
    case = tdx_with(td_attributes=SEPT_VE_DISABLE | bit)
    assert failures(case.examine()) == ["attributes"]
    allowed = bent(case, allow_attributes=frozenset({name}))
    assert not failures(case.examine(case.policy(reference=allowed)))


def test_td_attributes_that_nobody_knows() -> None:
    case = tdx_with(td_attributes=SEPT_VE_DISABLE | 1 << 40)
    lax = bent(case, allow_attributes=frozenset({"MIGRATABLE", "PERFMON", "PKS", "KL"}))
    assert failures(case.examine(case.policy(reference=lax))) == ["attributes"]


def test_tds_whose_host_can_inject_exceptions() -> None:
    case = tdx_with(td_attributes=0)
    assert failures(case.examine()) == ["sept_ve_disable"]
    assert not failures(case.examine(case.policy(reference=bent(case, allow_sept_ve=True))))


def test_a_service_td_must_be_named() -> None:
    theirs = support.module("tdx", "attester")
    case = support.tdx(version=5, report=theirs.REPORT_15)
    assert failures(case.examine()) == ["mr_service_td"]
    for found, bad in ((b"V" * 48, False), (b"?" * 48, True)):
        reference = bent(case, service_tds=frozenset({found}))
        result = case.examine(case.policy(reference=reference))
        assert failures(result) == (["mr_service_td"] if bad else [])
    none = support.tdx(version=5, report=replace(theirs.REPORT_15, mr_service_td=bytes(48)))
    assert outcomes(none.examine())["mr_service_td"] is Outcome.PASSED
    # A body of version 1.0 cannot say; that is told, not taken for none.
    assert outcomes(support.tdx().examine())["mr_service_td"] is Outcome.SKIPPED


def test_registers_of_a_td_and_its_module() -> None:
    case = support.tdx()
    for changes, expected in (
        ({"rtmrs": {1: frozenset({b"1" * 48})}}, []),
        ({"rtmrs": {1: frozenset({b"2" * 48})}}, ["rtmr1"]),
        ({"mr_seams": frozenset({b"S" * 48})}, []),
        ({"mr_seams": frozenset({b"?" * 48})}, ["mr_seam"]),
    ):
        reference = bent(case, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes
    assert outcomes(case.examine())["rtmr"] is Outcome.SKIPPED


# AMD


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


# AWS


def test_nitro_registers() -> None:
    case = support.nitro()
    for pcrs, expected in (
        ({2: frozenset({b"\3" * 48})}, []),
        ({2: frozenset({b"?" * 48})}, ["pcr2"]),
        ({7: frozenset({bytes(48)})}, ["pcr7"]),  # not in the document
    ):
        reference = bent(case, pcrs=pcrs)
        assert failures(case.examine(case.policy(reference=reference))) == expected
    signed = bent(case, signers=frozenset({b"?" * 48}))
    assert failures(case.examine(case.policy(reference=signed))) == ["signer"]


def test_the_age_of_a_nitro_document() -> None:
    case = support.nitro()
    claims: Any = case.examine().parts[0].claims
    bounded = case.policy(reference=bent(case, max_age_seconds=300))
    for seconds, expected in ((0, []), (300, []), (301, ["age"]), (-60, []), (-61, ["age"])):
        at = claims.timestamp + timedelta(seconds=seconds)
        assert failures(case.examine(bounded, at=at)) == expected, seconds
    assert outcomes(case.examine())["age"] is Outcome.SKIPPED


def test_fields_without_a_size_of_their_own_are_compared_whole() -> None:
    case = support.nitro(nonce=b"n" * 20 + b"\0")
    assert failures(case.examine()) == ["nonce"]
    assert not failures(case.examine(nonce=b"n" * 20 + b"\0"))
    theirs = support.module("tpm", "attester")
    assert failures(support.tpm(extra_data=theirs.NONCE + b"\0").examine()) == ["nonce"]


def test_a_nitro_document_without_a_nonce_answers_none() -> None:
    """Its user data is another field, and does not pass for a nonce."""
    case = support.nitro(nonce=None, user_data=b"n" * 20)
    assert failures(case.examine()) == ["nonce"]


# Arm


def test_psa_macs_only_by_name() -> None:
    theirs = support.module("psa", "test_psa")
    sound = support.psa()
    mac = theirs.cose.mac0(
        theirs.cbor.encode(theirs.NEW), theirs.MAC_KEY, tagging=theirs.Tagging.TAGGED
    )
    items = {
        "implementation_id": b"i" * 32,
        "mac_key": theirs.MAC_KEY,
        "instance_id": theirs.INSTANCE,
    }
    case = replace(sound, evidence=mac, endorsements=replace(sound.endorsements, items=items))
    assert failures(case.examine()) == ["authentication"]
    assert not failures(case.examine(case.policy(reference=bent(case, allow_mac=True))))


def test_psa_firmware_and_callers() -> None:
    case = support.psa()
    for changes, expected in (
        ({"firmware": frozenset({b"?" * 32})}, ["firmware"]),
        ({"client_ids": frozenset({3002})}, []),
        ({"client_ids": frozenset({-1})}, ["client"]),
    ):
        reference = bent(case, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes


def test_cca_firmware_and_registers() -> None:
    case = support.cca()
    for changes, expected in (
        ({"firmware": frozenset({b"?" * 32})}, ["firmware"]),
        ({"firmware": frozenset()}, ["firmware"]),
        ({"firmware": frozenset(), "allow_any_firmware": True}, []),
        ({"rems": {1: frozenset({b"1" * 32})}}, []),
        ({"rems": {1: frozenset({b"0" * 32})}}, ["rem1"]),
    ):
        reference = bent(case, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes


# TPM


def test_keys_that_nobody_has_shown_to_be_in_a_tpm() -> None:
    theirs = support.module("tpm", "attester")
    sound = support.tpm()
    items = {"attestation_key": theirs.spki(theirs.AK_EC)}
    case = replace(sound, endorsements=replace(sound.endorsements, items=items))
    assert failures(case.examine()) == ["ak_attributes"]
    lax = case.policy(reference=bent(case, allow_unproved_key=True))
    assert outcomes(case.examine(lax))["ak_attributes"] is Outcome.SKIPPED
    assert not failures(case.examine(lax))


def test_clocks_that_may_have_gone_back() -> None:
    case = support.tpm(safe=False)
    assert failures(case.examine()) == ["clock"]
    assert not failures(case.examine(case.policy(reference=bent(case, allow_unsafe_clock=True))))


def test_registers_one_by_one() -> None:
    theirs = support.module("tpm", "attester")
    case = support.tpm()
    (index, value), *_ = theirs.PCRS[theirs.SHA256].items()
    for bank, registers, expected in (
        ("sha256", {index: frozenset({value})}, []),
        ("sha256", {index: frozenset({b"?" * 32})}, [f"pcr sha256:{index}"]),
        ("sha256", {31: frozenset({bytes(32)})}, ["pcr sha256:31"]),
        ("sha384", {index: frozenset({bytes(48)})}, [f"pcr sha384:{index}"]),
    ):
        reference = bent(case, pcrs={bank: registers})
        assert failures(case.examine(case.policy(reference=reference))) == expected


# What is not authentic


ENDS_AT = {  # which step finds the bent byte
    **dict.fromkeys(("sgx", "tdx", "snp", "nitro", "psa"), "signature"),
    "cca": "realm_signature",
    "tpm": "registers",
}


@pytest.mark.parametrize("tee", sorted(CASES))
def test_bent_evidence_is_never_appraised(tee: str) -> None:
    case = CASES[tee]()
    bad = case.evidence[:-1] + bytes((case.evidence[-1] ^ 1,))
    if tee in ("sgx", "tdx"):  # the end is the chain, in PEM; bend the report data
        place = case.evidence.index(case.nonce)
        bad = case.evidence[:place] + b"\xff" + case.evidence[place + 1 :]
    if tee == "snp":  # the end is reserved
        bad = case.evidence[:0x90] + b"\xff" + case.evidence[0x91:]
    result = case.examine(evidence=bad)
    assert result.status in (Status.UNTRUSTED, Status.MALFORMED)
    assert result.exit_code in (3, 4)
    assert result.parts[0].claims is None
    checks = {item.rule: item for item in result.parts[0].checks}
    names = list(checks)
    at = names.index(ENDS_AT[tee])
    assert [checks[name].outcome for name in names] == [
        *[Outcome.PASSED] * at,
        Outcome.FAILED,
        *[Outcome.SKIPPED] * (len(names) - at - 1),
    ]
    assert result.failure is checks[names[at]]
    assert names == [rule for rule, _ in STEPS[tee]]
    told = result.to_dict()
    assert told["error"]["check"] == ENDS_AT[tee]
    assert all("not reached" in checks[name].why for name in names[at + 1 :])
    assert str(result.error) in checks[names[at]].why


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro"])
def test_another_day(tee: str) -> None:
    case = CASES[tee]()
    for away in (-5000, 20_000):
        result = case.examine(at=case.at + timedelta(days=away))
        assert result.exit_code == 4
