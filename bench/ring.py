"""The ring: a round trip of 64 bytes between two processes, against multiprocessing.Pipe.

Both echo in a forked process, both are hot, and they take turns, so that a machine whose speed
drifts is the same for both. p50 of all rounds.
"""

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable

from common import Figure, run

from broch.enclave.ring import make_ring, open_ring

PAYLOAD = bytes(64)
TURNS = 15


def _forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _p50(round_trip: Callable[[], object], rounds: int) -> float:
    times = []
    clock = time.perf_counter_ns
    for _ in range(rounds):
        begin = clock()
        round_trip()
        times.append(clock() - begin)
    return statistics.median(times) / 1000


def figures() -> list[Figure]:
    """Measure."""
    parts = make_ring()

    def ring_echo() -> None:
        ring = open_ring(*parts, host=False)
        while True:
            message = ring.receive()
            assert message is not None
            ring.send(message)

    here, there = multiprocessing.Pipe()

    def pipe_echo() -> None:
        while True:
            there.send_bytes(there.recv_bytes())

    children = [_forked(ring_echo), _forked(pipe_echo)]
    ring = open_ring(*parts, host=True)

    def by_ring() -> None:
        ring.send(PAYLOAD)
        ring.receive()

    def by_pipe() -> None:
        here.send_bytes(PAYLOAD)
        here.recv_bytes()

    try:
        _p50(by_ring, 20_000), _p50(by_pipe, 2_000)  # warm
        turns = [(_p50(by_ring, 10_000), _p50(by_pipe, 500)) for _ in range(TURNS)]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    ring_us = statistics.median(ring for ring, _ in turns)
    pipe_us = statistics.median(pipe for _, pipe in turns)
    return [
        Figure(name="ring_64B_us", value=ring_us, unit="us", bar="<= 1.5"),
        Figure(name="pipe_64B_us", value=pipe_us, unit="us"),
        Figure(name="ring_vs_pipe", value=pipe_us / ring_us, unit="x", bar=">= 20"),
    ]


if __name__ == "__main__":
    run(figures)
