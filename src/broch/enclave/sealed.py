"""A module's store, sealed by its device's key and kept by its untrusted host.

    blob = version (8 bytes, big-endian) || nonce (12) || AES-256-GCM ciphertext and tag

Associated data: ``"broch/store/1" || version``. Rollback is refused by one monotonic counter ``c``
of the device. To write: seal as version c + 1, let the host keep it, then increment the counter;
only then is the write acknowledged. To read: versions c and c + 1 are taken, the latter because the
process may have died before the increment.

That leaves a blob of version c + 1 that was never acknowledged, which a host could keep and offer
after this session's own write of that version. So the first write of a session is done twice: the
counter then stands two above where the session began, and every blob older than the session is
refused. Until the second one is acknowledged, no write of this session is.
"""

import os
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broch.sdk import StoreError

_LABEL: Final = b"broch/store/1"
_COUNTER: Final = "store"
_VERSION: Final = struct.Struct(">Q")
_NONCE_SIZE: Final = 12
MAX_STORE: Final = 200_000  # bytes of a sealed store, so that it fits one message


class StoreDevice(Protocol):
    """What of a device a store needs."""

    def seal_key(self, label: bytes) -> bytes: ...
    def counter(self, name: str) -> int: ...
    def increment(self, name: str) -> int: ...


class SealedStore:
    """Reads and writes a store's blob.

    Args:
        device: gives the key and the counter.
        load: asks the host for the blob; empty when it has none.
        save: makes the host keep a blob; returns when it says that it did.
    """

    def __init__(
        self, device: StoreDevice, load: Callable[[], bytes], save: Callable[[bytes], None]
    ) -> None:
        self._device = device
        self._load = load
        self._save = save
        self._key: AESGCM | None = None
        self._fresh = False  # whether this session has written

    def _cipher(self) -> AESGCM:
        if self._key is None:
            self._key = AESGCM(self._device.seal_key(_LABEL))
        return self._key

    def read(self) -> dict[str, Any]:
        """The mapping as last written.

        Raises:
            StoreError: the blob was altered, or is older than the last acknowledged write.
        """
        blob = self._load()
        counter = self._device.counter(_COUNTER)
        if not blob:
            if counter:
                raise StoreError(f"the host offers no store, the device counts {counter} writes")
            return {}
        if len(blob) < _VERSION.size + _NONCE_SIZE + 16:
            raise StoreError("the store was cut off")
        (version,) = _VERSION.unpack_from(blob)
        if version not in (counter, counter + 1):
            raise StoreError(
                f"store of version {version}, the device counts {counter}: rolled back"
            )
        plain = self._open(blob, version)
        if version == counter + 1:
            self._device.increment(_COUNTER)
        return plain

    def _open(self, blob: bytes, version: int) -> dict[str, Any]:
        nonce, sealed = blob[8 : 8 + _NONCE_SIZE], blob[8 + _NONCE_SIZE :]
        try:
            plain = self._cipher().decrypt(nonce, sealed, _LABEL + _VERSION.pack(version))
        except InvalidTag:
            raise StoreError("the store was altered, or is another module's") from None
        return _mapping.decode(plain)

    def write(self, items: dict[str, Any]) -> None:
        """Make ``items`` durable.

        Raises:
            StoreError: they are too large, or not plain values.
        """
        try:
            plain = _encode(items)
            _mapping.decode(plain)
        except (msgspec.MsgspecError, TypeError, OverflowError, RecursionError) as exc:
            raise StoreError(f"the store holds plain values only: {exc}") from None
        if len(plain) > MAX_STORE:
            raise StoreError(f"the store has {len(plain)} bytes, the limit is {MAX_STORE}")
        for _ in range(1 if self._fresh else 2):
            self._write_once(plain)
        self._fresh = True

    def _write_once(self, plain: bytes) -> None:
        version = self._device.counter(_COUNTER) + 1
        nonce = os.urandom(_NONCE_SIZE)
        sealed = self._cipher().encrypt(nonce, plain, _LABEL + _VERSION.pack(version))
        self._save(_VERSION.pack(version) + nonce + sealed)
        self._device.increment(_COUNTER)


_encode: Final = msgspec.msgpack.Encoder().encode
_mapping: Final = msgspec.msgpack.Decoder(dict[str, Any])
