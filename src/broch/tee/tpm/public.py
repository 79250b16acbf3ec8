"""TPMT_PUBLIC: a key as its TPM describes it, RSA or ECC (TPM 2.0, part 2, 12.2.4).

    type 2            1 RSA, 0x23 ECC
    nameAlg 2         hash of the key's name
    attributes 4
    authPolicy        TPM2B, at most 64
    symmetric 2       0x10 (none), else + keyBits 2 + mode 2
    scheme 2          0x10 (none), else + hash 2
    RSA:  keyBits 2, exponent 4 (0: 65537), unique TPM2B
    ECC:  curve 2, kdf 2 (0x10 none, else + hash 2), x TPM2B, y TPM2B

The name of a key is nameAlg and the hash of this structure.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broch.errors import UntrustedError
from broch.tee.tpm.reader import HASHES, Reader

RSA: Final = 0x0001
ECC: Final = 0x0023
NULL: Final = 0x0010
FIXED_TPM: Final = 1 << 1
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18
# What makes a key's signature over a TPMS_ATTEST mean something.
ATTESTATION: Final = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN
_CURVES: Final[dict[int, ec.EllipticCurve]] = {
    0x0003: ec.SECP256R1(),
    0x0004: ec.SECP384R1(),
    0x0005: ec.SECP521R1(),
}
_MIN_RSA: Final = 2048
_W: Final = "TPMT_PUBLIC"
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """A key and what its TPM allows it."""

    raw: bytes = field(repr=False)
    name_alg: int
    attributes: int
    key: PublicKey = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one key.

        Raises:
            DecodeError: not one.
            UntrustedError: not a point of its curve.
        """
        reader = Reader(data, _W)
        kind, name_alg, attributes = reader.number(2), reader.number(2), reader.number(4)
        if name_alg not in HASHES:
            raise reader.fail(f"name algorithm 0x{name_alg:04x} is not known")
        reader.sized(64)  # authPolicy
        if reader.number(2) != NULL:
            reader.take(4)  # keyBits, mode
        if reader.number(2) != NULL:
            reader.take(2)  # hash
        if kind == RSA:
            key: PublicKey = _rsa(reader)
        elif kind == ECC:
            key = _ecc(reader)
        else:
            raise reader.fail(f"key type 0x{kind:04x}, expected RSA or ECC")
        reader.end()
        return cls(raw=data, name_alg=name_alg, attributes=attributes, key=key)

    def to_bytes(self) -> bytes:
        """The structure as it came."""
        return self.raw

    def name(self) -> bytes:
        """TPM2B_NAME without its size: nameAlg and hash."""
        return (
            self.name_alg.to_bytes(2, "big") + hashlib.new(HASHES[self.name_alg], self.raw).digest()
        )

    def check_attestation(self) -> None:
        """The key never leaves its TPM and signs nothing that the TPM did not make.

        Raises:
            UntrustedError: an attribute is missing, or the key also decrypts.
        """
        missing = ATTESTATION & ~self.attributes
        if missing or self.attributes & DECRYPT:
            raise UntrustedError(
                f"attributes 0x{self.attributes:08x} are not those of an attestation key"
            )


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    bits, exponent = reader.number(2), reader.number(4)
    modulus = reader.sized(512)
    number = int.from_bytes(modulus, "big")
    if bits < _MIN_RSA or len(modulus) * 8 != bits or number.bit_length() != bits:
        raise reader.fail(f"an RSA key of {bits} bits")
    try:
        return rsa.RSAPublicNumbers(exponent or 65537, number).public_key()
    except ValueError as exc:
        raise reader.fail(f"not an RSA key: {exc}") from None


def _ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(reader.number(2))
    if curve is None:
        raise reader.fail("a curve that is not known")
    if reader.number(2) != NULL:
        reader.take(2)
    size = (curve.key_size + 7) // 8
    x, y = reader.sized(size), reader.sized(size)
    try:
        numbers = int.from_bytes(x, "big"), int.from_bytes(y, "big")
        return ec.EllipticCurvePublicNumbers(*numbers, curve).public_key()
    except ValueError:
        raise UntrustedError(f"{_W}: not a point of {curve.name}") from None
