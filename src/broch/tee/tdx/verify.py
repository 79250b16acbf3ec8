"""Is this TDX quote authentic? Versions 4 and 5; the steps are those of :mod:`..dcap.platform`.

Endorsement items are those of :mod:`broch.tee.dcap.collateral`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broch.errors import DecodeError
from broch.tee.contract import Claims, Endorsements
from broch.tee.dcap import platform, trust
from broch.tee.dcap.platform import Verdict
from broch.tee.dcap.quote import HEADER_SIZE, TEE_TDX, Header, Quote
from broch.tee.dcap.report import ReportBody
from broch.tee.dcap.tcb import TcbLevel, TcbStatus
from broch.tee.dcap.trust import Trusted
from broch.tee.steps import Steps
from broch.tee.tdx import module
from broch.tee.tdx.module import Rated
from broch.tee.tdx.report import DESCRIPTOR, SIZE_10, SIZES, TdReport

VERSIONS: Final = (4, 5)
_W: Final = "quote"


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxClaims(Claims):
    """Claims of a verified quote, with what only TDX has."""

    report: TdReport
    tcb: Verdict  # status: of platform, module and QE together; platform: of its level alone
    module: Rated
    platform: Trusted


def parse(evidence: bytes) -> tuple[Quote, TdReport]:
    """(1) A quote of version 4 or 5 about a trust domain.

    Raises:
        DecodeError: not one.
    """
    if len(evidence) < HEADER_SIZE:
        raise DecodeError(len(evidence), "shorter than its header", what=_W)
    header = Header.from_bytes(evidence[:HEADER_SIZE])
    platform.check_header(header, versions=VERSIONS, tee_type=TEE_TDX)
    if header.version == 4:
        quote = Quote.from_bytes(evidence, body_size=SIZE_10, wrapped=True)
        return quote, TdReport.from_bytes(quote.body)
    if len(evidence) < HEADER_SIZE + DESCRIPTOR.size:
        raise DecodeError(len(evidence), "ends inside the body descriptor", what=_W)
    kind, size = DESCRIPTOR.unpack_from(evidence, HEADER_SIZE)
    if SIZES.get(kind) != size:
        raise DecodeError(HEADER_SIZE, f"body of type {kind} with {size} bytes", what=_W)
    quote = Quote.from_bytes(evidence, body_size=DESCRIPTOR.size + size, wrapped=True)
    return quote, TdReport.from_bytes(quote.body[DESCRIPTOR.size :])


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> TdxClaims:
    """Decide whether ``evidence`` is authentic ``at`` that time.

    A TD under debug and a platform with a bad TCB status are authentic; both are claims.

    Raises:
        DecodeError: not a quote, or collateral that cannot be read.
        UntrustedError: a signature, certificate or endorsement does not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse strictly.
        steps.current = "format"
        quote, report = parse(evidence)
        chain = platform.pck_chain(quote.certification)
        # (2)-(5) Certificates, revocation, TCB info, QE identity.
        trusted = trust.establish(chain, trust.TDX, endorsements, steps)
        # (6) The quoting enclave.
        steps.current = "qe_report"
        qe_report = platform.check_qe(quote, trusted, cache=endorsements.cache)
        # (7) The quote itself. Only now is the body believed.
        steps.current = "signature"
        platform.check_signature(quote, endorsements.cache)
        # (8)-(10) The TDX module, the platform's level, and all together.
        facts = (
            report.tee_tcb_svn,
            report.tee_tcb_svn2,
            report.mr_signer_seam,
            report.seam_attributes,
        )
        rating = endorsements.cache.get(
            ("tdx rating", *platform.rated_by(quote, endorsements), *facts),
            lambda: _rate(report, trusted, qe_report, steps),
        )
    # (11) is policy, and not asked here.
    return TdxClaims(
        tee="tdx",
        measurement=report.mr_td,
        signer=None,
        report_data=report.report_data,
        debug=report.debug,
        emulated=trusted.emulated,
        details=_details(report, rating),
        report=report,
        tcb=rating.verdict,
        module=rating.module,
        platform=trusted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rating:
    """The same for all TDs that a platform runs under one module."""

    verdict: Verdict
    module: Rated
    details: Mapping[str, str]


def _rate(report: TdReport, trusted: Trusted, qe_report: ReportBody, steps: Steps) -> _Rating:
    # (8) The TDX module.
    steps.current = "tdx_module"
    rated = module.check(report, trusted.tcb_info)
    steps.current = "tcb_level"
    # (9) The platform's level: components 0 and 1 are the module's own once it has a version.
    level = platform.match_level(trusted, report.tee_tcb_svn)
    # (10) Platform, module and QE together, worst wins; then whether a relaunch is enough.
    verdict = _judge(report, trusted, qe_report, level, rated)
    own = {"module": rated.name, "module_tcb_status": rated.status.value}
    return _Rating(
        verdict=verdict, module=rated, details={**verdict.details(), **own, **trusted.details}
    )


def _judge(
    report: TdReport,
    trusted: Trusted,
    qe_report: ReportBody,
    level: TcbLevel | None,
    rated: Rated,
) -> Verdict:
    alone = platform.judge(trusted, qe_report, level)
    status = module.converge(alone.platform, rated.status)
    # A QE that is not up to date is not cured by a relaunch; only TDX 1.5 knows of one.
    if report.tee_tcb_svn2 is not None and alone.qe is TcbStatus.UP_TO_DATE:
        sgx = platform.match_level(trusted)
        status = module.relaunch(
            report,
            trusted.tcb_info,
            sgx=sgx.status if sgx else TcbStatus.NOT_SUPPORTED,
            tdx=status,
            module=rated.status,
        )
    more = rated.level.advisories if rated.level else ()
    dates = [item.date for item in (level, rated.level) if item is not None]
    return replace(
        alone,
        status=platform.converge_qe(status, alone.qe),
        advisories=tuple(sorted({*alone.advisories, *more})),
        date=min(dates) if level is not None else None,
    )


def _details(report: TdReport, rating: _Rating) -> dict[str, str]:
    return {
        **rating.details,
        "td_attributes": f"{report.td_attributes:016x}",
        "td_attribute_names": report.attribute_names(),
        "xfam": f"{report.xfam:016x}",
        "tee_tcb_svn": report.tee_tcb_svn.hex(),
        "mr_seam": report.mr_seam.hex(),
        "mr_config_id": report.mr_config_id.hex(),
        "mr_owner": report.mr_owner.hex(),
        "mr_owner_config": report.mr_owner_config.hex(),
        "mr_service_td": report.mr_service_td.hex() if report.mr_service_td is not None else "",
        **{f"rtmr{index}": value.hex() for index, value in enumerate(report.rtmrs)},
    }
