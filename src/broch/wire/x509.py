"""X.509 certificates and revocation lists, read strictly (RFC 5280).

``cryptography`` decodes; what is used of a certificate is taken out at once, so that everything
that can fail fails here. A caller says which signature algorithms a PKI uses, and no other passes.
What a certificate may do is decided by its role, above.

AMD issues certificates with serial number 0, which RFC 5280 (4.1.2.2) does not allow and
``cryptography`` warns of, to refuse it some day. Such a certificate is decoded from a copy whose
serial number is 1; signature, signed bytes, digest and serial number are those of the original.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from broch.errors import DecodeError, UntrustedError

MAX_CERTIFICATE: Final = 16 * 1024  # bytes
MAX_CRL: Final = 1024 * 1024
_PEM: Final = re.compile(
    rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\s*"
)
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
_KNOWN_CRITICAL: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
}
_CRL_KNOWN_CRITICAL: Final = {ExtensionOID.CRL_NUMBER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
_INSTANT: Final = timedelta(microseconds=1)  # notAfter itself is still valid (RFC 5280, 4.1.2.5)
_VERSION_3: Final = bytes.fromhex("a003020102")  # [0] { INTEGER 2 }
_SERIAL_0: Final = bytes.fromhex("020100")
_SERIAL_1: Final = bytes.fromhex("020101")

CHANGED: Final = "it was changed on its way, or is of another origin: get it again from its maker"

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class Algorithm(Enum):
    """How a PKI signs. The value is for messages."""

    RSA_PSS_SHA384 = "RSASSA-PSS with SHA-384"
    RSA_SHA256 = "RSASSA-PKCS1-v1_5 with SHA-256"
    RSA_SHA384 = "RSASSA-PKCS1-v1_5 with SHA-384"
    ECDSA_SHA256 = "ECDSA with SHA-256"
    ECDSA_SHA384 = "ECDSA with SHA-384"


_OIDS: Final = {
    Algorithm.RSA_PSS_SHA384: SignatureAlgorithmOID.RSASSA_PSS,
    Algorithm.RSA_SHA256: SignatureAlgorithmOID.RSA_WITH_SHA256,
    Algorithm.RSA_SHA384: SignatureAlgorithmOID.RSA_WITH_SHA384,
    Algorithm.ECDSA_SHA256: SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    Algorithm.ECDSA_SHA384: SignatureAlgorithmOID.ECDSA_WITH_SHA384,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When something is valid: ``begin`` <= at < ``end``."""

    what: str
    begin: datetime
    end: datetime

    def check(self, at: datetime) -> None:
        """Refuse another time.

        Raises:
            UntrustedError: not begun yet, or ended.
        """
        if at < self.begin:
            raise UntrustedError(
                f"{self.what} is not valid before {self.begin}, at {at}",
                hint="compare the time of verification with the clock of whoever issued it",
            )
        if at >= self.end:
            raise UntrustedError(
                f"{self.what} has expired on {self.end}, at {at}",
                hint="fetch it anew; for old evidence, verify at the time when it was received",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate whose fields could be read; not verified."""

    der: bytes = field(repr=False)
    name: str  # common name of the subject
    subject: bytes = field(repr=False)  # DER
    issuer: bytes = field(repr=False)  # DER
    serial: int
    window: Window
    key: PublicKey = field(repr=False)
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    algorithm: str = field(repr=False)  # OID, dotted
    is_ca: bool
    path_length: int | None
    may_sign_certs: bool
    may_sign_crls: bool
    may_sign_data: bool
    usages: frozenset[str] = field(repr=False)  # extended key usage: OIDs, dotted
    extensions: Mapping[str, bytes] = field(repr=False)  # those that no standard knows, by OID


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A certificate revocation list whose fields could be read; not verified."""

    issuer: bytes = field(repr=False)  # DER
    window: Window
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    algorithm: str = field(repr=False)
    revoked: frozenset[int] = field(repr=False)  # serial numbers


def to_der(data: bytes, what: str) -> bytes:
    """DER of one certificate or list that may come as PEM; DER is returned as it is.

    Raises:
        DecodeError: PEM that is not one certificate or list.
    """
    if not data.startswith(b"-----"):
        return data
    match = _PEM.fullmatch(data.rstrip(b"\0"))
    try:
        if match is None:
            raise ValueError("not one block")
        text = b"".join(match.group(2).split())
        der = base64.b64decode(text, validate=True)
        # Of the last character, bits may be left over; the decoder takes them whatever they are.
        if base64.b64encode(der) != text:
            raise ValueError("not canonical base64")
        return der
    except ValueError as exc:
        raise DecodeError(0, f"not PEM: {exc}", what=what) from None


def read_certificate(der: bytes, what: str) -> Certificate:
    """One DER certificate with an EC or RSA key.

    Raises:
        DecodeError: it cannot be read.
    """
    if len(der) > MAX_CERTIFICATE:
        raise DecodeError(MAX_CERTIFICATE, f"longer than {MAX_CERTIFICATE} bytes", what=what)
    place = _serial_zero(der)
    copy = der if place is None else der[:place] + _SERIAL_1 + der[place + len(_SERIAL_0) :]
    try:
        return _read(x509.load_der_x509_certificate(copy), der, place is not None)
    except _FOREIGN as exc:
        raise DecodeError(0, f"certificate cannot be read: {exc}", what=what) from None


def read_crl(der: bytes, what: str) -> Crl:
    """One DER revocation list.

    Raises:
        DecodeError: it cannot be read, or has no nextUpdate.
    """
    if len(der) > MAX_CRL:
        raise DecodeError(MAX_CRL, f"longer than {MAX_CRL} bytes", what=what)
    try:
        return _read_crl(x509.load_der_x509_crl(der), der, what)
    except _FOREIGN as exc:
        raise DecodeError(0, f"revocation list cannot be read: {exc}", what=what) from None


def _serial_zero(der: bytes) -> int | None:
    """Where the serial number is, if it is 0: after two SEQUENCE heads and the version."""
    first = _head_size(der, 0)
    start = first + _head_size(der, first)
    place = start + len(_VERSION_3)
    found = der[start:place] == _VERSION_3 and der[place : place + 3] == _SERIAL_0
    return place if found else None


def _head_size(der: bytes, offset: int) -> int:
    """Bytes of tag and length."""
    length = der[offset + 1] if offset + 1 < len(der) else 0
    return 2 + (length & 0x7F if length & 0x80 else 0)


def _span(der: bytes, offset: int) -> int:
    """Where the value that begins at ``offset`` ends; ``der`` has been decoded once already."""
    head = _head_size(der, offset)
    size = int.from_bytes(der[offset + 2 : offset + head], "big") if head > 2 else der[offset + 1]
    return offset + head + size


def _refuse_two_algorithms(der: bytes) -> None:
    """What is outside of the signature must repeat what is inside (RFC 5280, 4.1.1.2, 5.1.1.2)."""
    signed = _head_size(der, 0)
    outer = _span(der, signed)
    inner = signed + _head_size(der, signed)
    if der[inner] == _VERSION_3[0]:  # a certificate: version, then the serial number
        inner = _span(der, inner)
    inner = _span(der, inner)  # or a list: version
    if der[outer : _span(der, outer)] != der[inner : _span(der, inner)]:
        raise ValueError("the signature algorithm is not the one that was signed")


def _read(cert: x509.Certificate, der: bytes, serial_zero: bool) -> Certificate:
    _refuse_unused_bits(der, cert.signature)
    _refuse_two_algorithms(der)
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) > 1 or not all(isinstance(name.value, str) for name in names):
        raise ValueError("the subject has several common names")
    key = cert.public_key()
    if not isinstance(key, PublicKey):
        raise ValueError("the key is neither EC nor RSA")
    _refuse_critical(cert.extensions, _KNOWN_CRITICAL)
    constraints = usage = None
    usages: frozenset[str] = frozenset()
    unknown: dict[str, bytes] = {}
    for extension in cert.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            constraints = value
        elif isinstance(value, x509.KeyUsage):
            usage = value
        elif isinstance(value, x509.ExtendedKeyUsage):
            usages = frozenset(item.dotted_string for item in value)
        elif isinstance(value, x509.UnrecognizedExtension):
            unknown[extension.oid.dotted_string] = value.value
    name = str(names[0].value) if names else ""
    tbs = cert.tbs_certificate_bytes
    if serial_zero:
        place = _head_size(tbs, 0) + len(_VERSION_3)
        tbs = tbs[:place] + _SERIAL_0 + tbs[place + len(_SERIAL_0) :]
    return Certificate(
        der=der,
        name=name,
        subject=cert.subject.public_bytes(),
        issuer=cert.issuer.public_bytes(),
        serial=0 if serial_zero else cert.serial_number,
        window=Window(
            what=f"certificate {name!r}",
            begin=cert.not_valid_before_utc,
            end=cert.not_valid_after_utc + _INSTANT,
        ),
        key=key,
        tbs=tbs,
        signature=cert.signature,
        algorithm=cert.signature_algorithm_oid.dotted_string,
        is_ca=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints else None,
        may_sign_certs=usage is not None and usage.key_cert_sign,
        may_sign_crls=usage is not None and usage.crl_sign,
        may_sign_data=usage is not None and usage.digital_signature,
        usages=usages,
        extensions=MappingProxyType(unknown),
    )


