"""Calls that may have to wait: who runs them meanwhile, and how they are called off.

The thread that drives the engine must not wait for anything but the enclave. So a call that cannot
be answered at once is a :class:`Blocking`, which a worker runs; its :class:`Interrupt` ends each of
its waits.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Answer = tuple[int, int]  # RSI and RDX of the enclave when its usercall returns
_MILLISECOND: Final = 1000  # a second
_LONGEST: Final = 86400.0  # seconds; a wait may end early


class InterruptedCallError(Exception):
    """The call was called off."""


class Interrupt:
    """Calls off what waits with it. A pipe, so that it can be waited for beside descriptors."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._is_set = False
        self._is_open = True
        self._lock = threading.Lock()

    def set(self) -> None:
        """Call off, now and from now on."""
        with self._lock:
            if self._is_open and not self._is_set:
                os.write(self._writer, b"\0")
            self._is_set = True

    def wait(self, descriptor: int, events: int) -> None:
        """Wait until ``descriptor`` is ready (select.POLL*).

        Raises:
            InterruptedCallError: the call was called off.
        """
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.register(descriptor, events)
        if self._reader in dict(poller.poll()):
            raise InterruptedCallError

    def sleep(self, seconds: float) -> None:
        """Wait for nothing else.

        Raises:
            InterruptedCallError: the call was called off.
        """
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        if poller.poll(min(seconds, _LONGEST) * _MILLISECOND):
            raise InterruptedCallError

    def close(self) -> None:
        """Give the descriptors back; nothing waits any more."""
        with self._lock:
            self._is_open = False
            os.close(self._reader)
            os.close(self._writer)


@dataclass(frozen=True, slots=True)
class Blocking:
    """What a usercall has to wait for: ``work`` waits with the interrupt that it is given."""

    work: Callable[[Interrupt], Answer]


class Workers:
    """Threads that run blocking calls, as many as there are calls at a time."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._is_open = True
        # An engine may keep the thread that drives it, and so starts workers, on one CPU.
        self._cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    def submit(
        self, blocking: Blocking, done: Callable[[Answer | BaseException], None]
    ) -> "Interrupt":
        """Run ``blocking`` and call ``done`` with its answer, or with what it raised.

        What is returned calls it off; that is no use any more when ``done`` was called.
        """
        with self._lock:
            worker = self._idle.pop() if self._idle else _Worker(self._release, self._cpus)
            self._all.add(worker)
        return worker.begin(blocking, done)

    def _release(self, worker: "_Worker") -> None:
        with self._lock:
            if self._is_open:
                self._idle.append(worker)
                return
        worker.end()

    def close(self) -> None:
        """Call everything off. Does not wait: a name that is being looked up cannot be."""
        with self._lock:
            self._is_open = False
            workers, self._idle = list(self._all), []
        for worker in workers:
            worker.end()


class _Worker:
    def __init__(self, release: Callable[["_Worker"], None], cpus: set[int] | None) -> None:
        self._release = release
        self._cpus = cpus
        self._wanted = threading.Semaphore(0)
        self._job: tuple[Blocking, Callable[[Answer | BaseException], None]] | None = None
        self._interrupt: Interrupt | None = None
        self._lock = threading.Lock()
        self._ended = False
        threading.Thread(target=self._run, name="broch-usercall", daemon=True).start()

    def begin(
        self, blocking: Blocking, done: Callable[[Answer | BaseException], None]
    ) -> Interrupt:
        interrupt = Interrupt()
        self._interrupt = interrupt
        self._job = (blocking, done)
        self._wanted.release()
        return interrupt

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._interrupt is not None:
                self._interrupt.set()
        self._wanted.release()

    def _run(self) -> None:
        if self._cpus is not None:
            with contextlib.suppress(OSError):  # CPUs went meanwhile: the kernel chose others
                os.sched_setaffinity(0, self._cpus)
        while True:
            self._wanted.acquire()
            job, interrupt = self._job, self._interrupt
            if job is None or interrupt is None:
                return
            result: Answer | BaseException
            try:
                result = job[0].work(interrupt)
            except BaseException as exc:  # noqa: BLE001 (the caller's thread raises it)
                result = exc
            with self._lock:
                self._job = self._interrupt = None
                interrupt.close()
                ended = self._ended
            job[1](result)
            if ended:
                return
            self._release(self)
