"""What Keystone measures: loader, runtime and eapp (sm/src/attest.c since 2023-12).

    SHA3-512( LE64 size_loader || LE64 size_runtime || LE64 size_eapp
              || loader pages || runtime pages || eapp pages )

Each file is taken byte for byte, its last page filled with zeros; a size is that of the pages
(bytes, a multiple of 4096). Free memory, shared memory and the entry point are not measured.

A Python module is such a triple too. The eapp is the image; the runtime is a line of text that
names the runtime closure that must run it; the loader is a fixed blob that stands for the way in
which Broch puts them together, and changes its version when that way changes.

Packed, the triple is one blob with one encoding:

    offset  size  field
    0x00    8     magic     b"BROCHKS1"
    0x08    24    sizes     LE64 of loader, runtime, eapp: bytes, before padding, at least 1
    0x20          loader, runtime, eapp; nothing after
"""

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Final, Self

from broch.errors import DecodeError
from broch.image import Image
from broch.image.image import MAX_IMAGE

PAGE: Final = 4096  # bytes
HASH_SIZE: Final = 64  # bytes, SHA3-512
LOADER: Final = b"broch keystone loader 1: canonical image as eapp, closure digest as runtime\n"
MAX_FIRMWARE: Final = 4 * 1024 * 1024  # bytes of a loader, and of a runtime

_MAGIC: Final = b"BROCHKS1"
_HEADER: Final = struct.Struct("<8sQQQ")
_SIZES: Final = struct.Struct("<QQQ")
_LIMITS: Final = (("loader", MAX_FIRMWARE), ("runtime", MAX_FIRMWARE), ("eapp", MAX_IMAGE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """The three files that make an enclave."""

    loader: bytes = field(repr=False)
    runtime: bytes = field(repr=False)
    eapp: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for (what, limit), part in zip(_LIMITS, self._parts(), strict=True):
            if not 1 <= len(part) <= limit:
                raise DecodeError(0, f"{what} has {len(part)} bytes; 1 to {limit} are allowed")

    @classmethod
    def of(cls, image: Image) -> Self:
        """The triple of a Python module."""
        return cls(loader=LOADER, runtime=runtime_text(image.runtime), eapp=image.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one packed triple.

        Raises:
            DecodeError: a rule of the layout does not hold.
        """
        if len(data) < _HEADER.size:
            raise DecodeError(len(data), f"expected at least {_HEADER.size} bytes", what="triple")
        magic, *sizes = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise DecodeError(0, f"bad magic {magic!r}", what="triple")
        for index, (size, (what, limit)) in enumerate(zip(sizes, _LIMITS, strict=True)):
            if not 1 <= size <= limit:
                raise DecodeError(8 + 8 * index, f"{what} of {size} bytes", what="triple")
        if len(data) != _HEADER.size + sum(sizes):
            raise DecodeError(
                min(len(data), _HEADER.size + sum(sizes)),
                f"expected {_HEADER.size + sum(sizes)} bytes, got {len(data)}",
                what="triple",
            )
        second = _HEADER.size + sizes[0]
        third = second + sizes[1]
        return cls(
            loader=data[_HEADER.size : second], runtime=data[second:third], eapp=data[third:]
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        parts = self._parts()
        return _HEADER.pack(_MAGIC, *map(len, parts)) + b"".join(parts)

    def measure(self) -> bytes:
        """The enclave hash (64 bytes)."""
        parts = self._parts()
        digest = hashlib.sha3_512(_SIZES.pack(*(len(part) + _padding(part) for part in parts)))
        for part in parts:
            digest.update(part)
            digest.update(bytes(_padding(part)))
        return digest.digest()

    def _parts(self) -> tuple[bytes, bytes, bytes]:
        return self.loader, self.runtime, self.eapp


def runtime_text(closure: bytes) -> bytes:
    """The measured runtime of a Python module, which names its closure (SHA-256, 32 bytes)."""
    return b"broch keystone runtime 1\nclosure sha256:%s\n" % closure.hex().encode("ascii")


def _padding(part: bytes) -> int:
    return -len(part) % PAGE
