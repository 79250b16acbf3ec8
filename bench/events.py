"""Sealed events between two modules on two nodes, against the same bytes over asyncio TCP.

Ours: module -> ring -> agent -> TCP -> agent -> ring -> module, each event encoded, sealed, passed
on, opened, decoded and handed to the author's function. Peer: two processes, asyncio streams on
loopback, one frame an event (length, then as many bytes as a sealed event has), written and read
one by one. They take turns; times are taken by the receivers, from the first event to the last.
"""

import asyncio
import multiprocessing
import os
import statistics
import struct
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from common import Figure, run

from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.supervisor import Supervisor

EVENTS = 40_000
TURNS = 5
SEALED_EVENT = 17 + 18 + 16  # head, {"number": ..., "level": ...} as msgpack (about), tag

MESSAGES = """
from broch import Struct


class Sample(Struct):
    number: int
    level: float
"""
SOURCE = """
from broch import Module
from messages import Sample

module = Module("source")
sample = module.output("sample", Sample)


@module.entry
def send(count: int) -> None:
    for number in range(count):
        sample.emit(Sample(number=number, level=0.5))
"""
SINK = """
import time

from broch import Module, Struct
from messages import Sample


class Seen(Struct):
    count: int
    seconds: float


module = Module("sink")
done = module.output("done", Seen)
last = -1
first = 0.0


@module.input
def sample(value: Sample) -> None:
    global first, last
    if value.number == 0:
        first = time.monotonic()
    last = value.number
    if last == %d - 1:
        done.emit(Seen(count=last + 1, seconds=time.monotonic() - first))
"""
APP = """
[app]
name = "bench-events"
[nodes.one]
tee = "sgx"
device = "emulated"
[nodes.two]
tee = "sgx"
device = "emulated"
[modules.source]
node = "one"
source = "source.py"
files = ["messages.py"]
limits = { seconds = 60 }
[modules.sink]
node = "two"
source = "sink.py"
files = ["messages.py"]
[[connections]]
from = "source.sample"
to = "sink.sample"
[[connections]]
from = "sink.done"
to = "operator"
[policy]
emulated = true
"""


async def _ours(folder: Path, peer: "Peer") -> tuple[list[float], list[float]]:
    """Events a second, ours and the peer's, in turns."""
    (folder / "messages.py").write_text(MESSAGES)
    (folder / "source.py").write_text(SOURCE)
    (folder / "sink.py").write_text(SINK % EVENTS)
    (folder / "app.toml").write_text(APP)
    supervisor = Supervisor(load(folder / "app.toml"), Home(folder / "home"))
    ours: list[float] = []
    theirs: list[float] = []
    try:
        await supervisor.start()
        said = supervisor.subscribe()
        for _ in range(TURNS + 1):
            await supervisor.call("source", "send", {"count": EVENTS})
            while True:
                event = await asyncio.wait_for(said.get(), 60)
                if event is not None and event["kind"] == "event":
                    break
            ours.append(event["value"]["count"] / event["value"]["seconds"])
            theirs.append(await asyncio.to_thread(peer.turn))
    finally:
        await supervisor.stop()
    return ours[1:], theirs[1:]


class Peer:
    """Two processes with a stream between them."""

    def __init__(self) -> None:
        self._here, there = multiprocessing.Pipe()
        self._rates, rates = multiprocessing.Pipe()
        port = multiprocessing.Value("i", 0)
        self._children = [
            multiprocessing.Process(target=_receive, args=(port, rates), daemon=True),
            multiprocessing.Process(target=_send, args=(port, there), daemon=True),
        ]
        for child in self._children:
            child.start()

    def turn(self) -> float:
        """Events a second."""
        self._here.send(EVENTS)
        return float(self._rates.recv())

    def close(self) -> None:
        """End both."""
        for child in self._children:
            child.kill()
            child.join()


def _receive(port: "multiprocessing.sharedctypes.Synchronized[int]", rates: Connection) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while True:
            first = 0.0
            for number in range(EVENTS):
                (size,) = struct.unpack(">I", await reader.readexactly(4))
                await reader.readexactly(size)
                if number == 0:
                    first = time.monotonic()
            rates.send(EVENTS / (time.monotonic() - first))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def _send(port: "multiprocessing.sharedctypes.Synchronized[int]", orders: Connection) -> None:
    async def main() -> None:
        while not port.value:
            await asyncio.sleep(0.01)
        _, writer = await asyncio.open_connection("127.0.0.1", port.value)
        body = os.urandom(SEALED_EVENT)
        while True:
            for _ in range(await asyncio.to_thread(orders.recv)):
                writer.write(struct.pack(">I", len(body)) + body)
                await writer.drain()

    asyncio.run(main())


def figures() -> list[Figure]:
    """Measure."""
    peer = Peer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = asyncio.run(_ours(Path(folder), peer))
    finally:
        peer.close()
    ratios = [mine / yours for mine, yours in zip(ours, theirs, strict=True)]
    return [
        Figure(name="events_per_s", value=statistics.median(ours), unit="1/s", bar=">= 20,000"),
        Figure(name="tcp_per_s", value=statistics.median(theirs), unit="1/s"),
        Figure(name="events_vs_tcp", value=statistics.median(ratios), unit="x", bar=">= 0.25"),
    ]


if __name__ == "__main__":
    run(figures)
