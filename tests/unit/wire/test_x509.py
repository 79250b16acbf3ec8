"""Certificates and lists read strictly; roles are tested with the TEEs that give them."""

import base64
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import load_der_x509_certificate
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pki import BEGIN, END, NOW, SHA256, Cert, Tree, ec_key, rsa_key, usage

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.wire import x509
from broch.wire.x509 import Algorithm

P256: Final = ec_key("p256", ec.SECP256R1)


def tree(**options: Any) -> Tree:
    """A root, a CA under it and a leaf."""
    root = Cert(common="Root", key=ec_key("root"), ca=True, key_usage=usage(ca=True))
    middle = Cert(
        common="CA", key=ec_key("ca"), issuer="root", ca=True, key_usage=usage(ca=True), serial=2
    )
    leaf = Cert(common="Leaf", key=ec_key("leaf"), issuer="ca", serial=3, **options)
    return Tree(certs={"root": root, "ca": middle, "leaf": leaf})


def read(made: Tree, label: str) -> x509.Certificate:
    return x509.read_certificate(made.der(label), label)


def test_fields() -> None:
    made = tree(key_usage=usage(ca=False), extended=("1.2.3.4",), extensions={"1.2.3.5": b"\x05\0"})
    leaf, ca = read(made, "leaf"), read(made, "ca")
    theirs = load_der_x509_certificate(made.der("ca"))
    assert (leaf.name, leaf.serial, leaf.is_ca) == ("Leaf", 3, False)
    assert leaf.issuer == ca.subject == theirs.subject.public_bytes()
    assert (leaf.may_sign_data, leaf.may_sign_certs, leaf.may_sign_crls) == (True, False, False)
    assert (ca.may_sign_data, ca.may_sign_certs, ca.may_sign_crls) == (False, True, True)
    assert leaf.usages == {"1.2.3.4"}
    assert leaf.extensions == {"1.2.3.5": b"\x05\0"}
    assert leaf.window.begin == BEGIN


def test_not_after_is_still_valid() -> None:
    window = read(tree(), "leaf").window
    window.check(BEGIN)
    window.check(END)
    with pytest.raises(UntrustedError, match="not valid before"):
        window.check(BEGIN - timedelta(seconds=1))
    with pytest.raises(UntrustedError, match="has expired"):
        window.check(END + timedelta(seconds=1))


ALGORITHMS: Final[dict[Algorithm, tuple[Any, dict[str, Any]]]] = {
    Algorithm.RSA_PSS_SHA384: (rsa_key("issuer"), {"pss": True}),
    Algorithm.RSA_SHA384: (rsa_key("issuer"), {}),
    Algorithm.RSA_SHA256: (rsa_key("issuer"), {"digest": SHA256()}),
    Algorithm.ECDSA_SHA384: (ec_key("issuer"), {}),
    Algorithm.ECDSA_SHA256: (P256, {"digest": SHA256()}),
}


@pytest.mark.parametrize("used", list(Algorithm))
def test_only_the_algorithms_that_the_caller_names(used: Algorithm) -> None:
    key, options = ALGORITHMS[used]
    made = tree(**options).change("ca", key=key)
    leaf, ca = read(made, "leaf"), read(made, "ca")
    x509.check_issued(leaf, ca, *Algorithm)
    x509.check_issued(leaf, ca, used)
    others = [item for item in Algorithm if item is not used]
    with pytest.raises(UntrustedError, match="signature algorithm"):
        x509.check_issued(leaf, ca, *others)
    with pytest.raises(UntrustedError, match="signature algorithm"):
        x509.check_issued(leaf, ca)


def test_a_key_of_another_kind_than_the_algorithm() -> None:
    made = tree()
    leaf = read(made, "leaf")
    other = read(made.change("ca", key=rsa_key("issuer")), "ca")
    with pytest.raises(UntrustedError, match="does not hold"):
        x509.check_issued(leaf, other, Algorithm.ECDSA_SHA384)


@pytest.mark.parametrize(
    ("label", "changes", "problem"),
    [
        ("leaf", {"issuer_name": "Other"}, "was not issued by 'CA'"),
        ("leaf", {"signer": "root"}, "signature does not hold"),
        ("ca", {"ca": False}, "may not issue"),
        ("ca", {"key_usage": usage(ca=False)}, "may not issue"),
        ("ca", {"key_usage": None}, "may not issue"),
        ("ca", {"with_constraints": False}, "may not issue"),
    ],
)
def test_each_rule_of_issuing(label: str, changes: dict[str, Any], problem: str) -> None:
    made = tree().change(label, **changes)
    with pytest.raises(UntrustedError, match=problem):
        x509.check_issued(read(made, "leaf"), read(made, "ca"), Algorithm.ECDSA_SHA384)


@pytest.mark.parametrize(
    ("root", "ca", "fine"),
    [(None, None, True), (1, 0, True), (5, 5, True), (0, None, False), (1, None, True)],
)
def test_path_lengths(root: int | None, ca: int | None, fine: bool) -> None:
    made = tree().change("root", path_length=root).change("ca", path_length=ca)
    chain = [read(made, label) for label in ("leaf", "ca", "root")]
    if fine:
        x509.check_path_lengths(chain)
    else:
        with pytest.raises(UntrustedError, match="allows no such chain"):
            x509.check_path_lengths(chain)


