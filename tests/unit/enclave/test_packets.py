"""Packets and the descriptors beside them: nothing lost, nothing leaked, nothing believed."""

import array
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broch.enclave import packets
from broch.enclave.packets import MAX_INLINE
from broch.errors import DecodeError

INT: Final = array.array("i").itemsize


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends; when they are closed, as many descriptors are open as before."""
    gc.collect()  # descriptors of earlier tests, which would close meanwhile
    before = open_count()
    one, two = packets.pair()
    with one, two:
        yield one, two
    assert open_count() == before


Ends = tuple[socket.socket, socket.socket]


def send_raw(sock: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    rights = array.array("i", descriptors)
    sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])


def received(sock: socket.socket) -> tuple[bytes, list[int]]:
    packet = packets.receive(sock)
    assert packet is not None
    return packet


@pytest.mark.parametrize("size", [0, 1, MAX_INLINE, MAX_INLINE + 1, 1_000_000])
def test_messages_of_any_length(ends: Ends, size: int) -> None:
    message = os.urandom(size)
    packets.send(ends[0], message)
    assert received(ends[1]) == (message, [])


def test_messages_stay_apart_and_in_order(ends: Ends) -> None:
    for message in (b"one", b"", b"x" * 40_000, b"two"):
        packets.send(ends[0], message)
    assert [received(ends[1])[0] for _ in range(4)] == [b"one", b"", b"x" * 40_000, b"two"]


@pytest.mark.parametrize("size", [3, MAX_INLINE + 1])
def test_descriptors_travel_beside_a_message(ends: Ends, size: int) -> None:
    files = [packets.memory_file("test", bytes([n])) for n in range(3)]
    packets.send(ends[0], bytes(size), files)
    message, descriptors = received(ends[1])
    assert message == bytes(size)
    assert [packets.read_memory(d, 1) for d in descriptors] == [b"\0", b"\1", b"\2"]
    assert all(os.fstat(d).st_size == 1 for d in files), "ours stay open here"
    packets.close_all(files)


def test_descriptors_are_not_inherited(ends: Ends) -> None:
    file = packets.memory_file("test", b"")
    packets.send(ends[0], b"", [file])
    _, descriptors = received(ends[1])
    assert [os.get_inheritable(d) for d in (file, *descriptors)] == [False, False]
    packets.close_all([file, *descriptors])


# The end


def test_none_when_the_other_side_hung_up(ends: Ends) -> None:
    packets.send(ends[0], b"last")
    ends[0].close()
    assert received(ends[1]) == (b"last", [])
    assert packets.receive(ends[1]) is None
    assert packets.receive(ends[1]) is None


def test_none_when_the_other_side_hung_up_with_messages_unread(ends: Ends) -> None:
    packets.send(ends[1], b"never read")
    ends[0].close()
    assert packets.receive(ends[1]) is None


def test_an_empty_packet_is_the_end_and_leaks_nothing(ends: Ends) -> None:
    file = packets.memory_file("test", b"")
    send_raw(ends[0], b"", [file])
    os.close(file)
    assert packets.receive(ends[1]) is None


# What is no packet: refused, and whatever came with it is closed (the fixture counts)


def assert_refused(ends: Ends, packet: bytes, count: int, match: str) -> None:
    files = [packets.memory_file("test", b"content") for _ in range(count)]
    send_raw(ends[0], packet, files)
    packets.close_all(files)
    with pytest.raises(DecodeError, match=match):
        packets.receive(ends[1])
    packets.send(ends[0], b"next")
    assert received(ends[1]) == (b"next", [])


@pytest.mark.parametrize("count", [0, 1, 8])
@pytest.mark.parametrize("packet", [b"\x02", b"\xff", b"\x02abc", b"\x01abc"])
def test_an_unknown_first_byte(ends: Ends, packet: bytes, count: int) -> None:
    assert_refused(ends, packet, count, "not a packet")


def test_a_long_message_without_its_memory(ends: Ends) -> None:
    assert_refused(ends, b"\x01", 0, "not a packet")


@pytest.mark.parametrize("count", [0, 2])
def test_a_packet_that_is_too_long(ends: Ends, count: int) -> None:
    assert_refused(ends, b"\x00" + bytes(MAX_INLINE + 1), count, "packet cut off")


@pytest.mark.parametrize("count", [9, 20, 100])
def test_more_descriptors_than_a_packet_has(ends: Ends, count: int) -> None:
    assert_refused(ends, b"\x00", count, "packet cut off")


def test_a_long_message_in_what_is_no_memory(ends: Ends) -> None:
    read, write = os.pipe()
    send_raw(ends[0], b"\x01", [read, write])
    packets.close_all([read, write])
    with pytest.raises(DecodeError, match="not a file in memory: Illegal seek"):
        packets.receive(ends[1])


def test_a_long_message_that_is_too_long(ends: Ends) -> None:
    file = os.memfd_create("test")
    os.truncate(file, packets.MAX_MESSAGE + 1)
    send_raw(ends[0], b"\x01", [file, file])
    os.close(file)
    with pytest.raises(DecodeError, match=f"the limit is {packets.MAX_MESSAGE}") as caught:
        packets.receive(ends[1])
    assert caught.value.offset == packets.MAX_MESSAGE


# Memory files


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(300_000)], ids=["empty", "one", "long"])
def test_memory_is_read_and_closed(data: bytes) -> None:
    file = packets.memory_file("test", data)
    assert packets.read_memory(file, len(data)) == data
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_memory_can_no_longer_be_changed() -> None:
    file = packets.memory_file("test", b"measured")
    for change in (
        lambda: os.pwrite(file, b"M", 0),
        lambda: os.truncate(file, 3),
        lambda: os.truncate(file, 100),
    ):
        with pytest.raises(PermissionError):
            change()
    assert packets.read_memory(file, 100) == b"measured"


def test_memory_above_the_limit_is_not_read_but_closed() -> None:
    file = packets.memory_file("test", b"12345")
    with pytest.raises(DecodeError, match="5 bytes; the limit is 4"):
        packets.read_memory(file, 4)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_what_is_read_is_a_copy() -> None:
    """An unsealed file may change at any time; what was read does not."""
    file = os.memfd_create("test")
    os.write(file, b"before")
    data = packets.read_memory(os.dup(file), 100)
    os.pwrite(file, b"AFTER!", 0)
    assert data == b"before"
    os.close(file)


def test_a_folder_is_no_memory(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(DecodeError, match="not a file in memory"):
        packets.read_memory(folder, 1 << 20)
