"""SIGSTRUCT, the 1808 bytes that sign an enclave (SDM 3D 37.14; Intel's arch.h).

    offset size field                 offset size field
    0      16   header                928    8+8  attributes, xfrm
    16     4    vendor                944    8+8  attributemask, xfrmmask
    20     4    date, BCD yyyymmdd    960    32   enclavehash (MRENCLAVE)
    24     16   header2               992    16   reserved
    40     4    swdefined             1008   16   isvextprodid
    44     84   reserved              1024   2    isvprodid
    128    384  modulus               1026   2    isvsvn
    512    4    exponent, 3           1028   12   reserved
    516    384  signature             1040   384  q1
    900    4    miscselect            1424   384  q2
    904    4    miscmask
    908    1    cet_attributes
    909    1    cet_attributes_mask
    910    2    reserved
    912    16   isvfamilyid

All integers, the RSA numbers included, are little-endian. Signed are bytes 0..128 and 900..1028,
by RSASSA-PKCS1-v1_5 with SHA-256, RSA-3072, e = 3. That is deterministic, so with a fixed date a
SIGSTRUCT is reproducible byte for byte.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from broch.errors import UsageError
from broch.tee.dcap.report import DEBUG, MODE64BIT
from broch.tee.sgx.faults import InvalidSigStructError, SgxNumber, SgxUntrustedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

SIZE: Final = 1808
KEY_BYTES: Final = 384
HEADER: Final = bytes.fromhex("06000000e10000000000010000000000")
HEADER2: Final = bytes.fromhex("01010000600000006000000001000000")
VENDORS: Final = (0, 0x8086)
XFRM_X87_SSE: Final = 3
ALL_BITS: Final = 2**64 - 1
_LAYOUT: Final = struct.Struct("<16sII16sI84x384sI384sIIBB2x16sQQQQ32s16x16sHH12x384s384s")
# EMSA-PKCS1-v1_5 of SHA-256 (RFC 8017, 9.2): what stands before the digest.
_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
PADDING: Final = b"\x00\x01" + b"\xff" * (KEY_BYTES - 35 - len(_DIGEST_INFO)) + b"\0" + _DIGEST_INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstruct:
    """A SIGSTRUCT whose constant fields are right; says nothing of its signature."""

    vendor: int
    date: int  # BCD: 0x20160109 is 9 January 2016; 0 where it must not matter
    swdefined: int
    modulus: int
    signature: int
    miscselect: int
    miscmask: int
    cet_attributes: int
    cet_attributes_mask: int
    isvfamilyid: bytes  # 16
    flags: int  # ATTRIBUTES, low half
    xfrm: int  # ATTRIBUTES, high half
    flags_mask: int  # ATTRIBUTEMASK: bits that SECS.ATTRIBUTES must share
    xfrm_mask: int
    enclavehash: bytes  # 32
    isvextprodid: bytes  # 16
    isvprodid: int
    isvsvn: int
    q1: int
    q2: int

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 1808 bytes, checking what EINIT checks first.

        Raises:
            InvalidSigStructError: another length, wrong constants, or reserved bytes not zero.
        """
        if len(data) != SIZE:
            raise InvalidSigStructError(
                min(len(data), SIZE), f"{len(data)} bytes, expected {SIZE}", what="sigstruct"
            )
        (header, vendor, date, header2, swdefined, modulus, exponent, signature, *rest, q1, q2) = (
            _LAYOUT.unpack(data)
        )
        for offset, right, field in (
            (0, header == HEADER, "header"),
            (16, vendor in VENDORS, "vendor"),
            (24, header2 == HEADER2, "header2"),
            (512, exponent == 3, "exponent"),
        ):
            if not right:
                raise InvalidSigStructError(
                    offset, f"{field} is not the constant", what="sigstruct"
                )
        sigstruct = cls(
            vendor=vendor,
            date=date,
            swdefined=swdefined,
            modulus=int.from_bytes(modulus, "little"),
            signature=int.from_bytes(signature, "little"),
            **dict(zip(_REST, rest, strict=True)),
            q1=int.from_bytes(q1, "little"),
            q2=int.from_bytes(q2, "little"),
        )
        if (encoded := sigstruct.to_bytes()) != data:
            offset = next(at for at in range(SIZE) if encoded[at] != data[at])
            raise InvalidSigStructError(offset, "a reserved byte is not zero", what="sigstruct")
        return sigstruct

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _LAYOUT.pack(
            HEADER,
            self.vendor,
            self.date,
            HEADER2,
            self.swdefined,
            _number(self.modulus),
            3,
            _number(self.signature),
            *(getattr(self, name) for name in _REST),
            _number(self.q1),
            _number(self.q2),
        )

    def signed_bytes(self) -> bytes:
        """The 256 bytes that are signed."""
        data = self.to_bytes()
        return data[:128] + data[900:1028]

    def mrsigner(self) -> bytes:
        """SHA-256 of the modulus (32 bytes): who signed, if the signature holds."""
        return hashlib.sha256(_number(self.modulus)).digest()

    @property
    def debug(self) -> bool:
        """Whether the signer asks for a debug enclave."""
        return bool(self.flags & DEBUG)


