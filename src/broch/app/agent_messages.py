"""What deployer and agent say to each other besides what they pass on, and the first word to both.

Kinds of frames (:mod:`broch.app.frames`):

    HELLO     Hello            first frame of every connection
    COMMAND   Command          deployer to agent
    REPORT    Report           agent to deployer
    SEND      handle u32, message for that enclave
    SAID      handle u32, message of that enclave

Whoever knows a token may give commands, or pass sealed messages on; nothing here is believed by a
module or by the deployer's decisions. A handle is the deployer's number of one load of a module.
"""

import struct
from enum import IntEnum
from typing import Any, Final, Literal

import msgspec

from broch.errors import DecodeError

MAX_HELLO: Final = 512  # bytes
TOKEN_SIZE: Final = 32  # bytes


class FrameKind(IntEnum):
    """Kinds of frames beyond those of :mod:`broch.enclave.messages`."""

    HELLO = 0x80
    COMMAND = 0x81
    REPORT = 0x82
    SEND = 0x83
    SAID = 0x84


ADDRESSED: Final = struct.Struct(">BI")  # kind, handle
ROUTE_KEY: Final = struct.Struct(">BII")  # kind of message, connection, epoch: how SEALED begins


class AgentSpec(msgspec.Struct, frozen=True):
    """What an agent is started with."""

    node: str
    host: str
    port: int
    deployer_token: bytes
    peer_token: bytes
    stores: str  # folder of sealed stores
    readable: list[str]  # folders of host functions
    hidden: list[str]  # folders that it may not read, wherever they are

    def __repr__(self) -> str:
        return f"AgentSpec(node={self.node!r}, host={self.host!r}, port={self.port})"


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who dials, and the token that says it may."""

    role: Literal["deployer", "forward", "back"]  # a peer has a line each for asking and answering
    name: str
    token: bytes

    def __repr__(self) -> str:
        return f"Hello(role={self.role!r}, name={self.name!r})"


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Load a packed image."""

    handle: int
    module: str
    tee: str
    data: bytes
    signature: bytes | None
    memory_mb: int
    unsandboxed: bool
    seconds: float  # how long one message may take
    ocalls: dict[int, tuple[str, str]]  # port -> file, function
    every: dict[int, float]  # port -> seconds
    store: str  # name of the file of its sealed store

    def __repr__(self) -> str:
        return f"Load(handle={self.handle}, module={self.module!r}, {len(self.data)} bytes)"


class Unload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Kill an enclave."""

    handle: int


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Begin with the ticks of an enclave."""

    handle: int


Place = int | str | None  # handle of an enclave here, name of a peer, or None: the operator


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Where the messages of a connection under one epoch come from and go to."""

    connection: int
    epoch: int
    source: Place
    target: Place


class Routes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Routes in place of those that their connections had."""

    order: int
    routes: list[Route]
    peers: dict[str, tuple[str, int]]  # addresses of the agents in them


class AskCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """How many messages of each connection came to an enclave here?"""

    order: int


Command = Load | Unload | Start | Routes | AskCounts


class Loaded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The device took the image, and the enclave runs."""

    handle: int
    pid: int


class NotLoaded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """It did not."""

    handle: int
    error: dict[str, Any]  # reports.error_to_data


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """An enclave is gone."""

    handle: int
    status: int  # exit status; negative: signal
    why: str  # what the agent has against it; empty if it ended by itself


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """An order was carried out, or not."""

    order: int
    error: dict[str, Any] | None = None
    counts: dict[int, int] = msgspec.field(default_factory=dict)


Report = Loaded | NotLoaded | Ended | Done

_encode: Final = msgspec.msgpack.Encoder().encode
_hello: Final = msgspec.msgpack.Decoder(Hello)
_command: Final = msgspec.msgpack.Decoder(Command)
_report: Final = msgspec.msgpack.Decoder(Report)


def hello(role: Literal["deployer", "forward", "back"], name: str, token: bytes) -> bytes:
    """A HELLO message."""
    return bytes([FrameKind.HELLO]) + _encode(Hello(role, name, token))


def decode_hello(message: bytes) -> Hello:
    """The inverse of :func:`hello`; raises :class:`DecodeError`."""
    found: Hello = _decode(_hello, FrameKind.HELLO, message)
    return found


def command(order: Command) -> bytes:
    """A COMMAND message."""
    return bytes([FrameKind.COMMAND]) + _encode(order)


def decode_command(message: bytes) -> Command:
    """The inverse of :func:`command`; raises :class:`DecodeError`."""
    found: Command = _decode(_command, FrameKind.COMMAND, message)
    return found


def report(said: Report) -> bytes:
    """A REPORT message."""
    return bytes([FrameKind.REPORT]) + _encode(said)


def decode_report(message: bytes) -> Report:
    """The inverse of :func:`report`; raises :class:`DecodeError`."""
    found: Report = _decode(_report, FrameKind.REPORT, message)
    return found


def _decode(decoder: msgspec.msgpack.Decoder[Any], kind: FrameKind, message: bytes) -> Any:
    if message[0] != kind:
        raise DecodeError(0, f"kind 0x{message[0]:02x}, expected {kind.name}")
    try:
        return decoder.decode(message[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:  # also text in no UTF-8
        raise DecodeError(1, f"not a {kind.name}: {exc}") from None


def addressed(kind: FrameKind, handle: int, message: bytes) -> bytes:
    """A SEND or SAID message."""
    return ADDRESSED.pack(kind, handle) + message


def decode_addressed(message: bytes) -> tuple[int, bytes]:
    """Handle and inner message of a SEND or SAID; raises :class:`DecodeError`."""
    if len(message) <= ADDRESSED.size:
        raise DecodeError(len(message), "nothing is addressed")
    return ADDRESSED.unpack_from(message)[1], message[ADDRESSED.size :]
