"""The gate: every value that crosses into an enclave is copied in once, checked, then used.

The ring hands over copies, so nothing that is checked here can change afterwards. The gate knows
which kinds of message may come in which state and how long each may be; whatever an honest host
cannot have sent raises :class:`PoisonedError`, and the first of these ends the enclave.
"""

from collections import deque
from collections.abc import Collection
from typing import Any, Final

import msgspec

from broch.enclave.messages import Kind
from broch.enclave.ring import MAX_MESSAGE, PoisonedError, Ring
from broch.sdk.declare import Declared

MAX_TEXT: Final = 4096  # bytes of text from the host
MAX_BACKLOG: Final = 8192  # messages that may wait while the module waits for an answer
_LIMITS: Final[dict[int, tuple[int, int]]] = {  # kind -> shortest, longest (bytes)
    Kind.CHALLENGE: (33, 33),
    Kind.GRANT: (1 + 64 + 48, 262144),
    Kind.EVENT: (17 + 16, MAX_MESSAGE),
    Kind.REQUEST: (17 + 16, MAX_MESSAGE),
    Kind.REPLY: (25 + 16, MAX_MESSAGE),
    Kind.FAILED: (13, 13 + MAX_TEXT),
    Kind.CALL: (12, MAX_MESSAGE),
    Kind.TICK: (3, 3),
    Kind.RETURN: (10, MAX_MESSAGE),
    Kind.NORETURN: (9, 9 + MAX_TEXT),
    Kind.LOADED: (1, MAX_MESSAGE),
    Kind.SAVED: (1, 1),
    Kind.EXPORT: (1 + 64 + 32, 1 + 64 + 32),
    Kind.IMPORT: (1 + 64 + 32 + 64 + 48, MAX_MESSAGE),
    Kind.STOP: (1, 1),
}
#: What answers a question of the enclave's own, and may come only while it waits for it.
ANSWERS: Final = frozenset(
    {Kind.REPLY, Kind.FAILED, Kind.RETURN, Kind.NORETURN, Kind.LOADED, Kind.SAVED}
)


class Gate:
    """What stands between the ring and the runtime."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._backlog: deque[bytes] = deque()

    def next(self) -> bytes:
        """The next message that begins something; waits for it."""
        if self._backlog:
            return self._backlog.popleft()
        message = self._checked(self._ring.receive())
        if message[0] in ANSWERS:
            raise PoisonedError(f"{Kind(message[0]).name} answers nothing that was asked")
        return message

    def answer(self, kinds: Collection[Kind]) -> bytes:
        """The next message of one of ``kinds``; others that may come meanwhile are kept."""
        while True:
            message = self._checked(self._ring.receive())
            if message[0] in kinds:
                return message
            if message[0] in ANSWERS:
                raise PoisonedError(f"{Kind(message[0]).name} answers nothing that was asked")
            if len(self._backlog) >= MAX_BACKLOG:
                raise PoisonedError(f"more than {MAX_BACKLOG} messages while waiting for an answer")
            self._backlog.append(message)

    @staticmethod
    def _checked(message: bytes | None) -> bytes:
        assert message is not None  # receive() without a timeout
        limits = _LIMITS.get(message[0])
        if limits is None:
            raise PoisonedError(f"unknown kind of message 0x{message[0]:02x}")
        if not limits[0] <= len(message) <= limits[1]:
            raise PoisonedError(
                f"{Kind(message[0]).name} of {len(message)} bytes, expected {limits[0]} to "
                f"{limits[1]}"
            )
        return message


class Codec:
    """Both ways between Python values and the bytes of one port, by its declared types."""

    __slots__ = ("argument", "argument_type", "result", "result_type")

    def __init__(self, declared: Declared) -> None:
        self.argument_type = declared.argument
        self.result_type = declared.result
        self.argument = msgspec.msgpack.Decoder(declared.argument)
        self.result = msgspec.msgpack.Decoder(declared.result)


class WrongResultError(TypeError):
    """A function of the module returned what it does not declare; ``place`` is where it begins."""

    def __init__(self, problem: str, place: str) -> None:
        super().__init__(problem)
        self.place = place


_encode: Final = msgspec.msgpack.Encoder().encode


def encode_as(value: Any, decoder: msgspec.msgpack.Decoder[Any]) -> bytes:
    """Encode ``value``, sure that the other side can decode it.

    Raises:
        TypeError: ``value`` is not of the decoder's type.
    """
    try:
        data = _encode(value)
        decoder.decode(data)
    except (ValueError, OverflowError, RecursionError) as exc:  # also text that is not UTF-8
        raise TypeError(f"not the declared type: {exc}") from None
    return data


def encode_result(value: Any, decoder: msgspec.msgpack.Decoder[Any], place: str) -> bytes:
    """Encode what the function at ``place`` returned.

    Raises:
        WrongResultError: ``value`` is not of the decoder's type.
    """
    try:
        return encode_as(value, decoder)
    except TypeError as exc:
        raise WrongResultError(str(exc), place) from None
