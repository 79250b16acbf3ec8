"""Steps of DCAP verification that SGX and TDX share, after trust is established.

Source of order and rules: Intel's quote verification library, ``Verifiers/QuoteVerifier.cpp``
(4.1.2.4.x there), ``EnclaveReportVerifier.cpp`` and ``Checks/TcbLevelCheck.cpp``. The steps:

    (1)  parse strictly, check versions, key type, vendor         check_header; the TEE's own parser
    (2)-(5) certificates, revocation, collateral                  trust.establish
    (6)  the QE: report signed by the PCK key, identity matches   check_qe
    (7)  the quote: signed by the attestation key                 check_signature
    (8)  TDX module                                               the TEE's own
    (9)  TCB level of the platform, of the QE                     match_level, match_isv_level
    (10) converge them, worst wins                                converge_qe
    (11) policy                                                   not here: verify never judges

A TCB status is a finding, not an error: evidence of an out-of-date platform is authentic.
"""

import hashlib
import hmac
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broch.errors import DecodeError, UntrustedError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa
from broch.tee.dcap.quote import (
    CERT_PCK_CHAIN,
    ECDSA_P256,
    INTEL_QE_VENDOR,
    Certification,
    Header,
    Quote,
)
from broch.tee.dcap.report import ReportBody
from broch.tee.dcap.tcb import IsvLevel, QeIdentity, TcbLevel, TcbStatus
from broch.tee.dcap.trust import Trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What Intel's collateral says of a platform and its QE together."""

    status: TcbStatus  # of all together
    platform: TcbStatus
    qe: TcbStatus
    advisories: tuple[str, ...]  # sorted
    date: datetime | None  # of the platform's level; None if there is none
    evaluation_number: int  # the lower of both documents'
    level: TcbLevel | None
    qe_level: IsvLevel | None

    def details(self) -> dict[str, str]:
        """For ``Claims.details``."""
        return {
            "tcb_status": self.status.value,
            "platform_tcb_status": self.platform.value,
            "qe_tcb_status": self.qe.value,
            "advisory_ids": ",".join(self.advisories),
            "tcb_date": self.date.date().isoformat() if self.date else "",
            "tcb_evaluation_data_number": str(self.evaluation_number),
        }


def check_header(header: Header, *, versions: Sequence[int], tee_type: int) -> None:
    """(1) The header is one that this verifier knows.

    Raises:
        DecodeError: another version, TEE, key type, QE vendor.
    """
    for offset, what, found, expected in (
        (0, "version", header.version, versions),
        (2, "attestation key type", header.att_key_type, (ECDSA_P256,)),
        (4, "TEE type", header.tee_type, (tee_type,)),
    ):
        if found not in expected:
            wanted = " or ".join(map(str, expected))
            raise DecodeError(offset, f"{what} {found}, expected {wanted}", what="quote")
    if header.qe_vendor_id != INTEL_QE_VENDOR:
        raise DecodeError(12, f"QE vendor {header.qe_vendor_id.hex()} is unknown", what="quote")


def pck_chain(certification: Certification) -> bytes:
    """(1) The PCK chain in the quote (PEM).

    Raises:
        DecodeError: certification data of another type.
    """
    if certification.cert_type != CERT_PCK_CHAIN:
        raise DecodeError(
            0, f"certification data of type {certification.cert_type}, expected 5", what="quote"
        )
    return certification.cert_data


def check_qe(quote: Quote, trusted: Trusted, *, cache: VerificationCache) -> ReportBody:
    """(6) The quoting enclave is the one of the QE identity, on this platform.

    Raises:
        DecodeError: the QE report is not one.
        UntrustedError: its signature, its binding of the attestation key, or its identity fails.
    """
    # A QE keeps its attestation key, and the report about it, until its platform changes.
    own = quote.certification
    key = (trusted.pck_key, quote.attestation_key, own.qe_report, own.qe_report_signature)
    report = cache.get(
        ("dcap QE report", *key, own.qe_auth_data), lambda: _read_qe_report(quote, trusted)
    )
    _check_identity(report, trusted.qe_identity)
    if report.debug:
        raise UntrustedError("the quoting enclave runs in debug mode")
    return report


def _read_qe_report(quote: Quote, trusted: Trusted) -> ReportBody:
    certification = quote.certification
    # The signature of the PCK key, before anything in the report is believed.
    ecdsa.verify(
        trusted.pck_key, certification.qe_report_signature, certification.qe_report, "QE report"
    )
    report = ReportBody.from_bytes(certification.qe_report)
    binding = hashlib.sha256(quote.attestation_key + certification.qe_auth_data).digest()
    if not hmac.compare_digest(report.reportdata, binding + bytes(32)):
        raise UntrustedError("the QE report does not bind the attestation key of this quote")
    return report


