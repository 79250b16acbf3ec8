"""Roots of trust: which say of themselves that they are emulated, and the ones of our devices.

TEEs whose makers define no certificates (Keystone, OP-TEE) get a root of ours: an ordinary P-256
certificate, self-signed, whose key comes out of the installation's secret::

    subject, issuer     CN "Broch Emulated <TEE> Root"
    basicConstraints    CA, path length 0
    keyUsage            digitalSignature (Keystone's statements), keyCertSign (TrustZone's
                        certificates)
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

YEARS: Final = 30  # how long what an emulated device issues to itself holds
_EMULATED: Final = re.compile(r"Broch Emulated .*\bRoot", re.DOTALL)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def is_emulated(name: str) -> bool:
    """Whether the root of this common name says that it is an emulated device's."""
    return _EMULATED.fullmatch(name) is not None


def derive_key(secret: bytes, tee: str) -> ec.EllipticCurvePrivateKey:
    """The root key (P-256) of an installation's emulated devices of one TEE."""
    info = f"broch/{tee}/root/1".encode()
    # 384 bits, so that the modulus leaves no bias.
    seed = HKDF(hashes.SHA256(), 48, salt=None, info=info).derive(secret)
    scalar = int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def make(name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    """A self-signed certificate (DER) for the root; the same for the same arguments."""
    builder = (
        builder_for(name, key.public_key(), issuer=name, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
    )
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def builder_for(
    name: str,
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    *,
    issuer: str,
    now: datetime,
) -> x509.CertificateBuilder:
    """A certificate for ``public`` without extensions; its serial number depends on both."""
    start = now.astimezone(UTC).replace(microsecond=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public).digest
    serial = hashlib.sha256(identifier + name.encode()).digest()[:16]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(int.from_bytes(serial, "big") >> 1 | 1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=start.year + YEARS, day=min(start.day, 28)))
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """For a key that signs data, and perhaps certificates."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
