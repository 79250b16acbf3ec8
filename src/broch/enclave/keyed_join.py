"""The join with a module that shares a key with its deployer, and has no other. Sans-IO.

    deployer                                  module (its hardware derives the same key K)
       | 1  challenge (32 bytes)  ------->  |
       | <-------  2  evidence: a tag under K over challenge and a fresh nonce (16 bytes)
       | 3  verify, compare, appraise         |
       | 4  for each connection: wrap(K, head, connection key)  ------->  |
       | <-------  5  mac(K, 03 00 || serial || nonce)

Layouts are in docs/sancus-abi.md. The nonce is the module's own, so that a grant is worth nothing
to a module that was reset: its key K is always the same, and it remembers nothing.
"""

import hmac
import struct
from typing import Final

from broch.crypto.spongent import SpongeWrap
from broch.enclave.join import Connection
from broch.errors import InternalError, UntrustedError

NONCE_SIZE: Final = 16  # bytes
KEY_SIZE: Final = 16
CIPHER: Final = "spongent-128"
MAX_SERIAL: Final = 2**32 - 1
_HEAD: Final = struct.Struct(">BBBBIII16s")
_CONFIRM: Final = struct.Struct(">HI16s")
_GRANT: Final = 2
_CONFIRMED: Final = 0x0300
_ROLES: Final = {"input": 1, "output": 2}


class KeyedGrants:
    """Seals grants to one module after one attestation.

    Args:
        key: the module's (16 bytes).
        nonce: what it chose when it was attested (16 bytes).
    """

    def __init__(self, key: bytes, nonce: bytes) -> None:
        if len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
            raise InternalError("a module key and its nonce have 16 bytes each")
        self._wrap = SpongeWrap(key)
        self._nonce = nonce
        self._serial = 0

    def grant(self, connection: Connection, port: int) -> tuple[bytes, bytes]:
        """One connection sealed (64 bytes), and what will confirm it (16 bytes).

        Args:
            connection: an input or an output, with the cipher that the module speaks.
            port: the module's own number of the port.

        Raises:
            InternalError: it is neither, or grants are used up.
        """
        if connection.role not in _ROLES or connection.cipher != CIPHER:
            raise InternalError(f"{connection!r} cannot be a microcontroller's: {CIPHER} alone")
        if self._serial == MAX_SERIAL:
            raise InternalError("a module's grants are used up: it must join again")
        self._serial += 1
        head = _HEAD.pack(
            _GRANT,
            _ROLES[connection.role],
            port,
            0,
            connection.id,
            connection.epoch,
            self._serial,
            self._nonce,
        )
        cipher, tag = self._wrap.wrap(head, connection.key)
        confirm = self._wrap.mac(_CONFIRM.pack(_CONFIRMED, self._serial, self._nonce))
        return head + cipher + tag, confirm


def check_confirmed(given: bytes, expected: bytes) -> None:
    """Raise :class:`UntrustedError` unless the module confirmed what was granted."""
    if not hmac.compare_digest(given, expected):
        raise UntrustedError("the module did not confirm its connections")
