"""Certificates for attestation keys."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.trustzone.endorsement import (
    ATTESTATION_USAGE,
    ROOT_NAME,
    check_certificate,
    check_enrolled,
    endorse,
)

from .conftest import NOW, SECRET, signing_key

KEY: Final = roots.derive_key(SECRET, "trustzone")
ROOT: Final = roots.make(ROOT_NAME, KEY, NOW)


@pytest.fixture(scope="module")
def certificate() -> bytes:
    return endorse(KEY, "field", signing_key().public_key(), NOW)


def test_a_certificate_holds_under_its_root(certificate: bytes) -> None:
    endorsed = check_certificate(certificate, (ROOT,))
    endorsed.check_time(NOW)
    assert endorsed.device == "field"
    assert endorsed.key.public_numbers() == signing_key().public_key().public_numbers()
    assert endorsed.root == ROOT_NAME == "Broch Emulated TrustZone Root"
    assert endorsed.emulated


def test_making_is_deterministic(certificate: bytes) -> None:
    assert endorse(KEY, "field", signing_key().public_key(), NOW) == certificate
    assert roots.make(ROOT_NAME, roots.derive_key(SECRET, "trustzone"), NOW) == ROOT


def test_long_and_empty_device_names() -> None:
    for name, shown in (("n" * 100, "n" * 64), ("", "device")):
        made = endorse(KEY, name, signing_key().public_key(), NOW)
        assert check_certificate(made, (ROOT,)).device == shown


def test_a_leap_day() -> None:
    root = x509.load_der_x509_certificate(
        roots.make(ROOT_NAME, KEY, datetime(2028, 2, 29, tzinfo=UTC))
    )
    assert root.not_valid_after_utc == datetime(2058, 2, 28, tzinfo=UTC)


def test_another_root_of_the_same_name_is_refused(certificate: bytes) -> None:
    other = roots.make(ROOT_NAME, roots.derive_key(bytes(32), "trustzone"), NOW)
    with pytest.raises(UntrustedError, match="no anchor issued"):
        check_certificate(certificate, (other,))
    assert check_certificate(certificate, (other, ROOT)).emulated


def test_without_anchors_there_is_no_decision(certificate: bytes) -> None:
    with pytest.raises(UndecidedError, match="no anchor"):
        check_certificate(certificate, ())


@pytest.mark.parametrize("junk", [b"", b"junk", ROOT[:-1], ROOT + b"\0"])
def test_other_things_than_certificates(certificate: bytes, junk: bytes) -> None:
    with pytest.raises(DecodeError, match="anchor"):
        check_certificate(certificate, (junk,))
    with pytest.raises(DecodeError, match="attestation key certificate"):
        check_certificate(junk, (ROOT,))


def test_a_root_is_not_an_attestation_key() -> None:
    with pytest.raises(UntrustedError, match="one of an authority"):
        check_certificate(ROOT, (ROOT,))


def test_a_certificate_that_is_no_authority_issues_nothing(certificate: bytes) -> None:
    with pytest.raises(UntrustedError, match="no anchor issued"):
        check_certificate(certificate, (certificate,))


@pytest.mark.parametrize("shift", [timedelta(seconds=-1), timedelta(days=30 * 366)])
def test_certificates_have_their_time(certificate: bytes, shift: timedelta) -> None:
    with pytest.raises(UntrustedError, match=r"is not valid before|has expired"):
        check_certificate(certificate, (ROOT,)).check_time(NOW + shift)


def issue(
    *extensions: tuple[x509.ExtensionType, bool],
    public: Any = None,
    issuer: str = ROOT_NAME,
    key: Any = KEY,
) -> bytes:
    """A certificate of the root's making that follows other rules."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "field")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public or signing_key().public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def usage(**also: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment "
        "key_agreement key_cert_sign crl_sign encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{name: name == "digital_signature" for name in names} | also)


LEAF: Final = (x509.BasicConstraints(ca=False, path_length=None), True)
SIGNS: Final = (usage(), True)
PURPOSE: Final = (x509.ExtendedKeyUsage([ATTESTATION_USAGE]), True)
CLIENT: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


def test_the_rules_by_hand_are_the_rules() -> None:
    assert check_certificate(issue(LEAF, SIGNS, PURPOSE), (ROOT,)).device == "field"


@pytest.mark.parametrize(
    "extensions",
    [
        pytest.param((LEAF, PURPOSE), id="no key usage"),
        pytest.param((LEAF, SIGNS), id="no extended key usage"),
        pytest.param((LEAF, (usage(key_cert_sign=True), True), PURPOSE), id="signs certificates"),
        pytest.param((LEAF, SIGNS, (CLIENT, True)), id="for TLS clients"),
    ],
)
def test_other_certificates_of_the_root_are_refused(
    extensions: tuple[tuple[x509.ExtensionType, bool], ...],
) -> None:
    with pytest.raises(UntrustedError, match="certificate"):
        check_certificate(issue(*extensions), (ROOT,))


def test_the_issuers_name_counts() -> None:
    with pytest.raises(UntrustedError, match="no anchor issued"):
        check_certificate(issue(LEAF, SIGNS, PURPOSE, issuer="Somebody"), (ROOT,))


def test_the_key_is_rsa() -> None:
    made = issue(LEAF, SIGNS, PURPOSE, public=KEY.public_key())
    with pytest.raises(UntrustedError, match="not an RSA key"):
        check_certificate(made, (ROOT,))


def test_a_makers_root_is_not_emulated() -> None:
    authority = (x509.BasicConstraints(ca=True, path_length=None), True)
    maker_key = ec.derive_private_key(12345, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Maker Root")])
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(maker_key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(*authority)
        .add_extension(usage(key_cert_sign=True), critical=True)
        .sign(maker_key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    leaf = issue(LEAF, SIGNS, PURPOSE, issuer="Maker Root", key=maker_key)
    assert not check_certificate(leaf, (root,)).emulated


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def test_an_enrolled_key_is_an_rsa_key_of_its_kind() -> None:
    assert check_enrolled(spki(signing_key().public_key())).key_size == 2048
    weak = rsa.RSAPublicNumbers(65537, (1 << 1023) + 2**512 + 1).public_key()
    small_e = rsa.RSAPublicNumbers(3, signing_key().public_key().public_numbers().n).public_key()
    for key in (weak, small_e, KEY.public_key()):
        with pytest.raises(UntrustedError):
            check_enrolled(spki(key))
    with pytest.raises(DecodeError):
        check_enrolled(b"junk")
