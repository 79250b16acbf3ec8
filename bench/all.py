"""Run every benchmark of this folder and print one table: ``python bench/all.py [--json]``.

The exit code is 1 if a script failed or gave no figures; a bar that is not met is no failure.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

from common import Figure, as_json, table, wants_json

FOLDER: Final = Path(__file__).parent
NOT_SCRIPTS: Final = {"all.py", "common.py", "host.py"}
TIMEOUT: Final = 600  # seconds a script


def machine() -> str:
    """One line on what the figures were measured on."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
                break
    except OSError:
        pass  # not Linux: the architecture has to do
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kernel = f"{platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {cores} cores, {kernel}, {python}"


def measure(script: Path) -> list[Figure]:
    """Run one script in a process of its own and read its figures.

    Raises:
        RuntimeError: it failed, took too long, or printed something else.
    """
    command = [sys.executable, str(script), "--json"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {TIMEOUT} s") from None
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}")
    try:
        found = json.loads(done.stdout)
        return [
            Figure(name=name, value=float(f["value"]), unit=f["unit"], bar=f["bar"])
            for name, f in found.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise RuntimeError(f"printed no figures: {exc}") from exc


def main() -> int:
    """Run as a command."""
    as_object = wants_json(None, "Run every benchmark.")
    figures: list[Figure] = []
    failed = False
    for script in sorted(FOLDER.glob("*.py")):
        if script.name in NOT_SCRIPTS or script.name.startswith("_"):
            continue
        print(f"measuring {script.name}", file=sys.stderr, flush=True)
        try:
            figures += measure(script)
        except RuntimeError as exc:
            print(f"error: {script.name}: {exc}", file=sys.stderr)
            failed = True
    if as_object:
        print(json.dumps({"machine": machine(), "figures": as_json(figures)}, indent=2))
    else:
        print(table(figures), machine(), sep="\n\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
