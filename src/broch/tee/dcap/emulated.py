"""An Intel-like PKI for one emulated platform.

Same roles, extensions and documents as Intel's, so that evidence of emulated hardware is verified
by exactly the code that verifies genuine evidence. Only the root differs: its name begins with
"Broch Emulated", and the caller must name it as an anchor.

Signatures are not reproducible (ECDSA is randomised), so what is made here is kept by the device
and not made twice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broch.tee.dcap import ecdsa, pckext
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.trust import ROLE_PCK, ROLE_TCB_SIGNING, ROLES_PCK_CA

# Genuine collateral lives for 30 days and is then fetched anew. Nobody publishes collateral of an
# emulated device but itself, so what it issues lives as long as an installation.
LIFETIME: Final = timedelta(days=3650)
# Deployer and device may be two machines whose clocks differ a little.
BACKDATED: Final = timedelta(hours=1)
_ORGANISATION: Final = "Broch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The private keys of one platform's chain of trust."""

    root: EllipticCurvePrivateKey = field(repr=False)
    pck_ca: EllipticCurvePrivateKey = field(repr=False)
    pck: EllipticCurvePrivateKey = field(repr=False)
    tcb_signing: EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QeDescription:
    """The quoting enclave that the QE identity admits."""

    id: str  # "QE" or "TD_QE"
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    flags: int
    xfrm: int
    miscselect: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What to issue certificates and collateral for."""

    root_name: str  # begins with "Broch Emulated"
    tee: str  # "SGX" or "TDX"
    pck: PckExtension
    qe: QeDescription
    tdx_components: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Everything public about one platform."""

    begin: datetime  # of all certificates, lists and documents
    anchor: bytes  # DER of the root
    pck_chain: bytes  # PEM: leaf, CA, root; goes into quotes
    items: Mapping[str, bytes]  # of endorsements


def issue(keys: Keys, platform: Platform, now: datetime) -> Issued:
    """Certificates, revocation lists and signed documents, valid from about ``now`` (aware)."""
    begin = now.astimezone(UTC).replace(microsecond=0) - BACKDATED
    root = certificate(
        platform.root_name, keys.root.public_key(), None, keys.root, begin, path_length=1
    )
    ca_name = ROLES_PCK_CA[0]
    pck_ca = certificate(
        ca_name, keys.pck_ca.public_key(), root.subject, keys.root, begin, path_length=0
    )
    pck = certificate(
        ROLE_PCK,
        keys.pck.public_key(),
        pck_ca.subject,
        keys.pck_ca,
        begin,
        sgx_extension=platform.pck.to_bytes(),
    )
    signing = certificate(
        ROLE_TCB_SIGNING, keys.tcb_signing.public_key(), root.subject, keys.root, begin
    )
    tcb_info = _json(tcb_info_document(platform, begin))
    qe_identity = _json(qe_identity_document(platform.qe, begin))
    issuer_chain = pem(signing, root)
    return Issued(
        begin=begin,
        anchor=root.public_bytes(Encoding.DER),
        pck_chain=pem(pck, pck_ca, root),
        items={
            "root_ca_crl": crl(root.subject, keys.root, begin),
            "pck_crl": crl(pck_ca.subject, keys.pck_ca, begin),
            "tcb_info": tcb_info,
            "tcb_info_signature": ecdsa.sign(keys.tcb_signing, tcb_info),
            "tcb_info_issuer_chain": issuer_chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": ecdsa.sign(keys.tcb_signing, qe_identity),
            "qe_identity_issuer_chain": issuer_chain,
        },
    )


def certificate(
    name: str,
    key: EllipticCurvePublicKey,
    issuer: x509.Name | None,
    issuer_key: EllipticCurvePrivateKey,
    begin: datetime,
    *,
    path_length: int | None = None,
    sgx_extension: bytes | None = None,
    end: datetime | None = None,
) -> x509.Certificate:
    """One certificate; a CA if it has a ``path_length``, a root if it has no ``issuer``."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
        ]
    )
    is_ca = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key)
        .serial_number(_serial(name, key))
        .not_valid_before(begin)
        .not_valid_after(end or begin + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(_key_usage(is_ca=is_ca), critical=True)
    )
    if sgx_extension is not None:
        oid = x509.ObjectIdentifier(pckext.OID)
        extension = x509.UnrecognizedExtension(oid, sgx_extension)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, SHA256())


def crl(
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    begin: datetime,
    revoked: tuple[int, ...] = (),
    end: datetime | None = None,
) -> bytes:
    """A revocation list (DER) of serial numbers."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(begin)
        .next_update(end or begin + LIFETIME)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer_key, SHA256()).public_bytes(Encoding.DER)


def pem(*certs: x509.Certificate) -> bytes:
    """A PEM chain in this order."""
    return b"".join(cert.public_bytes(Encoding.PEM) for cert in certs)


def tcb_info_document(platform: Platform, begin: datetime) -> dict[str, object]:
    """TCB info version 3 with one level, the platform's own, which is up to date."""
    tcb: dict[str, object] = {
        "sgxtcbcomponents": [{"svn": svn} for svn in platform.pck.components],
        "pcesvn": platform.pck.pcesvn,
    }
    if platform.tdx_components:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in platform.tdx_components]
    return {
        "id": platform.tee,
        "version": 3,
        **_dates(begin),
        "fmspc": platform.pck.fmspc.hex().upper(),
        "pceId": platform.pck.pceid.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": 1,
        "tcbLevels": [{"tcb": tcb, "tcbDate": _time(begin), "tcbStatus": "UpToDate"}],
    }


def qe_identity_document(qe: QeDescription, begin: datetime) -> dict[str, object]:
    """QE identity version 2 with one level, the QE's own, which is up to date."""
    attributes = qe.flags.to_bytes(8, "little") + qe.xfrm.to_bytes(8, "little")
    return {
        "id": qe.id,
        "version": 2,
        **_dates(begin),
        "tcbEvaluationDataNumber": 1,
        "miscselect": qe.miscselect.to_bytes(4, "little").hex().upper(),
        "miscselectMask": "FFFFFFFF",
        "attributes": attributes.hex().upper(),
        "attributesMask": "FF" * 16,
        "mrsigner": qe.mrsigner.hex().upper(),
        "isvprodid": qe.isvprodid,
        "tcbLevels": [
            {"tcb": {"isvsvn": qe.isvsvn}, "tcbDate": _time(begin), "tcbStatus": "UpToDate"}
        ],
    }


def _dates(begin: datetime) -> dict[str, object]:
    return {"issueDate": _time(begin), "nextUpdate": _time(begin + LIFETIME)}


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _serial(name: str, key: EllipticCurvePublicKey) -> int:
    """A serial number of 159 bits that is a function of the certificate's subject."""
    digest = sha256(name.encode() + b"\0" + ecdsa.raw_public_key(key)).digest()
    return int.from_bytes(digest[:20], "big") >> 1 | 1


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
