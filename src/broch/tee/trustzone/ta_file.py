"""OP-TEE's signed TA file, ``<uuid>.ta`` (core/include/signed_hdr.h, scripts/sign_encrypt.py).

    offset  size  field
    0x00    4     magic      0x4f545348
    0x04    4     img_type   0 TA (legacy), 1 BOOTSTRAP_TA; 2 ENCRYPTED_TA and 3 SUBKEY are refused
    0x08    4     img_size   bytes of the program at the end
    0x0c    4     algo       0x70414930 RSASSA-PSS-MGF1-SHA256, 0x70004830 RSASSA-PKCS1-v1_5-SHA256
    0x10    2     hash_size  32
    0x12    2     sig_size   bytes, that of the signer's modulus
    0x14    32    hash       SHA-256 of everything but hash and sig
    0x34    n     sig        over hash; PSS with a salt of 32 bytes
            16    uuid       big-endian (RFC 9562); BOOTSTRAP_TA only, like the next
            4     ta_version
                  the program, an ELF

Integers are little-endian. The file does not hold the signer's public key: OP-TEE has it built in.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from broch.errors import DecodeError, UntrustedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

MAGIC: Final = 0x4F545348
HASH_SIZE: Final = 32  # bytes, SHA-256
SALT_SIZE: Final = 32  # bytes
MAX_PROGRAM: Final = 32 * 1024 * 1024  # bytes
MIN_SIGNATURE: Final = 256  # bytes: RSA of 2048 bits
MAX_SIGNATURE: Final = 1024  # bytes: RSA of 8192 bits

_SHDR: Final = struct.Struct("<IIIIHH")
_BOOTSTRAP: Final = struct.Struct("<16sI")
_WHAT: Final = "TA file"


class ImageType(IntEnum):
    """``img_type``."""

    TA = 0
    BOOTSTRAP_TA = 1
    ENCRYPTED_TA = 2
    SUBKEY = 3


class Algorithm(IntEnum):
    """``algo``: GlobalPlatform's numbers for RSA signatures with SHA-256."""

    PSS_SHA256 = 0x70414930
    PKCS1_V1_5_SHA256 = 0x70004830


@dataclass(frozen=True, slots=True, kw_only=True)
class TaFile:
    """A well-formed TA file. Hash and signature hold only after :meth:`verify`."""

    img_type: ImageType
    algo: Algorithm
    hash: bytes = field(repr=False)  # 32 bytes
    signature: bytes = field(repr=False)
    uuid: UUID | None  # None: a legacy TA
    ta_version: int  # 0 for a legacy TA
    program: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one signed TA, legacy or bootstrap.

        Raises:
            DecodeError: a rule of the layout does not hold, or a kind of file that Broch does not
                read: an encrypted TA, or a subkey.
        """
        if len(data) < _SHDR.size:
            raise DecodeError(len(data), f"expected at least {_SHDR.size} bytes", what=_WHAT)
        magic, img_type, img_size, algo, hash_size, sig_size = _SHDR.unpack_from(data)
        if magic != MAGIC:
            raise DecodeError(0x00, f"bad magic 0x{magic:08x}", what=_WHAT)
        kind = _image_type(img_type)
        if algo not in set(Algorithm):
            raise DecodeError(0x0C, f"unsupported signature algorithm 0x{algo:08x}", what=_WHAT)
        if not 1 <= img_size <= MAX_PROGRAM:
            raise DecodeError(0x08, f"program of {img_size} bytes", what=_WHAT)
        if hash_size != HASH_SIZE:
            raise DecodeError(0x10, f"hash of {hash_size} bytes, expected {HASH_SIZE}", what=_WHAT)
        if not MIN_SIGNATURE <= sig_size <= MAX_SIGNATURE:
            raise DecodeError(0x12, f"signature of {sig_size} bytes", what=_WHAT)
        extra_at = _SHDR.size + HASH_SIZE + sig_size
        program_at = extra_at + (_BOOTSTRAP.size if kind is ImageType.BOOTSTRAP_TA else 0)
        if len(data) != program_at + img_size:
            raise DecodeError(
                min(len(data), program_at + img_size),
                f"expected {program_at + img_size} bytes, got {len(data)}",
                what=_WHAT,
            )
        uuid, version = None, 0
        if kind is ImageType.BOOTSTRAP_TA:
            octets, version = _BOOTSTRAP.unpack_from(data, extra_at)
            uuid = UUID(bytes=octets)
        return cls(
            img_type=kind,
            algo=Algorithm(algo),
            hash=data[_SHDR.size : _SHDR.size + HASH_SIZE],
            signature=data[_SHDR.size + HASH_SIZE : extra_at],
            uuid=uuid,
            ta_version=version,
            program=data[program_at:],
        )

    @classmethod
    def sign(
        cls,
        program: bytes,
        uuid: UUID,
        ta_version: int,
        key: "RSAPrivateKey",
        algo: Algorithm = Algorithm.PSS_SHA256,
    ) -> Self:
        """Sign a program as a bootstrap TA.

        Raises:
            DecodeError: program, version or key do not fit the format.
        """
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        sig_size = key.key_size // 8
        if not 1 <= len(program) <= MAX_PROGRAM:
            raise DecodeError(0x08, f"program of {len(program)} bytes", what=_WHAT)
        if not 0 <= ta_version < 2**32:
            raise DecodeError(0, f"ta_version {ta_version} does not fit 32 bits", what=_WHAT)
        if not MIN_SIGNATURE <= sig_size <= MAX_SIGNATURE:
            raise DecodeError(0x12, f"signature of {sig_size} bytes", what=_WHAT)
        head = _SHDR.pack(*(MAGIC, ImageType.BOOTSTRAP_TA, len(program), algo, HASH_SIZE, sig_size))
        digest = hashlib.sha256(head + _BOOTSTRAP.pack(uuid.bytes, ta_version) + program).digest()
        return cls(
            img_type=ImageType.BOOTSTRAP_TA,
            algo=algo,
            hash=digest,
            signature=key.sign(digest, _padding(algo), Prehashed(hashes.SHA256())),
            uuid=uuid,
            ta_version=ta_version,
            program=program,
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return b"".join([self._shdr(), self.hash, self.signature, self._extra(), self.program])

    def verify(self, key: "RSAPublicKey") -> None:
        """Check the hash over the file, then the signature over the hash.

        Raises:
            UntrustedError: either does not hold.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        found = hashlib.sha256(self._shdr() + self._extra() + self.program).digest()
        if not hmac.compare_digest(found, self.hash):
            raise UntrustedError("the hash in the TA's header is not that of the TA")
        try:
            key.verify(self.signature, self.hash, _padding(self.algo), Prehashed(hashes.SHA256()))
        except InvalidSignature:
            raise UntrustedError("the TA is not signed by the key it is said to be") from None

    def _shdr(self) -> bytes:
        sizes = len(self.hash), len(self.signature)
        return _SHDR.pack(MAGIC, self.img_type, len(self.program), self.algo, *sizes)

    def _extra(self) -> bytes:
        return _BOOTSTRAP.pack(self.uuid.bytes, self.ta_version) if self.uuid else b""


def _image_type(value: int) -> ImageType:
    if value == ImageType.ENCRYPTED_TA:
        raise DecodeError(
            0x04, "an encrypted TA (img_type 2): Broch reads signed TAs in the clear", what=_WHAT
        )
    if value == ImageType.SUBKEY:
        raise DecodeError(
            0x04, "a subkey (img_type 3): Broch reads TAs signed by the root key", what=_WHAT
        )
    if value not in set(ImageType):
        raise DecodeError(0x04, f"unknown img_type {value}", what=_WHAT)
    return ImageType(value)


def _padding(algo: Algorithm) -> "AsymmetricPadding":
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    if algo is Algorithm.PKCS1_V1_5_SHA256:
        return padding.PKCS1v15()
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=SALT_SIZE)
