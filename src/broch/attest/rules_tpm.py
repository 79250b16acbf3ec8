"""What is acceptable of a TPM's quote (TPM 2.0 Library, part 1, sections 31 and 36)."""

from collections.abc import Iterator
from datetime import datetime

from broch.attest.checks import Check, compared, failed, one_of, passed, skipped
from broch.attest.policy import Policy
from broch.attest.reference import Reference, TpmReference
from broch.tee.contract import Claims
from broch.tee.tpm import trust
from broch.tee.tpm.event_log import FIRMWARE, secure_boot
from broch.tee.tpm.reader import BANKS
from broch.tee.tpm.verify import TpmClaims


def rules(claims: Claims, policy: Policy, reference: Reference, at: datetime) -> Iterator[Check]:
    """Checks of a quote."""
    if not isinstance(claims, TpmClaims):
        yield failed("quote", "claims of tpm without its quote", "verify the quote itself")
        return
    values = reference if isinstance(reference, TpmReference) else TpmReference()
    yield _key(claims, values)
    yield _clock(claims, values)
    yield from _registers(claims, values)
    yield from _log(claims, values)


def _key(claims: TpmClaims, reference: TpmReference) -> Check:
    key = claims.key
    if key.way == trust.AK_CERTIFICATE:
        whose = ", and it vouches for the one that signs" if key.certified else ""
        return passed("ak_attributes", f"the certificate is of an attestation key{whose}")
    if key.attributes_checked:
        return passed("ak_attributes", "the key is restricted to what its TPM itself says")
    if reference.allow_unproved_key:
        why = "nobody has shown that the key is in a TPM and restricted; the policy accepts it"
        return skipped("ak_attributes", why)
    why = "nobody has shown that the key is in a TPM and restricted to what the TPM itself says"
    return failed("ak_attributes", why, "enrol the key as ak_public (TPMT_PUBLIC), or certify it")


def _clock(claims: TpmClaims, reference: TpmReference) -> Check:
    if claims.attest.safe:
        return passed("clock", "the TPM's clock has not gone back")
    if reference.allow_unsafe_clock:
        return passed("clock", "the TPM's clock may have gone back; the policy accepts it")
    why = "the TPM's clock may have gone back: it was not shut down in an orderly way"
    return failed("clock", why, "wait until the TPM has saved its clock (minutes), and ask again")


def _registers(claims: TpmClaims, reference: TpmReference) -> Iterator[Check]:
    by_name = {BANKS[bank]: values for bank, values in claims.pcrs.items()}
    for bank, registers in reference.pcrs.items():
        for index, accepted in registers.items():
            rule, what = f"pcr {bank}:{index}", f"PCR{index} ({bank})"
            found = by_name.get(bank, {}).get(index)
            if found is None:
                why = f"{what} is not in the quote, and the policy has values for it"
                yield failed(rule, why, "ask for a quote over this register too")
            else:
                yield one_of(rule, what, found, accepted, hint="boot what was measured")
    if not reference.pcrs:
        yield skipped("pcrs", "the policy names no registers one by one")


def _log(claims: TpmClaims, reference: TpmReference) -> Iterator[Check]:
    missing = sorted(set(FIRMWARE) - claims.explained)
    if not reference.require_event_log:
        yield skipped("firmware_log", "the policy asks for no event log")
    elif missing:
        why = f"no event log leads to the registers {', '.join(map(str, missing))}"
        hint = "ask for a quote of registers 0 to 7 with the log (broch evidence get --event-log)"
        yield failed("firmware_log", why, hint)
    else:
        yield passed("firmware_log", "the event log leads to all of the firmware's registers")
    if reference.require_secure_boot:
        why = {
            True: "Secure Boot was on",
            False: "Secure Boot was off",
            None: "no event that was proved says whether Secure Boot was on",
        }[secure_boot(claims.events)]
        good = secure_boot(claims.events) is True
        yield compared("secure_boot", why, good, "boot with Secure Boot, and send the event log")
