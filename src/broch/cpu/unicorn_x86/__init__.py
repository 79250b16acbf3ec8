"""Run x86-64 code on an emulated CPU (unicorn): slower, and anywhere."""

import importlib.util

from broch.cpu.unicorn_x86.engine import UnicornEngine

__all__ = ["UnicornEngine", "is_installed"]


def is_installed() -> bool:
    """Whether the emulator is here (the extra ``emulate``)."""
    return importlib.util.find_spec("unicorn") is not None
