"""What a Sancus module proves itself with, and the rules for loading one.

    offset  size  field
    0       4     magic       b"SNC1"
    4       2     vendor id   little-endian
    6       8     layout      public start and end, secret start and end, little-endian
    14      2     text size   bytes, little-endian
    16      32    challenge   what the verifier asked to be proved
    48      16    nonce       what the module chose
    64      16    tag         mac(module key, 01 00 || challenge || nonce)
    80      n     text        what the module key is derived from, with the layout

The tag is symmetric: whoever knows the vendor key can make one. It convinces the module's own
deployer and nobody else.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from broch.errors import DecodeError
from broch.tee.sancus.layout import SIZE as LAYOUT_SIZE
from broch.tee.sancus.layout import Layout

MAGIC: Final = b"SNC1"
CHALLENGE_SIZE: Final = 32  # bytes
NONCE_SIZE: Final = 16
TAG_SIZE: Final = 16
ATTEST: Final = b"\x01\x00"
_HEAD: Final = struct.Struct(f"<4sH{LAYOUT_SIZE}sH{CHALLENGE_SIZE}s{NONCE_SIZE}s{TAG_SIZE}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Well formed, and not verified."""

    vendor_id: int
    layout: Layout
    challenge: bytes
    nonce: bytes
    tag: bytes
    text: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Evidence":
        """Decode exactly one.

        Raises:
            DecodeError: cut off, too long, or a layout that the hardware would not take.
        """
        if len(data) < _HEAD.size:
            raise DecodeError(len(data), f"expected at least {_HEAD.size} bytes")
        magic, vendor, layout, size, challenge, nonce, tag = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise DecodeError(0, f"begins with {magic!r}, expected {MAGIC!r}")
        found = Layout.from_bytes(layout)
        if not found.valid:
            raise DecodeError(6, "not the layout of a module")
        if size != len(found.text) or len(data) != _HEAD.size + size:
            raise DecodeError(
                14, f"a text of {len(found.text)} bytes is announced, {len(data) - _HEAD.size} came"
            )
        return cls(
            vendor_id=vendor,
            layout=found,
            challenge=challenge,
            nonce=nonce,
            tag=tag,
            text=data[_HEAD.size :],
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        head = _HEAD.pack(
            MAGIC,
            self.vendor_id,
            self.layout.to_bytes(),
            len(self.text),
            self.challenge,
            self.nonce,
            self.tag,
        )
        return head + self.text

    def signed(self) -> bytes:
        """What the tag covers, as associated data."""
        return ATTEST + self.challenge + self.nonce
