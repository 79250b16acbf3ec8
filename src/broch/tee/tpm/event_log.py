"""The firmware's event log: what was measured into which register, in which order.

Source: TCG PC Client Platform Firmware Profile 1.06, sections 10.2 (structures), 10.4.1 (types),
10.4.5 (EV_NO_ACTION). Integers are little-endian:

    first event, in the form of TPM 1.2
        pcr 4 = 0    type 4 = EV_NO_ACTION    digest 20, zeros    size 4    TCG_EfiSpecIDEvent:
            "Spec ID Event03\\0"    platform class 4    version 2, errata 1, uintn size 1
            algorithms: count 4, each TPM_ALG_ID 2, digest size 2    vendor size 1, vendor data
    each further event
        pcr 4    type 4    digests: count 4, each TPM_ALG_ID 2, digest    size 4    data

A log proves nothing by itself: it comes along with a quote, and is believed of those registers to
which it leads when it is replayed. Even then the *digests* were measured. What stands beside them
as data is proved only where it is what was hashed, and is dropped elsewhere.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from broch.errors import DecodeError, UntrustedError
from broch.tee.tpm.reader import BANKS, DIGEST_SIZES

MAX_LOG: Final = 128 * 1024  # bytes; Linux gives some 20 to 60 KiB
MAX_EVENTS: Final = 4096
FIRMWARE: Final = range(8)  # registers that nobody but the firmware extends while it keeps its log
EV_NO_ACTION: Final = 3
EV_EFI_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
SECURE_BOOT_PCR: Final = 7
_SPEC_ID: Final = b"Spec ID Event03\0"
_LOCALITIES: Final = {b"StartupLocality\0" + bytes((number,)) for number in (0, 3, 4)}
_SHA1: Final = 0x0004
# EFI_GLOBAL_VARIABLE, as it is in memory, and the name in UTF-16 (UEFI 2.10, 3.3).
_GLOBAL: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURE_BOOT: Final = "SecureBoot".encode("utf-16-le")
_W: Final = "event log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One measurement."""

    pcr: int
    type: int
    digests: Mapping[int, bytes]  # TPM_ALG_ID -> what the register was extended by
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A log taken apart. Nothing in it has been verified."""

    banks: tuple[int, ...]  # TPM_ALG_ID: of each, every event has a digest
    events: tuple[Event, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one log in the form of TPM 2.0.

        Raises:
            DecodeError: not one, too long, or bytes after its last event.
        """
        if len(data) > MAX_LOG:
            raise DecodeError(MAX_LOG, f"longer than {MAX_LOG} bytes", what=_W)
        reader = _Reader(data)
        banks = _spec_id(reader)
        events: list[Event] = []
        while reader.offset < len(data):
            if len(events) == MAX_EVENTS:
                raise reader.fail(f"more than {MAX_EVENTS} events")
            events.append(_event(reader, banks))
        return cls(banks=tuple(banks), events=tuple(events))

    def replay(self, bank: int) -> dict[int, bytes]:
        """What the registers of ``bank`` come to; those without events are left out."""
        size, name = DIGEST_SIZES[bank], BANKS[bank]
        found: dict[int, bytes] = {}
        for event in self.events:
            if event.type == EV_NO_ACTION:
                # A TPM that was started from another locality has PCR0 begin with its number.
                if event.pcr == 0 and event.data in _LOCALITIES and 0 not in found:
                    found[0] = event.data[-1:].rjust(size, b"\0")
                continue
            before = found.get(event.pcr, bytes(size))
            found[event.pcr] = hashlib.new(name, before + event.digests[bank]).digest()
        return found


