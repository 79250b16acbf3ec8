"""SIGSTRUCT: layout, canonical form, both ways of verifying it."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, UntrustedError, UsageError
from broch.tee.dcap.report import DEBUG, MODE64BIT
from broch.tee.sgx import sigstruct
from broch.tee.sgx.faults import InvalidSigStructError, SgxUntrustedError
from broch.tee.sgx.sigstruct import SIZE, Sigstruct

from .support import with_fields

HASH = hashlib.sha256(b"enclave").digest()


@pytest.fixture(scope="module")
def good(key: RSAPrivateKey) -> Sigstruct:
    return sigstruct.sign(sigstruct.template(HASH, isvprodid=7, isvsvn=3), key)


def test_fields_are_where_the_manual_says(good: Sigstruct, key: RSAPrivateKey) -> None:
    data = good.to_bytes()
    modulus = key.public_key().public_numbers().n.to_bytes(384, "little")
    assert len(data) == SIZE == 1808
    assert data[:16].hex() == "06000000e10000000000010000000000"
    assert data[24:40].hex() == "01010000600000006000000001000000"
    assert data[128:512] == modulus
    assert data[512:516] == b"\3\0\0\0"
    assert data[928:936] == b"\4" + bytes(7)
    assert data[936:944] == b"\3" + bytes(7)
    assert data[944:960] == b"\xff" * 16
    assert data[960:992] == HASH
    assert data[1024:1028] == b"\7\0\3\0"
    assert good.mrsigner() == hashlib.sha256(modulus).digest()


def test_round_trip(good: Sigstruct) -> None:
    assert Sigstruct.from_bytes(good.to_bytes()) == good


def test_signing_is_reproducible(good: Sigstruct, key: RSAPrivateKey) -> None:
    assert sigstruct.sign(sigstruct.template(HASH, isvprodid=7, isvsvn=3), key) == good


def test_the_quotients_are_those_of_the_manual(good: Sigstruct) -> None:
    s, n = good.signature, good.modulus
    assert good.q1 == s**2 // n
    assert good.q2 == (s**3 - good.q1 * s * n) // n


def test_debug_is_in_the_attributes_and_never_left_open() -> None:
    for debug in (False, True):
        made = sigstruct.template(HASH, debug=debug)
        assert made.debug is debug
        assert made.flags == MODE64BIT | (DEBUG if debug else 0)
        assert made.flags_mask & DEBUG


@pytest.mark.parametrize(
    ("offset", "field"),
    [
        pytest.param(0, "header", id="header"),
        pytest.param(16, "vendor", id="vendor"),
        pytest.param(24, "header2", id="header2"),
        pytest.param(512, "exponent", id="exponent"),
        pytest.param(44, "reserved", id="first of 84 reserved"),
        pytest.param(127, "reserved", id="last of 84 reserved"),
        pytest.param(910, "reserved", id="2 reserved"),
        pytest.param(992, "reserved", id="16 reserved"),
        pytest.param(1028, "reserved", id="first of 12 reserved"),
        pytest.param(1039, "reserved", id="last of 12 reserved"),
    ],
)
def test_constants_and_reserved_bytes(good: Sigstruct, offset: int, field: str) -> None:
    data = bytearray(good.to_bytes())
    data[offset] ^= 0x40
    with pytest.raises(InvalidSigStructError, match=field) as caught:
        Sigstruct.from_bytes(bytes(data))
    assert int(caught.value.number) == 1
    assert isinstance(caught.value, DecodeError)
    assert caught.value.offset == offset


def test_intel_is_the_other_vendor(good: Sigstruct) -> None:
    data = good.to_bytes()
    intel = data[:16] + (0x8086).to_bytes(4, "little") + data[20:]
    assert Sigstruct.from_bytes(intel).vendor == 0x8086


@pytest.mark.parametrize("size", [0, 1, 1807, 1809])
def test_other_lengths(size: int) -> None:
    with pytest.raises(InvalidSigStructError):
        Sigstruct.from_bytes(bytes(size))


def test_a_good_signature_verifies(good: Sigstruct) -> None:
    sigstruct.verify(good)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("q1", "q1 or q2"),
        ("q2", "q1 or q2"),
        ("signature", "q1 or q2"),
        ("modulus", "q1 or q2"),
        ("date", "not one of these bytes"),
        ("swdefined", "not one of these bytes"),
        ("miscselect", "not one of these bytes"),
        ("miscmask", "not one of these bytes"),
        ("flags", "not one of these bytes"),
        ("xfrm", "not one of these bytes"),
        ("flags_mask", "not one of these bytes"),
        ("xfrm_mask", "not one of these bytes"),
        ("isvprodid", "not one of these bytes"),
        ("isvsvn", "not one of these bytes"),
        ("cet_attributes", "not one of these bytes"),
        ("cet_attributes_mask", "not one of these bytes"),
    ],
)
def test_every_number_is_protected(good: Sigstruct, field: str, problem: str) -> None:
    bent = with_fields(good, {field: getattr(good, field) ^ 4})
    with pytest.raises(SgxUntrustedError, match=problem) as caught:
        sigstruct.verify(bent)
    assert int(caught.value.number) == 8
    assert caught.value.name == "SGX_INVALID_SIGNATURE"
    assert isinstance(caught.value, UntrustedError)


@pytest.mark.parametrize("field", ["enclavehash", "isvfamilyid", "isvextprodid"])
def test_every_string_is_protected(good: Sigstruct, field: str) -> None:
    value: bytes = getattr(good, field)
    with pytest.raises(SgxUntrustedError, match="not one of these bytes"):
        sigstruct.verify(with_fields(good, {field: b"X" + value[1:]}))


def test_a_signature_with_right_quotients_over_other_bytes(good: Sigstruct) -> None:
    signature = good.signature ^ 1
    q1, q2 = sigstruct.quotients(signature, good.modulus)
    with pytest.raises(SgxUntrustedError, match="not one of these bytes"):
        sigstruct.verify(with_fields(good, {"signature": signature, "q1": q1, "q2": q2}))


@pytest.mark.parametrize(
    ("modulus", "signature"),
    [
        pytest.param(0, 0, id="zero modulus"),
        pytest.param(1 << 3071, 1, id="even modulus"),
        pytest.param((1 << 2048) + 1, 1, id="short modulus"),
        pytest.param((1 << 3071) + 1, (1 << 3071) + 2, id="signature above the modulus"),
    ],
)
def test_numbers_that_are_no_key(good: Sigstruct, modulus: int, signature: int) -> None:
    with pytest.raises(SgxUntrustedError, match="RSA-3072"):
        sigstruct.verify(with_fields(good, {"modulus": modulus, "signature": signature}))


def test_a_forged_cube_is_refused_by_the_padding() -> None:
    """With e = 3 and lax padding a cube root is a signature (Bleichenbacher 2006)."""
    unsigned = sigstruct.template(HASH)
    forged = with_fields(unsigned, {"modulus": (1 << 3072) - 1, "signature": 2})
    q1, q2 = sigstruct.quotients(2, forged.modulus)
    with pytest.raises(SgxUntrustedError):
        sigstruct.verify(with_fields(forged, {"q1": q1, "q2": q2}))


@pytest.mark.parametrize(("size", "exponent"), [(2048, 3), (3072, 65537)])
def test_other_keys_cannot_sign(size: int, exponent: int) -> None:
    wrong = rsa.generate_private_key(public_exponent=exponent, key_size=size)
    with pytest.raises(UsageError, match="RSA-3072 with exponent 3"):
        sigstruct.sign(sigstruct.template(HASH), wrong)


@pytest.mark.parametrize("value", [-1, 2**16])
def test_numbers_of_16_bits(value: int) -> None:
    with pytest.raises(UsageError, match="product id"):
        sigstruct.template(HASH, isvprodid=value)
    with pytest.raises(UsageError, match="version"):
        sigstruct.template(HASH, isvsvn=value)
