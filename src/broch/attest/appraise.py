"""Appraisal: whether verified evidence is acceptable (RFC 9334, section 8.5).

``Tee.verify`` has decided that the evidence is authentic; :func:`appraise` compares what it says
with what is expected, rule by rule, and keeps a record of each.
"""

from dataclasses import dataclass

from broch.attest.policy import Policy
from broch.errors import PolicyError
from broch.tee.contract import Claims, Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule, and how the evidence stands to it."""

    rule: str  # "measurement", "signer", "emulated", "debug"
    passed: bool
    why: str  # for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The evidence was accepted. Only :func:`appraise` makes one."""

    claims: Claims
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        return "accepted"


class AppraisalError(PolicyError):
    """Authentic, and not acceptable; ``checks`` has every rule, those that passed too."""

    def __init__(
        self, message: str, checks: tuple[Check, ...], *, place: str | None, hint: str | None
    ) -> None:
        super().__init__(message, place=place, hint=hint)
        self.checks = checks


def appraise(
    claims: Claims, policy: Policy, expected: Measurement, *, place: str | None = None
) -> Verdict:
    """Accept ``claims``, or say why not.

    Args:
        claims: what the evidence says, verified.
        policy: what is accepted.
        expected: the measurement and signer of the image that was built.
        place: whose evidence it is, for the message.

    Raises:
        AppraisalError: the first rule that does not hold.
    """
    found = (
        _measurement(claims, expected),
        _signer(claims, expected),
        _emulated(claims, policy),
        _debug(claims, policy),
    )
    checks = tuple(check for check, _ in found)
    for check, hint in found:
        if not check.passed:
            raise AppraisalError(check.why, checks, place=place, hint=hint)
    return Verdict(claims=claims, checks=checks)


def _measurement(claims: Claims, expected: Measurement) -> tuple[Check, str | None]:
    if claims.tee != expected.tee:
        why = f"evidence of {claims.tee}, expected {expected.tee}"
        return Check(rule="measurement", passed=False, why=why), _OTHER_CODE
    if claims.measurement != expected.value:
        why = f"measurement {claims.measurement.hex()}, expected {expected.value.hex()}"
        return Check(rule="measurement", passed=False, why=why), _OTHER_CODE
    why = f"{expected.value.hex()} is the image that was built"
    return Check(rule="measurement", passed=True, why=why), None


_OTHER_CODE = "other code runs there than was built: load the image again, and find out who did it"


def _signer(claims: Claims, expected: Measurement) -> tuple[Check, str | None]:
    if expected.signer is None:
        why = "this TEE's evidence names no signer"
        return Check(rule="signer", passed=True, why=why), None
    if claims.signer != expected.signer:
        got = claims.signer.hex() if claims.signer is not None else "nobody"
        why = f"signed by {got}, expected {expected.signer.hex()}"
        return Check(rule="signer", passed=False, why=why), "sign the image with the expected key"
    why = f"signed by {expected.signer.hex()}"
    return Check(rule="signer", passed=True, why=why), None


def _emulated(claims: Claims, policy: Policy) -> tuple[Check, str | None]:
    name = _TITLES.get(claims.tee, claims.tee)
    if not claims.emulated:
        return Check(rule="emulated", passed=True, why=f"real {name} device"), None
    if policy.emulated:
        why = f"emulated {name} device; the policy accepts it"
        return Check(rule="emulated", passed=True, why=why), None
    why = f"emulated {name} device; the policy accepts real devices only"
    return Check(rule="emulated", passed=False, why=why), f"run it on a machine with {name}"


_TITLES = {
    "sgx": "SGX",
    "trustzone": "TrustZone",
    "keystone": "Keystone",
    "sancus": "Sancus",
    "tdx": "TDX",
    "snp": "SEV-SNP",
    "nitro": "Nitro",
    "cca": "CCA",
    "tpm": "TPM",
}


def _debug(claims: Claims, policy: Policy) -> tuple[Check, str | None]:
    if not claims.debug:
        return Check(rule="debug", passed=True, why="production enclave"), None
    if policy.debug:
        why = "debug enclave; the policy accepts it"
        return Check(rule="debug", passed=True, why=why), None
    why = "debug enclave, whose host can read it; the policy accepts production enclaves only"
    return Check(rule="debug", passed=False, why=why), "build the image for production"
