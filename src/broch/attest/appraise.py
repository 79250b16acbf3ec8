"""Appraisal: whether verified evidence is acceptable (RFC 9334, section 8.5).

``verify`` of a TEE has decided that the evidence is authentic; :func:`appraise` compares what it
says with what the policy accepts, rule by rule, and keeps a record of each. All rules are looked
at, also after one has failed: whoever mends something wants to know the rest.

    kind, measurement, signer, product, version, emulated, debug, nonce, revocation    every TEE's
    tcb_status, advisories, ...                                       its own: :mod:`.rules_intel`,
                                            :mod:`.rules_amd`, :mod:`.rules_arm`, :mod:`.rules_tpm`
    assertion NAME                                                       :mod:`.assertions`
"""

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Final

from broch.attest.checks import (
    Check,
    compared,
    failed,
    one_of,
    passed,
    raise_first_failure,
    skipped,
)
from broch.attest.policy import Policy
from broch.attest.reference import Reference
from broch.errors import UsageError
from broch.tee.contract import Claims

TITLES: Final = {
    "sgx": "SGX",
    "trustzone": "TrustZone",
    "keystone": "Keystone",
    "sancus": "Sancus",
    "tdx": "TDX",
    "snp": "SEV-SNP",
    "nitro": "Nitro",
    "psa": "PSA",
    "cca": "CCA",
    "tpm": "TPM",
}
MIN_NONCE: Final = 8  # bytes (EAT, RFC 9711, section 4.1)
MAX_NONCE: Final = 1024
# TEE -> module with its rules; imported when there is something to appraise.
_RULES: Final = {
    "sgx": "rules_intel",
    "tdx": "rules_intel",
    "snp": "rules_amd",
    "nitro": "rules_amd",
    "psa": "rules_arm",
    "cca": "rules_arm",
    "tpm": "rules_tpm",
}
Rules = Callable[[Claims, Policy, Reference, datetime], Iterator[Check]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The evidence was accepted. Only :func:`appraise` makes one."""

    claims: Claims
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        return "accepted"


def appraise(
    claims: Claims,
    policy: Policy,
    *,
    at: datetime,
    nonce: bytes | None,
    place: str | None = None,
) -> Verdict:
    """Accept ``claims``, or say why not.

    Args:
        claims: what the evidence says, verified.
        policy: what is accepted.
        at: when; with a time zone.
        nonce: the challenge that the evidence must answer, 8 to 1024 bytes; None if there was none.
        place: whose evidence it is, for the message.

    Raises:
        AppraisalError: a rule does not hold; it has all of them.
        UsageError: no time zone, or a nonce of another size.
    """
    checks = tuple(check(claims, policy, at=at, nonce=nonce))
    raise_first_failure(checks, place)
    return Verdict(claims=claims, checks=checks)


def check(claims: Claims, policy: Policy, *, at: datetime, nonce: bytes | None) -> Iterator[Check]:
    """Every rule, without a verdict.

    Raises:
        UsageError: no time zone, or a nonce of another size.
    """
    if at.tzinfo is None:
        raise UsageError("the time of appraisal has no time zone")
    if nonce is not None and not MIN_NONCE <= len(nonce) <= MAX_NONCE:
        raise UsageError(f"a nonce of {len(nonce)} bytes, expected {MIN_NONCE} to {MAX_NONCE}")
    title = TITLES.get(claims.tee, claims.tee)
    reference = policy.references.get(claims.tee)
    if reference is None:
        known = ", ".join(policy.references) or "none"
        why = f"evidence of {claims.tee}, expected {known}: the policy has no other references"
        yield failed("kind", why, _OTHER_CODE)
        reference = Reference()
    else:
        yield passed("kind", f"the policy has reference values for {title}")
    yield from _identity(claims, reference)
    yield _emulated(claims, policy, title)
    yield _debug(claims, policy)
    yield _nonce(claims, policy, nonce)
    yield _revocation(claims, policy)
    if claims.tee in _RULES:
        module = import_module(f"broch.attest.{_RULES[claims.tee]}")
        rules: Rules = module.rules
        yield from rules(claims, policy, reference, at)
    if policy.assertions:
        from broch.attest.assertions import evaluate

        yield from evaluate(claims, policy.assertions, at)


_OTHER_CODE: Final = (
    "other code runs there than was built: load the image again, and find out who did it"
)


def _identity(claims: Claims, reference: Reference) -> Iterator[Check]:
    if reference.measurements:
        found = claims.measurement
        yield one_of("measurement", "measurement", found, reference.measurements, hint=_OTHER_CODE)
    elif named_by := reference.named_by():
        yield skipped("measurement", f"the policy knows the code by {named_by}")
    else:
        why = "the policy does not say which code is accepted"
        yield failed("measurement", why, "add the measurement of the code that you trust")
    yield from _signer(claims, reference)
    if reference.product_ids:
        wanted = ", ".join(map(str, sorted(reference.product_ids)))
        why = f"product id {claims.product_id}, expected {wanted}"
        good = claims.product_id in reference.product_ids
        hint = "sign the image with the expected product id"
        yield compared("product", why, good, hint)
    if reference.min_version:
        why = f"version {claims.version}, expected {reference.min_version} or newer"
        good = claims.version >= reference.min_version
        hint = "update the enclave: older versions are no longer accepted"
        yield compared("version", why, good, hint)


def _signer(claims: Claims, reference: Reference) -> Iterator[Check]:
    if not reference.signers:
        yield skipped("signer", "the policy asks for no signer")
        return
    if claims.signer is None:
        wanted = ", ".join(value.hex() for value in sorted(reference.signers))
        why = f"signed by nobody, expected {wanted}"
        yield failed("signer", why, _SIGN)
        return
    yield one_of("signer", "signed by", claims.signer, reference.signers, hint=_SIGN)


_SIGN: Final = "sign the image with the expected key"


def _emulated(claims: Claims, policy: Policy, title: str) -> Check:
    if not claims.emulated:
        return passed("emulated", f"real {title} device")
    if policy.emulated:
        return passed("emulated", f"emulated {title} device; the policy accepts it")
    why = f"emulated {title} device; the policy accepts real devices only"
    return failed("emulated", why, f"run it on a machine with {title}")


def _debug(claims: Claims, policy: Policy) -> Check:
    if not claims.debug:
        return passed("debug", "production enclave")
    if policy.allow_debug:
        return passed("debug", "debug enclave; the policy accepts it")
    why = "debug enclave, whose host can read it; the policy accepts production enclaves only"
    return failed("debug", why, "build the image for production")


def _nonce(claims: Claims, policy: Policy, nonce: bytes | None) -> Check:
    if nonce is None:
        if policy.allow_no_nonce:
            why = "no challenge was sent: the evidence may be a recording; the policy accepts it"
            return skipped("nonce", why)
        why = "no nonce was given, so the evidence may be a recording"
        return failed("nonce", why, "send the attester a fresh nonce and give it here")
    found = answered(claims)
    # Fields of a fixed size are filled up with zeros; these two have the size of the challenge.
    wanted = nonce if claims.tee in ("nitro", "tpm") else nonce.ljust(len(found), b"\0")
    if hmac.compare_digest(wanted, found):
        return passed("nonce", f"answers the challenge of {len(nonce)} bytes")
    why = "the evidence does not answer this challenge: it is old, or another's"
    return failed("nonce", why, "ask the attester for evidence over the nonce that you sent")


def answered(claims: Claims) -> bytes:
    """The challenge that evidence answers: its own field where there is one, else report data."""
    own: object = getattr(claims, "nonce", claims.report_data)
    return own if isinstance(own, bytes) else b""


# Verification without these lists is not possible.
_LISTS: Final = dict.fromkeys(("sgx", "tdx"), "the root's and the PCK CA's lists were checked")
_NO_LISTS: Final = {
    "nitro": "AWS publishes no list for its certificates, which live for three hours",
    **dict.fromkeys(("psa", "cca", "sancus"), "the key was enrolled, and has no certificate"),
}


def _revocation(claims: Claims, policy: Policy) -> Check:
    if claims.tee in _LISTS:
        return passed("revocation", _LISTS[claims.tee])
    state = claims.details.get("revocation")
    if claims.tee == "tpm" and claims.details.get("endorsed_by") != "ak_certificate":
        return skipped("revocation", "the key has no certificate")
    if state is None:
        return skipped("revocation", _NO_LISTS.get(claims.tee, "this evidence has no certificates"))
    if state == "checked":
        return passed("revocation", "the revocation list was checked")
    if policy.allow_no_revocation:
        return skipped("revocation", "no revocation list was checked; the policy accepts it")
    why = "no revocation list was checked"
    return failed("revocation", why, "give the issuer's current revocation list (crl)")
