"""Run x86-64 code on this CPU, in a process of its own that is traced and can do nothing else.

Linux on x86-64 only; pure Python, through :mod:`ctypes`. :func:`missing` says why not.
"""

from broch.cpu.native.engine import NativeEngine, missing

__all__ = ["NativeEngine", "missing"]
