"""The quoting enclave signs what the CPU reported for it, and nothing else."""

from dataclasses import replace

import pytest

from broch.errors import UntrustedError
from broch.tee.dcap.ecdsa import derive_key
from broch.tee.dcap.quote import INTEL_QE_VENDOR, Quote
from broch.tee.dcap.report import INIT, MODE64BIT, ReportBody
from broch.tee.sgx.keys import ereport
from broch.tee.sgx.quoting import PCE, QE, QuotingEnclave
from broch.tee.sgx.structures import Report, Secs, TargetInfo

from .support import FUSES, REPORT_DATA

APP = Secs(
    size=8192,
    ssaframesize=1,
    flags=INIT | MODE64BIT,
    xfrm=3,
    mrenclave=b"A" * 32,
    mrsigner=b"S" * 32,
)


@pytest.fixture(scope="module")
def quoting() -> QuotingEnclave:
    return QuotingEnclave(
        FUSES,
        attestation_key=derive_key(b"seed", "attestation"),
        pck_key=derive_key(b"seed", "pck"),
        pck_chain=b"chain",
        platform_id=b"P" * 16,
    )


def test_a_report_for_the_qe_becomes_a_quote(quoting: QuotingEnclave) -> None:
    report = ereport(FUSES, APP, quoting.target, REPORT_DATA)
    quote = Quote.from_bytes(quoting.quote(report), body_size=384, wrapped=False)
    assert quote.header.version == 3
    assert quote.header.qe_vendor_id == INTEL_QE_VENDOR
    assert quote.header.user_data == b"P" * 16 + bytes(4)
    assert quote.body == report.body.to_bytes()
    assert quote.certification.cert_type == 5
    assert quote.certification.cert_data == b"chain"
    qe = ReportBody.from_bytes(quote.certification.qe_report)
    assert (qe.mrenclave, qe.mrsigner, qe.isvprodid) == (QE.mrenclave, QE.mrsigner, 1)
    assert qe.cpusvn == FUSES.cpusvn


def test_a_report_for_another_is_not_quoted(quoting: QuotingEnclave) -> None:
    with pytest.raises(UntrustedError):
        quoting.quote(ereport(FUSES, APP, TargetInfo.of(APP), REPORT_DATA))
    with pytest.raises(UntrustedError):
        quoting.quote(ereport(FUSES, APP, TargetInfo.of(PCE), REPORT_DATA))


def test_a_report_of_another_cpu_is_not_quoted(quoting: QuotingEnclave) -> None:
    other = replace(FUSES, device_key=bytes(16))
    with pytest.raises(UntrustedError):
        quoting.quote(ereport(other, APP, quoting.target, REPORT_DATA))


def test_a_forged_report_is_not_quoted(quoting: QuotingEnclave) -> None:
    report = ereport(FUSES, APP, quoting.target, REPORT_DATA)
    forged = Report(
        body=replace(report.body, mrenclave=b"X" * 32), keyid=report.keyid, mac=report.mac
    )
    with pytest.raises(UntrustedError):
        quoting.quote(forged)
