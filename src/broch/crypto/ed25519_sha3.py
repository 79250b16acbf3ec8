"""Ed25519 with SHA3-512 in place of SHA-512, as Keystone's firmware signs.

Keystone took orlp/ed25519 and replaced the hash in all three places (key expansion, nonce,
challenge). The curve, the encodings and the equation are those of RFC 8032, section 5.1; the
signatures are not: no library that follows RFC 8032 accepts them.

    secret key   64 bytes: clamped SHA3-512(seed) = scalar (32) || nonce prefix (32)
    public key   32 bytes: the point scalar * B, encoded
    signature    64 bytes: R (32) || S (32), little-endian

Verification is stricter than Keystone's own: S must be below the group order (no second signature
for a message), the public key and R must be canonical points, and neither may be of small order.

Points are extended coordinates (X, Y, Z, T) on the twisted Edwards curve with a = -1 (Hisil, Wong,
Carter, Dawson, 2008); multiples of the base point come from a table of 64 windows of 4 bits.
Python integers take time that depends on their values: sign with this only where the signer's
machine is trusted not to be timed, as an emulated device's is.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, Self

from broch.errors import DecodeError, UntrustedError

SEED_SIZE: Final = 32  # bytes
PUBLIC_SIZE: Final = 32
SECRET_SIZE: Final = 64
SIGNATURE_SIZE: Final = 64

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_D2: Final = 2 * _D % _P
_SQRT_M1: Final = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z
_Niels = tuple[int, int, int]  # y + x, y - x, 2dxy of an affine point
_Cached = tuple[int, int, int, int]  # Y + X, Y - X, 2Z, 2dT

_NEUTRAL: Final[_Point] = (0, 1, 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A key that signs. Made by :meth:`from_seed` or :meth:`from_secret`."""

    public: bytes  # 32 bytes
    secret: bytes = field(repr=False)  # 64 bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Expand a seed of 32 bytes, as ``ed25519_create_keypair`` does.

        Raises:
            DecodeError: the seed has another size.
        """
        _expect_size("seed", seed, SEED_SIZE)
        expanded = bytearray(hashlib.sha3_512(seed).digest())
        expanded[0] &= 248
        expanded[31] = expanded[31] & 63 | 64
        return cls.from_secret(bytes(expanded))

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """Take a secret key of 64 bytes, already clamped.

        Raises:
            DecodeError: the key has another size.
        """
        _expect_size("secret key", secret, SECRET_SIZE)
        scalar = int.from_bytes(secret[:32], "little")
        return cls(public=_encode(_multiply_base(scalar % _L)), secret=secret)

    def sign(self, message: bytes) -> bytes:
        """Sign; the same message always gives the same 64 bytes."""
        scalar = int.from_bytes(self.secret[:32], "little")
        nonce = _hash_to_scalar(self.secret[32:], message)
        point = _encode(_multiply_base(nonce))
        challenge = _hash_to_scalar(point, self.public, message)
        return point + ((nonce + challenge * scalar) % _L).to_bytes(32, "little")


def verify(signature: bytes, message: bytes, public: bytes) -> None:
    """Check that the holder of ``public`` signed ``message``.

    Raises:
        DecodeError: the signature or the key has another size.
        UntrustedError: the signature does not hold, or it or the key is not one that an honest
            signer makes (S not reduced, a point not on the curve, not canonical, of small order).
    """
    _expect_size("signature", signature, SIGNATURE_SIZE)
    multiples = _negated_multiples(public)
    s = int.from_bytes(signature[32:], "little")
    if s >= _L:
        raise UntrustedError("Ed25519-SHA3: S is not below the group order")
    challenge = _hash_to_scalar(signature[:32], public, message)
    point = _add(_multiply_base(s), _to_cached(_multiply(challenge, multiples)))
    # Comparing encodings also refuses an R that is off the curve or not canonical.
    if _encode(point) != signature[:32]:
        raise UntrustedError("Ed25519-SHA3: the signature does not match the message")
    if _is_small_order(point):
        raise UntrustedError("Ed25519-SHA3: R is of small order")


def check_public(public: bytes) -> None:
    """Check that ``public`` is a key that an honest signer can have.

    Raises:
        DecodeError: not 32 bytes.
        UntrustedError: off the curve, not canonical, or of small order.
    """
    _negated_multiples(public)


def _expect_size(what: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise DecodeError(min(len(value), size), f"{what} has {len(value)} bytes, expected {size}")


def _hash_to_scalar(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha3_512(b"".join(parts)).digest(), "little") % _L


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _decode(data: bytes) -> _Point:
    """Decode a point (RFC 8032, section 5.1.3)."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= _P:
        raise UntrustedError("Ed25519-SHA3: the point is not in its canonical encoding")
    u = (y * y - 1) % _P
    v = (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _SQRT_M1 % _P
    if (v * x * x - u) % _P:
        raise UntrustedError("Ed25519-SHA3: the point is not on the curve")
    if not x and sign:
        raise UntrustedError("Ed25519-SHA3: the point is not in its canonical encoding")
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _double(point: _Point) -> _Point:
    x, y, z, _ = point
    a = x * x
    b = y * y
    h = a + b
    e = (h - (x + y) * (x + y)) % _P
    g = (a - b) % _P
    f = (2 * z * z + g) % _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _add(point: _Point, other: _Cached) -> _Point:
    x, y, z, t = point
    plus, minus, z2, t2d = other
    a = (y - x) * minus
    b = (y + x) * plus
    c = t * t2d
    d = z * z2
    e = (b - a) % _P
    f = (d - c) % _P
    g = (d + c) % _P
    h = (b + a) % _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _to_cached(point: _Point) -> _Cached:
    x, y, z, t = point
    return y + x, y - x, 2 * z, t * _D2 % _P


def _negate(point: _Point) -> _Point:
    x, y, z, t = point
    return -x % _P, y, z, -t % _P


def _is_small_order(point: _Point) -> bool:
    x, y, z, _ = _double(_double(_double(point)))
    return not x and y == z


def _multiply_base(scalar: int) -> _Point:
    """``scalar`` times B for 0 <= scalar < 2**253: one mixed addition a digit of 4 bits."""
    x, y, z, t = _NEUTRAL
    carry = 0
    for window in _base_table():
        digit = (scalar & 15) + carry
        scalar >>= 4
        carry = digit > 8
        if carry:
            digit -= 16
        if not digit:
            continue
        if digit > 0:
            plus, minus, xy2d = window[digit - 1]
        else:
            minus, plus, xy2d = window[-digit - 1]
            xy2d = -xy2d
        a = (y - x) * minus
        b = (y + x) * plus
        c = t * xy2d
        e = (b - a) % _P
        f = (2 * z - c) % _P
        g = (2 * z + c) % _P
        h = (b + a) % _P
        x, y, z, t = e * f % _P, g * h % _P, f * g % _P, e * h % _P
    return x, y, z, t


@cache
def _base_table() -> tuple[tuple[_Niels, ...], ...]:
    """Entry [i][j] is (j + 1) * 16**i * B: 64 windows of 8 points; a few milliseconds, once."""
    points: list[_Point] = []
    base = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    for _ in range(64):
        step = _to_cached(base)
        point = base
        points.append(point)
        for _ in range(7):
            point = _add(point, step)
            points.append(point)
        base = _double(point)  # 8 times two: the next window's unit
    niels = [_to_niels(p, inverse) for p, inverse in zip(points, _inverses(points), strict=True)]
    return tuple(tuple(niels[i : i + 8]) for i in range(0, 512, 8))


def _inverses(points: list[_Point]) -> list[int]:
    """1/Z of every point, for the price of one inversion (Montgomery)."""
    products = [1]
    for point in points:
        products.append(products[-1] * point[2] % _P)
    inverse = pow(products.pop(), -1, _P)
    found = []
    for point, product in zip(reversed(points), reversed(products), strict=True):
        found.append(inverse * product % _P)
        inverse = inverse * point[2] % _P
    return found[::-1]


def _to_niels(point: _Point, inverse: int) -> _Niels:
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y + x) % _P, (y - x) % _P, x * y * _D2 % _P


