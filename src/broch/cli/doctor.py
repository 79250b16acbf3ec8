"""``broch doctor``: what this machine has and lacks, each thing tried and not guessed.

Needed things decide the exit code: 0 when all are there, 6 when one is missing. Helpful things are
missing without harm, and real hardware is only needed by nodes whose descriptor says ``native``.
"""

import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from broch.app.home import Home
from broch.cli import doctor_hardware, output
from broch.cli.table import Table, show
from broch.cpu import native
from broch.enclave import sandbox
from broch.enclave.device_folder import check_private
from broch.errors import BrochError, UndecidedError, UsageError
from broch.image import toolchain


class Need(StrEnum):
    """What it means to lack something."""

    NEEDED = "needed"  # nothing runs without it
    HELPFUL = "helpful"  # all runs, with one safeguard or comfort less
    HARDWARE = "hardware"  # only for nodes with device = "native"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    need: Need
    ok: bool
    found: str
    means: str


def doctor(*, as_json: bool) -> int:
    """Look at everything, print it; the exit code."""
    checks = list(examine())
    lacking = [check for check in checks if check.need is Need.NEEDED and not check.ok]
    names = ", ".join(check.name for check in lacking)
    error = UndecidedError(f"this machine lacks what Broch needs: {names}", place="doctor")
    if as_json:
        data: dict[str, Any] = {"ok": not lacking, "checks": [asdict(check) for check in checks]}
        output.print_json(data | ({"error": output.error_data(error)} if lacking else {}))
    else:
        _print(checks)
    if lacking:
        output.note_error(error)
        return error.exit_code
    if not as_json:
        output.say("Everything that is needed is here.")
    return 0


def _print(checks: Sequence[Check]) -> None:
    rows = [
        [check.name, "ok" if check.ok else "missing", check.need.value, check.found, check.means]
        for check in checks
    ]
    show(Table(columns=["what", "is", "need", "found", "what it means"], rows=rows))


def examine() -> Iterator[Check]:
    """Every check, in the order in which they are shown."""
    for check in (_python, _system, _seccomp, _landlock, _memfd, _eventfd, _pidfd, _loopback):
        yield check()
    yield _home()
    yield _user()
    yield _ptrace()
    yield _compiler()
    for device in doctor_hardware.look():
        yield Check(
            name=device.path,
            need=Need.HARDWARE,
            ok=device.problem is None,
            found=device.problem or device.found,
            means=device.means,
        )


def _check(name: str, need: Need, problem: str | None, found: str, ok: str, lack: str) -> Check:
    """A check that failed with ``problem``, or did not (None)."""
    return Check(
        name=name,
        need=need,
        ok=problem is None,
        found=found if problem is None else problem,
        means=ok if problem is None else lack,
    )


def _python() -> Check:
    version = platform.python_version()
    problem = None if sys.version_info >= (3, 11) else version
    return _check(
        "Python", Need.NEEDED, problem, version, "new enough", "Broch needs Python 3.11 or newer"
    )


def _compiler() -> Check:
    found, problem = "", None
    try:
        names = {target: toolchain.find(target).name for target in toolchain.TARGETS}
        found = ", ".join(f"{name} for {target}" for target, name in names.items())
    except UsageError as exc:
        problem = exc.message
    return _check(
        "C compiler",
        Need.HELPFUL,
        problem,
        found,
        "modules in C can be built",
        f"modules in C cannot be built for all TEEs that have them: {toolchain.HINT}",
    )


def _system() -> Check:
    found = f"{platform.system()} {platform.release()} on {platform.machine()}"
    known = platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64")
    return _check(
        "kernel",
        Need.NEEDED,
        None if known else found,
        found,
        "enclaves can be closed in",
        "enclaves run on Linux on x86-64 and AArch64; other systems can verify and inspect",
    )


def _seccomp() -> Check:
    try:
        problem = "refused" if "seccomp" in sandbox.missing() else None
    except (OSError, AttributeError) as exc:
        problem = str(exc)
    return _check(
        "seccomp",
        Need.NEEDED,
        problem,
        "filters can be installed",
        "an enclave process can do nothing but compute and talk to its host",
        "enclaves start only where the descriptor says [policy] unsandboxed = true",
    )


def _landlock() -> Check:
    try:
        abi = sandbox.landlock_abi()
    except (OSError, AttributeError):
        abi = 0
    return _check(
        "Landlock",
        Need.HELPFUL,
        None if abi else "not in this kernel",
        f"ABI {abi}",
        "files are closed to enclaves twice over, and to agents and devices but for their own",
        "seccomp alone keeps enclaves from files; agents and devices are not kept from any",
    )


def _try(action: Callable[[], None]) -> str | None:
    """What went wrong, if something did."""
    try:
        action()
    except (OSError, AttributeError, ValueError) as exc:
        return str(exc)
    return None


def _memfd() -> Check:
    return _check(
        "memfd",
        Need.NEEDED,
        _try(lambda: os.close(os.memfd_create("broch-doctor", os.MFD_CLOEXEC))),
        "works",
        "images and rings live in memory that has no name",
        "enclaves cannot be started",
    )


def _eventfd() -> Check:
    return _check(
        "eventfd",
        Need.NEEDED,
        _try(lambda: os.close(os.eventfd(0, os.EFD_CLOEXEC))),
        "works",
        "enclave and host can wake each other",
        "enclaves cannot be started",
    )


def _pidfd() -> Check:
    return _check(
        "pidfd",
        Need.NEEDED,
        _try(lambda: os.close(os.pidfd_open(os.getpid()))),
        "works",
        "the end of an enclave is noticed at once",
        "enclaves cannot be started",
    )


def _loopback() -> Check:
    def bind() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen(1)

    return _check(
        "loopback",
        Need.NEEDED,
        _try(bind),
        "can listen on 127.0.0.1",
        "nodes can talk to each other",
        "nodes cannot talk to each other",
    )


def _home() -> Check:
    problem = None
    found = ""
    try:
        root = Home.find().root
        found = str(root)
        if root.exists():
            check_private(root)
            problem = None if os.access(root, os.W_OK | os.X_OK) else f"{root}: cannot be written"
        else:
            problem = _no_home(root)
            found = f"{root} (to be made)"
    except BrochError as exc:
        problem = str(exc)
    return _check(
        "BROCH_HOME",
        Need.NEEDED,
        problem,
        found,
        "keys and emulated devices are kept where only you can read them",
        "keys and emulated devices need a folder that is yours alone: set BROCH_HOME",
    )


def _no_home(root: Path) -> str | None:
    """Why the folder could not be made."""
    parent = next(parent for parent in root.parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return f"{parent}: cannot be written"
    return None


def _user() -> Check:
    is_root = os.geteuid() == 0
    return _check(
        "ordinary user",
        Need.HELPFUL,
        "root" if is_root else None,
        f"user {os.geteuid()}",
        "the kernel keeps other users from what emulated devices hold",
        "all runs, but with more rights than it needs",
    )


def _ptrace() -> Check:
    return _check(
        "ptrace",
        Need.HELPFUL,
        native.missing(),
        "of own children, without their system calls",
        "enclaves for SGX run at this CPU's speed (broch run)",
        "broch run takes the unicorn engine, which is slower; Python modules do not need it",
    )
