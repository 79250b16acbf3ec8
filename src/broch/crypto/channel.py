"""One-way AEAD channels with counters: what travels on a connection.

Nonce = 4-byte epoch || 8-byte counter, big-endian, never used twice under a key: both directions of
a connection share its key, so the counter's top bit is the direction. Associated data = connection
id (4 bytes) || direction (1 byte), and for a reply the counter of what it answers (8 bytes). A
sealed message is ``ciphertext || tag`` (tag: 16 bytes). Receivers take strictly rising counters: a
replay or a message out of order is refused, a gap is counted.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broch.crypto.spongent import Spongent128
from broch.errors import InternalError, UntrustedError

KEY_SIZE: Final = 16  # bytes
TAG_SIZE: Final = 16  # bytes
MAX_COUNTER: Final = 2**63 - 1
REKEY_AT: Final = 2**48  # messages under one key; far below what AES-GCM bears
_NONCE: Final = struct.Struct(">IQ")
_AD: Final = struct.Struct(">IB")
_REPLY: Final = struct.Struct(">Q")
_DIRECTION_BIT: Final = 63


class Direction(IntEnum):
    """Which way a message goes on its connection."""

    FORWARD = 0  # output to input, request to handler
    BACK = 1  # reply of a handler


class Aead(Protocol):
    """An AEAD under one key: 12-byte nonce, 16-byte tag."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


#: Name in descriptors -> maker from a 16-byte key. SPONGENT is what a microcontroller speaks.
CIPHERS: Final[dict[str, Callable[[bytes], Aead]]] = {
    "aes-128-gcm": AESGCM,
    "spongent-128": Spongent128,
}


def _aead(cipher: str, key: bytes) -> Aead:
    if cipher not in CIPHERS:
        raise InternalError(f"unknown cipher {cipher!r}")
    if len(key) != KEY_SIZE:
        raise InternalError(f"a connection key has {KEY_SIZE} bytes, this one {len(key)}")
    return CIPHERS[cipher](key)


class Sealer:
    """The sending end of one direction of a connection."""

    __slots__ = ("_ad", "_encrypt", "_epoch", "_top", "counter")

    def __init__(
        self, cipher: str, key: bytes, *, connection: int, direction: Direction, epoch: int
    ) -> None:
        self._encrypt = _aead(cipher, key).encrypt
        self._ad = _AD.pack(connection, direction)
        self._epoch = epoch
        self._top = direction << _DIRECTION_BIT
        self.counter = 0  # of the last message sealed; the first is 1

    def seal(self, data: bytes, answers: int | None = None) -> tuple[int, bytes]:
        """Seal one message: its counter and ``ciphertext || tag``.

        Args:
            data: the plaintext.
            answers: for a reply, the counter of the request.

        Raises:
            InternalError: the key is used up; its epoch should have ended long before.
        """
        counter = self.counter + 1
        if counter >= REKEY_AT:
            raise InternalError("the connection's key is used up: it must be rekeyed")
        self.counter = counter
        ad = self._ad if answers is None else self._ad + _REPLY.pack(answers)
        return counter, self._encrypt(_NONCE.pack(self._epoch, self._top | counter), data, ad)


class Opener:
    """The receiving end of one direction of a connection."""

    __slots__ = ("_ad", "_decrypt", "_epoch", "_top", "counter", "gaps")

    def __init__(
        self, cipher: str, key: bytes, *, connection: int, direction: Direction, epoch: int
    ) -> None:
        self._decrypt = _aead(cipher, key).decrypt
        self._ad = _AD.pack(connection, direction)
        self._epoch = epoch
        self._top = direction << _DIRECTION_BIT
        self.counter = 0  # of the last message opened
        self.gaps = 0  # messages that never came

    def open(self, counter: int, sealed: bytes, answers: int | None = None) -> bytes:
        """Open one message; nothing changes unless it is authentic.

        Raises:
            UntrustedError: a replay, out of order, forged, or sealed under another epoch.
        """
        last = self.counter
        if not last < counter <= MAX_COUNTER:
            raise UntrustedError(f"message {counter} after message {last}: replayed or reordered")
        ad = self._ad if answers is None else self._ad + _REPLY.pack(answers)
        try:
            data = self._decrypt(_NONCE.pack(self._epoch, self._top | counter), sealed, ad)
        except InvalidTag:
            raise UntrustedError(f"message {counter} is not authentic") from None
        self.counter = counter
        self.gaps += counter - last - 1
        return data
