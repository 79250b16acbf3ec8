"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest

# A shell starts what it puts in the background with Ctrl-C ignored, and what it starts inherits
# that: tests that interrupt a program would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of cases made by others; tests that need it skip, saying so, where it is not."""
    folder = os.environ.get("BROCH_VECTORS")
    if not folder:
        pytest.skip("BROCH_VECTORS does not name the folder of vectors made by others")
    path = Path(folder)
    assert path.is_dir(), f"BROCH_VECTORS={folder} is not a folder"
    return path
