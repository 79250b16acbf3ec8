"""Where a protected module is: its text and its secret section, two ranges of addresses."""

import struct
from dataclasses import dataclass
from typing import Final

from broch.errors import DecodeError

SIZE: Final = 8  # bytes
_LAYOUT: Final = struct.Struct("<4H")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Two ranges; ends are the first addresses after them. Not always sound: :attr:`valid`."""

    public_start: int
    public_end: int
    secret_start: int
    secret_end: int

    @classmethod
    def from_bytes(cls, data: bytes) -> "Layout":
        """Decode eight bytes; raises :class:`DecodeError` for another length."""
        if len(data) != SIZE:
            raise DecodeError(len(data), f"a layout has {SIZE} bytes")
        start, end, secret_start, secret_end = _LAYOUT.unpack(data)
        return cls(
            public_start=start, public_end=end, secret_start=secret_start, secret_end=secret_end
        )

    def to_bytes(self) -> bytes:
        """Four little-endian words, as keys and identities are derived from them."""
        return _LAYOUT.pack(self.public_start, self.public_end, self.secret_start, self.secret_end)

    @property
    def text(self) -> range:
        """Addresses of the text, which is the public section."""
        return range(self.public_start, self.public_end)

    @property
    def secret(self) -> range:
        """Addresses of the secret section, which may be empty."""
        return range(self.secret_start, self.secret_end)

    @property
    def valid(self) -> bool:
        """Whether the hardware would look at it: there is text, and the secret is not inverted."""
        return self.public_start < self.public_end and self.secret_start <= self.secret_end


def overlap(one: range, other: range) -> bool:
    """Whether two ranges share an address."""
    return max(one.start, other.start) < min(one.stop, other.stop)
