"""A module's ends of its connections, with the keys that the deployer granted."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from broch.crypto.channel import CIPHERS, Direction, Opener, Sealer
from broch.enclave.join import Connection
from broch.enclave.messages import ANSWER, SEALED, Kind, head
from broch.errors import DecodeError, UntrustedError
from broch.image import PortKind
from broch.sdk.declare import Declared

_KINDS: Final = {
    "output": PortKind.OUTPUT,
    "input": PortKind.INPUT,
    "request": PortKind.REQUEST,
    "handler": PortKind.HANDLER,
}


def _sealer(c: Connection, direction: Direction) -> Sealer:
    return Sealer(c.cipher, c.key, connection=c.id, direction=direction, epoch=c.epoch)


def _opener(c: Connection, direction: Direction) -> Opener:
    return Opener(c.cipher, c.key, connection=c.id, direction=direction, epoch=c.epoch)


class Outgoing:
    """The end of an output or a request."""

    __slots__ = ("_opener", "_seal", "connection", "epoch")

    def __init__(self, granted: Connection) -> None:
        self.connection = granted.id
        self.epoch = granted.epoch
        self._seal = _sealer(granted, Direction.FORWARD).seal
        self._opener = _opener(granted, Direction.BACK)

    def event(self, data: bytes) -> bytes:
        """An EVENT message."""
        counter, sealed = self._seal(data)
        return SEALED.pack(Kind.EVENT, self.connection, self.epoch, counter) + sealed

    def request(self, data: bytes) -> tuple[bytes, int]:
        """A REQUEST message and its counter."""
        counter, sealed = self._seal(data)
        return SEALED.pack(Kind.REQUEST, self.connection, self.epoch, counter) + sealed, counter

    def open_reply(self, message: bytes, asked: int) -> bytes:
        """The body of the REPLY to request ``asked``; raises :class:`UntrustedError`."""
        connection, epoch, counter, answers = head(ANSWER, message)
        if (connection, epoch, answers) != (self.connection, self.epoch, asked):
            raise UntrustedError(f"reply to request {answers} of connection {connection}")
        return self._opener.open(counter, message[ANSWER.size :], answers)


class Incoming:
    """The end of an input or a handler."""

    __slots__ = ("_back", "connection", "decode", "epoch", "function", "opener", "port")

    def __init__(self, granted: Connection, port: int, declared: Declared) -> None:
        assert declared.function is not None
        self.connection = granted.id
        self.epoch = granted.epoch
        self.port = port
        self.opener = _opener(granted, Direction.FORWARD)
        self.decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(declared.argument).decode
        self.function = declared.function
        self._back = _sealer(granted, Direction.BACK)

    def reply(self, body: bytes, answers: int) -> bytes:
        """A REPLY message to request ``answers``."""
        counter, sealed = self._back.seal(body, answers)
        return ANSWER.pack(Kind.REPLY, self.connection, self.epoch, counter, answers) + sealed


_EndKey = tuple[int, bool]  # connection, whether it is the end that begins messages


def _end_key(granted: Connection) -> _EndKey:
    return granted.id, granted.role in ("output", "request")


class Connections:
    """All ends of a module: outgoing by port, incoming by connection id."""

    def __init__(self, declared: Sequence[Declared]) -> None:
        self._declared = declared
        self._epochs: dict[_EndKey, int] = {}  # the last of each end, also of those dropped
        self._ports: dict[_EndKey, int] = {}  # where the ends in use are
        self.outputs: dict[int, tuple[Outgoing, ...]] = {}
        self.requests: dict[int, Outgoing] = {}
        self.inputs: dict[int, Incoming] = {}
        self.handlers: dict[int, Incoming] = {}

    def take(self, granted: Sequence[Connection]) -> None:
        """Put these in place of what had their ids; all of them or none.

        Raises:
            DecodeError: a port or cipher that is not here, or one end twice.
            UntrustedError: an epoch that is not above all that this end ever had.
        """
        if len({_end_key(connection) for connection in granted}) != len(granted):
            raise DecodeError(0, "a grant names one end of a connection twice")
        ports = [self._check(connection) for connection in granted]
        for connection, port in zip(granted, ports, strict=True):
            self._put(connection, port)

    def drop(self) -> None:
        """Forget all connections and their keys; their epochs are over for good."""
        for ends in (self.outputs, self.requests, self.inputs, self.handlers, self._ports):
            ends.clear()

    def _check(self, granted: Connection) -> int:
        if granted.cipher not in CIPHERS:
            raise DecodeError(0, f"unknown cipher {granted.cipher!r:.40}")
        epoch = self._epochs.get(_end_key(granted), 0)
        if granted.epoch <= epoch:
            raise UntrustedError(
                f"connection {granted.id}: epoch {granted.epoch} after epoch {epoch}"
            )
        for number, declared in enumerate(self._declared):
            if declared.port.name == granted.port and declared.port.kind is _KINDS[granted.role]:
                return number
        raise DecodeError(0, f"this module has no {granted.role} {granted.port!r:.40}")

    def _remove(self, key: _EndKey) -> None:
        port = self._ports.pop(key, None)
        connection, is_outgoing = key
        if port is None:
            return
        if not is_outgoing:
            self.inputs.pop(connection, None)
            self.handlers.pop(connection, None)
        elif port in self.outputs:
            others = (end for end in self.outputs[port] if end.connection != connection)
            self.outputs[port] = tuple(others)
        elif self.requests[port].connection == connection:
            del self.requests[port]

    def _put(self, granted: Connection, port: int) -> None:
        declared = self._declared[port]
        key = _end_key(granted)
        self._remove(key)
        self._epochs[key], self._ports[key] = granted.epoch, port
        if granted.role == "input":
            self.inputs[granted.id] = Incoming(granted, port, declared)
        elif granted.role == "handler":
            self.handlers[granted.id] = Incoming(granted, port, declared)
        elif granted.role == "request":
            self.requests[port] = Outgoing(granted)
        else:
            self.outputs[port] = (*self.outputs.get(port, ()), Outgoing(granted))
