"""Making sure that what an application started is gone when its supervisor says so.

The supervisor becomes the parent of processes whose own parent ended before them; once the
launcher and its group were killed, it waits for the last of them.
"""

import ctypes
import os
from typing import Final

from broch.enclave.launcher import Launcher

_PR_SET_CHILD_SUBREAPER: Final = 36


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(launcher: Launcher) -> None:
    """End the launcher and everything that it started, and wait until all of it is gone."""
    group = launcher._child.pid  # it leads a group of its own
    launcher.close()
    try:
        while True:
            os.waitpid(-group, 0)
    except ChildProcessError:
        return
