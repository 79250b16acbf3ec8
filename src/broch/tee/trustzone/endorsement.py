"""Who says that an attestation key belongs to a device: an X.509 certificate.

OP-TEE defines none: whoever provisions a device reads its key and writes it down. An emulated
device issues its key a certificate under a root of its own, named so that nobody mistakes it for a
maker's:

    root   CN "Broch Emulated TrustZone Root", P-256, a CA that may sign no further CA
    key    CN is the device's name, RSA-3072; keyUsage digitalSignature, and the extended key usage
           ATTESTATION_USAGE, so that no other certificate of the same root passes for one
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from broch.errors import DecodeError, UndecidedError, UntrustedError

ROOT_NAME: Final = "Broch Emulated TrustZone Root"
YEARS: Final = 30  # how long what an emulated device issues to itself holds
# An OID under the arc of UUIDs, which needs no registration (ITU-T X.667).
ATTESTATION_USAGE: Final = x509.ObjectIdentifier(
    f"2.25.{UUID('3c3f6f6c-0f5f-5f0e-9a51-5a0f5a6b7c21').int}"
)
_EMULATED: Final = re.compile(r"Broch Emulated .*\bRoot", re.DOTALL)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_MAX_NAME: Final = 64  # characters of a common name
_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsed:
    """An attestation key whose certificate an anchor signed."""

    device: str
    key: rsa.RSAPublicKey
    root: str  # common name of the anchor
    start: datetime  # when both certificates have begun
    end: datetime  # when the first of them ends

    @property
    def emulated(self) -> bool:
        """Whether the chain ends in the root of an emulated device."""
        return _EMULATED.fullmatch(self.root) is not None

    def check_time(self, at: datetime) -> None:
        """Refuse what does not hold at that moment.

        Raises:
            UntrustedError: a certificate has not begun or has ended.
        """
        if not self.start <= at <= self.end:
            raise UntrustedError(
                f"the certificates of device {self.device!r} do not hold at {at.isoformat()}"
            )


def derive_root_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The root key (P-256) of an installation's emulated TrustZone devices."""
    seed = HKDF(hashes.SHA256(), 48, salt=None, info=b"broch/trustzone/root/1").derive(secret)
    return ec.derive_private_key(
        int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1()
    )


def make_root(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    """A self-signed certificate (DER) for the root; the same for the same key and time."""
    builder = _builder(ROOT_NAME, key.public_key(), now).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def endorse(
    key: ec.EllipticCurvePrivateKey, device: str, attestation_key: rsa.RSAPublicKey, now: datetime
) -> bytes:
    """A certificate (DER) for a device's attestation key, signed by the root."""
    signed = (
        _builder(device[:_MAX_NAME] or "device", attestation_key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ATTESTATION_USAGE]), critical=True)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return signed.public_bytes(Encoding.DER)


@lru_cache(maxsize=64)
def check_certificate(der: bytes, anchors: tuple[bytes, ...]) -> Endorsed:
    """Find the anchor that signed the certificate. Time is left to :meth:`Endorsed.check_time`.

    Raises:
        DecodeError: not a certificate, or an anchor is not one.
        UndecidedError: there is no anchor at all.
        UntrustedError: no anchor signed it, or it is not for an attestation key.
    """
    certificate = _load("attestation key certificate", der)
    if not anchors:
        raise UndecidedError("no anchor is given to check an attestation key's certificate with")
    roots = [_load("anchor", anchor) for anchor in anchors]
    root = next((root for root in roots if _is_issued(certificate, root)), None)
    if root is None:
        raise UntrustedError("no anchor issued the certificate of this attestation key")
    _check_usage(certificate)
    return Endorsed(
        device=_common_name(certificate),
        key=_check_key(certificate.public_key()),
        root=_common_name(root),
        start=max(certificate.not_valid_before_utc, root.not_valid_before_utc),
        end=min(certificate.not_valid_after_utc, root.not_valid_after_utc),
    )


@lru_cache(maxsize=64)
def check_enrolled(spki: bytes) -> rsa.RSAPublicKey:
    """Read a key that the caller wrote down himself (SubjectPublicKeyInfo, DER).

    Raises:
        DecodeError: not a public key.
        UntrustedError: not a key that an attestation pseudo-TA has.
    """
    try:
        key = load_der_public_key(spki)
    except Exception as exc:  # noqa: BLE001  (it raises several unrelated classes)
        raise DecodeError(0, f"not a public key: {exc}", what="enrolled key") from None
    return _check_key(key)


def _builder(
    name: str, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, now: datetime
) -> x509.CertificateBuilder:
    start = now.astimezone(UTC).replace(microsecond=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public).digest
    serial = hashlib.sha256(identifier + name.encode()).digest()[:16]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)]))
        .public_key(public)
        .serial_number(int.from_bytes(serial, "big") >> 1 | 1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=start.year + YEARS, day=min(start.day, 28)))
    )


_SIGNS_ONLY: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _load(what: str, der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These are decoded only when they are asked for, and then they raise.
        _ = certificate.public_key(), certificate.extensions, certificate.subject
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception as exc:  # noqa: BLE001  (it raises several unrelated classes)
        raise DecodeError(0, f"not an X.509 certificate: {exc}", what=what) from None
    if certificate.public_bytes(Encoding.DER) != der:
        raise DecodeError(0, "not the DER of a certificate", what=what)
    return certificate


def _is_issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    constraints = _extension(root, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _check_usage(certificate: x509.Certificate) -> None:
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if constraints is None or constraints.ca:
        raise UntrustedError("the attestation key's certificate is one of an authority")
    if usage != _SIGNS_ONLY or purposes is None or list(purposes) != [ATTESTATION_USAGE]:
        raise UntrustedError("the certificate is not one for an attestation key")


def _extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_key(key: object) -> rsa.RSAPublicKey:
    if not isinstance(key, rsa.RSAPublicKey):
        raise UntrustedError("the attestation key is not an RSA key")
    if not 2048 <= key.key_size <= 4096 or key.public_numbers().e != 65537:
        raise UntrustedError(
            f"the attestation key has {key.key_size} bits and exponent {key.public_numbers().e}"
        )
    return key


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else certificate.subject.rfc4514_string()