def _refuse_unused_bits(der: bytes, signature: bytes) -> None:
    """The signature is a BIT STRING of whole bytes; the library takes other ones too."""
    if not der.endswith(b"\0" + signature):
        raise ValueError("the signature has unused bits")


def _read_crl(crl: x509.CertificateRevocationList, der: bytes, what: str) -> Crl:
    _refuse_unused_bits(der, crl.signature)
    _refuse_two_algorithms(der)
    _refuse_critical(crl.extensions, _CRL_KNOWN_CRITICAL)
    if crl.next_update_utc is None:
        raise ValueError("no nextUpdate")
    return Crl(
        issuer=crl.issuer.public_bytes(),
        window=Window(what=what, begin=crl.last_update_utc, end=crl.next_update_utc),
        tbs=crl.tbs_certlist_bytes,
        signature=crl.signature,
        algorithm=crl.signature_algorithm_oid.dotted_string,
        # Reasons do not matter: a serial number that is listed at all is revoked.
        revoked=frozenset(entry.serial_number for entry in crl),
    )


def _refuse_critical(
    extensions: Iterable[x509.Extension[x509.ExtensionType]], known: set[x509.ObjectIdentifier]
) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in known:
            raise ValueError(f"critical extension {extension.oid.dotted_string} is not understood")


