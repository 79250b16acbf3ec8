"""Counters only rise."""

import pytest

from broch.errors import InternalError, PolicyError
from broch.tee.counter import LIMIT, Counter

from .support import Memory


def test_a_counter_begins_at_zero_and_rises_by_one() -> None:
    memory = Memory()
    counter = Counter(memory, "c")
    assert counter.read() == 0
    assert memory.writes == 0
    assert [counter.increment() for _ in range(3)] == [1, 2, 3]
    assert counter.read() == 3
    assert memory.values == {"c": (3).to_bytes(8, "little")}


def test_a_counter_survives_its_object() -> None:
    memory = Memory()
    Counter(memory, "c").increment()
    assert Counter(memory, "c").increment() == 2


def test_counters_of_other_names_are_other_counters() -> None:
    memory = Memory()
    Counter(memory, "a").increment()
    assert Counter(memory, "b").read() == 0


def test_the_end_is_an_error_and_not_a_wrap() -> None:
    memory = Memory()
    memory.put("c", LIMIT.to_bytes(8, "little"))
    counter = Counter(memory, "c")
    with pytest.raises(PolicyError, match="end"):
        counter.increment()
    assert counter.read() == LIMIT


@pytest.mark.parametrize("stored", [b"", b"1234567", b"123456789"])
def test_damaged_memory_is_not_zero(stored: bytes) -> None:
    memory = Memory()
    memory.put("c", stored)
    with pytest.raises(InternalError, match="durable memory"):
        Counter(memory, "c").read()
    with pytest.raises(InternalError):
        Counter(memory, "c").increment()
