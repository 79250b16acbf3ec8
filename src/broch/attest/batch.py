"""Verify much evidence of one kind on several processor cores.

    with BatchVerifier(VERIFIER, endorsements, processes=2) as batch:
        for outcome in batch.verify(quotes, at=now):
            ...

Neither library of :mod:`broch.crypto.ecdsa` lets other threads run while it verifies, so the cores
are used by processes. The caller's is one of them. All take chunks off one shared counter, from one
block of shared memory, until none is left; only what the other processes found travels, as pickles.
The caller's process takes them in between two chunks of its own, and unpacks them when somebody
looks. (An executor would do this in threads, which wait for the interpreter lock longer than a
chunk takes.)

What a batch makes holds no cycles, so the garbage collector, which would walk through thousands of
claims again and again, is off meanwhile.

Each process verifies the endorsements for itself: trust does not travel. Processes are started
once, by ``spawn``, so a script that uses this needs the usual ``if __name__ == "__main__":``.
"""

import gc
import os
import pickle
import signal
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Any, Final, Self, overload

from broch.errors import BrochError, InternalError, UsageError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Claims, Endorsements
from broch.tee.verifier import Verifier

LARGEST: Final = 128  # pieces in a chunk: two packed chunks fit a socket, so that nobody waits
SMALLEST: Final = 16  # the last chunks, so that all processes end at about the same time
_PLACE: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Evidence that was not believed, and why. The fields are those of a :class:`BrochError`."""

    code: str
    exit_code: int
    message: str
    place: str | None
    hint: str | None
    step: str | None  # that did not hold (broch.tee.steps)


Outcome = Claims | Refused
_Found = dict[int, list[Outcome] | bytes]  # by where the chunk begins; bytes are packed


class Outcomes(Sequence[Outcome]):
    """Claims, or why there are none, in the order of the evidence.

    What other processes found stays packed until it is looked at, a chunk at a time.
    """

    def __init__(self, found: _Found, count: int) -> None:
        self._starts = sorted(found)
        self._chunks = [found[start] for start in self._starts]
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> list[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | list[Outcome]:
        places = range(self._count)[place]
        if isinstance(places, range):
            return [self[one] for one in places]
        number = bisect_right(self._starts, places) - 1
        return self._unpacked(number)[places - self._starts[number]]

    def __iter__(self) -> Iterator[Outcome]:
        for number in range(len(self._chunks)):
            yield from self._unpacked(number)

    def _unpacked(self, number: int) -> list[Outcome]:
        chunk = self._chunks[number]
        if isinstance(chunk, bytes):
            chunk = self._chunks[number] = pickle.loads(chunk)  # noqa: S301  (a process of ours)
        return chunk


class BatchVerifier:
    """One verifier and one set of endorsements, in several processes."""

    def __init__(
        self, verifier: Verifier, endorsements: Endorsements, *, processes: int | None = None
    ) -> None:
        """Start the processes.

        Args:
            verifier: of the kind of evidence; it has to be picklable if there are several.
            endorsements: for all of the evidence.
            processes: how many work; by default as many as there are cores.

        Raises:
            UsageError: fewer than one process.
        """
        wanted = len(os.sched_getaffinity(0)) if processes is None else processes
        if wanted < 1:
            raise UsageError(f"{wanted} processes, expected at least 1")
        self._verifier = verifier
        self._endorsements = endorsements
        context = get_context("spawn")
        self._next: Any = context.Value("Q", 0)  # where the next chunk begins
        self._memory: SharedMemory | None = None  # kept: filling new memory takes longer
        self._others: list[tuple[BaseProcess, Connection]] = []
        for _ in range(wanted - 1):
            here, there = context.Pipe()
            given = replace(endorsements, cache=VerificationCache())
            process = context.Process(
                target=_serve, args=(there, self._next, verifier, given), daemon=True
            )
            process.start()
            there.close()
            self._others.append((process, here))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes; what is verified after that, this one verifies alone."""
        for process, connection in self._others:
            connection.close()  # which ends the loop of the process
            process.join()
        self._others = []
        if self._memory is not None:
            self._memory.close()
            self._memory.unlink()
            self._memory = None

    def verify(self, evidence: Sequence[bytes], *, at: datetime) -> Sequence[Outcome]:
        """Claims, or why there are none, for each piece of evidence, in its order.

        Raises:
            UsageError: ``at`` has no time zone.
            InternalError: a process died. After this or any other error, see :meth:`close`.
        """
        if at.tzinfo is None:
            raise UsageError("the time of verification has no time zone")
        with _no_collector():
            if not self._others or len(evidence) <= SMALLEST:
                return _verify(self._verifier, self._endorsements, evidence, at)
            found: _Found = {}
            self._share(evidence, at, found)
        return Outcomes(found, len(evidence))

    def _share(self, evidence: Sequence[bytes], at: datetime, found: _Found) -> None:
        self._next.value = 0
        count = len(evidence)
        sharers = len(self._others) + 1
        memory = self._write(evidence)
        busy = [connection for _, connection in self._others]
        try:
            for connection in busy:
                connection.send((memory.name, count, sharers, at))
            for start, stop in _chunks(self._next, count, sharers):
                chunk = evidence[start:stop]
                found[start] = _verify(self._verifier, self._endorsements, chunk, at)
                _collect(busy, found, timeout=0)
            while busy:
                _collect(busy, found, timeout=None)
        except BaseException as exc:
            # What the others still find is about this evidence, and must not meet the next.
            self.close()
            if isinstance(exc, EOFError | OSError):
                raise InternalError(f"a process that verifies died: {exc!r}") from exc
            raise

    def _write(self, evidence: Sequence[bytes]) -> SharedMemory:
        """Where each piece begins (8 bytes each, and the end of the last), then all of them."""
        first = _PLACE.size * (len(evidence) + 1)
        places = list(accumulate(map(len, evidence), initial=first))
        wanted = places[-1]
        if self._memory is not None and self._memory.size < wanted:
            self._memory.close()
            self._memory.unlink()
            self._memory = None
        memory = self._memory = self._memory or SharedMemory(create=True, size=wanted)
        buffer = _buffer(memory)
        buffer[:first] = struct.pack(f"<{len(places)}Q", *places)
        for (begin, end), item in zip(pairwise(places), evidence, strict=True):
            buffer[begin:end] = item
        return memory


