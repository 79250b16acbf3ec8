"""Which subjects' endorsements a piece of evidence needs.

What is read of the evidence here is not believed: it only decides what to look for. Whether that
fits is for verification to say.
"""

from broch.attest.endorsements import subject
from broch.attest.endorsements.subject import Subject
from broch.errors import UndecidedError

_PCK_CAS = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}
SERVED = ("sgx", "tdx", "snp")  # TEEs whose makers publish endorsements


def wanted(tee: str, evidence: bytes, *, product: str | None = None) -> tuple[Subject, ...]:
    """Subjects that ``evidence`` needs, in the order in which they are best fetched.

    Args:
        tee: name of the TEE.
        evidence: a quote or report.
        product: SEV-SNP: the product line, where a report of version 2 does not say it.

    Raises:
        DecodeError: not evidence of ``tee``.
        UndecidedError: the evidence does not say enough.
    """
    if tee in ("sgx", "tdx"):
        return _dcap(tee, evidence)
    if tee == "snp":
        return _snp(evidence, product)
    return ()


def _dcap(tee: str, evidence: bytes) -> tuple[Subject, ...]:
    from broch.tee.dcap import pckext, platform
    from broch.tee.dcap.certs import read_chain

    if tee == "sgx":
        from broch.tee.sgx.verify import parse as parse_sgx

        quote = parse_sgx(evidence)
    else:
        from broch.tee.tdx.verify import parse as parse_tdx

        quote = parse_tdx(evidence)[0]
    chain = read_chain(platform.pck_chain(quote.certification), "PCK certificate chain")
    extension = chain[0].extensions.get(pckext.OID)
    ca = _PCK_CAS.get(chain[1].name) if len(chain) > 1 else None
    if extension is None or ca is None:
        raise UndecidedError(
            "the quote's certificates are none of Intel's, who publishes endorsements for his own",
            hint="give the endorsements of an emulated device as a folder",
        )
    fmspc = pckext.PckExtension.from_bytes(extension).fmspc
    return (
        subject.dcap_pck(ca),
        subject.dcap_root(),
        subject.dcap_tcb(tee, fmspc),
        subject.dcap_qe(tee),
    )


def _snp(evidence: bytes, given: str | None) -> tuple[Subject, ...]:
    from broch.tee.snp import product
    from broch.tee.snp.report import Report, SigningKey

    report = Report.from_bytes(evidence)
    line = given
    if report.version >= 3:
        line = product.by_cpuid(report.cpuid_family, report.cpuid_model)
    if line is None:
        raise UndecidedError(
            f"a report of version {report.version} does not say which product line it is of",
            hint="say it: Milan, Genoa or Turin",
        )
    if report.signing_key is SigningKey.VLEK:
        return (subject.snp_chain(line, "vlek"),)
    if not any(report.chip_id):
        raise UndecidedError(
            "the report hides which chip it is of, so its key cannot be looked up",
            hint="take the certificate table that the host gives with the report",
        )
    return (
        subject.snp_chain(line, "vcek"),
        subject.snp_vek(line, report.chip_id, report.reported_tcb),
    )
