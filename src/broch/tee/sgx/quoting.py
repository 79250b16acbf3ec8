"""The emulated quoting enclave: from a REPORT to a DCAP quote of version 3.

Two architectural enclaves, as on a real platform, each with its own SECS on the emulated CPU:

    PCE  certifies the QE once: checks the QE's REPORT and signs its body with the PCK key
    QE   checks an application's REPORT and signs header and body with its attestation key

Neither signs anything that the CPU has not reported, so evidence cannot be had for an enclave that
EINIT did not accept.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from broch.errors import InternalError, UntrustedError
from broch.tee.dcap import ecdsa
from broch.tee.dcap.quote import (
    CERT_PCK_CHAIN,
    ECDSA_P256,
    INTEL_QE_VENDOR,
    TEE_SGX,
    Certification,
    Header,
    Quote,
)
from broch.tee.dcap.report import INIT, MODE64BIT, PROVISIONKEY
from broch.tee.sgx.keys import Fuses, check_report, ereport
from broch.tee.sgx.structures import Report, Secs, TargetInfo

PCESVN: Final = 1
_SIGNER: Final = hashlib.sha256(b"broch emulated SGX architectural enclaves").digest()
# Free to choose; genuine QEs put 32 constant bytes here too.
_AUTH_DATA: Final = hashlib.sha256(b"broch emulated SGX QE authentication data").digest()


def _architectural(name: str, *, isvprodid: int) -> Secs:
    return Secs(
        size=1 << 20,
        ssaframesize=1,
        flags=INIT | MODE64BIT | PROVISIONKEY,
        xfrm=3,
        mrenclave=hashlib.sha256(b"broch emulated SGX " + name.encode()).digest(),
        mrsigner=_SIGNER,
        isvprodid=isvprodid,
        isvsvn=1,
    )


QE: Final = _architectural("QE", isvprodid=1)
PCE: Final = _architectural("PCE", isvprodid=2)


class QuotingEnclave:
    """QE and PCE of one platform."""

    def __init__(
        self,
        fuses: Fuses,
        *,
        attestation_key: EllipticCurvePrivateKey,
        pck_key: EllipticCurvePrivateKey,
        pck_chain: bytes,
        platform_id: bytes,
    ) -> None:
        self._fuses = fuses
        self._key = attestation_key
        self._header = Header(
            version=3,
            att_key_type=ECDSA_P256,
            tee_type=TEE_SGX,
            qe_svn=QE.isvsvn,
            pce_svn=PCESVN,
            qe_vendor_id=INTEL_QE_VENDOR,
            user_data=platform_id.ljust(20, b"\0"),
        )
        self._public = ecdsa.raw_public_key(attestation_key.public_key())
        self._certification = self._certify(pck_key, pck_chain)

    @property
    def target(self) -> TargetInfo:
        """Whom an application's REPORT must be for."""
        return TargetInfo.of(QE)

    def quote(self, report: Report) -> bytes:
        """Turn a REPORT for the QE into a quote.

        Raises:
            UntrustedError: the REPORT was not made on this CPU for the QE.
        """
        if not check_report(self._fuses, QE, report):
            raise UntrustedError(
                "the quoting enclave does not believe this REPORT",
                hint="make it on the same machine, for the TARGETINFO of the quoting enclave",
            )
        body = report.body.to_bytes()
        return Quote(
            header=self._header,
            body=body,
            signature=ecdsa.sign(self._key, self._header.to_bytes() + body),
            attestation_key=self._public,
            certification=self._certification,
            wrapped=False,
        ).to_bytes()

    def _certify(self, pck_key: EllipticCurvePrivateKey, pck_chain: bytes) -> Certification:
        """The PCE's part: done once, since the attestation key does not change."""
        binding = hashlib.sha256(self._public + _AUTH_DATA).digest()
        report = ereport(self._fuses, QE, TargetInfo.of(PCE), binding + bytes(32))
        if not check_report(self._fuses, PCE, report):
            raise InternalError("the PCE does not believe the QE's REPORT")
        body = report.body.to_bytes()
        return Certification(
            qe_report=body,
            qe_report_signature=ecdsa.sign(pck_key, body),
            qe_auth_data=_AUTH_DATA,
            cert_type=CERT_PCK_CHAIN,
            cert_data=pck_chain,
        )
