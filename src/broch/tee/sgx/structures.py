"""The structures that EREPORT and EGETKEY take and give (SDM 3D 37.7, 37.15-37.18).

    REPORT, 432 bytes        0 body 384, 384 keyid 32, 416 mac 16
    TARGETINFO, 512 bytes    0 mrenclave 32, 32 attributes 8+8, 48 cet_attributes 1, 49 reserved 1,
                             50 configsvn 2, 52 miscselect 4, 56 reserved 8, 64 configid 64,
                             128 reserved 384
    KEYREQUEST, 512 bytes    0 keyname 2, 2 keypolicy 2, 4 isvsvn 2, 6 reserved 2, 8 cpusvn 16,
                             24 attributemask 8+8, 40 keyid 32, 72 miscmask 4, 76 configsvn 2,
                             78 reserved 434

Integers are little-endian; reserved bytes are zero. SECS is never seen by software once EINIT has
run, so it has no encoding here.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from broch.errors import DecodeError
from broch.tee.dcap.report import BODY_SIZE, DEBUG, INIT, ReportBody

REPORT_SIZE: Final = 432
TARGETINFO_SIZE: Final = 512
KEYREQUEST_SIZE: Final = 512
EXINFO: Final = 0x1  # MISCSELECT

# KEYREQUEST.KEYPOLICY
POLICY_MRENCLAVE: Final = 0x01
POLICY_MRSIGNER: Final = 0x02
POLICY_NOISVPRODID: Final = 0x04
POLICY_CONFIGID: Final = 0x08
POLICY_ISVFAMILYID: Final = 0x10
POLICY_ISVEXTPRODID: Final = 0x20
POLICY_KSS: Final = 0x3C  # bits that only an enclave with ATTRIBUTES.KSS may set
POLICY_ALL: Final = 0x3F

_TARGETINFO: Final = struct.Struct("<32sQQBxHI8x64s384x")
_KEYREQUEST: Final = struct.Struct("<HHHH16sQQ32sIH434s")


class KeyName(IntEnum):
    """KEYREQUEST.KEYNAME."""

    EINITTOKEN = 0
    PROVISION = 1
    PROVISION_SEAL = 2
    REPORT = 3
    SEAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Secs:
    """What the CPU keeps of an enclave (SDM 3D 37.7)."""

    size: int  # bytes
    ssaframesize: int  # pages
    base: int = 0
    miscselect: int = 0
    cet_attributes: int = 0
    flags: int = 0  # ATTRIBUTES, low half
    xfrm: int = 0  # ATTRIBUTES, high half
    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    configid: bytes = bytes(64)
    isvprodid: int = 0
    isvsvn: int = 0
    configsvn: int = 0
    isvfamilyid: bytes = bytes(16)
    isvextprodid: bytes = bytes(16)

    @property
    def initialized(self) -> bool:
        """Whether EINIT has accepted this enclave."""
        return bool(self.flags & INIT)

    @property
    def debug(self) -> bool:
        """Whether a debugger may read the enclave."""
        return bool(self.flags & DEBUG)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """Whom a REPORT is for."""

    mrenclave: bytes  # 32
    flags: int
    xfrm: int
    cet_attributes: int = 0
    configsvn: int = 0
    miscselect: int = 0
    configid: bytes = bytes(64)

    @classmethod
    def of(cls, secs: Secs) -> Self:
        """The TARGETINFO under which ``secs`` can check reports."""
        return cls(
            mrenclave=secs.mrenclave,
            flags=secs.flags,
            xfrm=secs.xfrm,
            cet_attributes=secs.cet_attributes,
            configsvn=secs.configsvn,
            miscselect=secs.miscselect,
            configid=secs.configid,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 512 bytes.

        Raises:
            DecodeError: another length, or reserved bytes that are not zero.
        """
        _expect_size(data, TARGETINFO_SIZE, "targetinfo")
        info = cls(**dict(zip(cls.__slots__, _TARGETINFO.unpack(data), strict=True)))
        if info.to_bytes() != data:
            raise DecodeError(0, "reserved bytes are not zero", what="targetinfo")
        return info

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _TARGETINFO.pack(*(getattr(self, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A REPORT: only its target, on the same CPU, can check ``mac``."""

    body: ReportBody
    keyid: bytes  # 32
    mac: bytes  # 16, AES-128-CMAC of the body under the target's report key

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 432 bytes.

        Raises:
            DecodeError: another length, or reserved bytes that are not zero.
        """
        _expect_size(data, REPORT_SIZE, "report")
        return cls(
            body=ReportBody.from_bytes(data[:BODY_SIZE]), keyid=data[384:416], mac=data[416:]
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return self.body.to_bytes() + self.keyid + self.mac


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What an enclave asks EGETKEY for. Reserved fields are kept: checking them is EGETKEY's."""

    keyname: int
    keypolicy: int = 0
    isvsvn: int = 0
    reserved1: int = 0
    cpusvn: bytes = bytes(16)
    flags_mask: int = 0  # ATTRIBUTEMASK, low half
    xfrm_mask: int = 0
    keyid: bytes = bytes(32)
    miscmask: int = 0
    configsvn: int = 0
    reserved2: bytes = bytes(434)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 512 bytes.

        Raises:
            DecodeError: another length.
        """
        _expect_size(data, KEYREQUEST_SIZE, "keyrequest")
        return cls(**dict(zip(cls.__slots__, _KEYREQUEST.unpack(data), strict=True)))

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _KEYREQUEST.pack(*(getattr(self, name) for name in self.__slots__))


def _expect_size(data: bytes, size: int, what: str) -> None:
    if len(data) != size:
        raise DecodeError(min(len(data), size), f"{len(data)} bytes, expected {size}", what=what)