def explained(
    log: EventLog, pcrs: Mapping[int, Mapping[int, bytes]]
) -> tuple[tuple[Event, ...], frozenset[int]]:
    """The events of those registers that ``log`` leads to, and which these are.

    Registers from 8 on are the operating system's too, which extends them without this log: where
    it does not lead to them, their events are dropped.

    Args:
        log: decoded.
        pcrs: bank -> index -> value, of a quote that was verified.

    Raises:
        UntrustedError: the log leads to other values of the firmware's registers, or has no digests
            of a bank that was quoted.
    """
    good: set[int] | None = None
    for bank, values in pcrs.items():
        if bank not in log.banks:
            raise UntrustedError(f"the event log has no digests of {BANKS[bank]}")
        replayed = log.replay(bank)
        never = bytes(DIGEST_SIZES[bank])
        matching = {i for i, value in values.items() if replayed.get(i, never) == value}
        wrong = sorted(i for i in values.keys() - matching if i in FIRMWARE)
        if wrong:
            names = ", ".join(f"{BANKS[bank]}:{index}" for index in wrong)
            raise UntrustedError(
                f"the event log does not lead to the registers {names}",
                hint="ask for the log of the same boot as the quote",
            )
        good = matching if good is None else good & matching
    # Two values of SHA-1 can be made equal, so that bank shows no data.
    proving = tuple(bank for bank in pcrs if bank != _SHA1)
    covered = frozenset(good or ())
    kept = (_proved(item, proving) for item in log.events if item.type != EV_NO_ACTION)
    return tuple(item for item in kept if item.pcr in covered), covered


def _proved(event: Event, banks: tuple[int, ...]) -> Event:
    """The event, without data that are not what was hashed."""
    hashed = any(
        hashlib.new(BANKS[bank], event.data).digest() == event.digests[bank] for bank in banks
    )
    if hashed:
        return event
    return Event(pcr=event.pcr, type=event.type, digests=event.digests, data=b"")


def secure_boot(events: tuple[Event, ...]) -> bool | None:
    """Whether UEFI Secure Boot was on, by events from :func:`explained`; None: not shown.

    The variable is measured into PCR7 as UEFI_VARIABLE_DATA (section 10.2.6): GUID 16, length of
    the name 8 (in characters), length of the data 8, name in UTF-16, data.
    """
    head = _GLOBAL + (len(_SECURE_BOOT) // 2).to_bytes(8, "little")
    on, off = (
        head + len(value).to_bytes(8, "little") + _SECURE_BOOT + value for value in (b"\1", b"\0")
    )
    absent = head + bytes(8) + _SECURE_BOOT
    known = {on: True, off: False, absent: False}
    found = {
        known.get(event.data)
        for event in events
        if event.pcr == SECURE_BOOT_PCR
        and event.type == EV_EFI_VARIABLE_DRIVER_CONFIG
        and event.data.startswith(head)
        and _SECURE_BOOT in event.data
    }
    return found.pop() if len(found) == 1 else None


class _Reader:
    """A cursor over little-endian fields."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def fail(self, problem: str) -> DecodeError:
        return DecodeError(self.offset, problem, what=_W)

    def take(self, size: int) -> bytes:
        taken = self.data[self.offset : self.offset + size]
        if len(taken) != size:
            raise self.fail(f"{size} bytes expected, {len(taken)} left")
        self.offset += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


def _spec_id(reader: _Reader) -> dict[int, int]:
    """The first event: algorithms and the sizes of their digests."""
    pcr, kind, digest = reader.number(4), reader.number(4), reader.take(20)
    size = reader.number(4)
    end = reader.offset + size
    if (pcr, kind) != (0, EV_NO_ACTION) or any(digest) or reader.take(16) != _SPEC_ID:
        raise DecodeError(0, "does not begin with Spec ID Event03: a log of TPM 1.2?", what=_W)
    reader.take(8)
    count = reader.number(4)
    banks = {reader.number(2): reader.number(2) for _ in range(min(count, 16))}
    if not banks or len(banks) != count:
        raise reader.fail(f"{count} algorithms, expected 1 to 16, each once")
    for bank, length in banks.items():
        if not 0 < length <= 64 or DIGEST_SIZES.get(bank, length) != length:
            raise reader.fail(f"algorithm 0x{bank:04x} with digests of {length} bytes")
    reader.take(reader.number(1))
    if reader.offset != end:
        raise reader.fail(f"the first event has {size} bytes, which is not where it ends")
    return banks


def _event(reader: _Reader, banks: Mapping[int, int]) -> Event:
    pcr, kind, count = reader.number(4), reader.number(4), reader.number(4)
    if pcr > 31:
        raise reader.fail(f"register {pcr}, expected 0 to 31")
    if count != len(banks):
        raise reader.fail(f"{count} digests, expected {len(banks)}")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        bank = reader.number(2)
        if bank not in banks or bank in digests:
            raise reader.fail(
                f"a digest of algorithm 0x{bank:04x}, which is unknown or comes twice"
            )
        digests[bank] = reader.take(banks[bank])
    return Event(pcr=pcr, type=kind, digests=digests, data=reader.take(reader.number(4)))
