"""The other parties, simulated: certificate authorities whose every certificate can be bent alone.

:func:`certificate` and :func:`crl` make anything, right or wrong. :class:`Tree` is a hierarchy in
which a test changes one thing (a name, a signer, a period, a role, an extension, a list) and
everything else stays sound and is properly signed over the change.

The makers of quotes are beside the tests of their hardware: Intel's in ``unit/tee/sgx/attester.py``
and ``unit/tee/tdx/attester.py``, AMD's in ``unit/tee/snp/attester.py``, AWS's in
``unit/tee/nitro/test_nitro.py``, the TCG's in ``unit/tee/tpm/attester.py``; ``tests/mutation`` uses
them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGIN: Final = NOW - timedelta(days=30)
END: Final = NOW + timedelta(days=365)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@lru_cache
def rsa_key(label: str) -> rsa.RSAPrivateKey:
    """A key of its own for each label; 2048 bits, since making larger ones takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@lru_cache
def ec_key(label: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """A key that is a function of its label."""
    return ec.derive_private_key(int.from_bytes(label.encode().ljust(24, b"."), "big"), curve())


def name(common: str, organisation: str = "Test") -> x509.Name:
    """A distinguished name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )


def usage(*, ca: bool, crl_sign: bool | None = None, data: bool | None = None) -> x509.KeyUsage:
    """Key usage of a CA, or of a key that signs data."""
    return x509.KeyUsage(
        digital_signature=not ca if data is None else data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca if crl_sign is None else crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, kw_only=True)
class Cert:
    """What to put into a certificate."""

    common: str
    key: PrivateKey
    issuer: str = ""  # label of the issuer within its tree; "" for itself
    signer: str = ""  # label whose key signs, if not the issuer's
    issuer_name: str = ""  # the name that is written, if not the issuer's
    begin: datetime = BEGIN
    end: datetime = END
    ca: bool = False
    path_length: int | None = None
    with_constraints: bool = True
    key_usage: x509.KeyUsage | None = None
    extended: tuple[str, ...] = ()
    extensions: Mapping[str, bytes] = field(default_factory=dict)
    critical: Mapping[str, bytes] = field(default_factory=dict)
    serial: int = 1
    pss: bool = False  # RSASSA-PSS with SHA-384 (AMD)
    digest: SHA256 | SHA384 = field(default_factory=SHA384)


def certificate(cert: Cert, issuer: x509.Name, signer: PrivateKey) -> bytes:
    """A DER certificate."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(cert.common))
        .issuer_name(issuer)
        .public_key(cert.key.public_key())
        .serial_number(cert.serial or 1)
        .not_valid_before(cert.begin)
        .not_valid_after(cert.end)
    )
    if cert.with_constraints:
        constraints = x509.BasicConstraints(ca=cert.ca, path_length=cert.path_length)
        builder = builder.add_extension(constraints, critical=True)
    if cert.key_usage is not None:
        builder = builder.add_extension(cert.key_usage, critical=True)
    if cert.extended:
        oids = [x509.ObjectIdentifier(oid) for oid in cert.extended]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
    for critical, extensions in ((False, cert.extensions), (True, cert.critical)):
        for oid, value in extensions.items():
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(unknown, critical=critical)
    if cert.pss and isinstance(signer, rsa.RSAPrivateKey):
        scheme = padding.PSS(padding.MGF1(cert.digest), cert.digest.digest_size)
        made = builder.sign(signer, cert.digest, rsa_padding=scheme)
        return made.public_bytes(Encoding.DER) if cert.serial else with_serial_0(made, signer)
    return builder.sign(signer, cert.digest).public_bytes(Encoding.DER)


def with_serial_0(cert: x509.Certificate, signer: rsa.RSAPrivateKey) -> bytes:
    """The certificate with the serial number 0, signed anew: the library refuses to make one."""
    tbs, der = cert.tbs_certificate_bytes, cert.public_bytes(Encoding.DER)
    old = bytes.fromhex("a003020102020101")
    assert tbs.index(old) == 4
    bent = tbs.replace(old, old[:-1] + b"\0", 1)
    scheme = padding.PSS(padding.MGF1(SHA384()), 48)
    signature = signer.sign(bent, scheme, SHA384())
    return der.replace(tbs, bent, 1).replace(cert.signature, signature, 1)


def crl(
    issuer: x509.Name,
    signer: PrivateKey,
    *,
    revoked: tuple[int, ...] = (),
    begin: datetime = BEGIN,
    end: datetime = END,
    pss: bool = False,
    digest: SHA256 | SHA384 | None = None,
) -> bytes:
    """A DER revocation list."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(begin)
        .next_update(end)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    used = digest or SHA384()
    if pss and isinstance(signer, rsa.RSAPrivateKey):
        scheme = padding.PSS(padding.MGF1(used), used.digest_size)
        made = builder.sign(signer, used, rsa_padding=scheme)
    else:
        made = builder.sign(signer, used)
    return made.public_bytes(Encoding.DER)


@dataclass(kw_only=True)
class Tree:
    """Certificates by label. Change an entry, then ask for bytes."""

    certs: dict[str, Cert]

    def change(self, label: str, **changes: Any) -> "Tree":
        """The same tree with one certificate changed."""
        return Tree(certs={**self.certs, label: replace(self.certs[label], **changes)})

    def subject(self, label: str) -> x509.Name:
        return name(self.certs[label].common)

    def der(self, label: str) -> bytes:
        cert = self.certs[label]
        issuer = cert.issuer or label
        written = name(cert.issuer_name) if cert.issuer_name else self.subject(issuer)
        return certificate(cert, written, self.certs[cert.signer or issuer].key)

    def crl(self, label: str, **options: Any) -> bytes:
        """A list of ``label``'s."""
        cert = self.certs[label]
        made = {"pss": cert.pss, "digest": cert.digest, **options}
        signer = self.certs[made.pop("signer", label)].key
        return crl(made.pop("issuer", self.subject(label)), signer, **made)


__all__ = [
    "BEGIN",
    "END",
    "NOW",
    "SHA256",
    "Cert",
    "Tree",
    "certificate",
    "crl",
    "ec_key",
    "name",
    "rsa_key",
    "usage",
]
