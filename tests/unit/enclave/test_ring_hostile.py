"""The ring between two sides of which one does what it likes with the memory."""

import mmap
import os
import threading

import pytest

from broch.enclave.ring import (
    MAX_MESSAGE,
    RING_SIZE,
    SLOT_SIZE,
    SLOTS,
    PoisonedError,
    Ring,
    RingClosedError,
    make_ring,
    open_ring,
)

from .harness import WAIT
from .rings import MORE, STEP, WORDS, Pair, content

# A hostile writer.


@pytest.mark.parametrize(
    ("word", "why"),
    [
        pytest.param(STEP + SLOT_SIZE + 1, "a slot of 2049", id="longer than a slot"),
        pytest.param(STEP + 0xFFF, "a slot of 4095", id="as long as it goes"),
        pytest.param(STEP + MORE, "a slot of 0", id="more after nothing"),
        pytest.param(STEP + MORE + SLOT_SIZE - 1, "a slot of 2047", id="more after a short slot"),
        pytest.param(STEP + MORE + 0xFFF, "a slot of 4095", id="more after too much"),
        pytest.param(2 * STEP + 5, "a slot of", id="a slot of the next turn"),
        pytest.param((SLOTS + 1) * STEP + 5, "a slot of", id="a slot of a far turn"),
        pytest.param(2**64 - 1, "a slot of", id="all ones"),
        pytest.param(2**63, "a slot of", id="the highest bit"),
    ],
)
@pytest.mark.parametrize("timeout", [0, 0.01, None])
def test_words_that_no_writer_writes(
    pair: Pair, word: int, why: str, timeout: float | None
) -> None:
    pair.word(WORDS, word)
    with pytest.raises(PoisonedError, match=why):
        pair.enclave.receive(timeout)


def test_words_of_the_past_are_no_message(pair: Pair) -> None:
    for word in (0, 1, 5, SLOT_SIZE, STEP - 1, STEP):
        pair.word(WORDS, word)
        assert pair.enclave.receive(0.001) is None
        assert pair.enclave.receive(0) is None


def test_a_message_that_never_ends(pair: Pair) -> None:
    for number in range(SLOTS):
        pair.word(WORDS + number, STEP + MORE + SLOT_SIZE)
    with pytest.raises(PoisonedError, match=f"longer than {MAX_MESSAGE} bytes"):
        pair.enclave.receive(None)


def test_a_message_one_byte_too_long(pair: Pair) -> None:
    slots = MAX_MESSAGE // SLOT_SIZE
    for number in range(slots):
        pair.word(WORDS + number, STEP + MORE + SLOT_SIZE)
    pair.word(WORDS + slots, STEP + 1)
    with pytest.raises(PoisonedError, match=f"longer than {MAX_MESSAGE} bytes"):
        pair.enclave.receive(None)


@pytest.mark.parametrize("second", [STEP + MORE, STEP + SLOT_SIZE + 1, 2 * STEP + 1])
def test_a_second_slot_that_no_writer_writes(pair: Pair, second: int) -> None:
    pair.word(WORDS, STEP + MORE + SLOT_SIZE)
    pair.word(WORDS + 1, second)
    with pytest.raises(PoisonedError):
        pair.enclave.receive(None)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_half_a_message_does_not_stop_its_reader(pair: Pair, timeout: float) -> None:
    """A writer that died in the middle of a message, or says it did."""
    pair.slot(0, b"a" * SLOT_SIZE)
    pair.word(WORDS, STEP + MORE + SLOT_SIZE)
    for _ in range(3):
        assert pair.enclave.receive(timeout) is None
    assert pair.enclave.prepare_sleep()
    pair.slot(1, b"end")
    pair.word(WORDS + 1, STEP + 3)
    assert not pair.enclave.prepare_sleep()
    assert pair.enclave.receive(timeout) == b"a" * SLOT_SIZE + b"end"


