"""A module's store, sealed by its device's key and kept by its untrusted host.

    blob = version (8 bytes, big-endian) || nonce (12) || AES-256-GCM ciphertext and tag

Associated data: ``"broch/store/1" || version``. Rollback is refused by a monotonic counter ``c`` of
the device. To write: seal as version c + 1, let the host keep it, then increment the counter; only
then is the write acknowledged. To read: versions c and c + 1 are taken, the latter because the
process may have died before the increment.

That leaves blobs of version c + 1 that were never acknowledged, one of each session that died so. A
host could keep them, and offer one after a session's own write of that version, or one today and
another tomorrow. So a session first writes twice: when it reads, what it has read. The counter then
stands two above where the session began, and every older blob is refused. Until the second one is
acknowledged, nothing that was read or written is used.

A host may also run one image twice. So a session takes a number from a second counter when it
begins, it counts on from what its own increments returned, and nothing is acknowledged unless its
number is still the last: a session that another one overtook gets :class:`StoreError`.
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
_SESSIONS: Final = "store-sessions"
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
        self._session = 0  # the number of this session; 0 before it begins
        self._version = 0  # of this session's last write; before that, what the device counted
        self._is_settled = False  # whether no older blob can be offered any more

    def _cipher(self) -> AESGCM:
        if self._key is None:
            self._key = AESGCM(self._device.seal_key(_LABEL))
        return self._key

    def read(self) -> dict[str, Any]:
        """The mapping as last written.

        Raises:
            StoreError: the blob was altered, or is older than the last acknowledged write.
        """
        self._begin()
        blob, counter = self._load(), self._version
        if not blob:
            if counter:
                raise StoreError(f"the host offers no store, the device counts {counter} writes")
            self._check_last()
            return {}
        if len(blob) < _VERSION.size + _NONCE_SIZE + 16:
            raise StoreError("the store was cut off")
        (version,) = _VERSION.unpack_from(blob)
        if version not in (counter, counter + 1):
            raise StoreError(
                f"store of version {version}, the device counts {counter}: rolled back"
            )
        plain = self._open(blob, version)
        items = _mapping.decode(plain)
        self._keep(plain)
        return items

    def _open(self, blob: bytes, version: int) -> bytes:
        nonce, sealed = blob[8 : 8 + _NONCE_SIZE], blob[8 + _NONCE_SIZE :]
        try:
            return self._cipher().decrypt(nonce, sealed, _LABEL + _VERSION.pack(version))
        except InvalidTag:
            raise StoreError("the store was altered, or is another module's") from None

    def write(self, items: dict[str, Any]) -> None:
        """Make ``items`` durable.

        Raises:
            StoreError: they are too large or not plain values, or another session has begun.
        """
        try:
            plain = _encode(items)
            _mapping.decode(plain)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise StoreError(f"the store holds plain values only: {exc}") from None
        if len(plain) > MAX_STORE:
            raise StoreError(f"the store has {len(plain)} bytes, the limit is {MAX_STORE}")
        if not self._session:
            self._begin()
        self._keep(plain)

    def _begin(self) -> None:
        self._session = self._device.increment(_SESSIONS)
        self._version = self._device.counter(_COUNTER)
        self._is_settled = False
        self._check_last()

    def _check_last(self) -> None:
        if self._device.counter(_SESSIONS) != self._session:
            raise StoreError("the store is in use by another run of this module")

    def _keep(self, plain: bytes) -> None:
        """Write until it is the only blob that can be offered."""
        for _ in range(1 if self._is_settled else 2):
            self._write_once(plain)
        self._check_last()
        self._is_settled = True

    def _write_once(self, plain: bytes) -> None:
        version = self._version + 1
        nonce = os.urandom(_NONCE_SIZE)
        sealed = self._cipher().encrypt(nonce, plain, _LABEL + _VERSION.pack(version))
        self._save(_VERSION.pack(version) + nonce + sealed)
        if self._device.increment(_COUNTER) != version:
            raise StoreError("another run of this module wrote the store")
        self._version = version


_encode: Final = msgspec.msgpack.Encoder().encode
_mapping: Final = msgspec.msgpack.Decoder(dict[str, Any])
