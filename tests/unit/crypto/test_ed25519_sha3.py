"""Ed25519 with SHA3-512: against published values, against OpenSSL's curve, and rule by rule."""

import hashlib
from typing import Final

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broch.crypto import ed25519_sha3
from broch.crypto.ed25519_sha3 import KeyPair, check_public, verify
from broch.errors import DecodeError, UntrustedError

P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
MESSAGE: Final = b"what the enclave said"
PAIR: Final = KeyPair.from_seed(bytes(range(32)))
SIGNATURE: Final = PAIR.sign(MESSAGE)

# The eight points whose order divides 8, encoded (any library's low-order list, e.g. libsodium's).
SMALL_ORDER: Final = [
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
]


def test_a_signature_verifies() -> None:
    verify(SIGNATURE, MESSAGE, PAIR.public)


def test_signing_is_deterministic() -> None:
    assert PAIR.sign(MESSAGE) == SIGNATURE
    assert PAIR.sign(MESSAGE + b"!") != SIGNATURE


def test_published_report_of_a_real_platform() -> None:
    """keystone-enclave/keystone issue #361 prints a report signed with a secret of zeros.

    It shows which hash signs, and over which bytes: hash || LE64(length) || data.
    """
    enclave_hash = bytes.fromhex(
        "b87eab4002b522ebb6a708a95b0495ee32f1cf7a2877266f3d6bd1677450f6a4"
        "fc7de05389c85644bffcbfac954b440186d962c755db7fccf1ff9e5fc0a70bc9"
    )
    data = b"1804289383\0"
    unset = KeyPair(public=bytes(32), secret=bytes(64))
    assert unset.sign(enclave_hash + len(data).to_bytes(8, "little") + data).hex() == (
        "185e38008fa95249b003fc7348ba104ff6d86c398e622d2013610d73472ab53e"
        "44d1f7b1e2ab67e3165bb1631e54d78d52248bcd09a609f599d4b3a2d1fc4b0b"
    )


def test_public_keys_are_those_of_openssl_for_the_same_scalar() -> None:
    for number in range(20):
        seed = hashlib.sha256(b"seed %d" % number).digest()
        expanded = bytearray(hashlib.sha512(seed).digest())
        expanded[0] &= 248
        expanded[31] = expanded[31] & 63 | 64
        openssl = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        assert KeyPair.from_secret(bytes(expanded)).public == openssl


def test_with_sha512_it_is_rfc_8032(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only difference from RFC 8032 is the hash: put it back, and OpenSSL agrees both ways."""
    seed = hashlib.sha256(b"rfc 8032").digest()
    openssl = Ed25519PrivateKey.from_private_bytes(seed)
    monkeypatch.setattr(hashlib, "sha3_512", hashlib.sha512)
    for number in range(10):
        message = bytes(number * 7)
        signature = openssl.sign(message)
        verify(signature, message, openssl.public_key().public_bytes_raw())
        assert KeyPair.from_seed(seed).sign(message) == signature


def test_rfc_8032_refuses_these_signatures() -> None:
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(PAIR.public).verify(SIGNATURE, MESSAGE)


def test_the_secret_is_not_shown() -> None:
    assert PAIR.secret.hex()[:16] not in repr(PAIR)
    assert repr(PAIR.secret) not in repr(PAIR)


def test_another_message_is_refused() -> None:
    with pytest.raises(UntrustedError, match="does not match"):
        verify(SIGNATURE, MESSAGE + b"!", PAIR.public)


def test_another_key_is_refused() -> None:
    with pytest.raises(UntrustedError, match="does not match"):
        verify(SIGNATURE, MESSAGE, KeyPair.from_seed(bytes(32)).public)


def test_s_not_below_the_order_is_refused() -> None:
    s = int.from_bytes(SIGNATURE[32:], "little")
    for again in range(1, 8):
        malleable = SIGNATURE[:32] + (s + again * L).to_bytes(32, "little")
        with pytest.raises(UntrustedError, match="group order"):
            verify(malleable, MESSAGE, PAIR.public)


@pytest.mark.parametrize("public", SMALL_ORDER, ids=[p.hex()[:4] for p in SMALL_ORDER])
def test_public_keys_of_small_order_are_refused(public: bytes) -> None:
    with pytest.raises(UntrustedError, match=r"small order|canonical"):
        check_public(public)
    with pytest.raises(UntrustedError):
        verify(bytes(64), MESSAGE, public)


def test_r_of_small_order_is_refused() -> None:
    """R is the neutral point and S the challenge times the secret: the bare equation holds."""
    r = SMALL_ORDER[0]
    hashed = hashlib.sha3_512(r + PAIR.public + MESSAGE).digest()
    scalar = int.from_bytes(PAIR.secret[:32], "little")
    s = int.from_bytes(hashed, "little") * scalar % L
    with pytest.raises(UntrustedError, match="R is of small order"):
        verify(r + s.to_bytes(32, "little"), MESSAGE, PAIR.public)


@pytest.mark.parametrize("y", [P, P + 1, P + 3, 2**255 - 1])
def test_points_that_are_not_canonical_are_refused(y: int) -> None:
    with pytest.raises(UntrustedError, match="canonical"):
        check_public(y.to_bytes(32, "little"))


def test_minus_zero_is_refused() -> None:
    with pytest.raises(UntrustedError, match="canonical"):
        check_public((1 | 1 << 255).to_bytes(32, "little"))


def test_points_off_the_curve_are_refused() -> None:
    off = 0
    for y in range(2, 40):
        try:
            check_public(y.to_bytes(32, "little"))
        except UntrustedError as exc:
            off += "not on the curve" in str(exc)
    assert 10 <= off <= 30  # about half of all y


@pytest.mark.parametrize(
    ("signature", "public"), [(63, 32), (65, 32), (0, 32), (64, 31), (64, 33), (64, 0)]
)
def test_sizes_are_exact(signature: int, public: int) -> None:
    with pytest.raises(DecodeError):
        verify(bytes(signature), MESSAGE, PAIR.public[:public].ljust(public, b"\0"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_seeds_have_32_bytes(size: int) -> None:
    with pytest.raises(DecodeError, match="seed"):
        KeyPair.from_seed(bytes(size))


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_secret_keys_have_64_bytes(size: int) -> None:
    with pytest.raises(DecodeError, match="secret key"):
        KeyPair.from_secret(bytes(size))


def test_every_bit_of_a_signature_counts() -> None:
    for bit in range(512):
        flipped = bytearray(SIGNATURE)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UntrustedError):
            verify(bytes(flipped), MESSAGE, PAIR.public)


def test_multiples_of_the_base_point_agree_with_doubling() -> None:
    """The table of windows against plain additions, at scalars where carries happen."""
    base = ed25519_sha3._multiply_base(1)
    for scalar in (1, 2, 7, 8, 9, 15, 16, 17, 0x8888, 2**252 - 1, L - 1, L // 2, 2**128 + 8):
        expected = ed25519_sha3._NEUTRAL
        for bit in bin(scalar)[2:]:
            expected = ed25519_sha3._double(expected)
            if bit == "1":
                expected = ed25519_sha3._add(expected, ed25519_sha3._to_cached(base))
        found = ed25519_sha3._multiply_base(scalar)
        assert ed25519_sha3._encode(found) == ed25519_sha3._encode(expected)
