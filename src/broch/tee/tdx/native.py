"""The TDX guest that we run in: quotes by configfs-tsm, TDREPORTs by ioctl, RTMR 3 by sysfs.

A quote is made outside of the trust domain, from a TDREPORT, by a service of the host. Kernels
older than 6.7 only give the TDREPORT (``/dev/tdx_guest``), whose MAC no other machine can verify:
then there is no evidence.

    struct tdx_report_req   reportdata 64, tdreport 1024     (include/uapi/linux/tdx-guest.h)

RTMR 3 is the register that is left to applications: a write of 48 bytes to its sysfs attribute
extends it (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest, Linux 6.16). Older
kernels cannot, and the image is then in the report data alone. TDX has no sealing keys.
"""

import ctypes
from typing import Final, NoReturn

from broch.errors import InternalError, PolicyError, UndecidedError, UsageError
from broch.tee import tsm
from broch.tee.contract import Endorsements
from broch.tee.guest import GuestTee, NativeSettings
from broch.tee.kernel import Kernel, iowr, problem
from broch.tee.tdx import VERIFIER

DEVICE: Final = "/dev/tdx_guest"
PROVIDER: Final = "tdx_guest"
RTMR3: Final = "/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"
REPORT_DATA_SIZE: Final = 64
TDREPORT_SIZE: Final = 1024
REGISTER_SIZE: Final = 48


class ReportRequest(ctypes.Structure):
    """``struct tdx_report_req``."""

    _fields_ = (
        ("reportdata", ctypes.c_uint8 * REPORT_DATA_SIZE),
        ("tdreport", ctypes.c_uint8 * TDREPORT_SIZE),
    )


GET_REPORT0: Final = iowr(ord("T"), 1, ReportRequest)


def td_report(kernel: Kernel, report_data: bytes) -> bytes:
    """A TDREPORT (1024 bytes) over 64 bytes; only this machine can verify it.

    Raises:
        UsageError: report data of another size.
        UndecidedError: this is no trust domain, or its device may not be used.
        InternalError: the TDX module refused.
    """
    if len(report_data) != REPORT_DATA_SIZE:
        raise UsageError(f"report data has {len(report_data)} bytes, expected {REPORT_DATA_SIZE}")
    request = ReportRequest(reportdata=(ctypes.c_uint8 * REPORT_DATA_SIZE)(*report_data))
    try:
        kernel.ioctl(DEVICE, GET_REPORT0, request)
    except OSError as exc:
        raise problem(exc, DEVICE, VERIFIER.title) from None
    return bytes(request.tdreport)


def quote(kernel: Kernel, name: str, report_data: bytes) -> bytes:
    """A quote over 64 bytes, by the instance of configfs-tsm called ``name``. Hosts may pad it.

    Raises:
        UsageError: report data of another size.
        UndecidedError: this is no trust domain, or its kernel gives no quotes.
        InternalError: the kernel failed otherwise.
    """
    if not tsm.is_here(kernel) and kernel.exists(DEVICE):
        raise UndecidedError(
            f"this kernel gives no quotes: {tsm.FOLDER} is missing",
            hint="mount configfs, with Linux 6.7 or newer and its module tdx_guest",
        )
    what = VERIFIER.title
    return tsm.get(kernel, name, provider=PROVIDER, what=what, inblob=report_data).outblob


class TdxGuest:
    """The trust domain around us (:class:`broch.tee.guest.Hardware`).

    Raises:
        UndecidedError: there is none, or its kernel gives no quotes.
    """

    def __init__(self, settings: NativeSettings) -> None:
        self._kernel = settings.kernel
        self._name = f"broch.{settings.name}"
        self.evidence(bytes(REPORT_DATA_SIZE))  # whether all of this works

    def evidence(self, report_data: bytes) -> bytes:
        """A quote over 64 bytes. Hosts may pad it with zeros."""
        return quote(self._kernel, self._name, report_data)

    def extend(self, digest: bytes) -> None:
        """Extend RTMR 3 by 48 bytes, where this kernel can.

        Raises:
            UndecidedError: it may not be written.
            InternalError: the kernel took the bytes, and the register is what it was.
        """
        if not self._kernel.exists(RTMR3):
            return
        try:
            before = self._kernel.read(RTMR3, REGISTER_SIZE)
            self._kernel.write(RTMR3, digest)
            after = self._kernel.read(RTMR3, REGISTER_SIZE)
        except OSError as exc:
            raise problem(exc, RTMR3, VERIFIER.title) from None
        if after == before:
            raise InternalError(f"{RTMR3} did not change when it was extended")

    def seal_secret(self) -> NoReturn:
        """Sealing keys.

        Raises:
            PolicyError: always: the TDX module offers trust domains none.
        """
        raise PolicyError(
            f"{VERIFIER.title} has no sealing keys: a trust domain keeps no secret over a restart",
            hint="let the deployer hand out what must last, or use a TEE with sealing keys",
        )

    def endorsements(self) -> Endorsements:
        """The machine hands out none; PCK certificates are in the quote."""
        return Endorsements(anchors=())


TEE: Final = GuestTee(VERIFIER, TdxGuest, ())
