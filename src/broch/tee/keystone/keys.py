"""The keys of a Keystone device (bootrom/bootloader.c, sm/src/sm.c).

    device key    in the boot ROM's reach only; made when the device is
    SM key        seed = SHA3-512(device secret || SM hash), first 32 bytes
    sealing key   HKDF-SHA3-512(IKM = SM secret, no salt, info = enclave hash || ident), 128 bytes

So a sealing key is bound to device, security monitor and exact enclave hash: any rebuild of an
enclave loses what the old one sealed.

The published boot loader does not do what its documentation says: it passes the size of one byte
(``sizeof *array``) for both inputs, so that the SM key depends on one byte of the device secret
and one of the SM hash. Broch derives as documented; ``as_built`` reproduces the published code,
for comparison with it. Keys made that way deserve no trust.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from broch.crypto.ed25519_sha3 import KeyPair

SEALING_KEY_SIZE: Final = 128  # bytes
_BLOCK: Final = 64  # bytes, SHA3-512

# Published with the Keystone sources for use on simulators: its secret is known to everyone.
TEST_DEVICE_KEY: Final = bytes.fromhex(
    "0faad4ff01178583baa588966f7c1ff32564dd17d7dc2b46cb50a84a69270b4c"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """``struct sealing_key``: the key, and the SM's signature over it."""

    key: bytes = field(repr=False)  # 128 bytes
    signature: bytes = field(repr=False)  # 64 bytes

    def to_bytes(self) -> bytes:
        """The 192 bytes that an enclave receives."""
        return self.key + self.signature


def derive_sm_key(device: KeyPair, sm_hash: bytes, *, as_built: bool = False) -> KeyPair:
    """The key of the security monitor whose hash (64 bytes) the boot ROM found."""
    size = 1 if as_built else _BLOCK
    return KeyPair.from_seed(hashlib.sha3_512(device.secret[:size] + sm_hash[:size]).digest()[:32])


def derive_sealing_key(sm: KeyPair, enclave_hash: bytes, ident: bytes) -> SealingKey:
    """What ``get_sealing_key`` gives to the enclave of that hash (64 bytes)."""
    key = hkdf_sha3_512(sm.secret, enclave_hash + ident, SEALING_KEY_SIZE)
    return SealingKey(key=key, signature=sm.sign(key))


def hkdf_sha3_512(ikm: bytes, info: bytes, size: int) -> bytes:
    """HKDF (RFC 5869) with SHA3-512 and no salt; ``size`` in bytes, at most 255 * 64."""
    prk = hmac.digest(bytes(_BLOCK), ikm, "sha3_512")
    output, block = b"", b""
    for counter in range(1, -(-size // _BLOCK) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha3_512")
        output += block
    return output[:size]
