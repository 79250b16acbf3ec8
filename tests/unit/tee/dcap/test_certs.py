"""Certificates and revocation lists: what is readable and what is refused at sight."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broch.errors import DecodeError, UntrustedError
from broch.tee.dcap import certs, emulated
from broch.tee.dcap.certs import MAX_CERTS, MAX_CHAIN
from broch.tee.dcap.ecdsa import derive_key
from broch.wire.x509 import Certificate, check_not_revoked

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KEY = derive_key(b"certs", "root")
OTHER = derive_key(b"certs", "other")


def name(*common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value) for value in common])


def root() -> x509.Certificate:
    return emulated.certificate("Root", KEY.public_key(), None, KEY, BEGIN, path_length=1)


def leaf(key: ec.EllipticCurvePrivateKey = KEY) -> x509.Certificate:
    return emulated.certificate("Leaf", OTHER.public_key(), root().subject, key, BEGIN)


def read(cert: x509.Certificate) -> Certificate:
    return certs.read_certificate(cert.public_bytes(Encoding.DER), "test")


def built(
    key: ec.EllipticCurvePrivateKey | RSAPrivateKey = KEY,
    *,
    subject: x509.Name | None = None,
    digest: SHA256 | SHA384 | None = None,
    extension: tuple[x509.ExtensionType, bool] | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("Odd") if subject is None else subject)
        .issuer_name(name("Odd"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(BEGIN)
        .not_valid_after(BEGIN + timedelta(days=1))
    )
    if extension:
        builder = builder.add_extension(extension[0], critical=extension[1])
    return builder.sign(key, digest or SHA256())


def test_a_certificate_is_read() -> None:
    cert = read(root())
    assert (cert.name, cert.is_ca, cert.path_length) == ("Root", True, 1)
    assert (cert.may_sign_certs, cert.may_sign_crls, cert.may_sign_data) == (True, True, False)
    assert cert.window.begin == BEGIN
    assert cert.subject == cert.issuer
    assert not read(leaf()).is_ca


def test_usage_that_is_not_there_is_not_granted() -> None:
    cert = read(built())
    grants = (cert.is_ca, cert.may_sign_certs, cert.may_sign_crls, cert.may_sign_data)
    assert not any(grants)


@pytest.mark.parametrize(
    ("cert", "problem"),
    [
        pytest.param(built(subject=x509.Name([])), "common name", id="no name"),
        pytest.param(built(subject=name("A", "B")), "common name", id="two names"),
        pytest.param(
            built(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "P-256",
            id="RSA",
        ),
        pytest.param(built(ec.derive_private_key(7, ec.SECP384R1())), "P-256", id="P-384"),
        pytest.param(built(digest=SHA384()), "SHA-256", id="SHA-384"),
        pytest.param(built(extension=(x509.InhibitAnyPolicy(0), True)), "critical", id="critical"),
        pytest.param(
            built(
                extension=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)
            ),
            "critical",
            id="critical and unknown",
        ),
    ],
)
def test_certificates_outside_of_the_profile(cert: x509.Certificate, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        read(cert)


def test_extensions_that_are_not_critical_may_be_unknown() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"")
    assert read(built(extension=(unknown, False))).name == "Odd"


def test_a_chain_is_read_in_its_order() -> None:
    pem = emulated.pem(leaf(), root())
    for text in (pem, pem + b"\0", pem + b"\n\0\0", pem.replace(b"\n", b"\r\n")):
        assert [cert.name for cert in certs.read_chain(text, "chain")] == ["Leaf", "Root"]


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        pytest.param(b"", "no certificate", id="empty"),
        pytest.param(b"\0\0", "no certificate", id="zeros"),
        pytest.param(b"text\n" + emulated.pem(root()), "not a PEM", id="text before"),
        pytest.param(emulated.pem(root()) + b"text", "not a PEM", id="text after"),
        pytest.param(emulated.pem(root()).replace(b"CERTIFICATE", b"X"), "not a PEM", id="label"),
        pytest.param(emulated.pem(*[root()] * (MAX_CERTS + 1)), "more than", id="many"),
        pytest.param(b"A" * (MAX_CHAIN + 1), "longer", id="long"),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be read",
            id="no certificate inside",
        ),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\n=A=\n-----END CERTIFICATE-----\n",
            "not PEM",
            id="no base64 inside",
        ),
    ],
)
def test_what_is_no_chain(pem: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        certs.read_chain(pem, "chain")


def test_issuing() -> None:
    certs.check_issued(read(root()), read(root()))
    certs.check_issued(read(leaf()), read(root()))
    for cert, issuer, problem in (
        (read(root()), read(leaf()), "not issued by"),
        (read(leaf(OTHER)), read(root()), "does not hold"),
    ):
        with pytest.raises(UntrustedError, match=problem):
            certs.check_issued(cert, issuer)
    plain = emulated.certificate("Root", KEY.public_key(), None, KEY, BEGIN)
    with pytest.raises(UntrustedError, match="may not issue"):
        certs.check_issued(read(leaf()), read(plain))


def test_a_list_is_read_and_checked() -> None:
    data = emulated.crl(root().subject, KEY, BEGIN, (5, 7), BEGIN + timedelta(days=1))
    crl = certs.read_crl(data, "list")
    assert crl.revoked == {5, 7}
    assert (crl.window.begin, crl.window.end) == (BEGIN, BEGIN + timedelta(days=1))
    certs.check_crl(crl, read(root()), "list")
    check_not_revoked(read(root()), crl)
    revoking = emulated.crl(root().subject, KEY, BEGIN, (root().serial_number,))
    with pytest.raises(UntrustedError, match=re.escape(f"{root().serial_number:x}")):
        check_not_revoked(read(root()), certs.read_crl(revoking, "list"))


def test_who_may_sign_a_list() -> None:
    crl = certs.read_crl(emulated.crl(root().subject, KEY, BEGIN), "list")
    with pytest.raises(UntrustedError, match="is not of"):
        certs.check_crl(crl, read(leaf()), "list")
    plain = emulated.certificate("Root", KEY.public_key(), None, KEY, BEGIN)
    with pytest.raises(UntrustedError, match="may not sign"):
        certs.check_crl(crl, read(plain), "list")
    forged = certs.read_crl(emulated.crl(root().subject, OTHER, BEGIN), "list")
    with pytest.raises(UntrustedError, match="does not hold"):
        certs.check_crl(forged, read(root()), "list")


def a_list(*, digest: SHA256 | SHA384 | None = None, critical: bool = False) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name("Odd"))
        .last_update(BEGIN)
        .next_update(BEGIN + timedelta(days=1))
    )
    if critical:
        delta = x509.DeltaCRLIndicator(1)
        builder = builder.add_extension(delta, critical=True)
    return builder.sign(KEY, digest or SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(root().public_bytes(Encoding.DER), "cannot be read", id="a certificate"),
        pytest.param(a_list(digest=SHA384()), "SHA-256", id="SHA-384"),
        pytest.param(a_list(critical=True), "critical", id="a delta list"),
    ],
)
def test_what_is_no_list(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        certs.read_crl(data, "list")
