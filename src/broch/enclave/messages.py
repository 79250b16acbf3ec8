"""What travels on the ring between an enclave and its host (the agent).

First byte: the kind. Then, by kind, a fixed head and the rest of the message as body; integers are
big-endian. SEALED = connection u32, epoch u32, counter u64, then ``ciphertext || tag``; ANSWER is
the same with the counter of the request that is answered (u64) before the ciphertext.

host to enclave
    CHALLENGE     nonce (32 bytes)                     asks for EVIDENCE
    GRANT         join.grant                           asks for CONFIRM
    EVENT         SEALED                               for an input
    REQUEST       SEALED                               for a handler, asks for REPLY or REFUSAL
    REPLY         ANSWER
    FAILED        connection u32, counter u64, text    a request that nobody will answer
    CALL          call u64, port u16, msgpack          asks for RESULT
    TICK          port u16                             untrusted time for an `every`
    RETURN        ocall u64, msgpack                   answers OCALL
    NORETURN      ocall u64, text                      answers OCALL: the host has no answer
    LOADED        sealed store, or empty               answers LOAD
    SAVED         -                                    answers SAVE
    EXPORT        signed order                         asks for STATE
    IMPORT        sealed state                         asks for IMPORTED
    STOP          -                                    asks for an orderly end

enclave to host
    READY         -                                    the module's code is loaded
    EVIDENCE      exchange key (32), signing key (32), evidence
    CONFIRM       32 bytes
    EVENT         SEALED
    REQUEST       SEALED
    REPLY         ANSWER
    RESULT        call u64, status u8, msgpack or text
    OCALL         ocall u64, port u16, msgpack
    LOAD          -                                    asks for LOADED
    SAVE          sealed store                         asks for SAVED
    PRINT         text
    FAULT         FaultReport as msgpack               the last message of an enclave that gives up
    REFUSED       connection u32, text                 a message that was not believed; dropped
    GAP           connection u32, u64 messages         that never came
    DONE          -                                    one message of the host's is worked off
    STATE         sealed state
    IMPORTED      signature (64 bytes)
    BYE           -                                    orderly end
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from broch.enclave.ring import PoisonedError


class Kind(IntEnum):
    """The first byte of a message."""

    CHALLENGE = 0x01
    GRANT = 0x02
    EVENT = 0x03
    REQUEST = 0x04
    REPLY = 0x05
    FAILED = 0x06
    CALL = 0x07
    TICK = 0x08
    RETURN = 0x09
    NORETURN = 0x0A
    LOADED = 0x0B
    SAVED = 0x0C
    EXPORT = 0x0D
    IMPORT = 0x0E
    STOP = 0x0F
    READY = 0x41
    EVIDENCE = 0x42
    CONFIRM = 0x43
    RESULT = 0x44
    OCALL = 0x45
    LOAD = 0x46
    SAVE = 0x47
    PRINT = 0x48
    FAULT = 0x49
    REFUSED = 0x4A
    GAP = 0x4B
    DONE = 0x4C
    STATE = 0x4D
    IMPORTED = 0x4E
    BYE = 0x4F


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    REFUSED = 1  # the author's code raised broch.Refused; the body is its text
    BAD_ARGUMENTS = 2  # not the declared types; the body says which
    NOT_JOINED = 3


SEALED: Final = struct.Struct(">BIIQ")  # kind, connection, epoch, counter
ANSWER: Final = struct.Struct(">BIIQQ")  # kind, connection, epoch, counter, counter answered
FAILED: Final = struct.Struct(">BIQ")  # kind, connection, counter
CALL: Final = struct.Struct(">BQH")  # kind, call, port
RESULT: Final = struct.Struct(">BQB")  # kind, call, status
TICK: Final = struct.Struct(">BH")  # kind, port
OCALL: Final = struct.Struct(">BQH")  # kind, ocall, port
RETURN: Final = struct.Struct(">BQ")  # kind, ocall
NOTICE: Final = struct.Struct(">BI")  # kind, connection
GAP: Final = struct.Struct(">BIQ")  # kind, connection, messages that never came


class FaultReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why an enclave gave up. ``message`` is empty unless the image was built for debugging."""

    what: str  # "raised ValueError", "poisoned", "out of memory", ...
    place: str = ""  # file:line in the module's source
    message: str = ""


_fault: Final = msgspec.msgpack.Decoder(FaultReport)


def encode_fault(report: FaultReport) -> bytes:
    """A FAULT message."""
    return bytes([Kind.FAULT]) + msgspec.msgpack.encode(report)


def decode_fault(message: bytes) -> FaultReport:
    """The report in a FAULT message; raises :class:`PoisonedError`."""
    try:
        return _fault.decode(message[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:  # also text in no UTF-8
        raise PoisonedError(f"not a fault report: {exc}") from None


def head(layout: struct.Struct, message: bytes) -> tuple[int, ...]:
    """The fixed head of ``message``, the kind left out; raises :class:`PoisonedError`."""
    if len(message) < layout.size:
        raise PoisonedError(f"message of {len(message)} bytes, its head alone has {layout.size}")
    return layout.unpack_from(message)[1:]
