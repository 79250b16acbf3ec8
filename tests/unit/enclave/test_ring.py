"""The ring: what goes in comes out, nobody waits for ever, and neither side can hurt the other."""

import fcntl
import mmap
import os
import select
import threading

import pytest

from broch.enclave.ring import (
    MAX_MESSAGE,
    RING_SIZE,
    SLOT_SIZE,
    SLOTS,
    Ring,
    RingClosedError,
    make_ring,
    open_ring,
)
from broch.errors import InternalError

from .harness import WAIT, fork, wait
from .rings import Pair, content

# What goes in comes out.


@pytest.mark.parametrize(
    "size",
    [
        1,
        2,
        64,
        SLOT_SIZE - 1,
        SLOT_SIZE,
        SLOT_SIZE + 1,
        2 * SLOT_SIZE,
        MAX_MESSAGE - 1,
        MAX_MESSAGE,
    ],
)
def test_every_size_goes_both_ways(pair: Pair, size: int) -> None:
    message = content(size)
    pair.host.send(message)
    assert pair.enclave.receive(WAIT) == message
    pair.enclave.send(message)
    assert pair.host.receive(WAIT) == message


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1])
def test_no_other_size_goes(plain: Pair, size: int) -> None:
    with pytest.raises(InternalError, match=f"a message has 1 to {MAX_MESSAGE} bytes"):
        plain.host.send(bytes(size))
    assert plain.enclave.receive(0) is None


def test_an_empty_message_spoils_nothing(pair: Pair) -> None:
    for _ in range(2):  # in slots that were never used, and in such that were
        count = 0
        while pair.host.has_room(1):
            with pytest.raises(InternalError, match="a message has 1"):
                pair.host.send(b"")
            pair.host.send(content(count + 1))
            count += 1
        with pytest.raises(InternalError, match="a message has 1"):
            pair.host.send(b"")
        for number in range(count):
            assert pair.enclave.receive(0) == content(number + 1)
        assert pair.enclave.receive(0) is None


def test_it_goes_round_many_times(pair: Pair) -> None:
    for number in range(5 * SLOTS + 3):
        message = content(number % (3 * SLOT_SIZE) + 1)
        pair.host.send(message)
        assert pair.enclave.receive(0) == message


def test_messages_keep_their_order_while_both_ends_are_at_work(pair: Pair) -> None:
    sizes = [1 + number * 37 % 5000 for number in range(1000)]

    def feed() -> None:
        for size in sizes:
            pair.host.send(content(size))

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert [len(pair.enclave.receive(WAIT) or b"") for _ in sizes] == sizes
    feeder.join()


def test_two_processes_talk(plain: Pair) -> None:
    def echo() -> None:
        while (message := plain.enclave.receive(WAIT)) != b"end":
            assert message is not None
            plain.enclave.send(message[::-1])

    child = fork(echo)
    for size in (1, 64, SLOT_SIZE + 1, MAX_MESSAGE):
        plain.host.send(content(size))
        assert plain.host.receive(WAIT) == content(size)[::-1]
    plain.host.send(b"end")
    assert wait(child) == 0


# Room.


def test_has_room_says_so_to_the_slot(pair: Pair) -> None:
    assert pair.host.has_room(SLOTS * SLOT_SIZE)
    assert not pair.host.has_room(SLOTS * SLOT_SIZE + 1)
    for _ in range(SLOTS - 1):
        pair.host.send(b"x")
    assert pair.host.has_room(SLOT_SIZE)
    assert not pair.host.has_room(SLOT_SIZE + 1)
    pair.host.send(b"x")
    assert not pair.host.has_room(1)


def test_whoever_found_no_room_is_woken_when_there_is(pair: Pair) -> None:
    for _ in range(SLOTS):
        pair.host.send(b"x")
    assert not pair.host.has_room(1)
    for _ in range(SLOTS):
        assert pair.enclave.receive(0) == b"x"
    assert readable(pair.host)
    pair.host.wakened()
    assert pair.host.has_room(1)


def test_a_reader_that_goes_to_sleep_says_what_it_has_read(pair: Pair) -> None:
    for _ in range(SLOTS):
        pair.host.send(b"x")
    assert pair.enclave.receive(0) == b"x"  # one slot: not yet said, to be cheap
    assert not pair.host.has_room(1)
    for _ in range(SLOTS - 1):
        pair.enclave.receive(0)
    assert pair.enclave.receive(0.001) is None
    assert readable(pair.host)
    assert pair.host.has_room(SLOTS * SLOT_SIZE)


def test_send_waits_for_room(pair: Pair) -> None:
    for _ in range(SLOTS):
        pair.host.send(b"x")
    sent = threading.Event()

    def send_one_more() -> None:
        pair.host.send(b"y")
        sent.set()

    sender = threading.Thread(target=send_one_more)
    sender.start()
    # It says that it waits before it sleeps: from then on it must be woken.
    pair.until(16)
    assert not sent.is_set()
    for _ in range(SLOTS):
        assert pair.enclave.receive(WAIT) == b"x"
    assert pair.enclave.receive(WAIT) == b"y"
    assert sent.wait(WAIT)
    sender.join()


def test_a_message_larger_than_the_room_left_goes_in_by_parts(pair: Pair) -> None:
    for _ in range(SLOTS - 3):
        pair.host.send(b"x")
    sender = threading.Thread(target=pair.host.send, args=(content(MAX_MESSAGE),))
    sender.start()
    for _ in range(SLOTS - 3):
        assert pair.enclave.receive(WAIT) == b"x"
    assert pair.enclave.receive(WAIT) == content(MAX_MESSAGE)
    sender.join()


