"""Certificates and revocation lists of Intel's attestation PKI.

They are read by :mod:`broch.wire.x509`; here is what that PKI narrows: everything in it is ECDSA
with SHA-256 on P-256 (Intel's PCK specification, sections 1.1 and 2.1), every certificate has a
common name, and chains come as PEM. What a certificate may do is decided by its role, in
:mod:`broch.tee.dcap.trust`.
"""

import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.x509.oid import SignatureAlgorithmOID

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import DecodeError
from broch.wire import x509
from broch.wire.x509 import Algorithm, Certificate, Crl

MAX_CHAIN: Final = 32 * 1024  # bytes of PEM
MAX_CERTS: Final = 4
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----(?:\r?\n)*"
)
_SIGNED_BY: Final = SignatureAlgorithmOID.ECDSA_WITH_SHA256.dotted_string


def split_chain(pem: bytes, what: str) -> tuple[bytes, ...]:
    """The certificates (DER) of a PEM chain, in its order; line ends and NULs may follow the last.

    Raises:
        DecodeError: anything else in between, too long, no certificate or too many.
    """
    text = pem.rstrip(b"\0")
    if len(text) > MAX_CHAIN:
        raise DecodeError(MAX_CHAIN, f"longer than {MAX_CHAIN} bytes", what=what)
    found: list[bytes] = []
    offset = 0
    while offset < len(text):
        match = _PEM.match(text, offset)
        if match is None:
            raise DecodeError(offset, "not a PEM certificate", what=what)
        if len(found) == MAX_CERTS:
            raise DecodeError(offset, f"more than {MAX_CERTS} certificates", what=what)
        found.append(x509.to_der(match.group(), what))
        offset = match.end()
    if not found:
        raise DecodeError(0, "no certificate", what=what)
    return tuple(found)


def read_chain(pem: bytes, what: str) -> tuple[Certificate, ...]:
    """Certificates of a PEM chain, in its order.

    Raises:
        DecodeError: not a chain (:func:`split_chain`), or a certificate that cannot be read.
    """
    return tuple(read_certificate(der, what) for der in split_chain(pem, what))


def read_certificate(der: bytes, what: str) -> Certificate:
    """One DER certificate of this PKI.

    Raises:
        DecodeError: it cannot be read, or is outside of the profile.
    """
    cert = x509.read_certificate(der, what)
    if not cert.name:
        raise DecodeError(0, "the subject has no common name", what=what)
    if not isinstance(cert.key, EllipticCurvePublicKey) or not isinstance(
        cert.key.curve, SECP256R1
    ):
        raise DecodeError(0, "the key is not on P-256", what=what)
    _check_algorithm(cert.algorithm, what)
    return cert


def verifying_key(cert: Certificate) -> VerifyingKey:
    """The key of a certificate that :func:`read_certificate` let through.

    Raises:
        DecodeError: it was not.
    """
    if not isinstance(cert.key, EllipticCurvePublicKey):
        raise DecodeError(0, "the key is not on P-256", what=f"certificate {cert.name!r}")
    return VerifyingKey(cert.key)


def read_crl(der: bytes, what: str) -> Crl:
    """One DER revocation list.

    Raises:
        DecodeError: it cannot be read, has no nextUpdate, or is outside of the profile.
    """
    crl = x509.read_crl(der, what)
    _check_algorithm(crl.algorithm, what)
    return crl


def _check_algorithm(oid: str, what: str) -> None:
    if oid != _SIGNED_BY:
        raise DecodeError(0, "not signed by ECDSA with SHA-256", what=what)


def check_issued(cert: Certificate, issuer: Certificate) -> None:
    """See :func:`broch.wire.x509.check_issued`."""
    x509.check_issued(cert, issuer, Algorithm.ECDSA_SHA256)


def check_crl(crl: Crl, issuer: Certificate, what: str) -> None:
    """See :func:`broch.wire.x509.check_crl`."""
    x509.check_crl(crl, issuer, what, Algorithm.ECDSA_SHA256)
