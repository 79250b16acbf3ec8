"""Who says that an attestation key belongs to a device: an X.509 certificate.

OP-TEE defines none: whoever provisions a device reads its key and writes it down. An emulated
device issues its key a certificate under a root of its own, named so that nobody mistakes it for a
maker's:

    root   CN "Broch Emulated TrustZone Root", P-256, a CA that may sign no further CA
    key    CN is the device's name, RSA-3072; keyUsage digitalSignature, and the extended key usage
           ATTESTATION_USAGE, so that no other certificate of the same root passes for one
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.wire.x509 import Algorithm, Certificate, Window, check_issued, read_certificate

ROOT_NAME: Final = "Broch Emulated TrustZone Root"
# An OID under the arc of UUIDs, which needs no registration (ITU-T X.667).
ATTESTATION_USAGE: Final = x509.ObjectIdentifier(
    f"2.25.{UUID('3c3f6f6c-0f5f-5f0e-9a51-5a0f5a6b7c21').int}"
)
_MAX_NAME: Final = 64  # characters of a common name


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsed:
    """An attestation key whose certificate an anchor signed."""

    device: str
    key: rsa.RSAPublicKey
    root: str  # common name of the anchor
    windows: tuple[Window, Window]  # of its certificate and of the anchor

    @property
    def emulated(self) -> bool:
        """Whether the chain ends in the root of an emulated device."""
        return roots.is_emulated(self.root)

    def check_time(self, at: datetime) -> None:
        """Refuse what does not hold at that moment.

        Raises:
            UntrustedError: a certificate has not begun or has ended.
        """
        for window in self.windows:
            window.check(at)


def endorse(
    key: ec.EllipticCurvePrivateKey, device: str, attestation_key: rsa.RSAPublicKey, now: datetime
) -> bytes:
    """A certificate (DER) for a device's attestation key, signed by the root."""
    name = device[:_MAX_NAME] or "device"
    signed = (
        roots.builder_for(name, attestation_key, issuer=ROOT_NAME, now=now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(roots.key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ATTESTATION_USAGE]), critical=True)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return signed.public_bytes(Encoding.DER)


def check_certificate(der: bytes, anchors: tuple[bytes, ...]) -> Endorsed:
    """Find the anchor that signed the certificate. Time is left to :meth:`Endorsed.check_time`.

    Raises:
        DecodeError: not a certificate, or an anchor is not one.
        UndecidedError: there is no anchor at all.
        UntrustedError: no anchor signed it, or it is not for an attestation key.
    """
    certificate = read_certificate(der, "attestation key certificate")
    if not anchors:
        raise UndecidedError("no anchor is given to check an attestation key's certificate with")
    anchor = _issuer(certificate, anchors)
    _check_usage(certificate)
    return Endorsed(
        device=certificate.name,
        key=_check_key(certificate.key),
        root=anchor.name,
        windows=(certificate.window, anchor.window),
    )


def _issuer(certificate: Certificate, anchors: tuple[bytes, ...]) -> Certificate:
    refused = []
    for anchor in [read_certificate(der, "anchor") for der in anchors]:
        try:
            check_issued(certificate, anchor, Algorithm.ECDSA_SHA256)
        except UntrustedError as exc:
            refused.append(exc.message)
        else:
            return anchor
    raise UntrustedError(
        f"no anchor issued the certificate of this attestation key: {'; '.join(refused)}"
    )


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


def _check_usage(certificate: Certificate) -> None:
    if certificate.is_ca:
        raise UntrustedError("the attestation key's certificate is one of an authority")
    if (
        not certificate.may_sign_data
        or certificate.may_sign_certs
        or certificate.may_sign_crls
        or certificate.usages != {ATTESTATION_USAGE.dotted_string}
    ):
        raise UntrustedError("the certificate is not one for an attestation key")


def _check_key(key: object) -> rsa.RSAPublicKey:
    if not isinstance(key, rsa.RSAPublicKey):
        raise UntrustedError("the attestation key is not an RSA key")
    if not 2048 <= key.key_size <= 4096 or key.public_numbers().e != 65537:
        raise UntrustedError(
            f"the attestation key has {key.key_size} bits and exponent {key.public_numbers().e}"
        )
    return key
