"""configfs-tsm: the kernel's one interface to reports of TDX, SEV-SNP and others (Linux 6.7).

    /sys/kernel/config/tsm/report/NAME/    one instance of a report; mkdir makes it, with its files
        provider         "tdx_guest" or "sev_guest": the format of what follows
        generation       counts the writes to inblob and to the options
        privlevel        0 to 3, where the provider has levels: SEV-SNP's VMPL; this asks for
        privlevel_floor  the least that the kernel itself may ask for, which is its own
        inblob           at most 64 bytes; both providers take exactly 64
        outblob          the report or quote, at most 32 KiB, made when it is read
        auxblob          what the host adds: for SEV-SNP its certificate table; may be empty

Sources: Documentation/ABI/testing/configfs-tsm(-report), drivers/virt/coco/guest/report.c and
fs/configfs/file.c of Linux. The last says "result of ->release() is ignored": a binary attribute is
written when the file is *closed*, and a write that the driver refused then looks like one that it
took. So nothing but the generation says whether a report is over what we wrote.
"""

import contextlib
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broch.errors import DecodeError, UndecidedError, UsageError
from broch.tee.kernel import Kernel, is_busy, problem

FOLDER: Final = "/sys/kernel/config/tsm/report"
IN_SIZE: Final = 64  # bytes
MAX_OUT: Final = 32 * 1024
MAX_LEVEL: Final = 3
#: Who makes the reports -> the hardware, by the name of its verifier.
PROVIDERS: Final = {"sev_guest": "snp", "tdx_guest": "tdx", "arm_cca_guest": "cca"}
_ATTEMPTS: Final = 5
_PAUSE: Final = 0.05  # seconds before the second attempt, doubled each time
_MAX_TEXT: Final = 4096  # a page, as all text attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class TsmReport:
    """What the kernel gave. Nothing in it has been verified."""

    outblob: bytes = field(repr=False)
    auxblob: bytes = field(repr=False)  # empty where the provider has none


def is_here(kernel: Kernel) -> bool:
    """Whether this kernel has configfs-tsm; which provider, only an instance can say."""
    return kernel.exists(FOLDER)


def provider(kernel: Kernel, name: str, *, keep: bool = False) -> str:
    """Whose reports this machine gives, by an instance of this name that is made.

    Args:
        kernel: of this machine.
        name: of the instance.
        keep: leave the instance, for :func:`get`; else it is removed.

    Raises:
        OSError: there is no configfs-tsm, or this user may not make instances.
    """
    instance = f"{FOLDER}/{name}"
    with contextlib.suppress(FileExistsError):
        kernel.mkdir(instance)
    try:
        return _text(kernel, f"{instance}/provider")
    finally:
        if not keep:
            kernel.rmdir(instance)


def get(
    kernel: Kernel,
    name: str,
    *,
    provider: str,
    what: str,
    inblob: bytes,
    pause: Callable[[float], None] = time.sleep,
) -> TsmReport:
    """A report over ``inblob`` (64 bytes).

    Args:
        kernel: of this machine.
        name: of the instance. It is made once and stays; one that is there is used again.
        provider: what must make the report.
        what: names the hardware in errors.
        inblob: the report data.
        pause: waits for so many seconds between attempts.

    Raises:
        UsageError: report data of another size.
        UndecidedError: no configfs-tsm, another provider, busy, or others write to our instance.
        InternalError: the kernel failed otherwise.
    """
    if len(inblob) != IN_SIZE:
        raise UsageError(f"report data has {len(inblob)} bytes, expected {IN_SIZE}")
    instance = f"{FOLDER}/{name}"
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_PAUSE * 2 ** (attempt - 1))
        try:
            with contextlib.suppress(FileExistsError):
                kernel.mkdir(instance)
            _check_provider(kernel, instance, provider, what)
            report = _attempt(kernel, instance, inblob)
        except OSError as exc:
            if is_busy(exc) and attempt < _ATTEMPTS - 1:
                continue
            raise problem(exc, instance, what) from None
        if report is not None:
            return report
    raise UndecidedError(
        f"{what}: another process writes to {instance}, or the kernel took none of our writes",
        hint="let nobody else use this instance; each node has one of its own name",
    )


def _check_provider(kernel: Kernel, instance: str, provider: str, what: str) -> None:
    found = _text(kernel, f"{instance}/provider")
    if found != provider:
        raise UndecidedError(
            f"the reports of this machine are of {found!r}, expected {provider!r}",
            hint=f"run this on a machine with {what}; broch doctor shows what is here",
        )


def _attempt(kernel: Kernel, instance: str, inblob: bytes) -> TsmReport | None:
    """One report; None if it may not be over what was written here."""
    # The number of writes must be ours: one fewer was refused, one more is somebody else's.
    expected = _number(kernel, f"{instance}/generation") + 1
    level = privilege_level(kernel, instance)
    if level:
        kernel.write(f"{instance}/privlevel", str(level).encode())
        expected += 1
    kernel.write(f"{instance}/inblob", inblob)
    if _number(kernel, f"{instance}/generation") != expected:
        return None
    outblob = kernel.read(f"{instance}/outblob", MAX_OUT)
    auxblob = _auxblob(kernel, f"{instance}/auxblob")
    if _number(kernel, f"{instance}/generation") != expected:
        return None
    return TsmReport(outblob=outblob, auxblob=auxblob)


def privilege_level(kernel: Kernel, instance: str) -> int:
    """The privilege level that this kernel runs at; 0 where the provider has none."""
    path = f"{instance}/privlevel_floor"
    if not kernel.exists(path):
        return 0
    level = _number(kernel, path)
    if level > MAX_LEVEL:
        raise DecodeError(0, f"level {level}, expected 0 to {MAX_LEVEL}", what=path)
    return level


def _auxblob(kernel: Kernel, path: str) -> bytes:
    if not kernel.exists(path):
        return b""
    try:
        return kernel.read(path, MAX_OUT)
    except OSError as exc:
        if exc.errno in (errno.ENXIO, errno.ENODATA):  # there is nothing besides the report
            return b""
        raise


def _number(kernel: Kernel, path: str) -> int:
    text = _text(kernel, path)
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise DecodeError(0, f"{text!r:.40} is no number", what=path)
    return int(text)


def _text(kernel: Kernel, path: str) -> str:
    return kernel.read(path, _MAX_TEXT).decode("ascii", "replace").strip()
