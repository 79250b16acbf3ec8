"""The life of an enclave process, from the fork of the zygote to its end."""

import gc
import io
import mmap
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NoReturn

from broch.enclave import loader, sandbox
from broch.enclave.device_channel import DeviceChannel
from broch.enclave.gate import WrongResultError
from broch.enclave.machine_messages import Limits
from broch.enclave.messages import FaultReport, Kind, encode_fault
from broch.enclave.ring import PoisonedError, Ring, RingClosedError, open_ring
from broch.enclave.runtime import Runtime, Stop
from broch.errors import BrochError, UntrustedError
from broch.image import Image
from broch.sdk import Module, StoreError

_MAX_LINE: Final = 1024  # characters of a line that a module prints
_MAX_MESSAGE: Final = 500  # characters of an exception's text
_RESERVE: Final = 1 << 20  # bytes kept for telling that memory ran out
_reserve: Final[list[bytearray]] = []


class _Printer(io.TextIOBase):
    """Standard output of a module: whole lines become PRINT messages, for all to see."""

    def __init__(self, ring: Ring, end: Callable[[PoisonedError], NoReturn]) -> None:
        self._ring = ring
        self._end = end
        self._line = ""

    def write(self, text: str) -> int:
        """Send the lines that are whole now."""
        *lines, self._line = (self._line + text).split("\n")
        try:
            for line in lines:
                self._ring.send(bytes([Kind.PRINT]) + line[:_MAX_LINE].encode("utf-8", "replace"))
        except PoisonedError as exc:
            self._end(exc)
        self._line = self._line[:_MAX_LINE]
        return len(text)


class Discard(io.TextIOBase):
    """Standard output of code that nobody listens to."""

    def write(self, text: str) -> int:
        """Take it, and forget it."""
        return len(text)


def run(image_fd: int, ring_fds: tuple[int, int, int], device_fd: int, limits: Limits) -> None:
    """Be an enclave: seal this process, load the image, serve. Returns never."""
    ring: Ring | None = None
    image: Image | None = None
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        ring = open_ring(*ring_fds, host=False)
        image = _read_image(image_fd)
        sandbox.name_process(f"enclave:{image.module}")
        device = DeviceChannel(socket.socket(fileno=device_fd))
        sandbox.seal(limits.memory_mb, unsandboxed=limits.unsandboxed)
        end = partial(_give_up, ring, image)
        sys.stdout = sys.stderr = _Printer(ring, end)
        if not image.debug:
            sys.unraisablehook = _withhold
        _reserve.append(bytearray(_RESERVE))
        module = _load(image)
        gc.freeze()
        Runtime(image, module, ring, device, end).serve()
    except Stop:
        assert ring is not None
        ring.send(bytes([Kind.BYE]))
        os._exit(0)
    except RingClosedError:
        os._exit(0)
    except BaseException as exc:  # noqa: BLE001 (whatever happened, it is told and ends here)
        _give_up(ring, image, exc)
    os._exit(1)


def _read_image(descriptor: int) -> Image:
    size = os.fstat(descriptor).st_size
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapping:
        data = mapping[:]
    os.close(descriptor)
    return Image.from_bytes(data)


def _load(image: Image) -> Module:
    """Run the module's code; what it declares must be what was measured."""
    module = loader.run(image.files, image.main)
    if module.interface() != image.interface:
        raise UntrustedError("the module declares another interface than its image")
    return module


def _withhold(unraisable: object) -> None:
    """Say nothing of exceptions in finalizers: Python would print their text."""


def _give_up(ring: Ring | None, image: Image | None, exc: BaseException) -> NoReturn:
    """Tell the host why, as far as it may know, and end."""
    _reserve.clear()
    try:
        if ring is not None:
            ring.send(encode_fault(_report(image, exc)))
    except BaseException:  # noqa: BLE001, S110 (the ring itself may be what is broken)
        pass
    os._exit(1)


def _report(image: Image | None, exc: BaseException) -> FaultReport:
    """What may be told: the text of an exception can hold secrets, so only in debug images."""
    place = place_in(image.files, exc) if image is not None else ""
    if isinstance(exc, MemoryError):
        return FaultReport(what="ran out of memory", place=place)
    if isinstance(exc, PoisonedError):
        return FaultReport(what=f"refused a poisoned message: {exc}"[:_MAX_MESSAGE])
    if isinstance(exc, StoreError):
        return FaultReport(what=f"cannot use its sealed store: {exc}"[:_MAX_MESSAGE], place=place)
    if isinstance(exc, BrochError):
        return FaultReport(what=f"gave up: {exc}"[:_MAX_MESSAGE])
    what = f"raised {type(exc).__name__}"
    if isinstance(exc, WrongResultError):
        what, place = "returned another type than declared", exc.place
    message = str(exc)[:_MAX_MESSAGE] if image is not None and image.debug else ""
    return FaultReport(what=what, place=place, message=message)


def place_in(files: Mapping[str, bytes], exc: BaseException) -> str:
    """File and line of the author's code that was last on the stack; empty if none was."""
    for frame, line in reversed(list(traceback.walk_tb(exc.__traceback__))):
        if frame.f_code.co_filename in files:
            return f"{frame.f_code.co_filename}:{line}"
    return ""
