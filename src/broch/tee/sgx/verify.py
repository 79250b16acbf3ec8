"""Is this SGX evidence authentic? DCAP quotes of version 3 (steps of :mod:`..dcap.platform`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broch.errors import DecodeError
from broch.tee.contract import Claims, Endorsements
from broch.tee.dcap import platform, trust
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.platform import Verdict
from broch.tee.dcap.quote import HEADER_SIZE, TEE_SGX, Header, Quote
from broch.tee.dcap.report import BODY_SIZE, ReportBody
from broch.tee.dcap.tcb import QeIdentity, TcbInfo
from broch.tee.dcap.trust import Trusted
from broch.tee.steps import Steps

VERSION: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxClaims(Claims):
    """Claims of a verified quote, with what only SGX has. Plain data: it can be pickled."""

    report: ReportBody
    tcb: Verdict
    pck: PckExtension
    tcb_info: TcbInfo
    qe_identity: QeIdentity


def parse(evidence: bytes) -> Quote:
    """(1) A quote of version 3 about an SGX enclave.

    Raises:
        DecodeError: not one.
    """
    if len(evidence) < HEADER_SIZE:
        raise DecodeError(len(evidence), "shorter than its header", what="quote")
    header = Header.from_bytes(evidence[:HEADER_SIZE])
    platform.check_header(header, versions=(VERSION,), tee_type=TEE_SGX)
    return Quote.from_bytes(evidence, body_size=BODY_SIZE, wrapped=False)


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> SgxClaims:
    """Decide whether ``evidence`` is authentic ``at`` that time.

    A debug enclave and a platform with a bad TCB status are authentic; both are claims.

    Raises:
        DecodeError: not a quote, or collateral that cannot be read.
        UntrustedError: a signature, certificate or endorsement does not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse strictly.
        steps.current = "format"
        quote = parse(evidence)
        chain = platform.pck_chain(quote.certification)
        body = ReportBody.from_bytes(quote.body)
        # (2)-(5) Certificates, revocation, TCB info, QE identity.
        trusted = trust.establish(chain, trust.SGX, endorsements, steps)
        # (6) The quoting enclave.
        steps.current = "qe_report"
        qe_report = platform.check_qe(quote, trusted, cache=endorsements.cache)
        # (7) The quote itself. Only now is the body believed.
        steps.current = "signature"
        platform.check_signature(quote, endorsements.cache)
        # (8) is TDX's. (9), (10) TCB levels.
        steps.current = "tcb_level"
        verdict, rating = endorsements.cache.get(
            ("sgx rating", *platform.rated_by(quote, endorsements)),
            lambda: _rate(trusted, qe_report),
        )
    # (11) is policy, and not asked here.
    return SgxClaims(
        tee="sgx",
        measurement=body.mrenclave,
        signer=body.mrsigner,
        report_data=body.reportdata,
        debug=body.debug,
        emulated=trusted.emulated,
        version=body.isvsvn,
        product_id=body.isvprodid,
        details=_details(body, rating),
        report=body,
        tcb=verdict,
        pck=trusted.pck,
        tcb_info=trusted.tcb_info,
        qe_identity=trusted.qe_identity,
    )


def _rate(trusted: Trusted, qe_report: ReportBody) -> tuple[Verdict, dict[str, str]]:
    """(9), (10), and what claims say of them: the same for all enclaves of a platform."""
    verdict = platform.judge(trusted, qe_report, platform.match_level(trusted))
    return verdict, {**verdict.details(), **trusted.details}


def _details(body: ReportBody, rating: Mapping[str, str]) -> dict[str, str]:
    return {
        **rating,
        "attributes": f"{body.flags:016x}",
        "xfrm": f"{body.xfrm:016x}",
        "miscselect": f"{body.miscselect:08x}",
        "cpusvn": body.cpusvn.hex(),
    }