def _check_identity(report: ReportBody, identity: QeIdentity) -> None:
    # As Intel does, the value is not masked: bits of it outside of its own mask match nothing.
    attributes = report.flags | report.xfrm << 64
    wanted = int.from_bytes(identity.attributes, "little")
    mask = int.from_bytes(identity.attributes_mask, "little")
    for what, matches in (
        ("MISCSELECT", report.miscselect & identity.miscselect_mask == identity.miscselect),
        ("ATTRIBUTES", attributes & mask == wanted),
        ("MRSIGNER", report.mrsigner == identity.mrsigner),
        ("ISVPRODID", report.isvprodid == identity.isvprodid),
    ):
        if not matches:
            raise UntrustedError(f"{what} of the quoting enclave is not that of qe_identity")


def check_signature(quote: Quote, cache: VerificationCache) -> None:
    """(7) The attestation key signed header and body.

    Raises:
        UntrustedError: it did not, or is no key.
    """
    raw = quote.attestation_key
    key = cache.get(
        ("dcap attestation key", raw), lambda: ecdsa.public_key(raw, "the attestation key")
    )
    ecdsa.verify(key, quote.signature, quote.signed_bytes(), "quote")


def rated_by(quote: Quote, endorsements: Endorsements) -> tuple[bytes, ...]:
    """All that a rating depends on besides the quote's body, for the key of a cache."""
    items, own = endorsements.items, quote.certification
    return own.cert_data, own.qe_report, items["tcb_info"], items["qe_identity"]


def match_level(trusted: Trusted, tdx_svn: bytes | None = None) -> TcbLevel | None:
    """(9) The highest level that the platform reaches; None if it reaches none.

    The SGX components and PCESVN are those of the PCK certificate, never those of the quote. For
    TDX ``tdx_svn`` is TEE_TCB_SVN (16 bytes); its first two are the module's own, with levels
    elsewhere, once the module has a version (byte 1).
    """
    own = trusted.pck
    for level in trusted.tcb_info.levels:
        if own.pcesvn < level.pcesvn or not _reaches(own.components, level.sgx):
            continue
        if tdx_svn is not None:
            first = 2 if tdx_svn[1] else 0
            if not level.tdx or not _reaches(tdx_svn[first:], level.tdx[first:]):
                continue
        return level
    return None


def _reaches(own: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(own) == len(wanted) and all(map(operator.ge, own, wanted))


def match_isv_level(levels: Sequence[IsvLevel], isvsvn: int) -> IsvLevel | None:
    """(9) The highest level that ``isvsvn`` reaches; None if it reaches none."""
    return next((level for level in levels if isvsvn >= level.isvsvn), None)


_WORSE_BY_QE: Final = {
    TcbStatus.UP_TO_DATE: TcbStatus.OUT_OF_DATE,
    TcbStatus.SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE,
    TcbStatus.CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}


def converge_qe(platform: TcbStatus, qe: TcbStatus) -> TcbStatus:
    """(10) Both together, after ``convergeTcbStatusWithQeTcbStatus``; never better than either."""
    if TcbStatus.NOT_SUPPORTED in (platform, qe):
        return TcbStatus.NOT_SUPPORTED
    if TcbStatus.REVOKED in (platform, qe):
        return TcbStatus.REVOKED
    if qe is TcbStatus.UP_TO_DATE:
        return platform
    # Intel rates a QE UpToDate, OutOfDate or Revoked; any other word must not count as UpToDate.
    return _WORSE_BY_QE.get(platform, platform)


def judge(trusted: Trusted, qe_report: ReportBody, level: TcbLevel | None) -> Verdict:
    """(9), (10) for the platform's ``level`` and the QE; TDX converges its module in addition."""
    qe_level = match_isv_level(trusted.qe_identity.levels, qe_report.isvsvn)
    platform = level.status if level else TcbStatus.NOT_SUPPORTED
    qe = qe_level.status if qe_level else TcbStatus.NOT_SUPPORTED
    found = {*(level.advisories if level else ()), *(qe_level.advisories if qe_level else ())}
    return Verdict(
        status=converge_qe(platform, qe),
        platform=platform,
        qe=qe,
        advisories=tuple(sorted(found)),
        date=level.date if level else None,
        evaluation_number=min(
            trusted.tcb_info.evaluation_number, trusted.qe_identity.evaluation_number
        ),
        level=level,
        qe_level=qe_level,
    )
