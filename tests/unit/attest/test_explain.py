"""Explanations name what is short, what would do, since when, and what comes next."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.pki import NOW
from tests.unit.attest import support
from tests.unit.attest.support import Case

from broch.attest.explain import Platform, explain, read_next
from broch.errors import DecodeError
from broch.tee.dcap import platform
from broch.tee.dcap.tcb import TcbInfo, TcbStatus
from broch.tee.snp.product import Product, Tcb


def tdx(**changes: Any) -> Case:
    return support.tdx(**changes)


def level(status: str, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = support.module("tdx", "attester").level(status, **values)
    return found


def told(case: Case, **changes: Any) -> str:
    return "\n".join(explain(case.examine(**changes)))


def test_what_is_accepted_needs_little() -> None:
    text = told(support.sgx())
    assert "The platform is at the level of" in text
    assert "UpToDate" in text
    assert "valid until" in text
    assert "needed" not in text


def test_the_component_that_is_short() -> None:
    named = level("UpToDate", sgx=10, tdx=(5, 0, 4))
    named["tcb"]["tdxtcbcomponents"][2].update(category="OS/VMM", type="TDX Late Microcode Update")
    named["tcb"]["sgxtcbcomponents"] = [dict(item) for item in named["tcb"]["sgxtcbcomponents"]]
    named["tcb"]["sgxtcbcomponents"][0] = {"svn": 12, "category": "BIOS", "type": "Early Microcode"}
    old = {**level("OutOfDate"), "advisoryIDs": ["INTEL-SA-9"], "tcbDate": "2024-01-02T00:00:00Z"}
    text = told(tdx(levels=[named, old]))
    assert "tcb_status: TCB status OutOfDate, expected UpToDate." in text
    assert "The platform is at the level of 2024-01-02: OutOfDate because of INTEL-SA-9." in text
    assert "The level of 2025-02-01 would do (UpToDate). For it:" in text
    assert "SGX component 1 (BIOS, Early Microcode) has SVN 10, 12 is needed." in text
    assert "TDX component 3 (OS/VMM, TDX Late Microcode Update) has SVN 3, 4 is needed." in text
    # Components 1 and 2 are the module's, which has levels of its own.
    assert "TDX component 1 " not in text


def test_the_pce() -> None:
    text = told(tdx(levels=[level("UpToDate", pcesvn=13), level("OutOfDate")]))
    assert "PCE has SVN 11, 13 is needed." in text


def test_the_lowest_level_that_the_policy_accepts_is_the_aim() -> None:
    case = tdx(
        levels=[
            level("UpToDate", sgx=30),
            level("SWHardeningNeeded", sgx=20),
            level("OutOfDate"),
        ]
    )
    assert "30 is needed" in told(case)
    lax = case.policy(accept_tcb=frozenset({TcbStatus.SW_HARDENING_NEEDED}))
    assert "20 is needed" in told(case, policy=lax)
    assert "30 is needed" not in told(case, policy=lax)


def test_a_platform_below_every_level() -> None:
    text = told(tdx(levels=[level("UpToDate", sgx=200)]))
    assert "below every level that Intel rates" in text
    assert "has SVN 10, 200 is needed" in text


def test_what_no_version_cures() -> None:
    text = told(tdx(levels=[level("ConfigurationAndSWHardeningNeeded")]))
    assert "No level of this TCB info is UpToDate." in text
    assert "No version is short for that: the platform's configuration is" in text
    assert "The enclave's code has to be hardened" in text


def test_the_module_and_the_quoting_enclave() -> None:
    theirs = support.module("tdx", "attester")
    modules = [
        theirs.identity("TDX_01", theirs.isv(9, "UpToDate", day=3), theirs.isv(2, "Revoked"))
    ]
    qe = [theirs.isv(12, "UpToDate", day=4), theirs.isv(8, "OutOfDate")]
    text = told(tdx(modules=modules, qe_levels=qe))
    assert "TDX module TDX_01 has SVN 5: Revoked; SVN 9 of 2025-01-03 would be UpToDate." in text
    assert "ISVSVN: OutOfDate; SVN 12 of 2025-01-04 would be UpToDate." in text


def coming(case: Case, edit: Any) -> TcbInfo:
    """The TCB info of a case, some time later."""
    document = json.loads(case.endorsements.items["tcb_info"])
    edit(document)
    return read_next(json.dumps(document).encode())


def ahead(case: Case, edit: Any) -> str:
    return "\n".join(explain(case.examine(), coming(case, edit)))


def test_what_the_next_tcb_info_changes() -> None:
    case = tdx()

    def worse(document: dict[str, Any]) -> None:
        document["tcbEvaluationDataNumber"] = 99
        old = {**level("OutOfDate"), "advisoryIDs": ["INTEL-SA-7"]}
        document["tcbLevels"] = [level("UpToDate", sgx=11), old]

    text = ahead(case, worse)
    assert "Under the TCB info of evaluation 99 (" in text
    assert "the platform goes from UpToDate to OutOfDate." in text
    assert "New advisories: INTEL-SA-7." in text
    assert "SGX component 16 has SVN 10, 11 is needed." in text
    assert "the platform stays UpToDate" in ahead(case, lambda document: None)

    def gone(document: dict[str, Any]) -> None:
        document["tcbLevels"] = [level("UpToDate", sgx=11)]

    assert "goes from UpToDate to NotSupported" in ahead(case, gone)


@pytest.mark.parametrize("key", ["fmspc", "pceId", "id"])
def test_a_next_tcb_info_of_another_platform(key: str) -> None:
    def other(document: dict[str, Any]) -> None:
        document[key] = {"fmspc": "00" * 6, "pceId": "ffff", "id": "SGX"}[key]

    assert "it says nothing of it" in ahead(tdx(), other)


def test_the_next_tcb_info_comes_as_intel_sends_it() -> None:
    data = support.tdx().endorsements.items["tcb_info"]
    whole = json.dumps({"tcbInfo": json.loads(data), "signature": "00" * 64}).encode()
    assert read_next(whole) == read_next(data)
    for bad in (b"", b"[]", b"{}", b'{"tcbInfo": {}}'):
        with pytest.raises(DecodeError):
            read_next(bad)


def test_its_levels_are_those_that_verification_finds() -> None:
    for status in ("UpToDate", "OutOfDate"):
        case = tdx(levels=[level("UpToDate", sgx=11), level(status)])
        claims: Any = case.examine().parts[0].claims
        own = Platform(pck=claims.platform.pck, tee_tcb_svn=claims.report.tee_tcb_svn)
        info = claims.platform.tcb_info
        assert own.level(info) == claims.tcb.level
        assert own.level(info) == platform.match_level(claims.platform, claims.report.tee_tcb_svn)


def test_amds_firmware() -> None:
    case = support.snp(Product.GENOA)
    claims: Any = case.examine().parts[0].claims
    found: Tcb = claims.reported_tcb
    wanted = replace(found, snp=found.snp + 2, microcode=found.microcode + 1)
    reference = replace(
        case.reference,
        min_tcb={Product.GENOA: wanted},  # type: ignore[call-arg]
    )
    text = told(case, policy=case.policy(reference=reference))
    assert f"snp reports SVN {found.snp}, {wanted.snp} is needed." in text
    assert f"microcode reports SVN {found.microcode}, {wanted.microcode} is needed." in text
    assert "boot_loader reports" not in text


def test_firmware_that_runs_and_is_not_reported_yet() -> None:
    theirs = support.module("snp", "attester")
    tcb = theirs.TCB[Product.GENOA]
    newer = bytes((*tcb[:6], tcb[6] + 3, tcb[7]))
    case = support.snp(Product.GENOA, current_tcb=newer)
    claims: Any = case.examine().parts[0].claims
    wanted = replace(claims.reported_tcb, snp=claims.reported_tcb.snp + 3)
    reference = replace(
        case.reference,
        min_tcb={Product.GENOA: wanted},  # type: ignore[call-arg]
    )
    assert "it runs already" in told(case, policy=case.policy(reference=reference))


def test_what_failed_comes_with_what_to_do() -> None:
    text = told(support.sgx(), nonce=None)
    assert "nonce: no nonce was given, so the evidence may be a recording." in text
    assert "  To do: send the attester a fresh nonce and give it here." in text
    assert "format: (1) quote: " in told(support.sgx(), evidence=b"")


@pytest.mark.parametrize(
    "change",
    [
        {"at": NOW.replace(year=2060)},
        {"at": NOW.replace(year=2001)},
        {"evidence": b"\x03\0\2\0"},
        {"nonce": None},
    ],
)
def test_there_is_always_something_to_do(change: dict[str, Any]) -> None:
    result = support.sgx().examine(**change)
    assert result.hint
    assert result.to_dict()["error"]["hint"] == result.hint
    assert f"  To do: {result.hint}." in list(explain(result))
    assert support.sgx().examine().hint is None
