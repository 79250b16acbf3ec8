"""X.509 certificates and revocation lists of Intel's attestation PKI, read strictly.

Everything in that PKI is ECDSA with SHA-256 on P-256 (Intel's PCK specification, sections 1.1 and
2.1), so nothing else is accepted. What a certificate may do is decided by its role, in
:mod:`broch.tee.dcap.trust`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from broch.errors import DecodeError, UntrustedError
from broch.tee.dcap import pckext

MAX_CHAIN: Final = 32 * 1024  # bytes of PEM
MAX_CERTS: Final = 4
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----(?:\r?\n)*"
)
# What ``cryptography`` raises at bytes that it cannot or will not read; a warning is raised where
# warnings are errors.
_FOREIGN: Final = (
    ValueError,
    TypeError,
    OverflowError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    Warning,
)
_KNOWN_CRITICAL: Final = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}
_CRL_KNOWN_CRITICAL: Final = {ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
_INSTANT: Final = timedelta(microseconds=1)  # notAfter itself is still valid (RFC 5280, 4.1.2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When something is valid: ``begin`` <= at < ``end``."""

    what: str
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cert:
    """A certificate whose fields could be read; not verified."""

    der: bytes = field(repr=False)
    name: str  # common name of the subject
    subject: bytes = field(repr=False)  # DER
    issuer: bytes = field(repr=False)  # DER
    serial: int
    window: Window
    key: EllipticCurvePublicKey = field(repr=False)
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    is_ca: bool
    path_length: int | None
    may_sign_certs: bool
    may_sign_crls: bool
    may_sign_data: bool
    sgx_extension: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A certificate revocation list whose fields could be read; not verified."""

    issuer: bytes = field(repr=False)  # DER
    window: Window
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    revoked: frozenset[int] = field(repr=False)  # serial numbers


def read_chain(pem: bytes, what: str) -> tuple[Cert, ...]:
    """Certificates of a PEM chain, in its order. Line ends and NULs may follow the last one.

    Raises:
        DecodeError: anything else in between, too long, or a certificate that cannot be read.
    """
    text = pem.rstrip(b"\0")
    if len(text) > MAX_CHAIN:
        raise DecodeError(MAX_CHAIN, f"longer than {MAX_CHAIN} bytes", what=what)
    certs: list[Cert] = []
    offset = 0
    while offset < len(text):
        match = _PEM.match(text, offset)
        if match is None:
            raise DecodeError(offset, "not a PEM certificate", what=what)
        if len(certs) == MAX_CERTS:
            raise DecodeError(offset, f"more than {MAX_CERTS} certificates", what=what)
        try:
            certs.append(_read(x509.load_pem_x509_certificate(match.group())))
        except _FOREIGN as exc:
            raise DecodeError(offset, f"certificate cannot be read: {exc}", what=what) from None
        offset = match.end()
    if not certs:
        raise DecodeError(0, "no certificate", what=what)
    return tuple(certs)


def read_certificate(der: bytes, what: str) -> Cert:
    """One DER certificate.

    Raises:
        DecodeError: it cannot be read.
    """
    try:
        return _read(x509.load_der_x509_certificate(der))
    except _FOREIGN as exc:
        raise DecodeError(0, f"certificate cannot be read: {exc}", what=what) from None


def read_crl(der: bytes, what: str) -> Crl:
    """One DER revocation list.

    Raises:
        DecodeError: it cannot be read, or has no nextUpdate.
    """
    try:
        return _read_crl(x509.load_der_x509_crl(der), what)
    except _FOREIGN as exc:
        raise DecodeError(0, f"revocation list cannot be read: {exc}", what=what) from None


def _read(cert: x509.Certificate) -> Cert:
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise ValueError("the subject has no one common name")
    key = cert.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError("the key is not on P-256")
    if cert.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise ValueError("not signed by ECDSA with SHA-256")
    _refuse_critical(cert.extensions, _KNOWN_CRITICAL)
    constraints = usage = sgx = None
    for extension in cert.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            constraints = value
        elif isinstance(value, x509.KeyUsage):
            usage = value
        elif isinstance(value, x509.UnrecognizedExtension) and (
            extension.oid.dotted_string == pckext.OID
        ):
            sgx = value.value
    name = names[0].value
    return Cert(
        der=cert.public_bytes(Encoding.DER),
        name=name,
        subject=cert.subject.public_bytes(),
        issuer=cert.issuer.public_bytes(),
        serial=cert.serial_number,
        window=Window(
            what=f"certificate {name!r}",
            begin=cert.not_valid_before_utc,
            end=cert.not_valid_after_utc + _INSTANT,
        ),
        key=key,
        tbs=cert.tbs_certificate_bytes,
        signature=cert.signature,
        is_ca=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints else None,
        may_sign_certs=usage is not None and usage.key_cert_sign,
        may_sign_crls=usage is not None and usage.crl_sign,
        may_sign_data=usage is not None and usage.digital_signature,
        sgx_extension=sgx,
    )


def _read_crl(crl: x509.CertificateRevocationList, what: str) -> Crl:
    if crl.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise ValueError("not signed by ECDSA with SHA-256")
    _refuse_critical(crl.extensions, _CRL_KNOWN_CRITICAL)
    if crl.next_update_utc is None:
        raise ValueError("no nextUpdate")
    return Crl(
        issuer=crl.issuer.public_bytes(),
        window=Window(what=what, begin=crl.last_update_utc, end=crl.next_update_utc),
        tbs=crl.tbs_certlist_bytes,
        signature=crl.signature,
        # Reasons do not matter: a serial number that is listed at all is revoked.
        revoked=frozenset(entry.serial_number for entry in crl),
    )


def _refuse_critical(
    extensions: Iterable[x509.Extension[x509.ExtensionType]], known: set[x509.ObjectIdentifier]
) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in known:
            raise ValueError(f"critical extension {extension.oid.dotted_string} is not understood")


def check_issued(cert: Cert, issuer: Cert) -> None:
    """``issuer`` is a CA, its name is in ``cert`` and its key signed it.

    Raises:
        UntrustedError: one of these does not hold.
    """
    if cert.issuer != issuer.subject:
        raise UntrustedError(f"certificate {cert.name!r} was not issued by {issuer.name!r}")
    if not (issuer.is_ca and issuer.may_sign_certs):
        raise UntrustedError(f"certificate {issuer.name!r} may not issue certificates")
    _check_signature(issuer, cert.signature, cert.tbs, f"certificate {cert.name!r}")


def check_crl(crl: Crl, issuer: Cert, what: str) -> None:
    """``issuer`` may sign revocation lists, its name is in ``crl`` and its key signed it.

    Raises:
        UntrustedError: one of these does not hold.
    """
    if crl.issuer != issuer.subject:
        raise UntrustedError(f"{what} is not of {issuer.name!r}")
    if not issuer.may_sign_crls:
        raise UntrustedError(f"certificate {issuer.name!r} may not sign revocation lists")
    _check_signature(issuer, crl.signature, crl.tbs, what)


def check_not_revoked(cert: Cert, crl: Crl) -> None:
    """``cert`` is not on its issuer's list.

    Raises:
        UntrustedError: it is.
    """
    if cert.serial in crl.revoked:
        raise UntrustedError(f"certificate {cert.name!r} (serial {cert.serial:x}) is revoked")


def _check_signature(issuer: Cert, signature: bytes, data: bytes, what: str) -> None:
    try:
        issuer.key.verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        raise UntrustedError(f"{what}: the signature of {issuer.name!r} does not hold") from None
