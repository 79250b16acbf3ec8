"""Both ends of a ring, and what a hostile side can do to its memory."""

import mmap
import os
import struct
import time
from dataclasses import dataclass

from broch.enclave.ring import (
    SLOT_SIZE,
    SLOTS,
    Ring,
)

from .harness import WAIT

WORDS = 24
STEP = 1 << 13
MORE = 0x1000
DIRECTION = (WORDS + SLOTS) * 8 + SLOTS * SLOT_SIZE


@dataclass
class Pair:
    """Both ends, and the memory as a hostile side sees it."""

    host: Ring
    enclave: Ring
    raw: mmap.mmap
    to_host: int
    to_enclave: int

    def word(self, index: int, value: int, *, host_to_enclave: bool = True) -> None:
        """Write a word of one direction."""
        base = 0 if host_to_enclave else DIRECTION
        struct.pack_into("Q", self.raw, base + index * 8, value)

    def look(self, index: int, *, host_to_enclave: bool = True) -> int:
        base = 0 if host_to_enclave else DIRECTION
        return int(struct.unpack_from("Q", self.raw, base + index * 8)[0])

    def until(self, index: int) -> None:
        """Wait for the other thread to write a word that is not zero."""
        end = time.monotonic() + WAIT
        while not self.look(index):
            assert time.monotonic() < end
            os.sched_yield()

    def slot(self, number: int, data: bytes) -> None:
        """Write into a slot of the direction from host to enclave."""
        start = (WORDS + SLOTS) * 8 + number * SLOT_SIZE
        self.raw[start : start + len(data)] = data


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]
