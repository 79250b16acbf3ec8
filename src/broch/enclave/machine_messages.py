"""What an agent and the machine under it say to each other.

A SOCK_SEQPACKET pair; one msgpack struct a packet, file descriptors beside it. The agent asks for
enclaves to be loaded and killed, and is told when one ends. It never touches an image after it
handed it over, and never sees the channel between an enclave and its device.
"""

from typing import Final

import msgspec

MAX_PACKET: Final = 65536  # bytes


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an enclave may use."""

    memory_mb: int = 64  # beyond what it has when its code starts
    unsandboxed: bool = False  # run it although the kernel lacks seccomp


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Load an image. Descriptors: memfd with ``Packed.data``, memfd with its signature (or none).

    ``name`` is the agent's handle, one enclave a name at a time.
    """

    name: str
    tee: str
    limits: Limits
    has_signature: bool


class Kill(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """End an enclave now."""

    name: str


class LoadedReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """It runs. Descriptors: ring memory, eventfd to the host, eventfd to the enclave."""

    name: str
    pid: int
    measurement: bytes


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The first word of a machine: its device is up."""

    pid: int


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The device did not load it; without a name: the device itself did not come up."""

    name: str
    code: str  # of the error: "malformed", "untrusted", "refused", "undecided", "internal"
    message: str
    hint: str | None


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """An enclave process ended: with an exit status, or by a signal (as a negative number)."""

    name: str
    status: int


Question = Load | Kill
Answer = Ready | LoadedReply | Refusal | Ended
