"""Keys that verify: both libraries, and when the second one is asked."""

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from broch.crypto import ecdsa
from broch.crypto.ecdsa import LOAD_AFTER, Curve, VerifyingKey
from broch.errors import UntrustedError

DATA = b"what is signed"
CURVES = [(Curve.P256, ec.SECP256R1(), SHA256()), (Curve.P384, ec.SECP384R1(), SHA384())]
LIBRARIES = ["OpenSSL", "AWS-LC"]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both libraries; that AWS-LC is not installed fails, since the tests bring it."""
    name: str = request.param
    assert ecdsa.is_fast_installed()
    monkeypatch.setattr(ecdsa, "_verified", LOAD_AFTER if name == "AWS-LC" else -(2**30))
    return name


def signed(curve: ec.EllipticCurve, digest: SHA256 | SHA384) -> tuple[VerifyingKey, int, int]:
    key = ec.derive_private_key(0xB0C4, curve)
    r, s = decode_dss_signature(key.sign(DATA, ec.ECDSA(digest)))
    return VerifyingKey(key.public_key()), r, s


@pytest.mark.parametrize(("which", "curve", "digest"), CURVES, ids=["P-256", "P-384"])
def test_what_holds_and_what_does_not(
    library: str, which: Curve, curve: ec.EllipticCurve, digest: SHA256 | SHA384
) -> None:
    key, r, s = signed(curve, digest)
    order = which.value.order
    assert key.curve is which
    key.verify(r, s, DATA, "it")
    key.verify(r, order - s, DATA, "it")  # ECDSA knows no low s
    assert (key._fast is not None) is (library == "AWS-LC")
    for bad_r, bad_s, data in (
        (r, s, DATA + b"."),
        (s, r, DATA),
        (r ^ 1, s, DATA),
        (r, s ^ 1, DATA),
        (0, s, DATA),
        (r, 0, DATA),
        (0, 0, DATA),
        (order, s, DATA),
        (r, order, DATA),
        (r + order, s, DATA),
        (r, s + order, DATA),
        (-r, s, DATA),
        (2**2000, s, DATA),
    ):
        with pytest.raises(UntrustedError, match="it: the signature does not hold"):
            key.verify(bad_r, bad_s, data, "it")


def test_the_second_library_is_loaded_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdsa, "_verified", 0)
    key, r, s = signed(ec.SECP384R1(), SHA384())
    for _ in range(LOAD_AFTER):
        key.verify(r, s, DATA, "it")
        assert key._fast is None
    key.verify(r, s, DATA, "it")
    assert key._fast is not None


def test_without_it_the_first_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdsa, "_verified", LOAD_AFTER)
    monkeypatch.setattr(ecdsa, "_aws_lc", lambda: None)
    key, r, s = signed(ec.SECP384R1(), SHA384())
    key.verify(r, s, DATA, "it")
    assert key._fast is None
    with pytest.raises(UntrustedError):
        key.verify(r, s, b"", "it")


def test_errors_of_the_second_library_believe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdsa, "_verified", LOAD_AFTER)
    key, r, s = signed(ec.SECP384R1(), SHA384())

    class Broken:
        def verify(self, digest: bytes, signature: bytes) -> bool:
            raise RuntimeError("it failed")

    monkeypatch.setattr(ecdsa, "_aws_lc", lambda: lambda spki: Broken())
    with pytest.raises(UntrustedError, match="does not hold"):
        key.verify(r, s, DATA, "it")


def test_a_key_that_the_second_library_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdsa, "_verified", LOAD_AFTER)

    def refuse(spki: bytes) -> None:
        raise RuntimeError("not this one")

    monkeypatch.setattr(ecdsa, "_aws_lc", lambda: refuse)
    key, r, s = signed(ec.SECP384R1(), SHA384())
    key.verify(r, s, DATA, "it")
    with pytest.raises(UntrustedError):
        key.verify(r, s, b"", "it")


def test_keys_are_values() -> None:
    key, r, s = signed(ec.SECP256R1(), SHA256())
    same = pickle.loads(pickle.dumps(key))
    assert same == key
    assert hash(same) == hash(key)
    assert same.spki == key.spki
    same.verify(r, s, DATA, "it")
    other, _, _ = signed(ec.SECP384R1(), SHA384())
    assert key != other
    assert key != key.spki
    assert repr(key).startswith("VerifyingKey(P256, ")


def test_other_curves_are_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="secp521r1"):
        VerifyingKey(ec.derive_private_key(5, ec.SECP521R1()).public_key())
