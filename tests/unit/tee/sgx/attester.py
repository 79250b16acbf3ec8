"""The other party, simulated: a platform with its own PKI that can be bent in one place at a time.

Everything is signed properly over the bent content, so a test breaks one rule and no other.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa, emulated
from broch.tee.dcap.emulated import LIFETIME
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.quote import INTEL_QE_VENDOR, Certification, Header, Quote
from broch.tee.dcap.report import INIT, MODE64BIT, PROVISIONKEY, ReportBody

from .support import NOW, REPORT_DATA

Edit = Callable[[dict[str, Any]], object]
BEGIN: Final = NOW - timedelta(days=1)
AUTH: Final = bytes(range(32))  # what genuine QEs have is 32 bytes too
KEYS: Final = {
    name: ecdsa.derive_key(b"attester", name)
    for name in ("root", "ca", "leaf", "signing", "attestation", "stranger")
}
EXTENSION: Final = PckExtension(
    ppid=b"P" * 16,
    components=tuple(range(10, 26)),
    pcesvn=11,
    cpusvn=bytes(range(10, 26)),
    pceid=b"\0\1",
    fmspc=b"FMSPC!",
    sgx_type=0,
)
BODY: Final = ReportBody(
    cpusvn=b"V" * 16,
    miscselect=0,
    cet_attributes=0,
    isvextprodid=bytes(16),
    flags=INIT | MODE64BIT,
    xfrm=7,
    mrenclave=b"E" * 32,
    mrsigner=b"S" * 32,
    configid=bytes(64),
    isvprodid=1,
    isvsvn=2,
    configsvn=0,
    isvfamilyid=bytes(16),
    reportdata=REPORT_DATA,
)
QE: Final = emulated.QeDescription(
    id="QE",
    mrsigner=b"Q" * 32,
    isvprodid=1,
    isvsvn=8,
    flags=INIT | MODE64BIT | PROVISIONKEY,
    xfrm=3,
)


def nothing(document: dict[str, Any]) -> None:
    """Leave a document as it is."""


@dataclass(kw_only=True)
class Attester:
    """A platform; change a field, then ask for evidence and endorsements."""

    root_name: str = "Broch Emulated Test Root"
    ca_name: str = "Intel SGX PCK Platform CA"
    leaf_name: str = "Intel SGX PCK Certificate"
    signing_name: str = "Intel SGX TCB Signing"
    signers: dict[str, str] = field(default_factory=dict)  # certificate -> key that signs it
    periods: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    path_lengths: dict[str, int | None] = field(default_factory=dict)  # None: not a CA
    extension: bytes | None = EXTENSION.to_bytes()
    root_revokes: tuple[str, ...] = ()
    ca_revokes: tuple[str, ...] = ()
    crl_issuers: dict[str, str] = field(default_factory=dict)  # list -> certificate as its issuer
    edit_tcb_info: Edit = nothing
    edit_qe_identity: Edit = nothing
    qe_fields: dict[str, Any] = field(default_factory=dict)
    body_fields: dict[str, Any] = field(default_factory=dict)
    header_fields: dict[str, Any] = field(default_factory=dict)
    quote_key: str = "attestation"
    qe_report_key: str = "leaf"
    cert_type: int = 5
    chain: tuple[str, ...] = ("leaf", "ca", "root")
    issuer_chain: tuple[str, ...] = ("signing", "root")
    auth_data: bytes = AUTH

    def key(self, certificate: str) -> EllipticCurvePrivateKey:
        """The key that signs something, unless the test says another."""
        usual = {"root": "root", "ca": "root", "leaf": "ca", "signing": "root"}
        usual |= {"root_crl": "root", "pck_crl": "ca", "tcb_info": "signing"}
        usual |= {"qe_identity": "signing"}
        return KEYS[self.signers.get(certificate, usual[certificate])]

    @cached_property
    def certificates(self) -> dict[str, x509.Certificate]:
        """All four; made once, since every signature of ECDSA is another."""
        made: dict[str, x509.Certificate] = {}
        for role, name, issuer, path_length in (
            ("root", self.root_name, None, 1),
            ("ca", self.ca_name, "root", 0),
            ("leaf", self.leaf_name, "ca", None),
            ("signing", self.signing_name, "root", None),
        ):
            begin, end = self.period(role)
            made[role] = emulated.certificate(
                name,
                KEYS[role].public_key(),
                made[issuer].subject if issuer else None,
                self.key(role),
                begin,
                end=end,
                path_length=self.path_lengths.get(role, path_length),
                sgx_extension=self.extension if role == "leaf" else None,
            )
        return made

    def period(self, what: str) -> tuple[datetime, datetime]:
        return self.periods.get(what, (BEGIN, BEGIN + LIFETIME))

    def anchor(self) -> bytes:
        return self.certificates["root"].public_bytes(Encoding.DER)

    def pem(self, roles: tuple[str, ...]) -> bytes:
        certificates = self.certificates
        return emulated.pem(*(certificates[role] for role in roles))

    def evidence(self) -> bytes:
        """A quote."""
        public = ecdsa.raw_public_key(KEYS["attestation"].public_key())
        binding = hashlib.sha256(public + AUTH).digest() + bytes(32)
        qe_fields = {
            "mrsigner": QE.mrsigner,
            "isvprodid": QE.isvprodid,
            "isvsvn": QE.isvsvn,
            "flags": QE.flags,
            "xfrm": QE.xfrm,
            "reportdata": binding,
        }
        qe_report = changed(BODY, {**qe_fields, **self.qe_fields}).to_bytes()
        header = Header(
            **{
                "version": 3,
                "att_key_type": 2,
                "tee_type": 0,
                "qe_svn": 0,
                "pce_svn": 0,
                "qe_vendor_id": INTEL_QE_VENDOR,
                "user_data": bytes(20),
                **self.header_fields,
            }
        )
        body = changed(BODY, self.body_fields).to_bytes()
        return Quote(
            header=header,
            body=body,
            signature=ecdsa.sign(KEYS[self.quote_key], header.to_bytes() + body),
            attestation_key=public,
            certification=Certification(
                qe_report=qe_report,
                qe_report_signature=sign_qe_report(self.qe_report_key, qe_report),
                qe_auth_data=self.auth_data,
                cert_type=self.cert_type,
                cert_data=self.pem(self.chain),
            ),
            wrapped=False,
        ).to_bytes()

    def endorsements(self) -> Endorsements:
        """The collateral, with the root as the anchor."""
        certificates = self.certificates
        platform = emulated.Platform(root_name=self.root_name, tee="SGX", pck=EXTENSION, qe=QE)
        tcb_info = self._document(
            "tcb_info", emulated.tcb_info_document(platform, BEGIN), self.edit_tcb_info
        )
        qe_identity = self._document(
            "qe_identity", emulated.qe_identity_document(QE, BEGIN), self.edit_qe_identity
        )
        items = {**tcb_info, **qe_identity}
        for name, issuer, revoked in (
            ("root_ca_crl", "root", self.root_revokes),
            ("pck_crl", "ca", self.ca_revokes),
        ):
            short = "root_crl" if name == "root_ca_crl" else name
            begin, end = self.period(short)
            subject = certificates[self.crl_issuers.get(short, issuer)].subject
            serials = tuple(certificates[role].serial_number for role in revoked)
            items[name] = emulated.crl(subject, self.key(short), begin, serials, end)
        return Endorsements(anchors=(self.anchor(),), items=items)

    def _document(self, name: str, document: dict[str, Any], edit: Edit) -> dict[str, bytes]:
        begin, end = self.period(name)
        document["issueDate"] = begin.strftime("%Y-%m-%dT%H:%M:%SZ")
        document["nextUpdate"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        edit(document)
        data = json.dumps(document).encode()
        return {
            name: data,
            f"{name}_signature": ecdsa.sign(self.key(name), data),
            f"{name}_issuer_chain": self.pem(self.issuer_chain),
        }


@cache
def sign_qe_report(key: str, qe_report: bytes) -> bytes:
    """Signed once, as a genuine quoting enclave keeps what was certified."""
    return ecdsa.sign(KEYS[key], qe_report)


def changed(body: ReportBody, fields: dict[str, Any]) -> ReportBody:
    return ReportBody(**{**{name: getattr(body, name) for name in body.__slots__}, **fields})
