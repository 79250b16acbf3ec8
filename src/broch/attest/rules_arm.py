"""What is acceptable of PSA and CCA tokens (RFC 9783, sections 4.1.2 and 4.4; RMM, A7.2)."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from broch.attest.checks import Check, compared, failed, one_of, passed, skipped
from broch.attest.policy import Policy
from broch.attest.reference import CcaReference, FirmwareReference, PsaReference, Reference
from broch.tee.cca.verify import CcaClaims
from broch.tee.contract import Claims
from broch.tee.psa.verify import PsaClaims
from broch.wire.arm_claims import Component

_FLASH: Final = "update the firmware to an accepted one"


def rules(claims: Claims, policy: Policy, reference: Reference, at: datetime) -> Iterator[Check]:
    """Checks of a PSA device or a CCA realm."""
    if isinstance(claims, PsaClaims):
        psa = reference if isinstance(reference, PsaReference) else PsaReference()
        yield _authentication(claims, psa)
        yield _caller(claims, psa)
        measured = bool(psa.measurements) or psa.allow_any_measurement
        yield _firmware(claims.token.components, psa, measured)
    elif isinstance(claims, CcaClaims):
        cca = reference if isinstance(reference, CcaReference) else CcaReference()
        yield _firmware(claims.platform.components, cca, cca.allow_any_firmware)
        for index, accepted in cca.rems.items():
            hint = "start the realm with the software that was measured"
            rem = claims.realm.rems[index]
            yield one_of(f"rem{index}", f"REM{index}", rem, accepted, hint=hint)
        if not cca.rems:
            yield skipped("rem", "the policy names no REMs: only the initial measurement counts")
    else:
        why = f"claims of {claims.tee} without its token"
        yield failed("token", why, "verify the token itself")


def _authentication(claims: PsaClaims, reference: PsaReference) -> Check:
    if not claims.symmetric:
        return passed("authentication", "signed by the device's own key")
    if reference.allow_mac:
        return passed("authentication", "a MAC; the policy accepts it")
    why = "authenticated by a MAC: whoever can verify it can also have made it"
    return failed("authentication", why, "use tokens with a signature (COSE_Sign1)")


def _caller(claims: PsaClaims, reference: PsaReference) -> Check:
    found = claims.token.client_id
    side = "secure" if found > 0 else "non-secure"
    if reference.client_ids:
        wanted = ", ".join(map(str, sorted(reference.client_ids)))
        why = f"asked for by client {found} ({side}), expected {wanted}"
        good = found in reference.client_ids
        hint = "let the client that you trust ask for the token"
        return compared("client", why, good, hint)
    return skipped("client", f"asked for by client {found} ({side}); the policy names none")


def _firmware(
    components: Sequence[Component], reference: FirmwareReference, measured: bool
) -> Check:
    if reference.firmware:
        unknown = [item for item in components if item.measurement not in reference.firmware]
        if unknown:
            item = unknown[0]
            name = " ".join(filter(None, (item.type, item.version))) or "a component"
            why = f"firmware {name} ({item.measurement.hex()}) is not an accepted one"
            return failed("firmware", why, _FLASH)
        return passed("firmware", f"all {len(components)} components are accepted")
    if measured:
        return skipped("firmware", "the policy does not look at each piece of firmware")
    return failed("firmware", "the policy does not say which firmware is accepted", _FLASH)
