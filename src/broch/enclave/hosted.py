"""A module that a microcontroller runs, as its agent sees it: the messages of any other enclave.

Between the two lies docs/sancus-abi.md: a message becomes a call into the module, and what the
module leaves becomes messages. Nothing here is secret and nothing here is trusted by the module; it
could as well be the agent's own code, and is here because the microcontroller is.
"""

import struct
from collections.abc import Iterator
from typing import Final

from broch.enclave.messages import (
    CALL,
    GAP,
    NOTICE,
    RESULT,
    SEALED,
    TICK,
    FaultReport,
    Kind,
    Status,
    encode_fault,
    head,
)
from broch.enclave.ring import PoisonedError
from broch.tee.hosting import CallOutcome, Function, HostedModule

MAX_IN: Final = 1024  # bytes
ATTESTED: Final = 32  # bytes of an answer: nonce, tag
GRANT_SIZE: Final = 64  # bytes for one connection
TAG_SIZE: Final = 16
_EVENT, _RESULT, _PRINT, _GAP = range(1, 5)
_RECORD: Final = struct.Struct("<HH")  # kind, length
_PORT: Final = struct.Struct("<H")
_GAP_BODY: Final = struct.Struct(">II")
_REASONS: Final = {
    1: "no connection of this number under this epoch",
    2: "replayed or out of order",
    3: "not authentic",
    4: "not of the declared type",
    5: "no such port, or of another kind",
    6: "not attested, or for another attestation",
    7: "no room for another connection",
    8: "a driver is not what it should be",
    9: "shorter or longer than it may be",
    10: "it has no room for its output",
    11: "refused",
    255: "broken",
}
_RESULTS: Final = (Status.OK, Status.REFUSED, Status.BAD_ARGUMENTS)


class FaultError(Exception):
    """The module cannot go on."""


class Stopped(Exception):  # noqa: N818 (no error: it was asked to)
    """The module was asked to end."""