def test_a_blocking_send_leaves_an_event_loop_its_wake_up(pair: Pair) -> None:
    """The host's loop watches the eventfd, the host sends and must wait, a message comes."""
    for _ in range(SLOTS):
        pair.host.send(b"x")
    assert pair.host.prepare_sleep()
    sender = threading.Thread(target=pair.host.send, args=(b"y",))
    sender.start()
    pair.until(16)
    pair.enclave.send(b"news")  # wakes the eventfd, on which the sender sleeps too
    for _ in range(SLOTS):
        pair.enclave.receive(WAIT)
    sender.join()
    assert readable(pair.host)
    pair.host.wakened()
    assert pair.host.receive(0) == b"news"


# Waiting.


@pytest.mark.parametrize("timeout", [0, 0.0001, 0.01])
def test_receive_returns_none_when_the_time_is_over(pair: Pair, timeout: float) -> None:
    assert pair.enclave.receive(timeout) is None
    pair.host.send(b"late")
    assert pair.enclave.receive(timeout) == b"late"


def test_a_sleeper_is_woken(pair: Pair) -> None:
    got: list[bytes | None] = []
    sleeper = threading.Thread(target=lambda: got.append(pair.enclave.receive(WAIT)))
    sleeper.start()
    pair.until(8)
    pair.host.send(b"wake up")
    sleeper.join()
    assert got == [b"wake up"]
    assert pair.look(8) == 0


def test_nobody_is_woken_who_does_not_sleep(pair: Pair) -> None:
    pair.host.send(b"x")
    assert not readable(pair.enclave)


def test_prepare_sleep_sees_what_came_before(pair: Pair) -> None:
    assert pair.host.prepare_sleep()
    pair.enclave.send(b"x")
    assert readable(pair.host)
    pair.host.wakened()
    assert not readable(pair.host)
    assert not pair.host.prepare_sleep(), "there is a message already"
    assert pair.host.receive(0) == b"x"
    assert pair.host.prepare_sleep()


def test_an_event_loop_loses_no_wake_up(plain: Pair) -> None:
    """A bounded stress: 3000 questions and answers, each side asleep as often as it can be."""
    rounds = 3000

    def enclave() -> None:
        for _ in range(rounds):
            message = plain.enclave.receive(WAIT)
            assert message is not None
            plain.enclave.send(message)

    child = fork(enclave)
    poller = select.poll()
    poller.register(plain.host.fileno(), select.POLLIN)
    for number in range(rounds):
        plain.host.send(b"%d" % number)
        while (message := plain.host.receive(0)) is None:
            if plain.host.prepare_sleep():
                assert poller.poll(WAIT * 1000), f"round {number}: the wake-up was lost"
                plain.host.wakened()
        assert message == b"%d" % number
    assert wait(child) == 0


def test_a_full_ring_loses_no_wake_up(plain: Pair) -> None:
    """The writer waits for room, the reader for messages, in turns, over many rounds."""
    count = 60 * SLOTS

    def enclave() -> None:
        for number in range(count):
            assert plain.enclave.receive(WAIT) == b"%d" % number

    child = fork(enclave)
    poller = select.poll()
    poller.register(plain.host.fileno(), select.POLLIN)
    for number in range(count):
        while not plain.host.has_room(64 * SLOT_SIZE):
            assert poller.poll(WAIT * 1000), f"message {number}: the wake-up was lost"
            plain.host.wakened()
        plain.host.send(b"%d" % number)
    assert wait(child) == 0


def test_progress_goes_without_a_message(pair: Pair) -> None:
    pair.enclave.tell_progress(7)
    assert pair.host.progress == 7
    assert pair.enclave.progress == 0


# The end.


def test_a_ring_that_is_shut_can_be_emptied(pair: Pair) -> None:
    pair.enclave.send(b"last words")
    pair.host.shut()
    assert pair.host.receive(WAIT) == b"last words"
    with pytest.raises(RingClosedError):
        pair.host.receive(WAIT)
    assert pair.host.receive(0) is None


def test_a_ring_that_is_shut_takes_no_more_than_it_has_room_for(pair: Pair) -> None:
    pair.host.shut()
    for _ in range(SLOTS):
        pair.host.send(b"x")
    with pytest.raises(RingClosedError):
        pair.host.send(b"x")


def test_a_ring_that_is_closed_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    open_ring(*make_ring(), host=True).close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("size", [0, RING_SIZE - 1, RING_SIZE + 1])
def test_neither_side_can_change_the_size_of_the_memory(size: int) -> None:
    memory, to_host, to_enclave = make_ring()
    with pytest.raises(PermissionError):
        os.ftruncate(memory, size)
    for descriptor in (memory, to_host, to_enclave):
        os.close(descriptor)


def test_neither_side_can_seal_the_memory_against_the_other() -> None:
    memory, to_host, to_enclave = make_ring()
    for seal in (fcntl.F_SEAL_WRITE, 0x10):  # F_SEAL_FUTURE_WRITE
        with pytest.raises(PermissionError):
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seal)
    for descriptor in (memory, to_host, to_enclave):
        os.close(descriptor)


def test_memory_of_another_size_is_no_ring() -> None:
    memory = os.memfd_create("not-a-ring")
    os.ftruncate(memory, RING_SIZE - mmap.PAGESIZE)
    with pytest.raises(InternalError, match="wrong size"):
        open_ring(memory, -1, -1, host=True)
    mapping = mmap.mmap(memory, RING_SIZE - mmap.PAGESIZE)
    with pytest.raises(InternalError, match="a ring has"):
        Ring(mapping, host=True, wake=-1, wait=-1)
    mapping.close()
    os.close(memory)


def readable(ring: Ring) -> bool:
    poller = select.poll()
    poller.register(ring.fileno(), select.POLLIN)
    return bool(poller.poll(0))