_REST: Final = (
    *("miscselect", "miscmask", "cet_attributes", "cet_attributes_mask", "isvfamilyid"),
    *("flags", "xfrm", "flags_mask", "xfrm_mask", "enclavehash", "isvextprodid"),
    *("isvprodid", "isvsvn"),
)


def _number(value: int) -> bytes:
    return value.to_bytes(KEY_BYTES, "little")


def template(
    enclavehash: bytes, *, isvprodid: int = 0, isvsvn: int = 0, debug: bool = False
) -> Sigstruct:
    """An unsigned SIGSTRUCT as Broch makes them, dated 0.

    The masks leave nothing open: a production image never loads with DEBUG set, a debug image
    only with it.

    Raises:
        UsageError: a number that does not fit 16 bits.
    """
    for what, value in (("product id", isvprodid), ("version", isvsvn)):
        if not 0 <= value < 2**16:
            raise UsageError(f"{what} {value} does not fit the 16 bits that SGX has for it")
    return Sigstruct(
        vendor=0,
        date=0,
        swdefined=0,
        modulus=0,
        signature=0,
        miscselect=0,
        miscmask=2**32 - 1,
        cet_attributes=0,
        cet_attributes_mask=0,
        isvfamilyid=bytes(16),
        flags=MODE64BIT | (DEBUG if debug else 0),
        xfrm=XFRM_X87_SSE,
        flags_mask=ALL_BITS,
        xfrm_mask=ALL_BITS,
        enclavehash=enclavehash,
        isvextprodid=bytes(16),
        isvprodid=isvprodid,
        isvsvn=isvsvn,
        q1=0,
        q2=0,
    )


def sign(unsigned: Sigstruct, key: RSAPrivateKey) -> Sigstruct:
    """Put modulus, signature, q1 and q2 into ``unsigned``.

    Raises:
        UsageError: not an RSA-3072 key with exponent 3.
    """
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    public = key.public_key().public_numbers()
    if key.key_size != 3072 or public.e != 3:
        raise UsageError(
            f"the signing key is RSA-{key.key_size} with exponent {public.e}; "
            "SGX needs RSA-3072 with exponent 3",
        )
    signature = int.from_bytes(key.sign(unsigned.signed_bytes(), PKCS1v15(), SHA256()), "big")
    q1, q2 = quotients(signature, public.n)
    return replace(unsigned, modulus=public.n, signature=signature, q1=q1, q2=q2)


def quotients(signature: int, modulus: int) -> tuple[int, int]:
    """The helpers q1 and q2 that spare EINIT its divisions (SDM 3D, EINIT)."""
    square = signature * signature
    q1 = square // modulus
    return q1, signature * (square - q1 * modulus) // modulus


def verify(sigstruct: Sigstruct) -> None:
    """Check the signature, first as EINIT does with q1 and q2, then as RFC 8017 does.

    Raises:
        SgxUntrustedError: SGX_INVALID_SIGNATURE (8).
    """
    s, n = sigstruct.signature, sigstruct.modulus
    if not (n.bit_length() == 8 * KEY_BYTES and n & 1 and s < n):
        raise _bad_signature("not an RSA-3072 modulus with a signature below it")
    if (sigstruct.q1, sigstruct.q2) != quotients(s, n):
        raise _bad_signature("q1 or q2 is not the quotient it should be")
    # EINIT: s**3 mod n out of multiplications and the two quotients alone.
    message = s * (s * s - sigstruct.q1 * n) - sigstruct.q2 * n
    expected = PADDING + hashlib.sha256(sigstruct.signed_bytes()).digest()
    if message.to_bytes(KEY_BYTES, "big") != expected:
        raise _bad_signature("the signature is not one of these bytes by this key")
    _verify_rfc8017(sigstruct)


def _verify_rfc8017(sigstruct: Sigstruct) -> None:
    """The same once more by a library that shares no code with the above."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    signature = sigstruct.signature.to_bytes(KEY_BYTES, "big")
    try:
        key = RSAPublicNumbers(3, sigstruct.modulus).public_key()
        key.verify(signature, sigstruct.signed_bytes(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        raise _bad_signature("RSASSA-PKCS1-v1_5 does not verify") from None


def _bad_signature(problem: str) -> SgxUntrustedError:
    return SgxUntrustedError(SgxNumber.INVALID_SIGNATURE, problem)