@contextmanager
def _no_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _chunks(counter: Any, count: int, sharers: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of chunks that no other process has taken; they get smaller."""
    while True:
        with counter.get_lock():
            start: int = counter.value
            fair = (count - start) // (2 * sharers)
            stop = min(count, start + max(SMALLEST, min(LARGEST, fair)))
            counter.value = stop
        if start == stop:
            return
        yield start, stop


def _collect(busy: list[Connection], found: _Found, timeout: float | None) -> None:
    """Take what other processes have found; those that are done leave ``busy``."""
    for connection in wait(busy, timeout):
        assert isinstance(connection, Connection)
        message = connection.recv_bytes()
        if message:
            (start,) = _PLACE.unpack_from(message)
            found[start] = message[_PLACE.size :]
        else:
            busy.remove(connection)


def _verify(
    verifier: Verifier, endorsements: Endorsements, evidence: Sequence[bytes], at: datetime
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for item in evidence:
        try:
            outcomes.append(verifier.verify(item, endorsements, at=at))
        except BrochError as exc:
            outcomes.append(
                Refused(
                    code=exc.code,
                    exit_code=exc.exit_code,
                    message=exc.message,
                    place=exc.place,
                    hint=exc.hint,
                    step=exc.step,
                )
            )
    return outcomes


def _read(memory: SharedMemory, start: int, stop: int) -> list[bytes]:
    """The pieces from ``start`` to before ``stop``."""
    buffer = _buffer(memory)
    layout = f"<{stop - start + 1}Q"
    places = struct.unpack_from(layout, buffer, start * _PLACE.size)
    return [bytes(buffer[begin:end]) for begin, end in pairwise(places)]


def _buffer(memory: SharedMemory) -> memoryview:
    if memory.buf is None:
        raise InternalError("the shared memory of a batch is closed")
    return memory.buf


def _serve(
    connection: Connection, counter: Any, verifier: Verifier, endorsements: Endorsements
) -> None:
    """Another process: work on batches until the caller hangs up."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the caller decides
    memory: SharedMemory | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # he has hung up
        while True:
            name, count, sharers, at = connection.recv()
            if memory is None or memory.name != name:
                if memory is not None:
                    memory.close()
                memory = SharedMemory(name=name)
            for start, stop in _chunks(counter, count, sharers):
                outcomes = _verify(verifier, endorsements, _read(memory, start, stop), at)
                packed = pickle.dumps(outcomes, pickle.HIGHEST_PROTOCOL)
                connection.send_bytes(_PLACE.pack(start) + packed)
            connection.send_bytes(b"")  # nothing is left
            gc.collect()  # what foreign code has left
    if memory is not None:
        memory.close()
