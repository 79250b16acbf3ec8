"""Evidence and collateral: what a stranger sends, and what a service or a folder hands out.

Besides that only our errors may come back: evidence that differs from the sound one in what is
believed of it, and is believed all the same, is a defect.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

from tests.mutation import tcg
from tests.mutation.case import Mutation, with_items
from tests.mutation.suites import SOUND as MAKERS
from tests.unit.tee.sgx.attester import EXTENSION
from tests.unit.tee.tpm.booted import Machine

from broch.errors import BrochError
from broch.tee.contract import Claims
from broch.tee.dcap import certs
from broch.tee.dcap.collateral import items_from_json
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.tcb import QeIdentity, TcbInfo
from broch.tee.nitro.document import Document
from broch.tee.snp import cert_table
from broch.tee.snp.report import Report
from broch.tee.tdx import module
from broch.tee.tpm.event_log import EventLog, secure_boot
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.hcl import HclReport
from broch.tee.tpm.public import Public
from broch.tee.tpm.signature import Signature
from broch.tee.tpm.verify import TpmClaims
from broch.wire import cbor, x509

SOUND: Final[dict[str, Callable[[], Mutation]]] = {tee: cache(make) for tee, make in MAKERS.items()}


@cache
def _believed(tee: str) -> tuple[object, ...]:
    return _essence(SOUND[tee]().run())


def _essence(claims: Claims) -> tuple[object, ...]:
    """What is signed, and who is said to have signed it."""
    return (
        claims.measurement,
        claims.report_data,
        claims.signer,
        claims.debug,
        claims.version,
        claims.emulated,
    )


def _evidence(tee: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        sound = SOUND[tee]()
        claims = sound.verifier.verify(data, sound.endorsements, at=sound.at)
        assert _essence(claims) == _believed(tee), "believed, and nobody signed it"

    return run


def _endorsement(tee: str) -> Callable[[bytes], None]:
    """One item of the endorsements, chosen by the first byte, is replaced by the rest."""

    def run(data: bytes) -> None:
        sound = SOUND[tee]()
        names = sorted(sound.endorsements.items)
        name = names[data[0] % len(names)] if data else names[0]
        bent = with_items(sound.endorsements, {name: data[1:]})
        claims = sound.verifier.verify(sound.evidence, bent, at=sound.at)
        assert _essence(claims) == _believed(tee), "believed, and nobody signed it"

    return run


def _seeds(tee: str) -> list[bytes]:
    return [SOUND[tee]().evidence]


def _items(tee: str) -> list[bytes]:
    items = SOUND[tee]().endorsements.items
    return [bytes([index]) + items[name] for index, name in enumerate(sorted(items))]


@cache
def _booted() -> tuple[Evidence, frozenset[tuple[int, bytes]]]:
    """A quote with the firmware's log, and what that log proves: data by register."""
    evidence = Machine().boot().attester().evidence()
    events = _quoted(evidence).events
    return Evidence.from_bytes(evidence), frozenset((event.pcr, event.data) for event in events)


def _quoted(evidence: bytes) -> TpmClaims:
    sound = SOUND["tpm"]()
    claims = sound.verifier.verify(evidence, sound.endorsements, at=sound.at)
    assert isinstance(claims, TpmClaims)
    return claims


def _event_log(data: bytes) -> None:
    """Another log beside a quote that is sound: nobody signed it but the registers.

    Types of events are not measured, so another type may be told; other data may not.
    """
    quote, proved = _booted()
    claims = _quoted(replace(quote, event_log=data).to_bytes())
    for event in claims.events:
        known = not event.data or (event.pcr, event.data) in proved
        assert known, "an event is believed that nobody has measured"
    assert secure_boot(claims.events) is not False, "it was on"


def _event_logs() -> list[bytes]:
    return [Machine().boot().log(), Machine().boot(secure=b"\0").log()]


READERS: Final[tuple[Callable[[bytes], Any], ...]] = (
    lambda data: module.find(TcbInfo.from_bytes(data), 1),
    QeIdentity.from_bytes,
    PckExtension.from_bytes,
    items_from_json,
    lambda data: certs.read_chain(data, "chain"),
    lambda data: x509.read_certificate(data, "certificate"),
    lambda data: x509.read_crl(data, "list"),
    lambda data: x509.to_der(data, "PEM"),
    lambda data: cbor.decode(data, what="CBOR"),
    cert_table.read,
    Public.from_bytes,
    Signature.from_bytes,
    EventLog.from_bytes,
)
CANONICAL: Final[tuple[Any, ...]] = (Report, Document, HclReport)


def _readers(data: bytes) -> None:
    """What is signed in practice, and so is not reached with unsigned noise, is read as it is."""
    for read in READERS:
        try:
            read(data)
        except BrochError:
            continue
    for kind in CANONICAL:
        try:
            value = kind.from_bytes(data)
        except BrochError:
            continue
        assert value.to_bytes() == data, f"{kind.__name__}: accepted, and not canonical"


def _reader_seeds() -> list[bytes]:
    sound = [SOUND[name]() for name in ("sgx", "tdx", "snp", "nitro")]
    items = [item for one in sound for item in one.endorsements.items.values()]
    table = cert_table.write({cert_table.ARK: b"ark"})
    own = tcg.sound()
    return [
        *items,
        *(one.evidence for one in sound),
        EXTENSION.to_bytes(),
        *own.endorsements.items.values(),
        table,
        *_event_logs(),
    ]


Pair = tuple[Callable[[bytes], None], Callable[[], list[bytes]]]
PAIRS: Final[dict[str, Pair]] = {
    **{f"evidence_{tee}": (_evidence(tee), partial(_seeds, tee)) for tee in SOUND},
    **{
        f"collateral_{tee}": (_endorsement(tee), partial(_items, tee))
        for tee in SOUND
        if tee != "nitro"  # whose documents bring all but the root
    },
    "event_log_tpm": (_event_log, _event_logs),
    "endorsement_readers": (_readers, _reader_seeds),
}
