"""Any messages, in any turns, by any number of slots: the ring is a queue. Any words: no harm."""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from broch.enclave.ring import (
    MAX_MESSAGE,
    RING_SIZE,
    SLOT_SIZE,
    SLOTS,
    PoisonedError,
    Ring,
    make_ring,
    open_ring,
)

WORDS = 24


@contextmanager
def both_ends() -> Iterator[tuple[Ring, Ring, mmap.mmap]]:
    memory, to_host, to_enclave = make_ring()
    raw = mmap.mmap(memory, RING_SIZE)
    host = open_ring(os.dup(memory), os.dup(to_host), os.dup(to_enclave), host=True)
    enclave = open_ring(memory, to_host, to_enclave, host=False)
    try:
        yield host, enclave, raw
    finally:
        host.close()
        enclave.close()
        raw.close()


sizes = st.one_of(
    st.integers(1, 100),
    st.sampled_from([SLOT_SIZE - 1, SLOT_SIZE, SLOT_SIZE + 1, MAX_MESSAGE]),
    st.integers(1, MAX_MESSAGE),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(sizes, st.just(0)), min_size=1, max_size=60), st.booleans())
def test_a_ring_is_a_queue(turns: list[int], from_host: bool) -> None:
    """A number is a message of this size to send if there is room, 0 one to receive."""
    with both_ends() as (host, enclave, _):
        writer, reader = (host, enclave) if from_host else (enclave, host)
        queue: deque[bytes] = deque()
        for number, size in enumerate(turns):
            if size and writer.has_room(size):
                message = (b"%d." % number * (size // 2 + 1))[:size]
                writer.send(message)
                queue.append(message)
            else:
                assert reader.receive(0) == (queue.popleft() if queue else None)
        while queue:
            assert reader.receive(0) == queue.popleft()
        assert reader.receive(0) is None


words = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(
        lambda number, more, size: number << 13 | more << 12 | size,
        st.integers(0, SLOTS + 2),
        st.integers(0, 1),
        st.one_of(st.integers(0, 0xFFF), st.sampled_from([1, SLOT_SIZE])),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.integers(0, WORDS + 6), words, max_size=12),
    st.lists(st.integers(0, 1), max_size=4),
)
def test_a_hostile_side_can_write_what_it_likes(written: dict[int, int], before: list[int]) -> None:
    """Whatever the words say: a message of 1 to MAX_MESSAGE bytes, nothing, or PoisonedError."""
    with both_ends() as (host, enclave, raw):
        for _ in before:
            host.send(b"honest")
            assert enclave.receive(0) == b"honest"
        for index, word in written.items():
            struct.pack_into("Q", raw, index * 8, word)
        try:
            for _ in range(8):
                message = enclave.receive(0)
                assert message is None or 1 <= len(message) <= MAX_MESSAGE
            enclave.prepare_sleep()
            enclave.wakened()
            host.has_room(MAX_MESSAGE)
        except PoisonedError:
            pass
