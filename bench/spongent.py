"""SPONGENT-128 in Python: a wrap of 64 bytes.

Times are of the thread's own CPU, the best of many, so that other work on the machine counts
little. ``wrap_64B_ms`` is what a connection pays for a message: its key was absorbed once, before;
``wrap_64B_with_key_ms`` absorbs it too, as the instruction of the microcontroller does each time.
``seal_64B_ms`` is the cipher of connections, with a nonce and associated data of 17 bytes.
``bytewise_64B_ms`` is the usual way with a table for each byte of the state, for comparison.
"""

import time
from collections.abc import Callable

from common import Figure, run

from broch.crypto import spongent
from broch.crypto.spongent import HASHES, Spongent128, SpongeWrap

KEY = bytes(range(16))
BODY = bytes(range(64))
ROUNDS = 30


def _best_ms(work: Callable[[], object]) -> float:
    clock = time.thread_time_ns
    times = []
    for _ in range(ROUNDS):
        begin = clock()
        work()
        times.append(clock() - begin)
    return min(times) / 1e6


def _bytewise_ms() -> float:
    """The same number of permutations, done byte by byte."""
    variant = HASHES["224/224/112"]
    permute = spongent._by_bytes(variant.width, spongent._round_constants(variant))
    permutations = 1 + len(BODY) // 2 + 7
    return _best_ms(lambda: permute(1)) * permutations


def figures() -> list[Figure]:
    """Measure."""
    wrap, aead = SpongeWrap(KEY), Spongent128(KEY)
    ms = _best_ms(lambda: wrap.wrap(b"\x00\x00", BODY))
    bytewise = _bytewise_ms()
    return [
        Figure(name="wrap_64B_ms", value=ms, unit="ms", bar="<= 10"),
        Figure(
            name="wrap_64B_with_key_ms",
            value=_best_ms(lambda: SpongeWrap(KEY).wrap(b"\x00\x00", BODY)),
            unit="ms",
        ),
        Figure(
            name="seal_64B_ms",
            value=_best_ms(lambda: aead.encrypt(bytes(12), BODY, bytes(5))),
            unit="ms",
        ),
        Figure(name="bytewise_64B_ms", value=bytewise, unit="ms"),
        Figure(name="wrap_vs_bytewise", value=bytewise / ms, unit="x"),
    ]


if __name__ == "__main__":
    run(figures)