@lru_cache(maxsize=64)
def _negated_multiples(public: bytes) -> tuple[_Cached, ...]:
    """Check a public key A; return -A, -3A, ..., -15A. Kept, as verifiers meet few keys often."""
    _expect_size("public key", public, PUBLIC_SIZE)
    point = _negate(_decode(public))
    if _is_small_order(point):
        raise UntrustedError("Ed25519-SHA3: the public key is of small order")
    twice = _to_cached(_double(point))
    multiples = [_to_cached(point)]
    for _ in range(7):
        point = _add(point, twice)
        multiples.append(_to_cached(point))
    return tuple(multiples)


def _multiply(scalar: int, multiples: tuple[_Cached, ...]) -> _Point:
    """``scalar`` times the point whose odd multiples are given, by signed windows (wNAF, 5)."""
    digits = []
    while scalar:
        digit = 0
        if scalar & 1:
            digit = scalar & 31
            if digit > 16:
                digit -= 32
            scalar -= digit
        digits.append(digit)
        scalar >>= 1
    point = _NEUTRAL
    for digit in reversed(digits):
        point = _double(point)
        if digit > 0:
            point = _add(point, multiples[digit >> 1])
        elif digit:
            plus, minus, z2, t2d = multiples[-digit >> 1]
            point = _add(point, (minus, plus, z2, -t2d))
    return point
