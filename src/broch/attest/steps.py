"""What the verifiers have checked by the time that they return claims.

A verifier raises at the first check that fails, so claims mean that all of them hold. This is the
list of them, in order, for the table in a result; the numbers are those in ``tee/*/verify.py``.
What some evidence does without is found in its claims, and shown as skipped.
"""

from collections.abc import Iterator
from typing import Final

from broch.attest.checks import Check, failed, passed, skipped
from broch.errors import BrochError, MalformedError, UndecidedError
from broch.tee.contract import Claims

#: Rules of a verification that failed.
MALFORMED: Final = "well_formed"
UNDECIDED: Final = "endorsements"
UNTRUSTED: Final = "authentic"
_STOPS: Final = {MalformedError: MALFORMED, UndecidedError: UNDECIDED}
_DCAP: Final = (
    ("format", "(1) header, key type, QE vendor, lengths, certification data"),
    ("chain", "(2) PCK, PCK CA, root: each in its role, signed, valid now, root pinned"),
    ("crl", "(3) both revocation lists: their issuers' own, valid now, listing none of the chain"),
    ("tcb_info", "(4) signed as raw bytes by TCB Signing, valid now, for this FMSPC and PCE-ID"),
    ("qe_identity", "(5) signed as raw bytes by TCB Signing, valid now, that of this QE"),
    ("qe_report", "(6) signed by the PCK key, binds the attestation key, QE not in debug"),
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
        ("chain", "(2) ARK, ASK or ASVK, VCEK or VLEK: each in its role, valid now, root pinned"),
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
        ("chain", "(2), (3) to the pinned root, whatever the document says; valid now"),
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
_HINT: Final = "ask the attester for new evidence, and find out who changed this one"
_MISSING: Final = "get what is missing, then ask again"
_DEFAULT: Final = ((UNTRUSTED, "its verifier says so"),)


def performed(claims: Claims) -> Iterator[Check]:
    """The checks behind ``claims``."""
    for rule, what in STEPS.get(claims.tee, _DEFAULT):
        why = _not_made(claims, rule)
        yield passed(rule, what) if why is None else skipped(rule, why)


def _not_made(claims: Claims, rule: str) -> str | None:
    if claims.tee != "snp":
        return None
    details = claims.details
    if rule == "crl" and details.get("revocation") != "checked":
        return "no list was given"
    if rule == "chip_id" and details.get("signing_key") == "VLEK":
        return "the key is a provider's (VLEK), of no one chip"
    if rule == "chip_id" and details.get("masked"):
        return "the host has masked the chip's identity"
    if rule == "cpuid" and details.get("report_version") == "2":
        return "reports of version 2 do not say"
    return None


def stopped(tee: str, error: BrochError) -> Iterator[Check]:
    """The checks of a verification that failed: at one of the steps, which ended it."""
    rule = next((name for kind, name in _STOPS.items() if isinstance(error, kind)), UNTRUSTED)
    yield failed(rule, str(error), error.hint or (_MISSING if rule == UNDECIDED else _HINT))
    for rule, _ in STEPS.get(tee, ()):
        yield skipped(rule, "not told: verification ends at the first failure")
