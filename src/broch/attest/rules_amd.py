"""What is acceptable of SEV-SNP guests, and of Nitro enclaves.

AMD rates no TCB: there is no status, so a policy names the versions that it wants. Sources: SEV-SNP
firmware ABI 1.58, tables 9 (guest policy) and 24 (platform_info); AWS, attestation_process.md.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from broch.attest.checks import Check, compared, failed, one_of, passed, skipped
from broch.attest.policy import Policy
from broch.attest.reference import NitroReference, Reference, SnpReference
from broch.tee.contract import Claims
from broch.tee.nitro.verify import NitroClaims
from broch.tee.snp import report as bits
from broch.tee.snp.report import SigningKey
from broch.tee.snp.verify import SnpClaims

PLATFORM_BITS: Final = {name: bit for name, bit in bits.PLATFORM_BITS.items() if name != "SMT"}
# What makes a guest's policy stricter; SMT, CXL, migration agents and debugging make it laxer.
POLICY_BITS: Final = {
    name: bits.POLICY_BITS[name]
    for name in (
        "SINGLE_SOCKET",
        "MEM_AES_256_XTS",
        "RAPL_DIS",
        "CIPHERTEXT_HIDING",
        "PAGE_SWAP_DISABLE",
    )
}
_SKEW: Final = timedelta(seconds=60)  # by which the clocks of a hypervisor and ours may differ
_BOOT: Final = "boot the image that was measured"


def rules(claims: Claims, policy: Policy, reference: Reference, at: datetime) -> Iterator[Check]:
    """Checks of an SNP guest or a Nitro enclave."""
    if isinstance(claims, SnpClaims):
        yield from _snp(claims, reference if isinstance(reference, SnpReference) else _NO_SNP)
    elif isinstance(claims, NitroClaims):
        nitro = reference if isinstance(reference, NitroReference) else NitroReference()
        yield from _nitro(claims, nitro)
        yield _age(claims, nitro, at)
    else:
        why = f"claims of {claims.tee} without its report"
        yield failed("report", why, "verify the report itself")


_NO_SNP: Final = SnpReference()


def _snp(claims: SnpClaims, reference: SnpReference) -> Iterator[Check]:
    report = claims.report
    yield _product(claims, reference)
    yield _tcb(claims, reference)
    wanted = ", ".join(map(str, sorted(reference.vmpls)))
    why = f"VMPL {report.vmpl}, expected {wanted}"
    hint = "request the report at the privilege level of the code that you trust"
    yield compared("vmpl", why, report.vmpl in reference.vmpls, hint)
    yield _migration(claims, reference)
    yield from _guest_policy(claims, reference)
    yield from _platform(claims, reference)
    if reference.host_data:
        yield one_of("host_data", "HOST_DATA", report.host_data, reference.host_data, hint=_BOOT)
    if reference.author_keys:
        yield _author(claims, reference)


def _product(claims: SnpClaims, reference: SnpReference) -> Check:
    found, wanted = claims.product, ", ".join(sorted(reference.products)) or "none named"
    if found in reference.products:
        return passed("product_line", f"{found}, expected {wanted}")
    hint = "run it on a processor of an accepted product line"
    return failed("product_line", f"product line {found}, expected {wanted}", hint)


def _tcb(claims: SnpClaims, reference: SnpReference) -> Check:
    wanted = reference.min_tcb.get(claims.product)
    if wanted is not None:
        why = f"reported TCB {claims.reported_tcb}, expected at least {wanted}"
        good = claims.reported_tcb.reaches(wanted)
        return compared("min_tcb", why, good, "update the firmware, and let the host commit it")
    if reference.allow_any_tcb:
        return skipped("min_tcb", f"{claims.reported_tcb}; the policy accepts any")
    why = f"the policy has no minimum TCB for {claims.product}"
    return failed("min_tcb", why, f"add [snp.min_tcb.{claims.product}]")


def _migration(claims: SnpClaims, reference: SnpReference) -> Check:
    if not claims.report.policy & bits.POLICY_MIGRATE_MA:
        return passed("migration", "the guest has no migration agent")
    if reference.allow_migration_agent:
        return passed("migration", "a migration agent is allowed; the policy accepts it")
    why = "the guest policy allows a migration agent, which can read the guest"
    return failed("migration", why, "start the guest with MIGRATE_MA off")


def _guest_policy(claims: SnpClaims, reference: SnpReference) -> Iterator[Check]:
    """What the firmware holds the host to for as long as the guest runs."""
    policy = claims.report.policy
    for name, is_forbidden, bit in (
        ("SMT", reference.forbid_smt, bits.POLICY_SMT),
        ("CXL", reference.forbid_cxl, bits.POLICY_CXL_ALLOW),
    ):
        if is_forbidden:
            off = not policy & bit
            why = f"the guest policy {'forbids' if off else 'allows'} {name}"
            yield compared(name.lower(), why, off, f"start the guest without {name}")
    for name in sorted(reference.require_policy):
        on = bool(policy & POLICY_BITS[name])
        why = f"the guest policy {'asks' if on else 'does not ask'} for {name}"
        yield compared(f"policy_{name.lower()}", why, on, f"start the guest with {name}")
    if reference.min_abi != (0, 0):
        found, wanted = claims.report.min_abi, reference.min_abi
        why = f"the guest policy asks for ABI {_abi(found)} or newer, expected {_abi(wanted)}"
        hint = "start the guest with a policy that asks for it"
        yield compared("abi", why, found >= wanted, hint)


def _abi(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _author(claims: SnpClaims, reference: SnpReference) -> Check:
    report = claims.report
    if not report.author_key_enabled:
        why = "no author vouches for the ID key, and the policy names authors"
        return failed("author_key", why, "start the guest with an ID block that its author signed")
    hint = "have the ID key signed by an author whom you trust"
    found = report.author_key_digest
    return one_of("author_key", "author key", found, reference.author_keys, hint=hint)


def _platform(claims: SnpClaims, reference: SnpReference) -> Iterator[Check]:
    info = claims.report.platform_info
    for name in sorted(reference.require_platform):
        on = bool(info & PLATFORM_BITS[name])
        why = f"{name} is {'on' if on else 'off'}"
        yield compared(f"platform_{name.lower()}", why, on, "ask the operator to turn it on")
    if not reference.chip_ids:
        yield skipped("platform", "the policy accepts any chip: it names no chip ids")
    elif claims.report.signing_key is not SigningKey.VCEK or claims.report.mask_chip_key:
        why = "the report does not say which chip it is of, and the policy names chips"
        yield failed("platform", why, "use a report under the chip's own key (VCEK)")
    else:
        hint = "run it on a chip of yours, or add this one after looking at it"
        yield one_of("platform", "chip", claims.report.chip_id, reference.chip_ids, hint=hint)


def _nitro(claims: NitroClaims, reference: NitroReference) -> Iterator[Check]:
    for index, accepted in reference.pcrs.items():
        found = claims.document.pcrs.get(index, b"")
        yield one_of(f"pcr{index}", f"PCR{index}", found, accepted, hint=_BOOT)
    if not reference.pcrs:
        yield skipped("pcrs", "the policy names no PCRs besides the measurement (PCR0)")


def _age(claims: NitroClaims, reference: NitroReference, at: datetime) -> Check:
    """Beside the nonce: that a document was made for somebody does not say when."""
    age = at - claims.timestamp
    seconds = f"made {age.total_seconds():.0f} s before this verification"
    if not reference.max_age_seconds:
        return skipped("age", f"{seconds}; the policy bounds no age, only certificates do (3 h)")
    why = f"{seconds}, expected at most {reference.max_age_seconds} s"
    good = -_SKEW <= age <= timedelta(seconds=reference.max_age_seconds)
    return compared("age", why, good, "ask for a new document, and compare the clocks")
