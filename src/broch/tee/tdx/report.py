"""The body of a TDX quote (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4).

    offset size field               offset size field
    0      16   tee_tcb_svn         232    48   mr_owner
    16     48   mr_seam             280    48   mr_owner_config
    64     48   mr_signer_seam      328    192  rtmr0 to rtmr3
    112    8    seam_attributes     520    64   report_data
    120    8    td_attributes       TDX 1.5 only:
    128    8    xfam                584    16   tee_tcb_svn2
    136    48   mr_td               600    48   mr_service_td
    184    48   mr_config_id

Version 4 of the quote has the body of TDX 1.0 and nothing else. Version 5 puts a descriptor in
front: type (2 bytes: 2 is TDX 1.0, 3 is TDX 1.5) and size (4). Integers are little-endian.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from broch.errors import DecodeError

SIZE_10: Final = 584
SIZE_15: Final = 648
DESCRIPTOR: Final = struct.Struct("<HI")
TYPE_10: Final = 2
TYPE_15: Final = 3
SIZES: Final = {TYPE_10: SIZE_10, TYPE_15: SIZE_15}
_BODY: Final = struct.Struct("<16s48s48sQQQ48s48s48s48s48s48s48s48s64s")
_BODY_15: Final = struct.Struct("<16s48s")

# td_attributes (TDX module base specification, table 3.24). All of TUD makes a TD untrusted.
TUD_MASK: Final = 0xFF
DEBUG: Final = 1 << 0
SEPT_VE_DISABLE: Final = 1 << 28
MIGRATABLE: Final = 1 << 29
PKS: Final = 1 << 30
KL: Final = 1 << 31
PERFMON: Final = 1 << 63
_NAMES: Final = {
    DEBUG: "DEBUG",
    SEPT_VE_DISABLE: "SEPT_VE_DISABLE",
    MIGRATABLE: "MIGRATABLE",
    PKS: "PKS",
    KL: "KL",
    PERFMON: "PERFMON",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What a quote says of a trust domain."""

    tee_tcb_svn: bytes  # 16; byte 0 is the TDX module's SVN, byte 1 its major version
    mr_seam: bytes  # 48, as are all measurements
    mr_signer_seam: bytes
    seam_attributes: int
    td_attributes: int
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes  # 64
    tee_tcb_svn2: bytes | None = None  # 16: of the module that runs now; TDX 1.5 only
    mr_service_td: bytes | None = None  # 48; TDX 1.5 only

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode a body without descriptor: 584 or 648 bytes.

        Raises:
            DecodeError: another length.
        """
        if len(data) not in (SIZE_10, SIZE_15):
            raise DecodeError(
                len(data), f"{len(data)} bytes, expected 584 or 648", what="TD report"
            )
        fields: tuple[object, ...] = _BODY.unpack_from(data)
        if len(data) == SIZE_15:
            fields += _BODY_15.unpack_from(data, SIZE_10)
        return cls(**dict(zip(cls.__slots__, fields, strict=False)))  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        values = [getattr(self, name) for name in self.__slots__]
        data = _BODY.pack(*values[:15])
        return data if self.tee_tcb_svn2 is None else data + _BODY_15.pack(*values[15:])

    def __reduce__(self) -> tuple[Callable[[bytes], "TdReport"], tuple[bytes]]:
        # Reports travel between processes by the thousand, and this form is small and fast.
        return TdReport.from_bytes, (self.to_bytes(),)

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The four runtime measurement registers."""
        return self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3

    @property
    def debug(self) -> bool:
        """Whether the host may look inside: any of the "TD under debug" bits."""
        return bool(self.td_attributes & TUD_MASK)

    def attribute_names(self) -> str:
        """The attributes that are set, for people."""
        return ",".join(name for bit, name in _NAMES.items() if self.td_attributes & bit)
