"""A TDX module that was replaced under a running TD: who has to be launched anew."""

from dataclasses import replace
from typing import Any, Final

import pytest

from broch.errors import UntrustedError
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.tdx import VERIFIER

from .attester import (
    NOW,
    PCK,
    REPORT,
    REPORT_15,
    Attester,
    isv,
    level,
)
from .test_verify import OOD, OOD_CN, UTD, claims, status, svn

# (10) Relaunch. The cases of Intel's QuoteVerifierTcbStatusUT, and each condition alone.

OLD: Final = svn(2, 1, 2)
NEW: Final = svn(5, 1, 3)


def launched(**changes: Any) -> Attester:
    """Launched by an old module; the one that runs now is the latest."""
    report = replace(REPORT_15, tee_tcb_svn=OLD, tee_tcb_svn2=NEW)
    levels = [level(UTD, tdx=(5, 0, 3)), level(OOD, tdx=(0,))]
    return Attester(**{"version": 5, "report": report, "levels": levels, **changes})


def test_relaunch_advised() -> None:
    assert status(launched()) == "TDRelaunchAdvised"


@pytest.mark.parametrize(
    "levels",
    [
        [level(UTD, tdx=(5, 0, 3)), level(OOD_CN, tdx=(0,))],
        [level("ConfigurationNeeded", tdx=(5, 0, 3)), level(OOD, tdx=(0,))],
        [level("ConfigurationAndSWHardeningNeeded", tdx=(5, 0, 3)), level(OOD, tdx=(0,))],
    ],
)
def test_relaunch_advised_and_configuration_needed(levels: list[dict[str, Any]]) -> None:
    assert status(launched(levels=levels)) == "TDRelaunchAdvisedConfigurationNeeded"


def test_what_runs_now_is_old_too() -> None:
    for now in (svn(4, 1, 3), svn(5, 1, 2), OLD):
        report = replace(REPORT_15, tee_tcb_svn=OLD, tee_tcb_svn2=now)
        assert status(launched(report=report)) == OOD


def test_what_runs_now_is_unknown() -> None:
    report = replace(REPORT_15, tee_tcb_svn=OLD, tee_tcb_svn2=svn(5, 2, 3))
    with pytest.raises(UntrustedError, match="TDX_02"):
        claims(launched(report=report))


def test_what_runs_now_has_no_version() -> None:
    report = replace(REPORT_15, tee_tcb_svn=OLD, tee_tcb_svn2=svn(5, 0, 3))
    assert status(launched(report=report)) == "TDRelaunchAdvised"
    report = replace(REPORT_15, tee_tcb_svn=OLD, tee_tcb_svn2=svn(4, 0, 3))
    assert status(launched(report=report)) == OOD


def test_a_relaunch_cures_neither_the_processor_nor_the_quoting_enclave() -> None:
    # The processor reaches only the old level.
    levels = [level(UTD, tdx=(5, 0, 3), sgx=11), level(OOD, tdx=(0,))]
    assert status(launched(levels=levels)) == OOD
    assert status(launched(qe_levels=[isv(9, UTD), isv(8, OOD)])) == OOD
    # The module was up to date at launch: something else is old.
    report = replace(REPORT_15, tee_tcb_svn=svn(5, 1, 2), tee_tcb_svn2=NEW)
    assert status(launched(report=report)) == OOD


def test_td_10_cannot_tell() -> None:
    report = replace(REPORT, tee_tcb_svn=OLD)
    assert status(launched(report=report)) == OOD


def test_the_platform_is_the_certificates_not_the_quotes() -> None:
    """SGX components come from the PCK certificate."""
    assert PCK.components == (10,) * 16
    assert status(Attester(levels=[level(UTD, sgx=10)])) == UTD
    assert status(Attester(levels=[level(UTD, sgx=11)])) == TcbStatus.NOT_SUPPORTED


@pytest.mark.parametrize("name", [OOD, OOD_CN, "ConfigurationNeeded", "SWHardeningNeeded"])
def test_the_status_is_in_the_claims_and_in_what_people_see(name: str) -> None:
    """bitrouter 566, dcap-qvl 125: the status was dropped, or everything counted as valid."""
    found = claims(Attester(levels=[level(name)]))
    assert found.tcb.status == name
    assert found.details["tcb_status"] == name


def test_a_revoked_quoting_enclave_needs_a_good_signature_too() -> None:
    """automata 144: a revoked QE was accepted before its signature was looked at."""
    attester = Attester(qe_levels=[isv(8, "Revoked")])
    data = bytearray(attester.evidence())
    place = data.index(b"Q" * 32)  # MRSIGNER in the QE's report
    data[place] ^= 1
    with pytest.raises(UntrustedError, match="QE report: the signature"):
        VERIFIER.verify(bytes(data), attester.endorsements(), at=NOW)
