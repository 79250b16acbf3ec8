"""The body of an SGX REPORT, 384 bytes (SDM 3D 37.15; sgx_report.h). TDX's QE carries one too.

    offset size field            offset size field
    0      16   cpusvn           192    64   configid
    16     4    miscselect       256    2    isvprodid
    20     1    cet_attributes   258    2    isvsvn
    21     11   reserved         260    2    configsvn
    32     16   isvextprodid     262    42   reserved
    48     8+8  attributes, xfrm 304    16   isvfamilyid
    64     32   mrenclave        320    64   reportdata
    96     32   reserved
    128    32   mrsigner
    160    32   reserved

Integers are little-endian; reserved bytes are zero.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Self

from broch.errors import DecodeError

BODY_SIZE: Final = 384
_BODY: Final = struct.Struct("<16sIB11x16sQQ32s32x32s32x64sHHH42x16s64s")

# ATTRIBUTES.FLAGS (SDM 37.7.1)
INIT: Final = 0x1
DEBUG: Final = 0x2
MODE64BIT: Final = 0x4
PROVISIONKEY: Final = 0x10
EINITTOKENKEY: Final = 0x20
CET: Final = 0x40
KSS: Final = 0x80
AEX_NOTIFY: Final = 0x400


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBody:
    """What a REPORT says of an enclave."""

    cpusvn: bytes  # 16
    miscselect: int
    cet_attributes: int
    isvextprodid: bytes  # 16
    flags: int  # ATTRIBUTES, low half
    xfrm: int  # ATTRIBUTES, high half
    mrenclave: bytes  # 32
    mrsigner: bytes  # 32
    configid: bytes  # 64
    isvprodid: int
    isvsvn: int
    configsvn: int
    isvfamilyid: bytes  # 16
    reportdata: bytes  # 64

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 384 bytes.

        Raises:
            DecodeError: another length, or reserved bytes that are not zero.
        """
        if len(data) != BODY_SIZE:
            raise DecodeError(
                min(len(data), BODY_SIZE), f"{len(data)} bytes, expected {BODY_SIZE}", what="report"
            )
        fields = _BODY.unpack(data)
        body = cls(**dict(zip(cls.__slots__, fields, strict=True)))
        if _BODY.pack(*fields) != data:
            raise DecodeError(0, "reserved bytes are not zero", what="report")
        return body

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _BODY.pack(*_values_of(self))

    def __reduce__(self) -> tuple[Callable[[bytes], "ReportBody"], tuple[bytes]]:
        # Reports travel between processes by the thousand, and this form is small and fast.
        return ReportBody.from_bytes, (self.to_bytes(),)

    @property
    def debug(self) -> bool:
        """Whether the enclave's memory can be read by a debugger."""
        return bool(self.flags & DEBUG)


_values_of: Final = attrgetter(*ReportBody.__slots__)
