"""ATTESTATION_REPORT, 1184 bytes (SEV-SNP firmware ABI, revision 1.58, table 23).

    offset size field                    offset size field
    0      4    version: 2, 3, 5         384    8    reported_tcb
    4      4    guest_svn                392    3    CPUID family, model, stepping (3 and newer)
    8      8    policy                   395    21   reserved
    16     16   family_id                416    64   chip_id
    32     16   image_id                 480    8    committed_tcb
    48     4    vmpl                     488    3    current build, minor, major
    52     4    signature_algo: 1        491    1    reserved
    56     8    current_tcb              492    3    committed build, minor, major
    64     8    platform_info            495    1    reserved
    72     4    flags                    496    8    launch_tcb
    76     4    reserved                 504    8    launch_mit_vector (5)
    80     64   report_data              512    8    current_mit_vector (5)
    144    48   measurement              520    152  reserved
    192    32   host_data                672    72   signature r
    224    48   id_key_digest            744    72   signature s
    272    48   author_key_digest        816    368  reserved
    320    32   report_id
    352    32   report_id_ma

Integers are little-endian, r and s too; reserved bytes are zero; the first 672 bytes are signed.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from broch.errors import DecodeError

SIZE: Final = 1184
SIGNED_SIZE: Final = 672
ECDSA_P384_SHA384: Final = 1
VERSIONS: Final = (2, 3, 5)
_LAYOUT: Final = struct.Struct(
    "<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8sBBB21x64s8s3sx3sx8sQQ152x72s72s368x"
)

# policy (table 9)
POLICY_SMT: Final = 1 << 16
POLICY_MUST_BE_ONE: Final = 1 << 17
POLICY_MIGRATE_MA: Final = 1 << 18
POLICY_DEBUG: Final = 1 << 19
POLICY_SINGLE_SOCKET: Final = 1 << 20
POLICY_CXL_ALLOW: Final = 1 << 21
POLICY_MEM_AES_256_XTS: Final = 1 << 22
POLICY_RAPL_DIS: Final = 1 << 23
POLICY_CIPHERTEXT_HIDING: Final = 1 << 24
POLICY_PAGE_SWAP_DISABLE: Final = 1 << 25
_POLICY_KNOWN: Final = (1 << 26) - 1
#: Names of all that a guest's policy can say yes to.
POLICY_BITS: Final = {
    "SMT": POLICY_SMT,
    "MIGRATE_MA": POLICY_MIGRATE_MA,
    "DEBUG": POLICY_DEBUG,
    "SINGLE_SOCKET": POLICY_SINGLE_SOCKET,
    "CXL_ALLOW": POLICY_CXL_ALLOW,
    "MEM_AES_256_XTS": POLICY_MEM_AES_256_XTS,
    "RAPL_DIS": POLICY_RAPL_DIS,
    "CIPHERTEXT_HIDING": POLICY_CIPHERTEXT_HIDING,
    "PAGE_SWAP_DISABLE": POLICY_PAGE_SWAP_DISABLE,
}
# platform_info (table 24)
PLATFORM_SMT: Final = 1 << 0
PLATFORM_TSME: Final = 1 << 1
PLATFORM_ECC: Final = 1 << 2
PLATFORM_RAPL_DIS: Final = 1 << 3
PLATFORM_CIPHERTEXT_HIDING: Final = 1 << 4
PLATFORM_ALIAS_CHECK_COMPLETE: Final = 1 << 5
PLATFORM_TIO: Final = 1 << 7
_PLATFORM_KNOWN: Final = 0xBF
PLATFORM_BITS: Final = {
    "SMT": PLATFORM_SMT,
    "TSME": PLATFORM_TSME,
    "ECC": PLATFORM_ECC,
    "RAPL_DIS": PLATFORM_RAPL_DIS,
    "CIPHERTEXT_HIDING": PLATFORM_CIPHERTEXT_HIDING,
    "ALIAS_CHECK_COMPLETE": PLATFORM_ALIAS_CHECK_COMPLETE,
    "TIO": PLATFORM_TIO,
}
# flags
_AUTHOR_KEY_EN: Final = 1 << 0
_MASK_CHIP_KEY: Final = 1 << 1
_FLAGS_KNOWN: Final = 0x1F
_MAX_VMPL: Final = 3


class SigningKey(IntEnum):
    """Which kind of key the firmware signed with; 2 to 6 are reserved."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report taken apart. Nothing in it has been verified."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes  # 16
    image_id: bytes  # 16
    vmpl: int
    signature_algo: int
    current_tcb: bytes  # 8, as are all TCB versions: what they mean depends on the product
    platform_info: int
    flags: int
    report_data: bytes  # 64
    measurement: bytes  # 48
    host_data: bytes  # 32
    id_key_digest: bytes  # 48
    author_key_digest: bytes  # 48
    report_id: bytes  # 32
    report_id_ma: bytes  # 32
    reported_tcb: bytes
    cpuid_family: int
    cpuid_model: int
    cpuid_stepping: int
    chip_id: bytes  # 64
    committed_tcb: bytes
    current_version: bytes  # build, minor, major
    committed_version: bytes
    launch_tcb: bytes
    launch_mit_vector: int
    current_mit_vector: int
    signature_r: bytes  # 72, little-endian
    signature_s: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 1184 bytes.

        Raises:
            DecodeError: another length, version or algorithm, or reserved bits that are set.
        """
        if len(data) != SIZE:
            raise DecodeError(min(len(data), SIZE), f"{len(data)} bytes, expected {SIZE}", what=_W)
        fields = _LAYOUT.unpack(data)
        report = cls(**dict(zip(cls.__slots__, fields, strict=True)))
        if report.version not in VERSIONS:
            raise DecodeError(0, f"version {report.version}, expected 2, 3 or 5", what=_W)
        if report.signature_algo != ECDSA_P384_SHA384:
            raise DecodeError(52, f"signature algorithm {report.signature_algo}", what=_W)
        if _LAYOUT.pack(*fields) != data:
            raise DecodeError(0, "reserved bytes are not zero", what=_W)
        report._check_bits()
        return report

    def _check_bits(self) -> None:
        for offset, what, value, known in (
            (8, "policy", self.policy, _POLICY_KNOWN),
            (64, "platform_info", self.platform_info, _PLATFORM_KNOWN),
            (72, "flags", self.flags, _FLAGS_KNOWN),
        ):
            if value & ~known:
                raise DecodeError(offset, f"reserved bits of {what} are set: 0x{value:x}", what=_W)
        if not self.policy & POLICY_MUST_BE_ONE:
            raise DecodeError(8, "bit 17 of policy is not set", what=_W)
        if self.vmpl > _MAX_VMPL:
            raise DecodeError(48, f"VMPL {self.vmpl}, expected 0 to {_MAX_VMPL}", what=_W)
        if self.flags >> 2 not in tuple(SigningKey):
            raise DecodeError(72, f"signing key {self.flags >> 2} is reserved", what=_W)
        if self.version < 3 and (self.cpuid_family, self.cpuid_model, self.cpuid_stepping) != (
            0,
            0,
            0,
        ):
            raise DecodeError(392, "CPUID in a report of version 2", what=_W)
        if self.version < 5 and (self.launch_mit_vector or self.current_mit_vector):
            raise DecodeError(504, f"mitigations in a report of version {self.version}", what=_W)

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _LAYOUT.pack(*(getattr(self, name) for name in self.__slots__))

    def __reduce__(self) -> tuple[Callable[[bytes], "Report"], tuple[bytes]]:
        # Reports travel between processes by the thousand, and this form is small and fast.
        return Report.from_bytes, (self.to_bytes(),)

    @property
    def signing_key(self) -> SigningKey:
        """Which kind of key signed."""
        return SigningKey(self.flags >> 2)

    @property
    def min_abi(self) -> tuple[int, int]:
        """The oldest firmware ABI (major, minor) under which the guest starts."""
        return self.policy >> 8 & 0xFF, self.policy & 0xFF

    @property
    def author_key_enabled(self) -> bool:
        """Whether ``author_key_digest`` vouches for the ID key."""
        return bool(self.flags & _AUTHOR_KEY_EN)

    @property
    def mask_chip_key(self) -> bool:
        """Whether the host has the chip's own key and identity masked."""
        return bool(self.flags & _MASK_CHIP_KEY)

    @property
    def debug(self) -> bool:
        """Whether the guest's policy allows the host to read its memory."""
        return bool(self.policy & POLICY_DEBUG)


_W: Final = "SNP report"
