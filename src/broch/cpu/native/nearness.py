"""Tracer and traced thread on one CPU, as long as they talk a lot.

One of the two sleeps whenever the other works. On two CPUs every stop then wakes a CPU that has
gone to sleep, twice, which can take longer than all else together (waking one inside a virtual
machine takes an interrupt that its hypervisor must deliver). On one CPU there is nothing to wake.

But code that computes is to go wherever there is room. So they are near each other after a few
stops in a row, until a tick: the kernel sends one for every few milliseconds of CPU time that the
traced process has used. Few stops between two ticks: the code computes. Many: the next CPU to be
near on is one that had room.
"""

import contextlib
import ctypes
import os
import threading
from typing import Final

TICK_US: Final = 4_000  # of CPU time; kernels count it in ticks of 1 to 10 ms
STOPS: Final = 8  # between two ticks, after which they come near

_current_cpu: Final = ctypes.PyDLL(None).sched_getcpu


class Nearness:
    """Where the tracer, which is the thread that makes this, and its only traced thread may run."""

    def __init__(self, traced: int) -> None:
        self._both = (threading.get_native_id(), traced)
        self._everywhere = os.sched_getaffinity(0)
        self._stops = 0

    def stopped(self) -> None:
        """It stopped by itself, and rests now. For the tracer to call."""
        self._stops += 1
        if self._stops == STOPS:
            self._allow({_current_cpu()})

    def ticked(self) -> None:
        """It has used so much CPU time, or will use no more: both may run everywhere."""
        if self._stops >= STOPS:
            self._allow(self._everywhere)
        self._stops = 0

    def _allow(self, cpus: set[int]) -> None:
        for thread in self._both:
            with contextlib.suppress(OSError):  # it ended; or a CPU went, and the kernel chose
                os.sched_setaffinity(thread, cpus)
