"""What is acceptable of Intel's hardware: the TCB status, and attributes that give power away.

Sources: Intel, "Appraisal of attestation" (QAL policies) for grace and evaluation numbers; SDM 3D,
37.7.1 for SGX attributes; TDX module base specification, table 3.24 for those of TDs.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from broch.attest.checks import Check, compared, failed, one_of, passed, skipped
from broch.attest.policy import NEVER, Policy
from broch.attest.reference import IntelReference, Reference, SgxReference, TdxReference
from broch.tee.contract import Claims
from broch.tee.dcap import report as sgx_report
from broch.tee.dcap.platform import Verdict
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx.verify import SgxClaims
from broch.tee.tdx import report as td_report
from broch.tee.tdx.report import TdReport
from broch.tee.tdx.verify import TdxClaims

SGX_POWERS: Final = {
    "PROVISIONKEY": sgx_report.PROVISIONKEY,
    "EINITTOKENKEY": sgx_report.EINITTOKENKEY,
}
TD_POWERS: Final = {
    "MIGRATABLE": td_report.MIGRATABLE,
    "PERFMON": td_report.PERFMON,
    "PKS": td_report.PKS,
    "KL": td_report.KL,
}
# PKS and KL only let the guest use more of the processor.
_TD_REFUSED: Final = {"MIGRATABLE", "PERFMON"}
_TD_KNOWN: Final = sum(TD_POWERS.values()) | td_report.TUD_MASK | td_report.SEPT_VE_DISABLE
_BY_CONFIGURATION: Final = {
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
}
_BY_GRACE: Final = {
    TcbStatus.OUT_OF_DATE: TcbStatus.UP_TO_DATE,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: TcbStatus.CONFIGURATION_NEEDED,
}
_UPDATE: Final = "update firmware and microcode; the explanation says which version is short"
_CONFIGURE: Final = "configure the platform and harden the code as the advisories say"


def rules(claims: Claims, policy: Policy, reference: Reference, at: datetime) -> Iterator[Check]:
    """Checks of an SGX enclave or a trust domain."""
    if isinstance(claims, SgxClaims):
        sgx = reference if isinstance(reference, SgxReference) else SgxReference()
        yield from _platform(claims.tcb, claims.pck.ppid, policy, sgx, at)
        yield from _sgx(claims, sgx)
    elif isinstance(claims, TdxClaims):
        tdx = reference if isinstance(reference, TdxReference) else TdxReference()
        yield from _platform(claims.tcb, claims.platform.pck.ppid, policy, tdx, at)
        yield from _tdx(claims.report, tdx)
    else:
        why = f"claims of {claims.tee} without a TCB status"
        yield failed("tcb_status", why, "verify a quote with its collateral")


def _platform(
    tcb: Verdict, ppid: bytes, policy: Policy, reference: IntelReference, at: datetime
) -> Iterator[Check]:
    yield _status(tcb, policy, at)
    rejected = sorted(policy.reject_advisories & set(tcb.advisories))
    if rejected:
        why = f"the platform is open to {', '.join(rejected)}, which the policy rejects"
        yield failed("advisories", why, _UPDATE)
    else:
        yield passed("advisories", f"{', '.join(tcb.advisories) or 'none'} apply")
    number, wanted = tcb.evaluation_number, reference.min_tcb_evaluation
    why = f"collateral of TCB evaluation {number}, expected {wanted} or newer"
    hint = "fetch newer collateral (update=standard, or early)"
    yield compared("tcb_evaluation", why, number >= wanted, hint)
    if reference.ppids:
        hint = "run it on a platform of yours, or add this one after looking at it"
        yield one_of("platform", "platform (PPID)", ppid, reference.ppids, hint=hint)
    else:
        yield skipped("platform", "the policy accepts any platform: it names no PPIDs")


def _status(tcb: Verdict, policy: Policy, at: datetime) -> Check:
    status = tcb.status
    if status is TcbStatus.UP_TO_DATE:
        return passed("tcb_status", "UpToDate")
    if status in policy.accept_tcb - NEVER:
        return passed("tcb_status", f"{status}; the policy accepts it")
    if in_grace(tcb, policy, at):
        why = f"{status} since after {earliest(tcb):%Y-%m-%d}; within {policy.grace_days} days"
        return passed("tcb_status", f"{why} of grace")
    accepted = ", ".join(["UpToDate", *sorted(policy.accept_tcb)])
    hint = _CONFIGURE if status in _BY_CONFIGURATION else _UPDATE
    return failed("tcb_status", f"TCB status {status}, expected {accepted}", hint)


def earliest(tcb: Verdict) -> datetime:
    """The date of the oldest level that took part: up to it, no advisory applies."""
    dates = [item for item in (tcb.date, tcb.qe_level.date if tcb.qe_level else None) if item]
    return min(dates)


def in_grace(tcb: Verdict, policy: Policy, at: datetime) -> bool:
    """Whether ``grace_days`` cover a platform that is out of date, and nothing else is wrong.

    As Intel's appraisal does, grace runs from the date of the platform's own level
    (tcb_level_date_tag), not from that of the level that it lacks.
    """
    becomes = _BY_GRACE.get(tcb.status)
    if becomes is None or not policy.grace_days or tcb.date is None or tcb.qe_level is None:
        return False
    if becomes is not TcbStatus.UP_TO_DATE and becomes not in policy.accept_tcb:
        return False
    return at < earliest(tcb) + timedelta(days=policy.grace_days)


def _sgx(claims: SgxClaims, reference: SgxReference) -> Iterator[Check]:
    held = {name for name, bit in SGX_POWERS.items() if claims.report.flags & bit}
    yield _attributes(held - reference.allow_attributes, held)


def _attributes(refused: set[str], held: set[str]) -> Check:
    if refused:
        why = f"attributes {', '.join(sorted(refused))} are set, and the policy allows them not"
        return failed("attributes", why, "build the enclave without these attributes")
    return passed("attributes", f"{', '.join(sorted(held)) or 'none'} of those that matter are set")


def _tdx(report: TdReport, reference: TdxReference) -> Iterator[Check]:
    held = {name for name, bit in TD_POWERS.items() if report.td_attributes & bit}
    unknown = report.td_attributes & ~_TD_KNOWN
    if unknown:
        held.add(f"0x{unknown:x}")
    refused = (held & _TD_REFUSED) | (held - TD_POWERS.keys())
    yield _attributes(refused - reference.allow_attributes, held)
    yield _sept_ve(report, reference)
    yield _service_td(report, reference)
    for index, accepted in reference.rtmrs.items():
        hint = "boot the image that was measured, with its kernel command line"
        yield one_of(f"rtmr{index}", f"RTMR{index}", report.rtmrs[index], accepted, hint=hint)
    if not reference.rtmrs:
        yield skipped("rtmr", "the policy has no values for RTMRs: what was booted is not checked")
    if reference.mr_seams:
        hint = "update the TDX module to an accepted one"
        yield one_of("mr_seam", "TDX module", report.mr_seam, reference.mr_seams, hint=hint)


def _sept_ve(report: TdReport, reference: TdxReference) -> Check:
    if report.td_attributes & td_report.SEPT_VE_DISABLE:
        return passed("sept_ve_disable", "SEPT_VE_DISABLE is set")
    if reference.allow_sept_ve:
        return passed("sept_ve_disable", "SEPT_VE_DISABLE is not set; the policy accepts it")
    why = "SEPT_VE_DISABLE is not set: the host can inject #VE by taking pages away"
    return failed("sept_ve_disable", why, "start the TD with SEPT_VE_DISABLE")


def _service_td(report: TdReport, reference: TdxReference) -> Check:
    found = report.mr_service_td
    if found is None:
        return skipped("mr_service_td", "this version of the report does not say")
    if not any(found):
        return passed("mr_service_td", "no service TD is bound")
    if not reference.service_tds:
        why = f"a service TD ({found.hex()}) is bound, and the policy accepts none"
        return failed("mr_service_td", why, "start the TD without a service TD (migration)")
    hint = "bind the service TD that was measured"
    return one_of("mr_service_td", "service TD", found, reference.service_tds, hint=hint)
