"""TCB info and QE identity: what Intel says of each security version (Intel PCS API, v4).

Both come as JSON that is signed as raw bytes, so a document is parsed only after its signature was
checked over exactly those bytes, and is never serialised again. The reader refuses duplicate keys,
statuses that it does not know and levels without all 16 components.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from broch.errors import DecodeError
from broch.wire.strict_json import document as parse
from broch.wire.strict_json import hexadecimal, mapping, number, objects, text

COMPONENTS: Final = 16
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class TcbStatus(StrEnum):
    """How Intel rates a security version."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"
    NOT_SUPPORTED = "NotSupported"  # no level is low enough: never in a document


_IN_DOCUMENTS: Final = frozenset(TcbStatus) - {
    TcbStatus.NOT_SUPPORTED,
    TcbStatus.TD_RELAUNCH_ADVISED,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """One level of a platform."""

    sgx: tuple[int, ...]  # 16 component SVNs
    tdx: tuple[int, ...]  # 16, or none in TCB info for SGX
    pcesvn: int
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvLevel:
    """One level of an enclave (or TDX module) that has a single version number."""

    isvsvn: int
    date: datetime
    status: TcbStatus
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info version 3 of one FMSPC."""

    id: str  # "SGX" or "TDX"
    issue_date: datetime
    next_update: datetime
    fmspc: bytes  # 6
    pceid: bytes  # 2
    evaluation_number: int  # tcbEvaluationDataNumber
    levels: tuple[TcbLevel, ...]  # highest first, whatever the document's order
    document: Mapping[str, Any] = field(repr=False)  # all of it, for what only one TEE reads

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a document whose signature was checked.

        Raises:
            DecodeError: not TCB info of version 3.
        """
        what = "tcb_info"
        document = parse(data, what)
        _expect_version(document, 3, what)
        levels = [_tcb_level(item, what) for item in objects(document, "tcbLevels", what)]
        levels.sort(key=lambda level: (level.sgx, level.tdx, level.pcesvn), reverse=True)
        return cls(
            id=text(document, "id", what),
            issue_date=time(document, "issueDate", what),
            next_update=time(document, "nextUpdate", what),
            fmspc=hexadecimal(document, "fmspc", 6, what),
            pceid=hexadecimal(document, "pceId", 2, what),
            evaluation_number=number(document, "tcbEvaluationDataNumber", 2**32, what),
            levels=tuple(levels),
            document=document,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """Which quoting enclave may make quotes (version 2)."""

    id: str  # "QE" or "TD_QE"
    issue_date: datetime
    next_update: datetime
    evaluation_number: int
    miscselect: int
    miscselect_mask: int
    attributes: bytes  # 16
    attributes_mask: bytes  # 16
    mrsigner: bytes  # 32
    isvprodid: int
    levels: tuple[IsvLevel, ...]  # highest first

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a document whose signature was checked.

        Raises:
            DecodeError: not an enclave identity of version 2.
        """
        what = "qe_identity"
        document = parse(data, what)
        _expect_version(document, 2, what)
        misc, mask = (
            # Intel writes this number as a byte string, the lowest byte first.
            int.from_bytes(hexadecimal(document, key, 4, what), "little")
            for key in ("miscselect", "miscselectMask")
        )
        return cls(
            id=text(document, "id", what),
            issue_date=time(document, "issueDate", what),
            next_update=time(document, "nextUpdate", what),
            evaluation_number=number(document, "tcbEvaluationDataNumber", 2**32, what),
            miscselect=misc,
            miscselect_mask=mask,
            attributes=hexadecimal(document, "attributes", 16, what),
            attributes_mask=hexadecimal(document, "attributesMask", 16, what),
            mrsigner=hexadecimal(document, "mrsigner", 32, what),
            isvprodid=number(document, "isvprodid", 2**16, what),
            levels=isv_levels(document, what),
        )


def isv_levels(document: Mapping[str, Any], what: str) -> tuple[IsvLevel, ...]:
    """The ``tcbLevels`` of an enclave or module, highest first.

    Raises:
        DecodeError: they are not there or not well formed.
    """
    levels = [
        IsvLevel(
            isvsvn=number(mapping(item, "tcb", what), "isvsvn", 2**16, what),
            date=time(item, "tcbDate", what),
            status=_status(item, what),
            advisories=_advisories(item, what),
        )
        for item in objects(document, "tcbLevels", what)
    ]
    return tuple(sorted(levels, key=lambda level: level.isvsvn, reverse=True))


def _tcb_level(item: Mapping[str, Any], what: str) -> TcbLevel:
    tcb = mapping(item, "tcb", what)
    has_tdx = "tdxtcbcomponents" in tcb
    return TcbLevel(
        sgx=_components(tcb, "sgxtcbcomponents", what),
        tdx=_components(tcb, "tdxtcbcomponents", what) if has_tdx else (),
        pcesvn=number(tcb, "pcesvn", 2**16, what),
        date=time(item, "tcbDate", what),
        status=_status(item, what),
        advisories=_advisories(item, what),
    )


def _components(tcb: Mapping[str, Any], key: str, what: str) -> tuple[int, ...]:
    items = objects(tcb, key, what)
    if len(items) != COMPONENTS:
        raise DecodeError(0, f"{len(items)} {key}, expected {COMPONENTS}", what=what)
    return tuple(number(item, "svn", 256, what) for item in items)


def _status(item: Mapping[str, Any], what: str) -> TcbStatus:
    status = text(item, "tcbStatus", what)
    if status not in _IN_DOCUMENTS:
        raise DecodeError(0, f"unknown TCB status {status!r:.60}", what=what)
    return TcbStatus(status)


def _advisories(item: Mapping[str, Any], what: str) -> tuple[str, ...]:
    value = item.get("advisoryIDs", [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise DecodeError(0, "advisoryIDs is not a list of strings", what=what)
    return tuple(value)


def _expect_version(document: Mapping[str, Any], version: int, what: str) -> None:
    found = number(document, "version", 2**16, what)
    if found != version:
        raise DecodeError(0, f"version {found}, expected {version}", what=what)


def time(item: Mapping[str, Any], key: str, what: str) -> datetime:
    """A member like ``2025-06-19T10:56:11Z``.

    Raises:
        DecodeError: missing or not that.
    """
    value = text(item, key, what)
    try:
        if _TIME.fullmatch(value):
            return datetime.fromisoformat(value[:-1]).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise DecodeError(0, f"{key} is not a time like 2025-06-19T10:56:11Z", what=what)
