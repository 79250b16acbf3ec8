"""`broch up`, from the command to a running application, its emulated devices made before.

The command is run detached, which returns when the application runs; `broch down` is not counted.
The application of 50 modules is a chain over three nodes; 10 and 25 show that time grows linearly.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Figure, run

TURNS = 5
EXAMPLE = Path(__file__).parent.parent / "examples" / "irrigation" / "app.toml"
BROCH = Path(sys.executable).parent / "broch"
HEAD = """
[app]
name = "chain-{size}"
[policy]
emulated = true
[nodes.a]
tee = "sgx"
device = "emulated"
[nodes.b]
tee = "trustzone"
device = "emulated"
[nodes.c]
tee = "keystone"
device = "emulated"
"""
MODULE = """
[modules.m{number}]
node = "{node}"
source = "link.py"
"""
CONNECTION = """
[[connections]]
from = "m{number}.onward"
to = "m{next}.take"
"""
LINK = """
from broch import Module

module = Module("link")
onward = module.output("onward", int)


@module.input
def take(value: int) -> None:
    onward.emit(value + 1)
"""


def _chain(folder: Path, size: int) -> Path:
    text = HEAD.format(size=size)
    text += "".join(MODULE.format(number=i, node="abc"[i % 3]) for i in range(size))
    text += "".join(CONNECTION.format(number=i, next=i + 1) for i in range(size - 1))
    (folder / "link.py").write_text(LINK)
    path = folder / f"chain-{size}.toml"
    path.write_text(text)
    return path


def _up(descriptor: Path, home: Path) -> float:
    """Seconds from the command to running."""
    environment = {**os.environ, "BROCH_HOME": str(home)}
    begin = time.perf_counter()
    subprocess.run(
        [BROCH, "up", "--detach", descriptor], env=environment, check=True, capture_output=True
    )
    seconds = time.perf_counter() - begin
    subprocess.run([BROCH, "down", descriptor], env=environment, check=True, capture_output=True)
    return seconds


def figures() -> list[Figure]:
    """Measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, home = Path(temporary), Path(temporary, "home")
        apps = {
            "example_up_s": (EXAMPLE, "<= 3"),
            "modules_10_up_s": (_chain(folder, 10), ""),
            "modules_25_up_s": (_chain(folder, 25), ""),
            "modules_50_up_s": (_chain(folder, 50), "<= 15"),
        }
        times: dict[str, list[float]] = {name: [] for name in apps}
        for turn in range(TURNS + 1):
            for name, (descriptor, _) in apps.items():
                seconds = _up(descriptor, home)
                if turn:
                    times[name].append(seconds)
    return [
        Figure(name=name, value=statistics.median(times[name]), unit="s", bar=bar)
        for name, (_, bar) in apps.items()
    ]


if __name__ == "__main__":
    run(figures)
