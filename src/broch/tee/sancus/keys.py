"""The key hierarchy of Sancus: node, vendor, module (Noorman and others, Sancus 2.0, TOPS 2017).

    vendor key    mac(node key, vendor id as a little-endian word)
    module key    mac(vendor key, text || layout)
    identity      mac(zeros, text || layout): a hash, which code on the node can check

``mac`` is SpongeWrap's tag over associated data with an empty body. A key has 8, 10 or 16 bytes,
and so do those that are derived from it. The node key never leaves its node; whoever knows a vendor
key can compute the key of each module that this vendor has on this node.
"""

import hashlib
import struct
from functools import lru_cache
from typing import Final

from broch.crypto.spongent import SpongeWrap
from broch.errors import UsageError
from broch.tee.contract import NonVolatile
from broch.tee.sancus.layout import Layout

KEY_SIZES: Final = (8, 10, 16)  # bytes: 64, 80, 128 bits of security
MAX_VENDOR: Final = 0xFFFF
_VENDOR: Final = struct.Struct("<H")
_MOST_RECALLED: Final = 64
_recalled: Final[dict[str, bytes]] = {}


def vendor_key(node_key: bytes, vendor_id: int) -> bytes:
    """The key that a node shares with one vendor.

    Raises:
        UsageError: the vendor id does not fit 16 bits, or the key has no size of a key.
    """
    if not 0 <= vendor_id <= MAX_VENDOR:
        raise UsageError(f"vendor id {vendor_id} does not fit 16 bits")
    check_size(node_key, "node key")
    return SpongeWrap(node_key).mac(_VENDOR.pack(vendor_id))


def module_key(vendor: bytes, text: bytes, layout: Layout) -> bytes:
    """The key that a node shares with one module of a vendor: its text, at its place.

    Raises:
        UsageError: the vendor key has no size of a key.
    """
    check_size(vendor, "vendor key")
    return SpongeWrap(vendor).mac(text + layout.to_bytes())


def recalled_module_key(
    vendor: bytes, text: bytes, layout: Layout, store: NonVolatile | None = None
) -> bytes:
    """:func:`module_key`, which takes half a second for a long text, computed once.

    Args:
        vendor: the vendor key.
        text: the module's.
        layout: its place.
        store: where keys are kept from one run to the next; as secret as the vendor key is.
    """
    digest = hashlib.sha256(b"broch/sancus/key/1" + vendor + layout.to_bytes() + text)
    name = f"module-key.{digest.hexdigest()}"
    key = _recalled.get(name)
    if key is None:
        key = store.get(name) if store is not None else None
        if key is None or len(key) != len(vendor):
            key = module_key(vendor, text, layout)
            if store is not None:
                store.put(name, key)
        if len(_recalled) >= _MOST_RECALLED:
            _recalled.clear()
        _recalled[name] = key
    return key


@lru_cache(maxsize=64)
def identity(text: bytes, layout: Layout, size: int = 16) -> bytes:
    """What verify (0x1382) compares: a hash of ``size`` bytes, that of the node's keys."""
    return SpongeWrap(bytes(size)).mac(text + layout.to_bytes())


def check_size(key: bytes, what: str) -> None:
    """Raise :class:`UsageError` unless ``key`` has one of the sizes."""
    if len(key) not in KEY_SIZES:
        raise UsageError(f"{what} has {len(key)} bytes, expected 8, 10 or 16")
