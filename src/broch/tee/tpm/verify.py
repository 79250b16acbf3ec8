"""Is this TPM quote authentic? No I/O, no clock.

For the endorsements see :mod:`.trust`. Sources: TPM 2.0 Library, part 1, section 31 (attestation)
and part 3, 18.4 (TPM2_Quote); for the event log see :mod:`.event_log`.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broch.errors import UntrustedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.steps import Steps
from broch.tee.tpm import trust
from broch.tee.tpm.attest import QUOTE, Attest
from broch.tee.tpm.event_log import Event, EventLog, explained, secure_boot
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.reader import BANKS, HASHES
from broch.tee.tpm.signature import Signature
from broch.tee.tpm.trust import Trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmClaims(Claims):
    """Claims of a verified quote; ``measurement`` is the digest over all registers in it."""

    attest: Attest
    pcrs: Mapping[int, Mapping[int, bytes]]  # bank -> index -> value, exactly those of the quote
    key: Trusted
    events: tuple[Event, ...] = ()  # that led to the registers, as far as a log shows
    explained: frozenset[int] = frozenset()  # registers to which the log leads


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> TpmClaims:
    """Decide whether ``evidence`` is authentic ``at`` that time.

    Raises:
        DecodeError: not a quote, or an endorsement that cannot be read.
        UntrustedError: key, signature or registers do not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse strictly.
        steps.current = "format"
        parsed = Evidence.from_bytes(evidence)
        signature = Signature.from_bytes(parsed.signature)
        log = None if parsed.event_log is None else EventLog.from_bytes(parsed.event_log)
        # (2) The key is one that there is a reason to believe in; none comes with the evidence.
        steps.current = "key"
        trusted = trust.establish(endorsements, at)
        # (3) Its signature. Only then is what it signed read.
        steps.current = "signature"
        signature.check(trusted.key, parsed.attest, "TPM quote")
        # (4) It is a quote: the magic number says that a TPM made it, the type what it is about.
        steps.current = "type"
        attest = Attest.from_bytes(parsed.attest)
        if attest.type != QUOTE:
            raise UntrustedError(f"the TPM signed type 0x{attest.type:04x}, not a quote")
        # (5) Registers: exactly the selected ones, by index, and their digest is the signed one.
        steps.current = "registers"
        _check_registers(attest, parsed.pcrs, signature.hash)
        # (6) The log, replayed, leads to the registers. Only now are its events believed.
        steps.current = "event_log"
        events, covered = _check_log(log, parsed.pcrs, steps)
    return TpmClaims(
        tee="tpm",
        measurement=attest.pcr_digest,
        signer=None,
        report_data=attest.extra_data,
        debug=False,
        emulated=trusted.emulated,
        details={
            "endorsed_by": trusted.way,
            "ak_certified": "by that key (TPM2_Certify)" if trusted.certified else "no",
            "root": trusted.root_name,
            "revocation": "checked" if trusted.revocation_checked else "not checked",
            "ak_attributes": "checked" if trusted.attributes_checked else "not shown",
            "clock": str(attest.clock),
            "clock_safe": "yes" if attest.safe else "no",
            "reset_count": str(attest.reset_count),
            "restart_count": str(attest.restart_count),
            "firmware_version": f"{attest.firmware_version:016x}",
            "event_log": "absent" if log is None else f"leads to {sorted(covered)}",
            "secure_boot": _ON[secure_boot(events)],
            **{
                f"{BANKS[selection.bank]}:{index}": parsed.pcrs[selection.bank][index].hex()
                for selection in attest.selections
                for index in selection.indices
            },
        },
        attest=attest,
        pcrs=parsed.pcrs,
        key=trusted,
        events=events,
        explained=covered,
        skipped=steps.skipped,
    )


_ON: Final[Mapping[bool | None, str]] = {True: "on", False: "off", None: "not shown"}


def _check_log(
    log: EventLog | None, pcrs: Mapping[int, Mapping[int, bytes]], steps: Steps
) -> tuple[tuple[Event, ...], frozenset[int]]:
    if log is not None:
        return explained(log, pcrs)
    steps.skipped[steps.current] = "no log came along: registers are compared as they are"
    return (), frozenset()


def _check_registers(attest: Attest, pcrs: Mapping[int, Mapping[int, bytes]], alg: int) -> None:
    selected = {item.bank: set(item.indices) for item in attest.selections if item.indices}
    if not selected:
        raise UntrustedError("the quote is over no register")
    if selected != {bank: set(values) for bank, values in pcrs.items()}:
        raise UntrustedError("the registers are not exactly those that the quote selects")
    # In the order of the selection, and by index: never in the order in which they came.
    digest = hashlib.new(HASHES[alg])
    for selection in attest.selections:
        for index in selection.indices:
            digest.update(pcrs[selection.bank][index])
    if not hmac.compare_digest(digest.digest(), attest.pcr_digest):
        raise UntrustedError("the registers are not those that the TPM has digested")
