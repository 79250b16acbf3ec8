"""The steps of each verifier, for the table in a result: which hold, failed, were not reached.

A verifier goes through its steps in order and raises at the first that does not hold, so claims
mean that all of them do, and an error names the one that did not (:mod:`broch.tee.steps`). The
numbers are those in ``tee/*/verify.py``. What some evidence does without, its verifier says.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from broch.attest.checks import Check, failed, passed, skipped
from broch.attest.endorsements.items import ITEMS
from broch.attest.endorsements.loading import STEP as UNDECIDED
from broch.errors import BrochError, MalformedError, UndecidedError
from broch.tee.contract import Claims

#: Rules where it failed before the first step, or whoever wrote the verifier names no steps.
MALFORMED: Final = "well_formed"
UNTRUSTED: Final = "authentic"
_STOPS: Final = {MalformedError: MALFORMED, UndecidedError: UNDECIDED}
_DCAP: Final = (
    ("format", "(1) header, key type, QE vendor, lengths, certification data"),
    ("chain", "(2) PCK, PCK CA, TCB Signing: each in its role, signed, valid now, root trusted"),
    ("crl", "(3) both revocation lists: their issuers' own, valid now, listing none of these"),
    ("tcb_info", "(4) signed as raw bytes by TCB Signing, valid now, for this TEE, FMSPC, PCE-ID"),
    ("qe_identity", "(5) signed as raw bytes by TCB Signing, valid now, for this kind of quote"),
    (
        "qe_report",
        "(6) signed by the PCK key, binds the attestation key, fits the QE identity; no debug",
    ),
    ("signature", "(7) of the quote, by the attestation key"),
)
_LEVELS: Final = ("tcb_level", "(9), (10) platform and QE rated by SVN, together the worst of them")
STEPS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "sgx": (*_DCAP, _LEVELS),
    "tdx": (
        *_DCAP,
        ("tdx_module", "(8) identity by version: MRSIGNERSEAM, SEAM attributes, SVN"),
        ("tcb_level", "(9), (10) platform, module and QE rated by SVN, together the worst of them"),
    ),
    "snp": (
        ("format", "(1) version, algorithm, reserved bits and bytes"),
        ("chain", "(2) ARK, ASK or ASVK, VCEK or VLEK: each in its role, valid now, root trusted"),
        ("crl", "(2) the root's revocation list"),
        ("key_kind", "(3) the report names the kind of key that the certificate is for"),
        ("cpuid", "(4) CPUID is of the product line that the key is certified for"),
        ("signature", "(5) of the report"),
        ("reported_tcb", "(6) the key is that of the reported TCB"),
        ("chip_id", "(7) the key is that of this chip"),
        ("relations", "(8) reported <= committed <= current, launch <= current"),
    ),
    "nitro": (
        ("format", "(1) every field within its limits"),
        ("chain", "(2), (3) to a trusted root, whatever the document says it is; valid now"),
        ("signature", "(4) ES384 by the leaf"),
        ("timestamp", "(5) made while the certificate was valid"),
    ),
    "psa": (
        ("format", "(1) COSE_Sign1 or COSE_Mac0"),
        ("signature", "(2) by the enrolled key and its algorithm"),
        ("claims", "(3) exactly those of the profile"),
        ("device", "(4) implementation id and instance id are the enrolled ones"),
        ("lifecycle", "(5) a state in which the key is the platform's own"),
    ),
    "cca": (
        ("format", "(1) a platform and a realm token"),
        ("signature", "(2) of the platform token, by the enrolled key and its algorithm"),
        ("device", "(3) implementation id, instance id, lifecycle"),
        ("realm_key", "(4) the platform's nonce is the hash of the realm's key"),
        ("realm_signature", "(5) of the realm token, ES384"),
    ),
    "tpm": (
        ("format", "(1) a quote, a signature, registers"),
        ("key", "(2) the attestation key is one that there is a reason to believe in"),
        ("signature", "(3) of what the TPM says"),
        ("type", "(4) magic and type of a quote"),
        ("registers", "(5) exactly those selected, by index, and their digest"),
        ("event_log", "(6) replayed, it leads to the firmware's registers"),
    ),
    "keystone": (
        ("format", "(1) lengths"),
        ("test_key", "(2) not the published test key"),
        ("device", "(3) the device key is endorsed or enrolled"),
        ("sm_signature", "(4) the device vouches for the security monitor"),
        ("sm_hash", "(5) that security monitor is a known one"),
        ("signature", "(6) the security monitor vouches for enclave and data"),
    ),
    "trustzone": (
        ("format", "(1) one command, one length of nonce"),
        ("key", "(2) the attestation key is endorsed or enrolled"),
        ("signature", "(3) of nonce and memory hash"),
    ),
    "sancus": (
        ("format", "(1) lengths, and a layout that the hardware would take"),
        ("key", "(2) the vendor's key of this node, which the verifier holds"),
        ("mac", "(3), (4) by the key that follows from exactly this text and layout"),
    ),
}
# Steps at which only endorsements are read: what is malformed there, no attester can mend.
_READ_THERE: Final = {
    "sgx": ("crl", "tcb_info", "qe_identity"),
    "tdx": ("crl", "tcb_info", "qe_identity"),
    "snp": ("chain", "crl"),
    "tpm": ("key",),
    "trustzone": ("key",),
    "sancus": ("key",),
}
_HINT: Final = "ask the attester for new evidence, and find out who changed this one"
_MEND: Final = "the fault is in the endorsements, not in the evidence: fetch that one anew"
_MISSING: Final = "get what is missing, then ask again"
_DEFAULT: Final = ((UNTRUSTED, "its verifier says so"),)


def performed(claims: Claims) -> Iterator[Check]:
    """The checks behind ``claims``."""
    return _made(STEPS.get(claims.tee, _DEFAULT), claims.skipped)


def _made(steps: tuple[tuple[str, str], ...], without: Mapping[str, str]) -> Iterator[Check]:
    for rule, what in steps:
        yield skipped(rule, without[rule]) if rule in without else passed(rule, what)


def _hint(tee: str, error: BrochError) -> str:
    if isinstance(error, UndecidedError):
        return _MISSING
    is_endorsement = error.step in _READ_THERE.get(tee, ()) or error.place in ITEMS.get(tee, {})
    return _MEND if is_endorsement and isinstance(error, MalformedError) else _HINT


def stopped(tee: str, error: BrochError) -> Iterator[Check]:
    """The checks of a verification that ``error`` ended: those made, the failed, those not reached.

    An error without a step came before the first one.
    """
    steps = STEPS.get(tee, ())
    hint = error.hint or _hint(tee, error)
    rules = [rule for rule, _ in steps]
    if error.step in rules:
        at = rules.index(error.step)
        yield from _made(steps[:at], error.skipped)
        rule, what = steps[at]
        number = what[: what.rindex(") ") + 1]
        yield failed(rule, f"{number} {error}", hint)
        steps = steps[at + 1 :]
    else:
        named = next((name for kind, name in _STOPS.items() if isinstance(error, kind)), UNTRUSTED)
        rule = error.step or named
        yield failed(rule, str(error), hint)
    for later, _ in steps:
        yield skipped(later, f"not reached: verification ended at {rule}")
