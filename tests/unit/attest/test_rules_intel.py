"""Rules for Intel's TEEs, each with evidence that is sound but for that."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import CASES, Case, bent, failures, outcomes, tdx_with

from broch.attest.checks import Outcome
from broch.tee.dcap.report import EINITTOKENKEY, INIT, MODE64BIT, PROVISIONKEY
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.tdx.report import MIGRATABLE, PERFMON, SEPT_VE_DISABLE


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