def test_after_half_a_message_and_its_rest_come_whole_ones(pair: Pair) -> None:
    pair.word(WORDS, STEP + MORE + SLOT_SIZE)
    assert pair.enclave.receive(0) is None
    pair.slot(1, b"end")
    pair.word(WORDS + 1, STEP + 3)
    assert pair.enclave.receive(0) == bytes(SLOT_SIZE) + b"end"
    pair.slot(2, b"next")
    pair.word(WORDS + 2, STEP + 4)
    assert pair.enclave.receive(0) == b"next"


def test_half_a_message_of_a_side_that_is_gone(pair: Pair) -> None:
    pair.word(WORDS, STEP + MORE + SLOT_SIZE)
    pair.enclave.shut()
    assert pair.enclave.receive(0) is None
    with pytest.raises(RingClosedError):
        pair.enclave.receive(None)


class Counting(mmap.mmap):
    """Memory that counts how often each part is copied out, and changes it behind each copy."""

    copies: list[tuple[int, int]]

    def __getitem__(self, part: slice) -> bytes:  # type: ignore[override]
        data = super().__getitem__(part)
        self.copies.append((part.start, part.stop))
        self[part] = b"\xee" * len(data)
        return data


def test_each_slot_is_copied_once_and_never_read_again() -> None:
    memory, to_host, to_enclave = make_ring()
    host = open_ring(os.dup(memory), os.dup(to_host), os.dup(to_enclave), host=True)
    mapping = Counting(memory, RING_SIZE)
    mapping.copies = []
    os.close(memory)
    enclave = Ring(mapping, host=False, wake=to_host, wait=to_enclave)
    for size in (5, SLOT_SIZE, 3 * SLOT_SIZE + 1):
        host.send(content(size))
        mapping.copies.clear()
        assert enclave.receive(WAIT) == content(size)
        assert len(mapping.copies) == len(set(mapping.copies)) == -(-size // SLOT_SIZE)
        assert sum(stop - start for start, stop in mapping.copies) == size
    host.close()
    enclave.close()


def test_a_word_that_flips_after_the_look_changes_nothing(plain: Pair) -> None:
    """A thread turns a slot's word to and fro: the reader takes one of both or refuses."""
    plain.word(WORDS + 1, STEP + 7)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            plain.word(WORDS, STEP + MORE + SLOT_SIZE)
            plain.word(WORDS, STEP + 5)
            plain.word(WORDS, 0)

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        message = plain.enclave.receive(WAIT)
        assert message in (bytes(5), bytes(SLOT_SIZE + 7))
    finally:
        stop.set()
        flipper.join()


# A hostile reader.


@pytest.mark.parametrize("read", [1, SLOTS, 2**63, 2**64 - 1])
def test_a_reader_that_read_more_than_was_sent(pair: Pair, read: int) -> None:
    pair.word(0, read)
    with pytest.raises(PoisonedError, match="the reader says"):
        pair.host.has_room(1)


def test_a_sender_checks_the_reader_only_when_it_needs_room(pair: Pair) -> None:
    pair.word(0, 2**64 - 1)
    for _ in range(SLOTS):
        pair.host.send(b"x")
    with pytest.raises(PoisonedError, match="the reader says"):
        pair.host.send(b"x")


def test_a_reader_that_unreads(pair: Pair) -> None:
    for _ in range(SLOTS + 1):
        pair.host.send(b"x")
        assert pair.enclave.receive(WAIT) == b"x"
    pair.word(0, 0)
    with pytest.raises(PoisonedError, match="read 0 slots of 257"):
        pair.host.has_room(1)


def test_eventfds_counted_up_by_the_other_side_do_no_harm(pair: Pair) -> None:
    for descriptor in (pair.to_host, pair.to_enclave):
        os.eventfd_write(descriptor, 2**64 - 2)
    pair.word(8, 1)  # asleep, it says
    pair.host.send(b"x")
    assert pair.enclave.receive(WAIT) == b"x"
    pair.word(16, 1)  # waits for room, it says
    pair.enclave.receive(0.001)
    assert pair.enclave.prepare_sleep()
