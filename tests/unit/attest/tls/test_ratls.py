"""Certificates as Gramine makes them, with evidence of an emulated SGX device in them."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broch.attest.tls import Level, check_certificate
from broch.attest.tls.ratls import LEGACY_OID, check_ratls_certificate
from broch.errors import BrochError, DecodeError, PolicyError, UntrustedError
from broch.wire import cbor, cmw

from .ends import NOW, attester, credential, expected

KEY: Final = ec.derive_private_key(11, ec.SECP384R1())
OTHER: Final = ec.derive_private_key(12, ec.SECP384R1())
NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "RATLS")])


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def evidence(data: bytes, module: str = "server") -> bytes:
    return attester(module).evidence(data.ljust(64, b"\0"))


def tagged(claims: bytes, *, quote: bytes | None = None, tag: int = 60000) -> bytes:
    made = evidence(hashlib.sha256(claims).digest()) if quote is None else quote
    return cbor.encode(cbor.Tag(tag, [made, claims]))


def claims_for(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: int = 1) -> bytes:
    name = {1: "sha256", 7: "sha384", 8: "sha512"}.get(algorithm, "sha1")
    entry = cbor.encode([algorithm, hashlib.new(name, spki(key)).digest()])
    return cbor.encode({"pubkey-hash": entry, "nonce": b"ignored"})


def certificate(
    extensions: dict[str, bytes],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY,
    signer: ec.EllipticCurvePrivateKey | None = None,
    days: float = 1,
) -> bytes:
    builder = x509.CertificateBuilder(
        issuer_name=NAME,
        subject_name=NAME,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=days),
    )
    for oid, value in extensions.items():
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(unknown, critical=False)
    return builder.sign(signer or key, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("algorithm", [1, 7, 8])
def test_interoperable_certificates(algorithm: int) -> None:
    der = certificate({cmw.DICE_OID: tagged(claims_for(KEY, algorithm))})
    peer = check_ratls_certificate(der, expected())
    assert peer.level is Level.KEY
    assert peer.claims.measurement == attester().identity.measurement.value


def test_rsa_keys() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = certificate({cmw.DICE_OID: tagged(claims_for(key))}, key)
    assert check_ratls_certificate(der, expected()).spki == spki(key)


def test_older_certificates() -> None:
    quote = evidence(hashlib.sha256(spki(KEY)).digest())
    der = certificate({LEGACY_OID: quote})
    assert check_ratls_certificate(der, expected()).level is Level.KEY
    # It does not make up for a newer extension that does not hold.
    with pytest.raises(BrochError):
        check_ratls_certificate(
            certificate({LEGACY_OID: quote, cmw.DICE_OID: tagged(claims_for(OTHER))}), expected()
        )


NO_KEY: Final = cbor.encode({"nonce": b"x"})
GOOD: Final = claims_for(KEY)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(dict, UntrustedError, "carries no evidence", id="nothing"),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(claims_for(OTHER))},
            UntrustedError,
            "another key",
            id="another key",
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(NO_KEY)},
            UntrustedError,
            "binds no key",
            id="no key: Gramine's own verifier takes it",
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(cbor.encode([1]))},
            UntrustedError,
            "binds no key",
            id="claims that are no map",
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(GOOD, quote=evidence(hashlib.sha256(b"").digest()))},
            UntrustedError,
            "another key, claims",
            id="a quote over other claims",
        ),
        pytest.param(
            lambda: {
                cmw.DICE_OID: tagged(
                    GOOD, quote=evidence(hashlib.sha256(GOOD).digest() + b"\x01" * 32)
                )
            },
            UntrustedError,
            "another key, claims",
            id="report data that goes on",
        ),
        pytest.param(
            lambda: {LEGACY_OID: evidence(hashlib.sha256(spki(OTHER)).digest())},
            UntrustedError,
            "another key",
            id="older, another key",
        ),
        pytest.param(
            lambda: {
                cmw.DICE_OID: tagged(GOOD, quote=evidence(hashlib.sha256(GOOD).digest(), "other"))
            },
            PolicyError,
            "measurement",
            id="other code",
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(GOOD, tag=60001)}, DecodeError, "60000", id="another tag"
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(GOOD, quote=b"")}, DecodeError, "evidence", id="no quote"
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: cbor.encode(cbor.Tag(60000, [b""]))},
            DecodeError,
            "not a list",
            id="no pair",
        ),
        pytest.param(
            lambda: {cmw.DICE_OID: tagged(claims_for(KEY, 2))},
            DecodeError,
            "expected 1, 7 or 8",
            id="another hash",
        ),
        pytest.param(lambda: {cmw.DICE_OID: b"\x80"}, DecodeError, "60000", id="another thing"),
    ],
)
def test_each_rule(make: Any, error: type[BrochError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_ratls_certificate(certificate(make()), expected())


def test_an_image_that_is_expected_is_not_passed_over() -> None:
    der = certificate({cmw.DICE_OID: tagged(GOOD)})
    wanted = expected()
    assert check_ratls_certificate(der, wanted).level is Level.KEY
    with pytest.raises(UntrustedError, match="bound to something else"):
        check_ratls_certificate(der, replace(wanted, image=bytes(32)))


def test_dates_and_signatures_count() -> None:
    extensions = {cmw.DICE_OID: tagged(claims_for(KEY))}
    with pytest.raises(UntrustedError, match="not signed by its own key"):
        check_ratls_certificate(certificate(extensions, signer=OTHER), expected())
    with pytest.raises(UntrustedError, match="expired"):
        check_ratls_certificate(certificate(extensions, days=-0.5), expected())
    with pytest.raises(DecodeError):
        check_ratls_certificate(b"", expected())


def test_one_kind_is_not_taken_for_the_other() -> None:
    with pytest.raises(BrochError):
        check_ratls_certificate(credential().certificate, expected())
    with pytest.raises(BrochError):
        check_certificate(certificate({cmw.DICE_OID: tagged(claims_for(KEY))}), expected())
