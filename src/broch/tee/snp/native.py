"""The SEV-SNP guest that we run in: reports by configfs-tsm or /dev/sev-guest, and derived keys.

Structures of include/uapi/linux/sev-guest.h (little-endian):

    snp_guest_request_ioctl   msg_version 1, padding 7, req_data 8, resp_data 8, exitinfo2 8
                              (fw_error 4, vmm_error 4)
    snp_report_req            user_data 64, vmpl 4, reserved 28
    snp_ext_report_req        snp_report_req, certs_address 8, certs_len 4, padding 4
    snp_derived_key_req       root_key_select 4, reserved 4, guest_field_select 8, vmpl 4,
                              guest_svn 4, tcb_version 8
    responses                 4000 and 64 bytes: status 4, size 4 (reports), reserved to 32, data

The key's root is the VCEK; mixed into it are the launch measurement and the guest's policy
(GUEST_FIELD_SELECT bits 3 and 0), so a guest that may be debugged gets another key. SEV-SNP has no
register that software extends. Source: SEV-SNP firmware ABI, sections 7.2 and 7.3.
"""

import ctypes
import errno
import struct
from typing import Final

from broch.errors import DecodeError, InternalError, PolicyError
from broch.tee import tsm
from broch.tee.contract import Endorsements, SealBinding
from broch.tee.guest import GuestTee, NativeSettings
from broch.tee.kernel import Kernel, iowr, problem
from broch.tee.snp import VERIFIER

DEVICE: Final = "/dev/sev-guest"
PROVIDER: Final = "sev_guest"
REPORT_SIZE: Final = 1184
CERTS_SIZE: Final = 16 * 1024  # SEV_FW_BLOB_MAX_SIZE, the most that the driver takes
KEY_SIZE: Final = 32
FIELDS: Final = 1 << 3 | 1 << 0  # MEASUREMENT, GUEST_POLICY
INVALID_LEN: Final = 1  # SNP_GUEST_VMM_ERR_INVALID_LEN
_DATA: Final = 32  # offset of what a response carries
_KEY_REQUEST: Final = struct.Struct("<IIQIIQ")


class GuestRequest(ctypes.Structure):
    """``struct snp_guest_request_ioctl``."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("fw_error", ctypes.c_uint32),
        ("vmm_error", ctypes.c_uint32),
    )


class ExtReportRequest(ctypes.Structure):
    """``struct snp_ext_report_req``."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * 64),
        ("vmpl", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 28),
        ("certs_address", ctypes.c_uint64),
        ("certs_len", ctypes.c_uint32),
    )


GET_DERIVED_KEY: Final = iowr(ord("S"), 1, GuestRequest)
GET_EXT_REPORT: Final = iowr(ord("S"), 2, GuestRequest)


class SnpGuest:
    """The guest around us (:class:`broch.tee.guest.Hardware`).

    Raises:
        UndecidedError: there is none, or it may not be asked.
    """

    def __init__(self, settings: NativeSettings) -> None:
        self._kernel = settings.kernel
        self._name = f"broch.{settings.name}"
        self._certs = self._report(bytes(64))[1]  # also: whether all of this works

    def evidence(self, report_data: bytes) -> bytes:
        """An attestation report (1184 bytes) over 64 bytes."""
        return self._report(report_data)[0]

    def extend(self, digest: bytes) -> None:
        """SEV-SNP has no such register."""

    def seal_secret(self) -> bytes:
        """The derived key of this launch measurement and policy on this chip.

        Raises:
            PolicyError: the kernel offers no derived keys.
            InternalError: the firmware refused.
        """
        if not self._kernel.exists(DEVICE):
            raise PolicyError(
                f"sealing keys of SEV-SNP come from {DEVICE}, which is not here",
                hint="load the kernel module sev-guest",
            )
        request = ctypes.create_string_buffer(_KEY_REQUEST.pack(0, 0, FIELDS, self._vmpl(), 0, 0))
        response = _ask(self._kernel, GET_DERIVED_KEY, ctypes.addressof(request), 64)
        key = response[_DATA : _DATA + KEY_SIZE]
        if not any(key):
            raise InternalError(f"{VERIFIER.title}: the firmware gave a key of zeros")
        return key

    def endorsements(self) -> Endorsements:
        """What of the host's certificate table belongs into endorsements; often nothing."""
        from broch.tee.snp import cert_table

        return Endorsements(
            anchors=(), items=cert_table.items(self._certs) if any(self._certs) else {}
        )

    def _report(self, report_data: bytes) -> tuple[bytes, bytes]:
        return report(self._kernel, self._name, report_data)

    def _vmpl(self) -> int:
        if not tsm.is_here(self._kernel):
            return 0
        instance = f"{tsm.FOLDER}/{self._name}"
        try:
            return tsm.privilege_level(self._kernel, instance)
        except OSError as exc:
            raise problem(exc, instance, VERIFIER.title) from None


def report(kernel: Kernel, name: str, report_data: bytes) -> tuple[bytes, bytes]:
    """A report (1184 bytes) over 64 bytes, and the host's certificate table, perhaps empty.

    Args:
        kernel: of this machine.
        name: of the instance of configfs-tsm, where there is one.
        report_data: what the report is to be over.

    Raises:
        UndecidedError: this is no such guest, or its device may not be used or is busy.
        InternalError: the firmware refused.
        DecodeError: what came is no report.
    """
    if tsm.is_here(kernel):
        what = VERIFIER.title
        made = tsm.get(kernel, name, provider=PROVIDER, what=what, inblob=report_data)
        found, certs = made.outblob, made.auxblob
    else:
        found, certs = _ext_report(kernel, report_data)
    if len(found) != REPORT_SIZE:
        raise DecodeError(len(found), f"expected {REPORT_SIZE} bytes", what="SNP report")
    return found, certs


def _ext_report(kernel: Kernel, report_data: bytes) -> tuple[bytes, bytes]:
    certs = ctypes.create_string_buffer(CERTS_SIZE)
    request = ExtReportRequest(
        user_data=(ctypes.c_uint8 * 64)(*report_data),
        certs_address=ctypes.addressof(certs),
        certs_len=CERTS_SIZE,
    )
    try:
        response = _ask(kernel, GET_EXT_REPORT, ctypes.addressof(request), 4000)
    except _CertificatesTooLongError:
        request.certs_address = request.certs_len = 0  # without them, then
        response = _ask(kernel, GET_EXT_REPORT, ctypes.addressof(request), 4000)
    (size,) = struct.unpack_from("<I", response, 4)
    return response[_DATA : _DATA + size], certs.raw


def _ask(kernel: Kernel, number: int, request: int, size: int) -> bytes:
    """The response to the request at this address; its status was zero."""
    response = ctypes.create_string_buffer(size)
    call = GuestRequest(msg_version=1, req_data=request, resp_data=ctypes.addressof(response))
    try:
        kernel.ioctl(DEVICE, number, call)
    except OSError as exc:
        if exc.errno == errno.EIO and call.vmm_error == INVALID_LEN:
            raise _CertificatesTooLongError("the certificates are too long") from None
        raise problem(exc, DEVICE, VERIFIER.title) from None
    (status,) = struct.unpack_from("<I", response.raw)
    if status:
        raise InternalError(f"{VERIFIER.title}: the firmware refused with status 0x{status:x}")
    return response.raw


class _CertificatesTooLongError(InternalError):
    """The host has more certificates than the driver's buffer takes."""


TEE: Final = GuestTee(VERIFIER, SnpGuest, (SealBinding.CODE,))
