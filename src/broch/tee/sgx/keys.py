"""EGETKEY and EREPORT: which key depends on what (SDM 3D, table 40-64 and the operations).

derivekey is AES-CMAC over the dependencies under a key of the device, as in Intel's own simulator;
real CPUs do not publish theirs. Unlike the simulator's, every root here comes out of the device's
random secret, so no two emulated CPUs share a key.
"""

import hmac
import struct
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from broch.tee.dcap.report import (
    DEBUG,
    EINITTOKENKEY,
    INIT,
    KSS,
    PROVISIONKEY,
    ReportBody,
)
from broch.tee.sgx.faults import SgxFaultError, SgxNumber, SgxRefusedError
from broch.tee.sgx.sigstruct import PADDING
from broch.tee.sgx.structures import (
    POLICY_ALL,
    POLICY_CONFIGID,
    POLICY_ISVEXTPRODID,
    POLICY_ISVFAMILYID,
    POLICY_KSS,
    POLICY_MRENCLAVE,
    POLICY_MRSIGNER,
    POLICY_NOISVPRODID,
    KeyName,
    KeyRequest,
    Report,
    Secs,
    TargetInfo,
)

KEY_SIZE: Final = 16  # bytes
_ZERO16: Final = bytes(16)
_ZERO32: Final = bytes(32)
_ZERO64: Final = bytes(64)
_U32: Final = 2**32 - 1
_DEPENDENCIES: Final = struct.Struct("<H16s16sHH16sQQQQ32s32s32s16s16sIIH64sH352s")
_RIGHTS: Final = {
    KeyName.EINITTOKEN: EINITTOKENKEY,
    KeyName.PROVISION: PROVISIONKEY,
    KeyName.PROVISION_SEAL: PROVISIONKEY,
}
_SECS_PADDING: Final = PADDING[:352]  # what EINIT leaves there: the same for every signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuses:
    """What is burnt into one CPU, and what its boot sets."""

    device_key: bytes = field(repr=False)  # 16, under which everything is derived
    seal_fuses: bytes = field(repr=False)  # 16
    owner_epoch: bytes = field(repr=False)  # 16, changes when the machine changes hands
    report_keyid: bytes  # 32, CR_REPORT_KEYID
    cpusvn: bytes  # 16, components of the CPU's security version


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dependencies:
    """TMP_KEYDEPENDENCIES; what a key does not depend on is zero."""

    keyname: int
    isvfamilyid: bytes = _ZERO16
    isvextprodid: bytes = _ZERO16
    isvprodid: int = 0
    isvsvn: int = 0
    sgxownerepoch: bytes = _ZERO16
    flags: int = 0
    xfrm: int = 0
    flags_mask: int = 0
    xfrm_mask: int = 0
    mrenclave: bytes = _ZERO32
    mrsigner: bytes = _ZERO32
    keyid: bytes = _ZERO32
    seal_key_fuses: bytes = _ZERO16
    cpusvn: bytes = _ZERO16
    miscselect: int = 0
    miscmask: int = 0
    keypolicy: int = 0
    configid: bytes = _ZERO64
    configsvn: int = 0
    padding: bytes = _SECS_PADDING

    def to_bytes(self) -> bytes:
        return _DEPENDENCIES.pack(*(getattr(self, name) for name in self.__slots__))


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-128-CMAC (16 bytes)."""
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def egetkey(fuses: Fuses, secs: Secs, request: KeyRequest) -> bytes:
    """The key (16 bytes) that ``request`` names, for the enclave ``secs``.

    Raises:
        SgxFaultError: #GP: reserved bits, or KSS fields without ATTRIBUTES.KSS.
        SgxRefusedError: INVALID_ATTRIBUTE (2), INVALID_CPUSVN (32), INVALID_ISVSVN (64),
            INVALID_KEYNAME (256).
    """
    if not secs.initialized:
        raise SgxFaultError("EGETKEY", "not executed inside an initialised enclave")
    if request.reserved1 or any(request.reserved2) or request.keypolicy & ~POLICY_ALL:
        raise SgxFaultError("EGETKEY", "reserved bits of KEYREQUEST are set")
    if not secs.flags & KSS and (request.keypolicy & POLICY_KSS or request.configsvn):
        raise SgxFaultError("EGETKEY", "KEYREQUEST uses KSS fields without ATTRIBUTES.KSS")
    if request.keyname == KeyName.REPORT:
        return _report_key(fuses, TargetInfo.of(secs), request.keyid)
    if request.keyname not in _DEPENDS:
        raise SgxRefusedError(SgxNumber.INVALID_KEYNAME, f"there is no key {request.keyname}")
    keyname = KeyName(request.keyname)
    _check_right(secs, keyname)
    _check_versions(fuses, secs, request)
    dependencies = _DEPENDS[keyname](fuses, secs, request)
    return cmac(fuses.device_key, dependencies.to_bytes())


def _check_right(secs: Secs, keyname: KeyName) -> None:
    needed = _RIGHTS.get(keyname, 0)
    if secs.flags & needed != needed:
        raise SgxRefusedError(
            SgxNumber.INVALID_ATTRIBUTE,
            f"the enclave has no right to the {keyname.name} key",
        )


def _check_versions(fuses: Fuses, secs: Secs, request: KeyRequest) -> None:
    if any(asked > own for asked, own in zip(request.cpusvn, fuses.cpusvn, strict=True)):
        raise SgxRefusedError(SgxNumber.INVALID_CPUSVN, "CPUSVN is beyond this CPU's")
    if request.isvsvn > secs.isvsvn:
        raise SgxRefusedError(
            SgxNumber.INVALID_ISVSVN, f"ISVSVN {request.isvsvn} is above the own {secs.isvsvn}"
        )
    if request.keyname == KeyName.SEAL and request.configsvn > secs.configsvn:
        raise SgxRefusedError(
            SgxNumber.INVALID_ISVSVN,
            f"CONFIGSVN {request.configsvn} is above the own {secs.configsvn}",
        )


def _common(secs: Secs, request: KeyRequest) -> _Dependencies:
    """What every key but REPORT depends on.

    INIT and DEBUG always count, so that debug and production never share a key.
    """
    return _Dependencies(
        keyname=request.keyname,
        isvsvn=request.isvsvn,
        cpusvn=request.cpusvn,
        flags=(request.flags_mask | INIT | DEBUG) & secs.flags,
        xfrm=request.xfrm_mask & secs.xfrm,
        miscselect=request.miscmask & secs.miscselect,
    )


def _with_masks(secs: Secs, request: KeyRequest) -> _Dependencies:
    return replace(
        _common(secs, request),
        flags_mask=request.flags_mask,
        xfrm_mask=request.xfrm_mask,
        miscmask=~request.miscmask & _U32,
    )


def _with_policy(secs: Secs, request: KeyRequest) -> _Dependencies:
    """What KEYPOLICY chooses, apart from MRENCLAVE and MRSIGNER."""
    policy = request.keypolicy
    with_config = policy & POLICY_CONFIGID
    return replace(
        _with_masks(secs, request),
        keypolicy=policy,
        isvprodid=0 if policy & POLICY_NOISVPRODID else secs.isvprodid,
        isvfamilyid=secs.isvfamilyid if policy & POLICY_ISVFAMILYID else _ZERO16,
        isvextprodid=secs.isvextprodid if policy & POLICY_ISVEXTPRODID else _ZERO16,
        configid=secs.configid if with_config else _ZERO64,
        configsvn=request.configsvn if with_config else 0,
    )


def _seal(fuses: Fuses, secs: Secs, request: KeyRequest) -> _Dependencies:
    return replace(
        _with_policy(secs, request),
        mrenclave=secs.mrenclave if request.keypolicy & POLICY_MRENCLAVE else _ZERO32,
        mrsigner=secs.mrsigner if request.keypolicy & POLICY_MRSIGNER else _ZERO32,
        keyid=request.keyid,
        sgxownerepoch=fuses.owner_epoch,
        seal_key_fuses=fuses.seal_fuses,
    )


def _provision_seal(fuses: Fuses, secs: Secs, request: KeyRequest) -> _Dependencies:
    return replace(
        _with_policy(secs, request), mrsigner=secs.mrsigner, seal_key_fuses=fuses.seal_fuses
    )


def _provision(_: Fuses, secs: Secs, request: KeyRequest) -> _Dependencies:
    """Depends on neither owner nor seal fuses: the maker of the CPU can derive it too."""
    return replace(_with_masks(secs, request), isvprodid=secs.isvprodid, mrsigner=secs.mrsigner)


def _einittoken(fuses: Fuses, secs: Secs, request: KeyRequest) -> _Dependencies:
    return replace(
        _common(secs, request),
        isvprodid=secs.isvprodid,
        mrsigner=secs.mrsigner,
        keyid=request.keyid,
        sgxownerepoch=fuses.owner_epoch,
        seal_key_fuses=fuses.seal_fuses,
    )


_DEPENDS: Final = {
    KeyName.SEAL: _seal,
    KeyName.PROVISION: _provision,
    KeyName.PROVISION_SEAL: _provision_seal,
    KeyName.EINITTOKEN: _einittoken,
}


def _report_key(fuses: Fuses, target: TargetInfo, keyid: bytes) -> bytes:
    dependencies = _Dependencies(
        keyname=KeyName.REPORT,
        flags=target.flags,
        xfrm=target.xfrm,
        miscselect=target.miscselect,
        mrenclave=target.mrenclave,
        configid=target.configid,
        configsvn=target.configsvn,
        keyid=keyid,
        cpusvn=fuses.cpusvn,
        sgxownerepoch=fuses.owner_epoch,
        seal_key_fuses=fuses.seal_fuses,
    )
    return cmac(fuses.device_key, dependencies.to_bytes())


def ereport(fuses: Fuses, secs: Secs, target: TargetInfo, reportdata: bytes) -> Report:
    """A REPORT about ``secs`` that only ``target`` can check.

    Raises:
        SgxFaultError: #GP: not in an initialised enclave, or not 64 bytes of report data.
    """
    if not secs.initialized:
        raise SgxFaultError("EREPORT", "not executed inside an initialised enclave")
    if len(reportdata) != 64:
        raise SgxFaultError("EREPORT", f"REPORTDATA has {len(reportdata)} bytes, expected 64")
    body = ReportBody(
        cpusvn=fuses.cpusvn,
        miscselect=secs.miscselect,
        cet_attributes=secs.cet_attributes,
        isvextprodid=secs.isvextprodid,
        flags=secs.flags,
        xfrm=secs.xfrm,
        mrenclave=secs.mrenclave,
        mrsigner=secs.mrsigner,
        configid=secs.configid,
        isvprodid=secs.isvprodid,
        isvsvn=secs.isvsvn,
        configsvn=secs.configsvn,
        isvfamilyid=secs.isvfamilyid,
        reportdata=reportdata,
    )
    key = _report_key(fuses, target, fuses.report_keyid)
    return Report(body=body, keyid=fuses.report_keyid, mac=cmac(key, body.to_bytes()))


def check_report(fuses: Fuses, target: Secs, report: Report) -> bool:
    """What ``target`` does to believe a report: EGETKEY of its report key, then compare the MAC."""
    request = KeyRequest(keyname=KeyName.REPORT, keyid=report.keyid)
    key = egetkey(fuses, target, request)
    return hmac.compare_digest(cmac(key, report.body.to_bytes()), report.mac)
