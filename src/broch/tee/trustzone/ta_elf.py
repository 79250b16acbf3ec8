"""The program inside a TA file, as an ELF of the shape that OP-TEE loads, and its memory hash.

A trusted application (TA) is an ELF whose section ``.ta_head`` says who it is. A Python module has
no machine code, so its ELF has two read-only segments, one page-aligned after the other: the head,
and the image (:mod:`broch.image`) that the runtime executes.

    file offset  size  content
    0x0000       64    ELF header: ELF64, little-endian, ET_DYN, EM_AARCH64, no entry
    0x0040       112   two program headers, PT_LOAD, readable only
    0x1000       32    .ta_head: TEE_UUID (16, little-endian fields), u32 stack_size, u32 flags,
                       u64 depr_entry (all ones: not used)
    0x2000       n     .broch_image
    0x2000 + n         .shstrtab, zeros up to 8 bytes, four section headers

There is one encoding: decoding builds the ELF again and compares.

The memory hash is what OP-TEE's attestation pseudo-TA computes (core/pta/attestation.c): SHA-256
over the regions that the TA cannot write, loader excluded, in order of size and then content, so
that where they were mapped does not matter. Regions are whole pages, the last one ends in zeros.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self
from uuid import UUID

from broch.errors import DecodeError
from broch.image import Image
from broch.image.image import MAX_IMAGE

PAGE: Final = 4096  # bytes
MEMORY_HASH_SIZE: Final = 32  # bytes, SHA-256
MAX_ELF: Final = MAX_IMAGE + 4 * PAGE  # bytes

# First 16 bytes of SHA-512("broch/trustzone/namespace/1") as a UUID of version 8 (RFC 9562).
NAMESPACE: Final = UUID("147f011f-3c5c-80c5-bb89-4a2ef28d872e")

_HEAD_AT: Final = 0x1000
_IMAGE_AT: Final = 0x2000
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_TA_HEAD: Final = struct.Struct("<16sIIQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little-endian, version 1
_ET_DYN: Final = 3
_EM_AARCH64: Final = 183
_PT_LOAD: Final = 1
_PF_R: Final = 4
_SHT_PROGBITS: Final = 1
_SHT_STRTAB: Final = 3
_SHF_ALLOC: Final = 2
_STACK_SIZE: Final = 64 * 1024  # bytes
_FLAGS: Final = 1 << 2 | 1 << 3  # single instance, multiple sessions
_NO_ENTRY: Final = 2**64 - 1
_NAMES: Final = b"\0.ta_head\0.broch_image\0.shstrtab\0"
_WHAT: Final = "TA ELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaElf:
    """A TA that holds a Python module."""

    uuid: UUID
    image: bytes = field(repr=False)  # canonical encoding of a broch.image.Image

    @classmethod
    def of(cls, image: Image) -> Self:
        """The TA of a module, under the UUID of its name."""
        return cls(uuid=uuid_of(image.app, image.module), image=image.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one ELF in its one encoding. The image itself is not looked at.

        Raises:
            DecodeError: not an ELF that this module makes.
        """
        if not _IMAGE_AT < len(data) <= MAX_ELF:
            raise DecodeError(0, f"{len(data)} bytes; {_IMAGE_AT} to {MAX_ELF} allowed", what=_WHAT)
        if data[: len(_IDENT)] != _IDENT:
            raise DecodeError(0, "not a little-endian ELF64", what=_WHAT)
        size = _SEGMENT.unpack_from(data, _HEADER.size + _SEGMENT.size)[5]
        if not 1 <= size <= len(data) - _IMAGE_AT:
            raise DecodeError(_HEADER.size + _SEGMENT.size, f"image of {size} bytes", what=_WHAT)
        elf = cls(
            uuid=UUID(bytes_le=data[_HEAD_AT : _HEAD_AT + 16]),
            image=data[_IMAGE_AT : _IMAGE_AT + size],
        )
        again = elf.to_bytes()
        if again != data:
            at = next((i for i, (a, b) in enumerate(zip(again, data, strict=False)) if a != b), 0)
            raise DecodeError(at, "not the encoding of a Broch TA", what=_WHAT)
        return elf

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        size = len(self.image)
        names_at = _IMAGE_AT + size
        sections_at = -(-(names_at + len(_NAMES)) // 8) * 8
        head = _HEADER.pack(
            *(_IDENT, _ET_DYN, _EM_AARCH64, 1, 0, _HEADER.size, sections_at, 0),
            *(_HEADER.size, _SEGMENT.size, 2, _SECTION.size, 4, 3),
        )
        segments = _segment(_HEAD_AT, 0, _TA_HEAD.size) + _segment(_IMAGE_AT, PAGE, size)
        sections = (
            bytes(_SECTION.size)
            + _section(1, _SHT_PROGBITS, _SHF_ALLOC, 0, _HEAD_AT, _TA_HEAD.size)
            + _section(10, _SHT_PROGBITS, _SHF_ALLOC, PAGE, _IMAGE_AT, size)
            + _section(23, _SHT_STRTAB, 0, 0, names_at, len(_NAMES))
        )
        return b"".join(
            [
                (head + segments).ljust(_HEAD_AT, b"\0"),
                self._ta_head().ljust(_IMAGE_AT - _HEAD_AT, b"\0"),
                self.image,
                _NAMES.ljust(sections_at - names_at, b"\0"),
                sections,
            ]
        )

    def memory_hash(self) -> bytes:
        """What the attestation pseudo-TA finds when this TA runs (32 bytes)."""
        return hash_regions([self._ta_head(), self.image])

    def _ta_head(self) -> bytes:
        return _TA_HEAD.pack(self.uuid.bytes_le, _STACK_SIZE, _FLAGS, _NO_ENTRY)


def hash_regions(regions: Iterable[bytes]) -> bytes:
    """SHA-256 over read-only regions, filled to pages, by size and then by content."""
    pages = [region + bytes(-len(region) % PAGE) for region in regions]
    digest = hashlib.sha256()
    for region in sorted(pages, key=lambda region: (len(region), region)):
        digest.update(region)
    return digest.digest()


def uuid_of(app: str, module: str) -> UUID:
    """The UUID of a module: of its name, not of its code, so that an update keeps it.

    Version 5 as OP-TEE makes those of subkeys (``uuid_v5_sha512`` in scripts/sign_encrypt.py):
    SHA-512 over namespace and name, cut to 16 bytes.
    """
    digest = bytearray(hashlib.sha512(NAMESPACE.bytes + f"{app}/{module}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def _segment(offset: int, address: int, size: int) -> bytes:
    return _SEGMENT.pack(_PT_LOAD, _PF_R, offset, address, address, size, size, PAGE)


def _section(name: int, kind: int, flags: int, address: int, offset: int, size: int) -> bytes:
    return _SECTION.pack(name, kind, flags, address, offset, size, 0, 0, 1, 0)
