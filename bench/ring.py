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
from functools import partial

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


def _p50(send: Callable[[bytes], object], receive: Callable[[], object], rounds: int) -> float:
    """Of one round trip, in us; nothing but the two calls is between the looks at the clock."""
    times = []
    clock = time.perf_counter_ns
    for _ in range(rounds):
        begin = clock()
        send(PAYLOAD)
        receive()
        times.append(clock() - begin)
    return statistics.median(times) / 1000


def figures() -> list[Figure]:
    """Measure."""
    parts = make_ring()

    def ring_echo() -> None:
        ring = open_ring(*parts, host=False)
        send, receive = ring.send, ring.receive
        while True:
            message = receive()
            assert message is not None
            send(message)

    here, there = multiprocessing.Pipe()

    def pipe_echo() -> None:
        send, receive = there.send_bytes, there.recv_bytes
        while True:
            send(receive())

    children = [_forked(ring_echo), _forked(pipe_echo)]
    ring = open_ring(*parts, host=True)

    by_ring = partial(_p50, ring.send, ring.receive)
    by_pipe = partial(_p50, here.send_bytes, here.recv_bytes)
    try:
        by_ring(20_000), by_pipe(2_000)  # warm
        turns = [(by_ring(10_000), by_pipe(500)) for _ in range(TURNS)]
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
