"""The unicorn engine: each thread of the code is an emulated CPU, and they take turns.

They share memory. While several can run, each gets a slice of time, so that one which spins until
another has done something does not spin for ever. A slice ends between two blocks of code, never
within an instruction, so that atomic instructions are atomic.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from broch.cpu.x86_64 import Region, Registers, Stop, StopKind
from broch.errors import UndecidedError

if TYPE_CHECKING:
    from broch.cpu.unicorn_x86.core import Core

SLICE: Final = 2000  # microseconds
_RETRY: Final = 0.001  # seconds between two attempts to interrupt
_TICK: Final = 0.1  # seconds; Python's handlers of signals run between two stretches of code


class UnicornEngine:
    """See :class:`broch.cpu.x86_64.Engine`."""

    name: str = "unicorn"

    def __init__(self, regions: Sequence[Region], threads: int, *, forbid_tsc: bool) -> None:
        """Make ``threads`` CPUs with this memory; each when it is first needed.

        Raises:
            UndecidedError: unicorn is not installed.
        """
        try:
            import unicorn  # noqa: F401
        except ImportError:
            raise UndecidedError(
                "the unicorn engine is not installed", hint="pip install 'broch[emulate]'"
            ) from None
        self._regions = tuple(regions)
        self._forbid_tsc = forbid_tsc
        self._cores: list[Core | None] = [None] * threads
        self._stops = [{kind: Stop(t, kind) for kind in StopKind} for t in range(threads)]
        self._runnable: deque[int] = deque()
        self._running: Core | None = None
        self._is_woken = False
        self._changed = threading.Condition()
        self._is_closed = threading.Event()
        if threading.current_thread() is threading.main_thread():
            threading.Thread(target=self._tick, name="broch-tick", daemon=True).start()

    def _tick(self) -> None:
        """Let Ctrl-C through: it waits for Python, which waits for the code."""
        while not self._is_closed.wait(_TICK):
            core = self._running
            if core is not None:
                core.interrupt()

    def registers(self, thread: int) -> Registers:
        """See :meth:`broch.cpu.x86_64.Engine.registers`."""
        return self._core(thread).registers

    def resume(self, thread: int) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.resume`."""
        self._runnable.append(thread)

    def wait(self) -> Stop | None:
        """See :meth:`broch.cpu.x86_64.Engine.wait`."""
        while True:
            if self._is_woken:
                with self._changed:
                    self._is_woken = False
                    self._changed.notify_all()
                return None
            if not self._runnable:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_woken)
                continue
            thread = self._runnable.popleft()
            core = self._running = self._cores[thread] or self._core(thread)
            try:
                kind = core.run(SLICE if self._runnable else 0)
            finally:
                self._running = None
            if kind is not None:
                return self._stops[thread][kind]
            self._runnable.append(thread)

    def wake(self) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.wake`."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()
            # An interrupt that comes just before the core runs has no effect: so, until it has.
            while self._is_woken and (core := self._running) is not None:
                core.interrupt()
                self._changed.wait(_RETRY)

    def fault_address(self, thread: int) -> int | None:
        """See :meth:`broch.cpu.x86_64.Engine.fault_address`."""
        return self._core(thread).fault_address

    def close(self) -> None:
        """See :meth:`broch.cpu.x86_64.Engine.close`."""
        self._is_closed.set()
        for core in self._cores:
            if core is not None:
                core.close()
        self._cores = []
        self._runnable.clear()

    def _core(self, thread: int) -> "Core":
        core = self._cores[thread]
        if core is None:
            from broch.cpu.unicorn_x86.core import Core

            core = self._cores[thread] = Core(self._regions, forbid_tsc=self._forbid_tsc)
        return core
