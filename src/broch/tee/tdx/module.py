"""The TDX module: which one signed for the TD, and how Intel rates it.

Source: Intel's quote verification library, ``Checks/TdxModuleCheck.cpp`` and
``Checks/TDRelaunchCheck.cpp``. TEE_TCB_SVN[1] is the module's major version, [0] its SVN. Version 0
has no identity of its own: it is described by ``tdxModule`` of the TCB info, and rated by the
platform's levels. Later versions have an identity "TDX_<version>" with levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broch.errors import DecodeError, UntrustedError
from broch.tee.dcap import tcb
from broch.tee.dcap.platform import converge_qe, match_isv_level
from broch.tee.dcap.tcb import IsvLevel, TcbInfo, TcbStatus
from broch.tee.tdx.report import TdReport
from broch.wire import strict_json

_W: Final = "tcb_info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How Intel describes a TDX module."""

    name: str  # "TDX_03"; "tdxModule" for version 0
    mrsigner: bytes  # 48
    attributes: int
    attributes_mask: int
    levels: tuple[IsvLevel, ...]  # highest first; none for version 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """A module whose identity holds, and its rating."""

    name: str
    status: TcbStatus
    level: IsvLevel | None  # None for version 0, or if no level is low enough


def find(info: TcbInfo, version: int) -> Identity:
    """The identity of a major version.

    Raises:
        DecodeError: the TCB info describes none, or the same one twice.
        UntrustedError: there is no module of this version.
    """
    if version == 0:
        item = strict_json.mapping(info.document, "tdxModule", _W)
        return _identity(item, "tdxModule", levels=())
    name = f"TDX_{version:02X}"
    if "tdxModuleIdentities" not in info.document:
        raise UntrustedError(f"tcb_info knows no TDX module {name}")
    items = strict_json.objects(info.document, "tdxModuleIdentities", _W)
    found = [item for item in items if strict_json.text(item, "id", _W) == name]
    if not found:
        raise UntrustedError(f"tcb_info knows no TDX module {name}")
    if len(found) > 1:
        raise DecodeError(0, f"TDX module {name} comes twice", what=_W)
    return _identity(found[0], name, levels=tcb.isv_levels(found[0], _W))


def _identity(item: Mapping[str, Any], name: str, levels: tuple[IsvLevel, ...]) -> Identity:
    attributes, mask = (
        int.from_bytes(strict_json.hexadecimal(item, key, 8, _W), "little")
        for key in ("attributes", "attributesMask")
    )
    return Identity(
        name=name,
        mrsigner=strict_json.hexadecimal(item, "mrsigner", 48, _W),
        attributes=attributes,
        attributes_mask=mask,
        levels=levels,
    )


def check(report: TdReport, info: TcbInfo) -> Rated:
    """(8) The module is one of Intel's; its rating is a finding.

    Raises:
        DecodeError: the TCB info is not for TDX.
        UntrustedError: unknown version, another signer, other attributes.
    """
    svn, version = report.tee_tcb_svn[0], report.tee_tcb_svn[1]
    identity = find(info, version)
    if report.mr_signer_seam != identity.mrsigner:
        raise UntrustedError(f"MRSIGNERSEAM is not that of {identity.name}")
    if report.seam_attributes & identity.attributes_mask != identity.attributes:
        raise UntrustedError(f"SEAMATTRIBUTES are not those of {identity.name}")
    if version == 0:
        return Rated(name=identity.name, status=TcbStatus.UP_TO_DATE, level=None)
    level = match_isv_level(identity.levels, svn)
    status = level.status if level else TcbStatus.NOT_SUPPORTED
    return Rated(name=identity.name, status=status, level=level)


def converge(platform: TcbStatus, module: TcbStatus) -> TcbStatus:
    """(10) Platform and module, after ``convergeTcbStatusWithTdxModuleStatus``; worst wins.

    Intel's table for the module is that for the QE.
    """
    return converge_qe(platform, module)


_CURRENT: Final = {
    TcbStatus.UP_TO_DATE,
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
}
_CONFIGURATION: Final = {
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}
_OUTDATED: Final = {TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED}


def relaunch(
    report: TdReport, info: TcbInfo, *, sgx: TcbStatus, tdx: TcbStatus, module: TcbStatus
) -> TcbStatus:
    """(10) TDX 1.5: the TD was launched by an old module that has been replaced by a new one.

    If only the TDX part was out of date at launch and what runs now (TEE_TCB_SVN2) is the latest,
    launching the TD again is enough. ``tdx`` is returned where that is not so. The QE must be up to
    date, which the caller sees to.

    Raises:
        UntrustedError: there is no module of the version that runs now.
    """
    svn2 = report.tee_tcb_svn2
    if svn2 is None or sgx not in _CURRENT or tdx not in _OUTDATED:
        return tdx
    if module is not TcbStatus.OUT_OF_DATE or not info.levels or not info.levels[0].tdx:
        return tdx
    latest = info.levels[0].tdx
    if svn2[1] == 0:
        wanted = latest[0]
    else:
        levels = find(info, svn2[1]).levels
        if not levels:
            return tdx
        wanted = levels[0].isvsvn
    if svn2[0] < wanted or svn2[2] < latest[2]:
        return tdx
    if sgx in _CONFIGURATION or tdx in _CONFIGURATION:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED
