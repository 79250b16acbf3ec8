"""Run x86-64 code on this CPU, in a process of its own that is traced and can do nothing else.

Linux on x86-64 only; pure Python, through :mod:`ctypes`. Ask :func:`missing` before importing
:mod:`broch.cpu.native.engine`, which other systems cannot.
"""

import os
import platform
import sys

__all__ = ["missing"]


def _unfit() -> str | None:
    """Why this system cannot have a native engine, whatever its settings; None if it can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if platform.machine() != "x86_64":
        return f"it needs an x86-64 CPU, this is {platform.machine()}"
    return None


def missing() -> str | None:
    """Why there is no native engine on this machine; None if there is. Tries it."""
    problem = _unfit()
    if problem is not None:
        return problem
    from broch.cpu.native.engine import probe

    try:
        probe()
    except OSError as exc:
        return f"tracing: {os.strerror(exc.errno) if exc.errno else exc}"
    return None
