"""A TDX platform with its own chain of trust, to be bent in one place at a time."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final

from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa, emulated
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.quote import INTEL_QE_VENDOR, Certification, Header, Quote
from broch.tee.dcap.report import INIT, MODE64BIT, PROVISIONKEY, ReportBody
from broch.tee.tdx.report import DESCRIPTOR, SEPT_VE_DISABLE, TdReport

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGIN: Final = NOW - timedelta(days=1)
AUTH: Final = bytes(range(32))  # what genuine QEs have is 32 bytes too
Edit = Callable[[dict[str, Any]], object]
KEYS: Final = emulated.Keys(
    root=ecdsa.derive_key(b"tdx", "root"),
    pck_ca=ecdsa.derive_key(b"tdx", "ca"),
    pck=ecdsa.derive_key(b"tdx", "pck"),
    tcb_signing=ecdsa.derive_key(b"tdx", "signing"),
)
ATTESTATION: Final = ecdsa.derive_key(b"tdx", "attestation")
STRANGER: Final = ecdsa.derive_key(b"tdx", "stranger")
PCK: Final = PckExtension(
    ppid=b"P" * 16,
    components=(10,) * 16,
    pcesvn=11,
    cpusvn=bytes((10,) * 16),
    pceid=b"\0\0",
    fmspc=b"FMSPC!",
    sgx_type=1,
)
QE: Final = emulated.QeDescription(
    id="TD_QE",
    mrsigner=b"Q" * 32,
    isvprodid=2,
    isvsvn=8,
    flags=INIT | MODE64BIT | PROVISIONKEY,
    xfrm=3,
)
PLATFORM: Final = emulated.Platform(
    root_name="Broch Emulated TDX Root",
    tee="TDX",
    pck=PCK,
    qe=QE,
    tdx_components=(5, 0, 3, *(0,) * 13),
)
REPORT: Final = TdReport(
    tee_tcb_svn=bytes((5, 1, 3, *(0,) * 13)),
    mr_seam=b"S" * 48,
    mr_signer_seam=bytes(48),
    seam_attributes=0,
    td_attributes=SEPT_VE_DISABLE,
    xfam=0xE7,
    mr_td=b"T" * 48,
    mr_config_id=b"C" * 48,
    mr_owner=b"O" * 48,
    mr_owner_config=b"o" * 48,
    rtmr0=b"0" * 48,
    rtmr1=b"1" * 48,
    rtmr2=b"2" * 48,
    rtmr3=b"3" * 48,
    report_data=bytes(range(64)),
)
REPORT_15: Final = replace(
    REPORT, tee_tcb_svn2=bytes((5, 1, 3, *(0,) * 13)), mr_service_td=b"V" * 48
)


def moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def isv(svn: int, status: str, *advisories: str, day: int = 1) -> dict[str, Any]:
    """A level of a module or enclave."""
    made: dict[str, Any] = {
        "tcb": {"isvsvn": svn},
        "tcbDate": f"2025-01-{day:02}T00:00:00Z",
        "tcbStatus": status,
    }
    return {**made, "advisoryIDs": list(advisories)} if advisories else made


def identity(name: str, *levels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A module identity."""
    return {
        "id": name,
        "mrsigner": "00" * 48,
        "attributes": "00" * 8,
        "attributesMask": "FF" * 8,
        "tcbLevels": list(levels),
        **changes,
    }


def level(
    status: str, tdx: tuple[int, ...] = (5, 0, 3), sgx: int = 10, pcesvn: int = 11
) -> dict[str, Any]:
    """A level of the platform."""
    components = [*tdx, *(0,) * (16 - len(tdx))]
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": sgx}] * 16,
            "tdxtcbcomponents": [{"svn": svn} for svn in components],
            "pcesvn": pcesvn,
        },
        "tcbDate": "2025-02-01T00:00:00Z",
        "tcbStatus": status,
    }