def check_issued(cert: Certificate, issuer: Certificate, *algorithms: Algorithm) -> None:
    """``issuer`` is a CA, its name is in ``cert`` and its key signed it by one of ``algorithms``.

    Raises:
        UntrustedError: one of these does not hold.
    """
    if cert.issuer != issuer.subject:
        raise UntrustedError(f"certificate {cert.name!r} was not issued by {issuer.name!r}")
    if not (issuer.is_ca and issuer.may_sign_certs):
        raise UntrustedError(f"certificate {issuer.name!r} may not issue certificates")
    what = f"certificate {cert.name!r}"
    _check(issuer.key, cert.algorithm, cert.signature, cert.tbs, algorithms, what)


def check_crl(crl: Crl, issuer: Certificate, what: str, *algorithms: Algorithm) -> None:
    """``issuer`` may sign revocation lists, its name is in ``crl`` and its key signed it.

    Raises:
        UntrustedError: one of these does not hold.
    """
    if crl.issuer != issuer.subject:
        raise UntrustedError(f"{what} is not of {issuer.name!r}")
    if not issuer.may_sign_crls:
        raise UntrustedError(f"certificate {issuer.name!r} may not sign revocation lists")
    _check(issuer.key, crl.algorithm, crl.signature, crl.tbs, algorithms, what)


def check_not_revoked(cert: Certificate, crl: Crl) -> None:
    """``cert`` is not on its issuer's list.

    Raises:
        UntrustedError: it is.
    """
    if cert.serial in crl.revoked:
        raise UntrustedError(
            f"certificate {cert.name!r} (serial {cert.serial:x}) is revoked",
            hint="its key is no longer vouched for: take the machine out of use and ask its maker",
        )


def check_path_lengths(chain: Iterable[Certificate]) -> None:
    """Path lengths hold in a chain that ends with its root (RFC 5280, 4.2.1.9).

    Raises:
        UntrustedError: more CA certificates below one than it allows.
    """
    for below, cert in enumerate(chain, start=-1):
        if cert.path_length is not None and below > cert.path_length:
            raise UntrustedError(f"certificate {cert.name!r} allows no such chain below it")


def _check(
    key: PublicKey,
    oid: str,
    signature: bytes,
    data: bytes,
    algorithms: tuple[Algorithm, ...],
    what: str,
) -> None:
    used = next((item for item in algorithms if _OIDS[item].dotted_string == oid), None)
    if used is None:
        wanted = " or ".join(item.value for item in algorithms)
        raise UntrustedError(f"{what}: signature algorithm {oid}, expected {wanted}")
    sha256 = used in (Algorithm.RSA_SHA256, Algorithm.ECDSA_SHA256)
    digest: HashAlgorithm = SHA256() if sha256 else SHA384()
    is_ec = used in (Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384)
    try:
        if is_ec and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(digest))
        elif not is_ec and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _padding(used, digest), digest)
        else:
            raise InvalidSignature
    except InvalidSignature:
        raise UntrustedError(f"{what}: the signature does not hold", hint=CHANGED) from None


def _padding(used: Algorithm, digest: HashAlgorithm) -> padding.AsymmetricPadding:
    if used is Algorithm.RSA_PSS_SHA384:
        return padding.PSS(padding.MGF1(digest), digest.digest_size)
    return padding.PKCS1v15()
