"""OP-TEE's key hierarchy (core/kernel/huk_subkey.c, core/tee/tee_fs_key_manager.c).

    HUK        hardware unique key, 16 bytes, of the device alone
    subkey     HMAC-SHA256(HUK, LE32(usage) || data), cut to the size asked for
    SSK        secure storage key, 32 bytes: HMAC-SHA256(HUK, chip id || "ONLY_FOR_tee_fs_ssk\\0")
               in builds that keep old files readable, which is the default; else a subkey
    TSK        storage key of one TA, 32 bytes: HMAC-SHA256(SSK, UUID)
    TA unique  subkey of usage 3 over UUID || extra, 16 to 32 bytes: the system pseudo-TA's
               TEE_DERIVE_TA_UNIQUE_KEY

UUIDs go in as ``TEE_UUID`` lies in memory: its first three fields little-endian. Nothing here
depends on a TA's code or version: whoever is loaded under a UUID has its keys.
"""

import hmac
import struct
from enum import IntEnum
from typing import Final
from uuid import UUID

from broch.errors import UsageError

HUK_SIZE: Final = 16  # bytes
KEY_SIZE: Final = 32  # bytes: SSK, TSK
MAX_EXTRA: Final = 1024  # bytes
_CHIP_ID: Final = b"BEEF" * 8  # what OP-TEE uses where a platform has no die id
_SSK_TEXT: Final = b"ONLY_FOR_tee_fs_ssk\0"


class Usage(IntEnum):
    """What a subkey is for: ``enum huk_subkey_usage``."""

    RPMB = 0
    SSK = 1
    DIE_ID = 2
    UNIQUE_TA = 3
    TA_ENC = 4
    SE050 = 5


def subkey(huk: bytes, usage: Usage, data: bytes, size: int = KEY_SIZE) -> bytes:
    """A key for one usage; ``size`` in bytes, at most 32."""
    return hmac.digest(huk, struct.pack("<I", usage) + data, "sha256")[:size]


def derive_ssk(huk: bytes, *, compat: bool = True) -> bytes:
    """The secure storage key; ``compat`` is ``CFG_CORE_HUK_SUBKEY_COMPAT``, on by default."""
    data = _CHIP_ID + _SSK_TEXT
    return hmac.digest(huk, data, "sha256") if compat else subkey(huk, Usage.SSK, data)


def derive_tsk(ssk: bytes, uuid: UUID) -> bytes:
    """The storage key of a TA."""
    return hmac.digest(ssk, uuid.bytes_le, "sha256")


def derive_ta_unique_key(huk: bytes, uuid: UUID, extra: bytes, size: int = KEY_SIZE) -> bytes:
    """The key that the system pseudo-TA gives to the TA of that UUID.

    Raises:
        UsageError: ``size`` is not 16 to 32, or ``extra`` is longer than 1024 bytes.
    """
    if not 16 <= size <= KEY_SIZE:
        raise UsageError(f"a TA unique key has 16 to {KEY_SIZE} bytes, not {size}")
    if len(extra) > MAX_EXTRA:
        raise UsageError(f"extra data of {len(extra)} bytes; at most {MAX_EXTRA}")
    return subkey(huk, Usage.UNIQUE_TA, uuid.bytes_le + extra, size)
