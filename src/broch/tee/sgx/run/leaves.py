"""ENCLU: EENTER, EREPORT, EGETKEY of an enclave that runs (SDM 3D 40.4).

A leaf that hardware would refuse raises :class:`SgxFaultError`, which ends the enclave; EGETKEY's
own refusals are numbers in RAX, for the enclave to see.
"""

from enum import IntEnum
from typing import Final

from broch.cpu.x86_64 import READ, WRITE, Registers
from broch.errors import DecodeError
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.faults import SgxFaultError, SgxRefusedError
from broch.tee.sgx.keys import KEY_SIZE
from broch.tee.sgx.run.loading import LoadedEnclave, Tcs
from broch.tee.sgx.sgxs import PAGE
from broch.tee.sgx.structures import (
    KEYREQUEST_SIZE,
    REPORT_SIZE,
    TARGETINFO_SIZE,
    KeyRequest,
    TargetInfo,
)

INSTRUCTION: Final = b"\x0f\x01\xd7"
_REPORTDATA_SIZE: Final = 64
_ZF: Final = 0x40
_FLAGS_CLEARED: Final = 0x8D5  # CF, PF, AF, ZF, SF, OF
_TCS_FLAGS: Final = 0x3  # DBGOPTIN, AEXNOTIFY
_MASK64: Final = 2**64 - 1
_USER_END: Final = (1 << 47) - PAGE  # canonical, and what Linux lets a process have


class Leaf(IntEnum):
    """RAX of ENCLU."""

    EREPORT = 0
    EGETKEY = 1
    EENTER = 2
    ERESUME = 3
    EEXIT = 4
    EACCEPT = 5
    EMODPE = 6
    EACCEPTCOPY = 7
    EDECCSSA = 9


def check_eenter(enclave: LoadedEnclave, tcs: Tcs) -> None:
    """The rules of EENTER that depend on the TCS.

    Raises:
        SgxFaultError: #GP.
    """
    for name, offset in (
        ("OSSA", tcs.ossa),
        ("OFSBASE", tcs.ofsbase),
        ("OGSBASE", tcs.ogsbase),
    ):
        if offset % PAGE:
            raise SgxFaultError("EENTER", f"{name} 0x{offset:x} of the TCS is not on a page")
    for name, offset in (("FS", tcs.ofsbase), ("GS", tcs.ogsbase)):
        address = (enclave.base + offset) & _MASK64
        if address >= _USER_END:
            raise SgxFaultError("EENTER", f"{name} base 0x{address:x} is no address of a process")
    if tcs.flags & ~_TCS_FLAGS:
        raise SgxFaultError("EENTER", "reserved FLAGS of the TCS are set")
    if tcs.nssa < 1:
        raise SgxFaultError("EENTER", "no SSA frame is left: NSSA of the TCS is 0")
    frame = enclave.secs.ssaframesize * PAGE
    if enclave.rights(enclave.base + tcs.ossa, frame) & (READ | WRITE) != READ | WRITE:
        raise SgxFaultError("EENTER", f"the SSA frame at 0x{tcs.ossa:x} cannot be written")
    if tcs.oentry >= enclave.secs.size:
        raise SgxFaultError("EENTER", f"OENTRY 0x{tcs.oentry:x} is outside the enclave")


def ereport(enclave: LoadedEnclave, device: SgxDevice, registers: Registers) -> None:
    """EREPORT: RBX TARGETINFO, RCX REPORTDATA, RDX where to.

    Raises:
        SgxFaultError: #GP or #PF.
    """
    target = _read(enclave, "EREPORT", registers.rbx, TARGETINFO_SIZE, 512)
    data = _read(enclave, "EREPORT", registers.rcx, _REPORTDATA_SIZE, 128)
    _expect(enclave, "EREPORT", registers.rdx, REPORT_SIZE, 512, WRITE)
    try:
        info = TargetInfo.from_bytes(target)
    except DecodeError as exc:
        raise SgxFaultError("EREPORT", f"TARGETINFO: {exc.problem}") from None
    report = device.report(enclave.identity, info, data)
    enclave.write(registers.rdx, report.to_bytes())


def egetkey(enclave: LoadedEnclave, device: SgxDevice, registers: Registers) -> None:
    """EGETKEY: RBX KEYREQUEST, RCX where to; sets RAX and ZF.

    Raises:
        SgxFaultError: #GP or #PF.
    """
    request = _read(enclave, "EGETKEY", registers.rbx, KEYREQUEST_SIZE, 512)
    _expect(enclave, "EGETKEY", registers.rcx, KEY_SIZE, 16, WRITE)
    registers.eflags &= ~_FLAGS_CLEARED
    try:
        key = device.key(enclave.identity, KeyRequest.from_bytes(request))
    except SgxRefusedError as exc:
        registers.rax = int(exc.number)
        registers.eflags |= _ZF
        return
    registers.rax = 0
    enclave.write(registers.rcx, key)


def _expect(
    enclave: LoadedEnclave, leaf: str, address: int, size: int, align: int, right: int
) -> None:
    if address % align:
        raise SgxFaultError(leaf, f"address 0x{address:x} is not aligned to {align}")
    if not enclave.base <= address < enclave.base + enclave.secs.size:
        raise SgxFaultError(leaf, f"address 0x{address:x} is outside the enclave")
    if not enclave.rights(address, size) & right:
        raise SgxFaultError(
            leaf,
            f"no {'writable' if right == WRITE else 'readable'} page at 0x{address:x}",
            name="#PF",
        )


def _read(enclave: LoadedEnclave, leaf: str, address: int, size: int, align: int) -> bytes:
    _expect(enclave, leaf, address, size, align, READ)
    return enclave.read(address, size)
