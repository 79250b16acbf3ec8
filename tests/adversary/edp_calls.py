"""Honest calls of a module in C, and how those end that are not."""

import struct

import pytest
from tests.adversary.edp_host import AbortedError, Host
from tests.adversary.edp_programs import ECHO


def call(host: Host, number: int, data: bytes = b"", **how: int) -> tuple[int, bytes]:
    """An honest call: its value (signed) and its reply."""
    reply = host.place(bytes(16))
    address = host.place(data) if data else 0
    value, second = host.call(number, address, len(data), reply, **how)
    assert second == 0
    at, size = struct.unpack("<QQ", host.read(reply, 16))
    assert at == 0 or host.allocated[at] == -(-size // 8) * 8
    return struct.unpack("<q", struct.pack("<Q", value))[0], host.read(at, size)


def assert_dead(host: Host) -> None:
    """Whatever the host does, it is told to exit, and nothing else."""
    for values in ((), (ECHO,), (0, 0, 0)):
        for thread in range(len(host.tcs)):
            out = host.enter(*values, thread=thread)
            assert (out.number, out.values) == (10, (1, 0, 0, 0))


def assert_abort(host: Host, message: str, *values: int) -> None:
    with pytest.raises(AbortedError, match=message):
        host.call(*values)
    assert_dead(host)
