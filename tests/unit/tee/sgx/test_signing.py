"""Options of signatures, two steps, dummy signatures, keys that are refused."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broch.errors import DecodeError, MalformedError, UntrustedError, UsageError
from broch.tee.sgx import signing, sigstruct
from broch.tee.sgx.signing import Masked, Options
from broch.tee.sgx.sigstruct import ALL_BITS

HASH = bytes(range(32))
DATE = 0x20160109


def unsigned(**options: Any) -> sigstruct.Sigstruct:
    return signing.unsigned(HASH, Options(date=DATE, **options))[0]


def pem(
    key: RSAPrivateKey | ec.EllipticCurvePrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key: RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signature(made: sigstruct.Sigstruct, key: RSAPrivateKey) -> bytes:
    return key.sign(made.signed_bytes(), PKCS1v15(), SHA256())


# Options


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"flags": 4, "flags_mask": ALL_BITS - 2, "xfrm": 3, "xfrm_mask": ALL_BITS - 3}),
        ({}, {"miscselect": 0, "miscmask": 2**32 - 1, "date": DATE, "isvsvn": 0}),
        ({"xfrm": Masked(value=7, open=0)}, {"xfrm": 7, "xfrm_mask": ALL_BITS}),
        ({"miscselect": Masked(value=1, open=1)}, {"miscselect": 1, "miscmask": 2**32 - 2}),
        ({"debug": True}, {"flags": 6, "flags_mask": ALL_BITS - 2}),
        (
            {"debug": True, "attributes": Masked(value=4, open=0)},
            {"flags": 6, "flags_mask": ALL_BITS - 2},
        ),
        ({"mode32": True}, {"flags": 0, "flags_mask": ALL_BITS - 2}),
        (
            {"mode32": True, "attributes": Masked(value=4, open=4)},
            {"flags": 0, "flags_mask": ALL_BITS},
        ),
        ({"isvprodid": 65535, "isvsvn": 3}, {"isvprodid": 65535, "isvsvn": 3}),
        ({"swdefined": 0x20}, {"swdefined": 0x20}),
        (
            {"isvextprodid": 0x0102},
            {"isvextprodid": b"\2\1" + bytes(14), "flags": 0x84, "flags_mask": ALL_BITS - 2},
        ),
        (
            {"isvextprodid": 1, "attributes": Masked(value=4, open=0x80)},
            {"flags": 0x84, "flags_mask": ALL_BITS},
        ),
    ],
)
def test_options(options: dict[str, Any], fields: dict[str, int | bytes]) -> None:
    made = unsigned(**options)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"attributes": Masked(value=0x104, open=0x104)}, "ATTRIBUTES 0x100"),
        ({"miscselect": Masked(value=3, open=3)}, "MISCSELECT 0x2"),
    ],
)
def test_unknown_bits_are_dropped_and_said(options: dict[str, Any], warning: str) -> None:
    made, warnings = signing.unsigned(HASH, Options(date=0, **options))
    assert len(warnings) == 1
    assert warning in warnings[0]
    assert (made.flags, made.miscselect) in ((4, 0), (4, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"isvprodid": 65536},
        {"isvsvn": 65536},
        {"swdefined": 2**32},
        {"miscselect": Masked(value=0, open=2**32)},
        {"attributes": Masked(value=2**64, open=0)},
        {"xfrm": Masked(value=2**64, open=0)},
        {"isvextprodid": 2**128},
    ],
)
def test_numbers_that_do_not_fit(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        Options(date=0, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", (7, 7)), ("0x7/0", (7, 0)), ("3/0xE4", (3, 0xE4)), ("010", (10, 10))],
)
def test_masked(text: str, expected: tuple[int, int]) -> None:
    made = Masked.parse(text)
    assert (made.value, made.open) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "+1", " 1", "0x", "1_0", "٣", "7/", "1/2/3", "9" * 50]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(UsageError, match="not a number"):
        Masked.parse(text)


def test_dates() -> None:
    assert signing.parse_date("20160109") == DATE
    assert signing.parse_date("00000000") == 0
    for text in ("2016-01-09", "20160230", "2016010", "20161301", "today", "００００００００"):
        with pytest.raises(UsageError, match="is not a date"):
            signing.parse_date(text)


# Two steps


def test_two_steps_give_what_one_does(key: RSAPrivateKey) -> None:
    made = unsigned(isvsvn=9)
    joined = signing.join(made, signature(made, key), key.public_key())
    assert joined == sigstruct.sign(made, key)


def test_a_signature_of_something_else(key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    made = unsigned()
    right = signature(made, key)
    flipped = bytes([right[0] ^ 1]) + right[1:]
    for wrong, public in (
        (signature(replace(made, date=0), key), key),
        (right, other_key),
        (flipped, key),
        (b"\xff" * 384, key),
        (bytes(384), key),
    ):
        with pytest.raises(UntrustedError, match="not one of these bytes") as caught:
            signing.join(made, wrong, public.public_key())
        assert "--date" in (caught.value.hint or "")


@pytest.mark.parametrize("size", [0, 383, 385])
def test_a_signature_of_another_length(key: RSAPrivateKey, size: int) -> None:
    with pytest.raises(MalformedError, match=f"has {size} bytes"):
        signing.join(unsigned(), bytes(size), key.public_key())


# Dummy signatures


def test_a_dummy_signature_is_for_debug_only(key: RSAPrivateKey) -> None:
    made = sigstruct.sign(signing.dummy(HASH, 1, DATE), key)
    sigstruct.verify(made)
    assert made.debug
    assert (made.flags, made.flags_mask) == (6, ALL_BITS)
    assert (made.xfrm, made.xfrm_mask) == (3, ALL_BITS)
    assert (made.isvprodid, made.isvsvn, made.date) == (0, 0, DATE)


@pytest.mark.parametrize(
    ("pages", "xcr0", "expected"),
    [
        (1, 3, 3),
        (1, 7, 7),
        (1, 0xE7, 0xE7),
        (1, 0xE3, 3),  # AVX-512 needs AVX
        (1, 0x63, 3),  # a part of AVX-512
        (1, 0x602E7, 0x2E7),  # AMX does not fit one page
        (3, 0x602E7, 0x602E7),
        (1, 2**64 - 1, 0x2FF),
    ],
)
def test_state_that_fits_a_frame(pages: int, xcr0: int, expected: int) -> None:
    assert signing.fitting_xfrm(pages, xcr0) == expected


# Keys


def test_keys_that_will_do(key: RSAPrivateKey) -> None:
    modulus = key.public_key().public_numbers().n
    assert signing.read_private_key(pem(key), "k").public_key().public_numbers().n == modulus
    for text in (pem(key), public_pem(key)):
        assert signing.read_public_key(text, "k").public_numbers().n == modulus


def test_keys_that_will_not_do() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    small = rsa.generate_private_key(65537, 2048)
    for key, problem in ((curve, "not an RSA key"), (small, "RSA-2048 with exponent 65537")):
        for read, text in (
            (signing.read_private_key, pem(key)),
            (signing.read_public_key, public_pem(key)),
        ):
            with pytest.raises(UsageError, match=problem) as caught:
                read(text, "key.pem")
            assert caught.value.hint == "make one with: openssl genrsa -3 -out key.pem 3072"
            assert caught.value.place == "key.pem"


def test_an_encrypted_key(key: RSAPrivateKey) -> None:
    with pytest.raises(MalformedError, match="encrypted") as caught:
        signing.read_private_key(pem(key, BestAvailableEncryption(b"x")), "key.pem")
    assert "--tbs" in (caught.value.hint or "")


@pytest.mark.parametrize("text", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\0" * 99])
def test_what_is_no_key(text: bytes) -> None:
    for read in (signing.read_private_key, signing.read_public_key):
        with pytest.raises(MalformedError, match="not a p"):
            read(text, "key.pem")


# Replacing a signature


def test_verify_existing(key: RSAPrivateKey, other_key: RSAPrivateKey) -> None:
    old = sigstruct.sign(unsigned(), key)
    data = old.to_bytes()
    signing.verify_existing(data, HASH, key.public_key(), "x.sig")
    with pytest.raises(UntrustedError, match="another key"):
        signing.verify_existing(data, HASH, other_key.public_key(), "x.sig")
    with pytest.raises(UntrustedError, match="another enclave"):
        signing.verify_existing(data, bytes(32), key.public_key(), "x.sig")
    bent = replace(old, isvsvn=1).to_bytes()
    with pytest.raises(UntrustedError, match="SIGNATURE"):
        signing.verify_existing(bent, HASH, key.public_key(), "x.sig")
    with pytest.raises(DecodeError):
        signing.verify_existing(data[:-1], HASH, key.public_key(), "x.sig")


def test_the_runtime_closure_does_not_import_it() -> None:
    code = "import sys, broch.tee.sgx; print('broch.tee.sgx.signing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