@cache
def sign_qe_report(qe_report: bytes) -> bytes:
    """Signed once, as a genuine quoting enclave keeps what was certified."""
    return ecdsa.sign(KEYS.pck, qe_report)


@dataclass(kw_only=True)
class Attester:
    """A TD on its platform; change a field, then ask for evidence and endorsements."""

    version: int = 4
    report: TdReport = REPORT
    descriptor: tuple[int, int] | None = None
    header_fields: dict[str, Any] = field(default_factory=dict)
    qe_fields: dict[str, Any] = field(default_factory=dict)
    modules: list[dict[str, Any]] = field(
        default_factory=lambda: [identity("TDX_01", isv(5, "UpToDate"), isv(2, "OutOfDate"))]
    )
    levels: list[dict[str, Any]] = field(default_factory=lambda: [level("UpToDate")])
    qe_levels: list[dict[str, Any]] = field(default_factory=lambda: [isv(8, "UpToDate")])
    edit: Edit = lambda document: None
    wrapped: bool = True
    padding: int = 0
    signer: Any = ATTESTATION

    @cached_property
    def issued(self) -> emulated.Issued:
        return emulated.issue(KEYS, PLATFORM, BEGIN)

    def evidence(self) -> bytes:
        public = ecdsa.raw_public_key(ATTESTATION.public_key())
        binding = hashlib.sha256(public + AUTH).digest() + bytes(32)
        qe: dict[str, Any] = {
            "cpusvn": bytes(16),
            "miscselect": 0,
            "cet_attributes": 0,
            "isvextprodid": bytes(16),
            "flags": QE.flags,
            "xfrm": QE.xfrm,
            "mrenclave": b"E" * 32,
            "mrsigner": QE.mrsigner,
            "configid": bytes(64),
            "isvprodid": QE.isvprodid,
            "isvsvn": QE.isvsvn,
            "configsvn": 0,
            "isvfamilyid": bytes(16),
            "reportdata": binding,
        }
        qe_report = ReportBody(**{**qe, **self.qe_fields}).to_bytes()
        fields: dict[str, Any] = {
            "version": self.version,
            "att_key_type": 2,
            "tee_type": 0x81,
            "qe_svn": 0,
            "pce_svn": 0,
            "qe_vendor_id": INTEL_QE_VENDOR,
            "user_data": bytes(20),
        }
        header = Header(**{**fields, **self.header_fields})
        body = self.report.to_bytes()
        if self.version == 5:
            kind = 3 if self.report.tee_tcb_svn2 is not None else 2
            body = DESCRIPTOR.pack(*(self.descriptor or (kind, len(body)))) + body
        return Quote(
            header=header,
            body=body,
            signature=ecdsa.sign(self.signer, header.to_bytes() + body),
            attestation_key=public,
            certification=Certification(
                qe_report=qe_report,
                qe_report_signature=sign_qe_report(qe_report),
                qe_auth_data=AUTH,
                cert_type=5,
                cert_data=self.issued.pck_chain,
            ),
            wrapped=self.wrapped,
            padding=self.padding,
        ).to_bytes()

    def endorsements(self) -> Endorsements:
        tcb_info = emulated.tcb_info_document(PLATFORM, BEGIN)
        tcb_info["tdxModule"] = {
            "mrsigner": "00" * 48,
            "attributes": "00" * 8,
            "attributesMask": "FF" * 8,
        }
        tcb_info["tdxModuleIdentities"] = self.modules
        tcb_info["tcbLevels"] = self.levels
        self.edit(tcb_info)
        qe_identity = emulated.qe_identity_document(QE, BEGIN)
        qe_identity["tcbLevels"] = self.qe_levels
        items = dict(self.issued.items)
        for name, document in (("tcb_info", tcb_info), ("qe_identity", qe_identity)):
            data = json.dumps(document).encode()
            items[name] = data
            items[f"{name}_signature"] = ecdsa.sign(KEYS.tcb_signing, data)
        return Endorsements(anchors=(self.issued.anchor,), items=items)
