"""Is this SEV-SNP report authentic? No I/O, no clock.

Endorsement items:

    vek    DER: the VCEK or VLEK certificate
    ask    DER: its issuer, the ASK or ASVK
    crl    DER: the revocation list of the root
    unsafe_no_crl    present, whatever its value: go on without a list; the claims say so

Anchors hold the ARK. Sources: SEV-SNP firmware ABI, revision 1.58, section 7.3 and table 23;
"Versioned Chip Endorsement Key Certificate and KDS Interface Specification", 57230. Whether the
platform's TCB and the guest's policy are good enough is not asked here.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from broch.errors import UntrustedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.snp import product, trust
from broch.tee.snp.product import Product, Tcb
from broch.tee.snp.report import SIGNED_SIZE, Report, SigningKey
from broch.tee.snp.trust import Trusted
from broch.tee.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpClaims(Claims):
    """Claims of a verified report, with what only SEV-SNP has."""

    report: Report
    platform: Trusted
    product: Product
    reported_tcb: Tcb  # the one that the key is bound to
    current_tcb: Tcb
    committed_tcb: Tcb
    launch_tcb: Tcb


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> SnpClaims:
    """Decide whether ``evidence`` is authentic ``at`` that time.

    A guest that may be debugged and an old TCB are authentic; both are claims.

    Raises:
        DecodeError: not a report, or endorsements that cannot be read.
        UntrustedError: a signature, certificate or endorsement does not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse strictly: version, algorithm, reserved bytes and bits (table 23).
        steps.current = "format"
        report = Report.from_bytes(evidence)
        # (2) The chain, each certificate in its role, valid and not revoked (57230, chapter 3).
        trusted = trust.establish(endorsements, steps)
        # (3) The report names the kind of key that the certificate is for (table 23, SIGNING_KEY).
        steps.current = "key_kind"
        vek = trusted.vek
        if report.signing_key is not vek.kind:
            raise UntrustedError(
                f"the report is signed by a {report.signing_key.name}, the certificate is of a "
                f"{vek.kind.name}"
            )
        # (4) The processor is of the product line that the key is certified for.
        steps.current = "cpuid"
        if report.version < 3:
            steps.skipped["cpuid"] = "reports of version 2 do not say"
        else:
            found = product.by_cpuid(report.cpuid_family, report.cpuid_model)
            if found is not vek.product:
                raise UntrustedError(f"the report is of {found}, the key of {vek.product}")
        # (5) The signature. Only now is the report believed.
        steps.current = "signature"
        r = int.from_bytes(report.signature_r, "little")
        s = int.from_bytes(report.signature_s, "little")
        trusted.key.verify(r, s, evidence[:SIGNED_SIZE], "SNP report")
        # (6) The key is that of the REPORTED TCB, never of the current one (57230, section 1.2).
        steps.current = "reported_tcb"
        reported, current, committed, launch = _tcbs(report, vek.product)
        if vek.tcb != reported:
            raise UntrustedError(
                f"the key is of TCB {vek.tcb}, the report says {reported}",
                hint="fetch the key's certificate for the reported TCB, not for the current one",
            )
        # (7) The key is that of this chip, unless it is a provider's or the chip is masked.
        steps.current = "chip_id"
        _check_chip(report, vek.hwid, vek.product, steps)
        # (8) The report does not contradict itself (ABI, sections 3.3 and 8.17).
        steps.current = "relations"
        for what, low, high in (
            ("reported TCB is above the committed", reported, committed),
            ("committed TCB is above the current", committed, current),
            ("launch TCB is above the current", launch, current),
        ):
            if not high.reaches(low):
                raise UntrustedError(f"{what} one: {low}, {high}")
        if report.committed_version[::-1] > report.current_version[::-1]:
            raise UntrustedError("the committed firmware is newer than the current one")
    # (9) Policy is not asked here.
    return SnpClaims(
        tee="snp",
        measurement=report.measurement,
        signer=report.id_key_digest if any(report.id_key_digest) else None,
        report_data=report.report_data,
        debug=report.debug,
        emulated=trusted.emulated,
        version=report.guest_svn,
        details=_details(report, trusted, reported, current),
        skipped=steps.skipped,
        report=report,
        platform=trusted,
        product=vek.product,
        reported_tcb=reported,
        current_tcb=current,
        committed_tcb=committed,
        launch_tcb=launch,
    )


@lru_cache(maxsize=1024)
def _tcb(data: bytes, line: Product, what: str) -> Tcb:
    """Few TCB versions are about, and four are in every report."""
    return Tcb.from_bytes(data, line, what)


def _tcbs(report: Report, line: Product) -> tuple[Tcb, Tcb, Tcb, Tcb]:
    names = ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb")
    first, second, third, fourth = (_tcb(getattr(report, name), line, name) for name in names)
    return first, second, third, fourth


def _check_chip(report: Report, hwid: bytes | None, line: Product, steps: Steps) -> None:
    if report.mask_chip_key and any(report.chip_id):
        raise UntrustedError("the chip is masked and its identity is there")
    if hwid is None:
        steps.skipped["chip_id"] = "the key is a provider's (VLEK), of no one chip"
    elif report.mask_chip_key:
        steps.skipped["chip_id"] = "the host has masked the chip's identity"
    # Turin has 8 bytes of identity, in a field of 64.
    elif report.chip_id != hwid.ljust(len(report.chip_id), b"\0"):
        raise UntrustedError(f"the key is of another chip ({line}) than the report")


def _details(report: Report, trusted: Trusted, reported: Tcb, current: Tcb) -> dict[str, str]:
    vek = trusted.vek
    return {
        "product": vek.product_name,
        "signing_key": vek.kind.name,
        "csp_id": vek.csp_id or "",
        "root": trusted.root_name,
        "revocation": "checked" if trusted.revocation_checked else "not checked",
        "reported_tcb": str(reported),
        "current_tcb": str(current),
        "policy": f"{report.policy:016x}",
        "platform_info": f"{report.platform_info:016x}",
        "vmpl": str(report.vmpl),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex() if report.author_key_enabled else "",
        "chip_id": report.chip_id.hex(),
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "report_version": str(report.version),
        "masked": "chip" if report.signing_key is SigningKey.VCEK and report.mask_chip_key else "",
    }
