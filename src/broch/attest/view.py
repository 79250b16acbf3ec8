"""Claims as plain data: what ``--json`` shows, what assertions are about, what goes into an EAR.

Bytes are lower-case hex, times ISO 8601. The keys of :func:`base` are there for every kind of
hardware; the rest is under the name of the kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any

from broch.tee.contract import Claims

Plain = dict[str, Any]
_MAX_DATA = 256  # bytes of an event that are shown: results travel, and certificates are long


def claims_view(claims: Claims) -> Plain:
    """Everything that verified evidence says."""
    make = _OWN.get(claims.tee)
    return {**base(claims), **({claims.tee: make(claims)} if make is not None else {})}


def base(claims: Claims) -> Plain:
    """What every kind of hardware has."""
    return {
        "tee": claims.tee,
        "measurement": claims.measurement.hex(),
        "signer": claims.signer.hex() if claims.signer is not None else None,
        "report_data": claims.report_data.hex(),
        "debug": claims.debug,
        "emulated": claims.emulated,
        "version": claims.version,
        "product_id": claims.product_id,
        "details": dict(claims.details),
    }


def plain(value: Any) -> Any:
    """Any value of ours as what JSON and CEL have; keys of maps become text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int | float | str | None):
        # CEL has 64 bits; what is beyond is shown as hex.
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            return f"{value:x}"
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def _sgx(claims: Any) -> Plain:
    return {"report": plain(claims.report), "tcb": plain(claims.tcb), "pck": plain(claims.pck)}


def _tdx(claims: Any) -> Plain:
    return {
        "report": plain(claims.report),
        "tcb": plain(claims.tcb),
        "module": plain(claims.module),
        "pck": plain(claims.platform.pck),
    }


def _snp(claims: Any) -> Plain:
    from broch.tee.snp.report import PLATFORM_BITS, POLICY_BITS

    names = ("reported_tcb", "current_tcb", "committed_tcb", "launch_tcb")
    return {
        "product": claims.product.value,
        "vmpl": claims.report.vmpl,
        "policy": _bits(claims.report.policy, POLICY_BITS),
        "platform_info": _bits(claims.report.platform_info, PLATFORM_BITS),
        "min_abi": dict(zip(("major", "minor"), claims.report.min_abi, strict=True)),
        "author_key_enabled": claims.report.author_key_enabled,
        "report": plain(claims.report),
        **{name: plain(getattr(claims, name)) for name in names},
    }


def _bits(value: int, names: Mapping[str, int]) -> dict[str, bool]:
    return {name.lower(): bool(value & bit) for name, bit in names.items()}


def _nitro(claims: Any) -> Plain:
    return {
        "module_id": claims.document.module_id,
        "timestamp": claims.timestamp.isoformat(),
        "pcrs": plain(claims.document.pcrs),
        "nonce": plain(claims.nonce),
        "public_key": plain(claims.public_key),
    }


def _psa(claims: Any) -> Plain:
    token = plain(claims.token)
    return {**token, "symmetric": claims.symmetric}


def _cca(claims: Any) -> Plain:
    return {"realm": plain(claims.realm), "platform": plain(claims.platform)}


def _tpm(claims: Any) -> Plain:
    from broch.tee.tpm.reader import BANKS

    return {
        "attest": plain(claims.attest),
        "pcrs": {BANKS[bank]: plain(values) for bank, values in claims.pcrs.items()},
        "endorsed_by": claims.key.way,
        "explained": sorted(claims.explained),
        "events": [
            {
                "pcr": event.pcr,
                "type": event.type,
                "digests": {
                    BANKS[bank]: plain(value)
                    for bank, value in event.digests.items()
                    if bank in claims.pcrs
                },
                "data": plain(event.data) if len(event.data) <= _MAX_DATA else "",
            }
            for event in claims.events
        ],
    }


_OWN: Mapping[str, Callable[[Claims], Plain]] = {
    "sgx": _sgx,
    "tdx": _tdx,
    "snp": _snp,
    "nitro": _nitro,
    "psa": _psa,
    "cca": _cca,
    "tpm": _tpm,
}