class HostedEnclave:
    """Calls a module for each message of its agent."""

    def __init__(self, module: HostedModule) -> None:
        self.module = module

    def start(self) -> list[bytes]:
        """Let the module begin; raises :class:`FaultError`."""
        outcome = self._enter(Function.START, b"")
        if outcome.status:
            raise FaultError(f"did not start: {reason(outcome.status)}")
        return [*self._messages(outcome.output), bytes([Kind.READY])]

    def interrupted(self, vector: int) -> list[bytes]:
        """Tell the module of an interrupt; raises :class:`FaultError`."""
        return list(self._messages(self._enter(Function.INTERRUPT, _PORT.pack(vector)).output))

    def take(self, message: bytes) -> list[bytes]:
        """What comes of one message of the agent's.

        Raises:
            FaultError: the module cannot go on.
            Stopped: this was the order to end.
        """
        kind = message[0]
        if kind == Kind.CHALLENGE:
            return self._challenge(message[1:])
        if kind == Kind.GRANT:
            return self._grant(message[1:])
        if kind == Kind.EVENT:
            return self._event(message)
        if kind == Kind.CALL:
            return self._call(message)
        if kind == Kind.TICK:
            (port,) = head(TICK, message)
            return list(self._messages(self._enter(Function.TICK, self._number(port)).output))
        if kind == Kind.STOP:
            raise Stopped
        if kind == Kind.REQUEST:
            connection, _, _ = head(SEALED, message)
            return [_refused(connection, "a microcontroller has no handlers")]
        raise PoisonedError(f"kind 0x{kind:02x} to a microcontroller")

    def _challenge(self, challenge: bytes) -> list[bytes]:
        outcome = self._enter(Function.ATTEST, challenge)
        if outcome.status or len(outcome.output) != ATTESTED:
            raise FaultError(f"does not attest itself: {reason(outcome.status)}")
        nonce, tag = outcome.output[:TAG_SIZE], outcome.output[TAG_SIZE:]
        return [bytes([Kind.EVIDENCE]) + self.module.evidence(challenge, nonce, tag)]

    def _grant(self, grants: bytes) -> list[bytes]:
        """Connections one by one; the first that is refused ends it."""
        tags = b""
        for at in range(0, len(grants), GRANT_SIZE):
            outcome = self._enter(Function.GRANT, grants[at : at + GRANT_SIZE])
            if outcome.status or len(outcome.output) != TAG_SIZE:
                return [_refused(0, reason(outcome.status))]
            tags += outcome.output
        return [bytes([Kind.CONFIRM]) + tags]

    def _event(self, message: bytes) -> list[bytes]:
        connection, _, _ = head(SEALED, message)
        if len(message) - 1 > MAX_IN:
            return [_refused(connection, reason(9))]
        outcome = self._enter(Function.INPUT, message[1:])
        refused = [_refused(connection, reason(outcome.status))] if outcome.status else []
        return [*refused, *self._messages(outcome.output)]

    def _call(self, message: bytes) -> list[bytes]:
        call, port = head(CALL, message)
        arguments = message[CALL.size :]
        if len(arguments) > MAX_IN - _PORT.size:
            return [RESULT.pack(Kind.RESULT, call, Status.BAD_ARGUMENTS) + reason(9).encode()]
        outcome = self._enter(Function.ENTRY, self._number(port) + arguments)
        said = list(self._messages(outcome.output, call))
        if not any(out[0] == Kind.RESULT for out in said):
            status = Status.BAD_ARGUMENTS if outcome.status == 4 else Status.REFUSED
            text = reason(outcome.status) if outcome.status else "no result"
            said.append(RESULT.pack(Kind.RESULT, call, status) + text.encode())
        return said

    def _number(self, port: int) -> bytes:
        try:
            return _PORT.pack(self.module.number(port))
        except IndexError:
            raise PoisonedError(f"there is no port {port}") from None

    def _enter(self, function: Function, data: bytes) -> CallOutcome:
        if len(data) > MAX_IN:
            raise PoisonedError(f"{len(data)} bytes to a microcontroller that takes {MAX_IN}")
        outcome = self.module.enter(function, data)
        if outcome.fault:
            raise FaultError(outcome.fault)
        if outcome.status == 255:
            raise FaultError("was cut off before, and takes no calls any more")
        return outcome

    def _messages(self, output: bytes, call: int | None = None) -> Iterator[bytes]:
        """The records of OUT as messages; raises :class:`FaultError` for what is none."""
        at = 0
        while at < len(output):
            if len(output) - at < _RECORD.size:
                raise FaultError("wrote half a record")
            kind, size = _RECORD.unpack_from(output, at)
            body = output[at + _RECORD.size : at + _RECORD.size + size]
            if len(body) != size:
                raise FaultError("wrote a record that is cut off")
            yield _message(kind, body, call)
            at += _RECORD.size + size + size % 2


def _message(kind: int, body: bytes, call: int | None) -> bytes:
    if kind == _EVENT and len(body) >= SEALED.size - 1 + TAG_SIZE:
        return bytes([Kind.EVENT]) + body
    if kind == _PRINT:
        return bytes([Kind.PRINT]) + body
    if kind == _GAP and len(body) == _GAP_BODY.size:
        return GAP.pack(Kind.GAP, *_GAP_BODY.unpack(body))
    if kind == _RESULT and call is not None and len(body) >= _PORT.size:
        (status,) = _PORT.unpack_from(body)
        if status in _RESULTS:
            return RESULT.pack(Kind.RESULT, call, status) + body[_PORT.size :]
    raise FaultError(f"wrote a record of kind {kind} and {len(body)} bytes, which is none")


def reason(status: int) -> str:
    """A status for people."""
    return _REASONS.get(status, f"status {status}")


def fault(text: str) -> bytes:
    """A FAULT message."""
    return encode_fault(FaultReport(what=text))


def _refused(connection: int, why: str) -> bytes:
    return NOTICE.pack(Kind.REFUSED, connection) + why.encode()