def test_lists() -> None:
    made = tree()
    root = read(made, "root")
    crl = x509.read_crl(made.crl("root", revoked=(2,)), "crl")
    x509.check_crl(crl, root, "crl", Algorithm.ECDSA_SHA384)
    x509.check_not_revoked(read(made, "leaf"), crl)
    crl.window.check(NOW)
    with pytest.raises(UntrustedError, match="is revoked"):
        x509.check_not_revoked(read(made, "ca"), crl)
    with pytest.raises(UntrustedError, match="not of 'CA'"):
        x509.check_crl(crl, read(made, "ca"), "crl", Algorithm.ECDSA_SHA384)
    with pytest.raises(UntrustedError, match="algorithm"):
        x509.check_crl(crl, root, "crl", Algorithm.ECDSA_SHA256)
    with pytest.raises(UntrustedError, match="does not hold"):
        x509.check_crl(
            x509.read_crl(made.crl("root", signer="ca"), "crl"),
            root,
            "crl",
            Algorithm.ECDSA_SHA384,
        )
    mute = read(made.change("root", key_usage=usage(ca=True, crl_sign=False)), "root")
    with pytest.raises(UntrustedError, match="may not sign revocation"):
        x509.check_crl(crl, mute, "crl", Algorithm.ECDSA_SHA384)


def test_what_is_refused_to_be_read() -> None:
    with pytest.raises(DecodeError, match="critical extension"):
        read(tree(critical={"1.2.3": b"\x05\0"}), "leaf")
    with pytest.raises(DecodeError, match="longer than"):
        x509.read_certificate(bytes(20000), "test")
    with pytest.raises(DecodeError, match="longer than"):
        x509.read_crl(bytes(2**20 + 1), "test")
    key: Any = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(DecodeError, match="neither EC nor RSA"):
        read(tree().change("leaf", key=key), "leaf")


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=80))
def test_noise_gives_our_errors(data: bytes) -> None:
    for prefix in (b"", b"\x30\x82\x01\x00", b"\x30\x10\x30\x0e\xa0\x03\x02\x01\x02\x02\x01\x00"):
        for reader in (x509.read_certificate, x509.read_crl):
            with pytest.raises(DecodeError):
                reader(prefix + data, "test")


def test_every_byte_of_a_certificate_is_signed_or_refused() -> None:
    made = tree()
    der, ca = made.der("leaf"), read(made, "ca")
    for offset in range(len(der)):
        bent = bytearray(der)
        bent[offset] ^= 1
        with pytest.raises(BrochError):
            x509.check_issued(
                x509.read_certificate(bytes(bent), "test"), ca, Algorithm.ECDSA_SHA384
            )


def test_unused_bits_of_a_signature() -> None:
    """The library takes them where the last bits are zero; here a certificate has one encoding."""
    for made, sign in ((tree().der("leaf"), "certificate"), (tree().crl("root"), "crl")):
        # SEQUENCE { ..., BIT STRING: 03, length, 00, SEQUENCE of r and s }
        size = len(made) - made.rindex(b"\0\x30", 0, -96)
        bent = bytearray(made)
        assert bent[-size] == 0
        bent[-size] = 1
        reader = x509.read_crl if sign == "crl" else x509.read_certificate
        with pytest.raises(DecodeError):
            reader(bytes(bent), "test")


def test_pem() -> None:
    der = tree().der("leaf")
    text = base64.encodebytes(der)
    pem = b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"
    assert x509.to_der(pem, "test") == der
    assert x509.to_der(pem + b"\0", "test") == der
    assert x509.to_der(der, "test") == der
    for bad in (pem + pem, pem + b"x", b"-----", pem.replace(b"CERT", b"CURT"), pem[:-9]):
        with pytest.raises(DecodeError, match="not PEM"):
            x509.to_der(bad, "test")


def test_the_algorithm_outside_of_the_signature_is_the_one_inside() -> None:
    """RFC 5280, 4.1.1.2: nobody signs the outer one, so it could say anything."""
    made = tree()
    name = bytes.fromhex("06082a8648ce3d0403")  # an OID of ECDSA with SHA-2, but its last byte

    def other(der: bytes) -> bytes:
        place = der.rindex(name) + len(name)
        return der[:place] + bytes([der[place] ^ 1]) + der[place + 1 :]

    certificate, crl = made.der("leaf"), made.crl("root")
    x509.read_certificate(certificate, "sound")
    x509.read_crl(crl, "sound")
    with pytest.raises(DecodeError, match="cannot be read"):
        x509.read_certificate(other(certificate), "bent")
    with pytest.raises(DecodeError, match="cannot be read"):
        x509.read_crl(other(crl), "bent")


def test_base64_has_one_form() -> None:
    """Bits that the last character has too many could be anything."""
    der = tree().der("leaf")
    der += bytes(-len(der) % 3 + 1)  # one byte too many for three: four bits are left over
    text = base64.b64encode(der)
    head, tail = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
    assert text.endswith(b"A==")
    assert x509.to_der(head + text + tail, "test") == der
    with pytest.raises(DecodeError, match="canonical"):
        x509.to_der(head + text[:-3] + b"B==" + tail, "test")
