"""The gate: a typed entry call through ring, gate and runtime, hot, p50.

The host encodes two integers, the enclave checks them against the declared types, calls the
author's function, and encodes the result, which the host decodes.
"""

import statistics
import time

import msgspec
from common import Figure, run
from host import enclave

CODE = """
from broch import Module

module = Module("bench")


@module.entry
def add(a: int, b: int) -> int:
    return a + b
"""
ROUNDS = 5_000
TURNS = 9


def figures() -> list[Figure]:
    """Measure."""
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(int).decode
    medians = []
    with enclave(CODE) as running:
        port = running.interface.number("add")
        for turn in range(TURNS + 1):
            times = []
            for number in range(ROUNDS):
                begin = time.perf_counter_ns()
                result = decode(running.call(port, encode({"a": number, "b": turn})))
                times.append(time.perf_counter_ns() - begin)
                assert result == number + turn
            medians.append(statistics.median(times) / 1000)
    value = statistics.median(medians[1:])
    return [Figure(name="entry_call_us", value=value, unit="us", bar="<= 10")]


if __name__ == "__main__":
    run(figures)
