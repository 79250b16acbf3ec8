"""The chain of trust of an emulated device: issued once, then kept in its durable memory.

Kept as a CBOR map: "format" 1, "owner" 16 bytes that only this secret gives, "begin" seconds since
1970, "anchor" DER, "pck_chain" PEM, "items" as in :mod:`broch.tee.dcap.collateral`. What is found
and is not of this secret, or is old or ahead of the clock, is made anew; keys come out of the
secret, so they stay the same.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import cbor2
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from broch.tee.contract import DeviceSettings
from broch.tee.dcap.ecdsa import derive_key
from broch.tee.sgx.quoting import PCESVN, QE

NAME: Final = "sgx.pki"
ROOT_NAME: Final = "Broch Emulated SGX Root"
FMSPC: Final = b"BROCH\x00"
PCEID: Final = bytes(2)
RENEW_AFTER: Final = 1826 * 86400  # seconds: half of the life of what is issued
_FORMAT: Final = 1
_KEYS: Final = {"format", "owner", "begin", "anchor", "pck_chain", "items"}

Derive = Callable[[str, int], bytes]  # (label, size) -> bytes out of the device's secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """The public half of a device."""

    owner: bytes
    begin: int  # seconds since 1970
    anchor: bytes
    pck_chain: bytes
    items: Mapping[str, bytes]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """What :meth:`to_bytes` made; None for anything else."""
        stream = io.BytesIO(data)
        try:
            fields: Any = cbor2.CBORDecoder(stream, max_depth=4).decode()
        except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError):
            return None
        if not isinstance(fields, dict) or fields.keys() != _KEYS or fields["format"] != _FORMAT:
            return None
        pki = cls(**{name: fields[name] for name in cls.__slots__})
        return pki if pki.to_bytes() == data else None

    def to_bytes(self) -> bytes:
        """Encode for durable memory."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return cbor2.dumps({"format": _FORMAT, **fields}, canonical=True)


def make_pck_key(secret: bytes) -> EllipticCurvePrivateKey:
    """The platform's PCK key."""
    return derive_key(secret, "broch sgx pki pck")


def load_or_issue(settings: DeviceSettings, *, cpusvn: bytes, derive: Derive) -> Pki:
    """The chain of trust in durable memory, or a new one that is then put there."""
    owner = derive("pki owner", 16)
    now = int(settings.now.timestamp())
    stored = settings.nv.get(NAME)
    found = Pki.from_bytes(stored) if stored is not None else None
    if found and found.owner == owner and found.begin <= now < found.begin + RENEW_AFTER:
        return found
    made = _issue(settings.secret, owner, cpusvn, settings.now, derive)
    settings.nv.put(NAME, made.to_bytes())
    return made


def _issue(secret: bytes, owner: bytes, cpusvn: bytes, now: datetime, derive: Derive) -> Pki:
    # Heavy to import (X.509), and needed once in the life of a device.
    from broch.tee.dcap import emulated
    from broch.tee.dcap.pckext import PckExtension

    extension = PckExtension(
        ppid=derive("ppid", 16),
        components=tuple(cpusvn),
        pcesvn=PCESVN,
        cpusvn=cpusvn,
        pceid=PCEID,
        fmspc=FMSPC,
        sgx_type=1,
        platform_instance=derive("platform instance", 16),
        dynamic_platform=False,
        cached_keys=False,
        smt_enabled=False,
    )
    qe = emulated.QeDescription(
        id="QE",
        mrsigner=QE.mrsigner,
        isvprodid=QE.isvprodid,
        isvsvn=QE.isvsvn,
        flags=QE.flags,
        xfrm=QE.xfrm,
    )
    keys = emulated.Keys(
        root=derive_key(secret, "broch sgx pki root"),
        pck_ca=derive_key(secret, "broch sgx pki pck ca"),
        pck=make_pck_key(secret),
        tcb_signing=derive_key(secret, "broch sgx pki tcb signing"),
    )
    platform = emulated.Platform(root_name=ROOT_NAME, tee="SGX", pck=extension, qe=qe)
    issued = emulated.issue(keys, platform, now)
    return Pki(
        owner=owner,
        begin=int(issued.begin.timestamp()),
        anchor=issued.anchor,
        pck_chain=issued.pck_chain,
        items=dict(issued.items),
    )
