"""The result: is it authentic, is it acceptable, and everything that was looked at on the way.

Two questions, apart: a verifier's ``verify`` answers the first, :func:`.appraise.check` the second.
:func:`examine` asks both and never raises for what is wrong with evidence, endorsements or the
outcome: that is in the :class:`Result`, with the error that stands for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from broch.attest.appraise import check
from broch.attest.checks import AppraisalError, Check, Outcome, raise_first_failure
from broch.attest.formats import Evidence
from broch.attest.policy import Policy
from broch.attest.steps import performed, stopped
from broch.attest.view import claims_view
from broch.errors import BrochError, MalformedError, PolicyError, UndecidedError, UntrustedError
from broch.tee import registry
from broch.tee.contract import Claims, Endorsements

Source = Callable[[str, bytes], Endorsements]  # (TEE, evidence) -> endorsements
_NO_LIST: Final = "unsafe_no_crl"
_TAKES_NO_LIST: Final = ("snp", "tpm")


class Status(StrEnum):
    """How it ended. Only ACCEPTED is good; ``exit_code`` of the error says the same."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # authentic, not acceptable
    UNTRUSTED = "untrusted"  # not authentic
    MALFORMED = "malformed"
    UNDECIDED = "undecided"  # an endorsement is missing


_STATUS: Final[Mapping[type[BrochError], Status]] = {
    MalformedError: Status.MALFORMED,
    UntrustedError: Status.UNTRUSTED,
    PolicyError: Status.REFUSED,
    UndecidedError: Status.UNDECIDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of evidence: there is one, but for Azure, where hardware vouches for a vTPM."""

    tee: str
    claims: Claims | None  # None: not authentic
    checks: tuple[Check, ...]
    error: BrochError | None = field(default=None, repr=False)  # what ended its verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found, at which time, under which policy."""

    status: Status
    parts: tuple[Part, ...]
    error: BrochError | None = field(repr=False)  # None if accepted
    at: datetime
    nonce: bytes | None
    policy: Policy = field(repr=False)
    digest: str  # SHA-256 of the evidence, hex

    @property
    def exit_code(self) -> int:
        """What a command ends with."""
        return self.error.exit_code if self.error is not None else 0

    @property
    def hint(self) -> str | None:
        """What to do about the error; None if accepted."""
        if self.error is None or self.error.hint is not None:
            return None if self.error is None else self.error.hint
        failure = self.failure
        return None if failure is None else failure.hint

    @property
    def failure(self) -> Check | None:
        """What the error is about: a step of a verification, or a rule; None if accepted."""
        parts = [part for part in self.parts if part.error is not None] or self.parts
        checks = (item for part in parts for item in part.checks)
        return next((item for item in checks if item.outcome is Outcome.FAILED), None)

    @property
    def emulated(self) -> bool:
        """Whether any part is of a device that only pretends to be hardware."""
        return any(part.claims is not None and part.claims.emulated for part in self.parts)

    def raise_if_bad(self) -> None:
        """Raise the error, if there is one.

        Raises:
            BrochError: not accepted.
        """
        if self.error is not None:
            raise self.error

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json`` and the server."""
        from broch.attest.explain import explain
        from broch.attest.vector import vector

        return {
            "status": self.status.value,
            "exit_code": self.exit_code,
            "tee": [part.tee for part in self.parts],
            "emulated": self.emulated,
            "at": self.at.isoformat(),
            "nonce": self.nonce.hex() if self.nonce is not None else None,
            "policy": self.policy.name,
            "relaxations": list(self.policy.relaxations()),
            "evidence_sha256": self.digest,
            "error": self._error(),
            "parts": [
                {
                    "tee": part.tee,
                    "claims": None if part.claims is None else claims_view(part.claims),
                    "trustworthiness": vector(part, self.policy).names(),
                    "checks": [
                        {"rule": item.rule, "outcome": item.outcome.value, "why": item.why}
                        for item in part.checks
                    ],
                }
                for part in self.parts
            ],
            "explanation": list(explain(self)),
        }

    def _error(self) -> dict[str, Any] | None:
        if self.error is None:
            return None
        return {
            "code": self.error.code,
            "check": None if self.failure is None else self.failure.rule,
            "message": self.error.message,
            "hint": self.hint,
        }


def examine(
    evidence: Evidence, source: Source, policy: Policy, *, at: datetime, nonce: bytes | None
) -> Result:
    """Verify and appraise.

    Args:
        evidence: from :func:`.formats.read`.
        source: gives endorsements, as :func:`broch.attest.endorsements.load` does for a folder.
        policy: what is accepted.
        at: when; with a time zone.
        nonce: the challenge that was sent, 8 to 1024 bytes, or None.

    Raises:
        UsageError: a wrong call: no time zone, a nonce of another size, a folder that is not there.
    """
    parts: list[Part] = []
    error: BrochError | None = None
    try:
        _examine(evidence, source, policy, at, nonce, parts)
        for part in parts:
            raise_first_failure(part.checks)
    except (MalformedError, UntrustedError, PolicyError, UndecidedError) as exc:
        error = exc
    if error is not None and not isinstance(error, AppraisalError):
        tee = evidence.tee if not parts else "tpm"
        parts.append(Part(tee=tee, claims=None, checks=tuple(stopped(tee, error)), error=error))
    return Result(
        status=_status(error),
        parts=tuple(parts),
        error=error,
        at=at,
        nonce=nonce,
        policy=policy,
        digest=evidence.digest(),
    )


def _status(error: BrochError | None) -> Status:
    if error is None:
        return Status.ACCEPTED
    return next(status for kind, status in _STATUS.items() if isinstance(error, kind))


def _examine(
    evidence: Evidence,
    source: Source,
    policy: Policy,
    at: datetime,
    nonce: bytes | None,
    parts: list[Part],
) -> None:
    endorsements = _endorsements(evidence, source, policy)
    claims = registry.find_verifier(evidence.tee).verify(evidence.data, endorsements, at=at)
    if evidence.hcl is None:
        rules = check(claims, policy, at=at, nonce=nonce)
        checks = (*performed(claims), *rules)
        parts.append(Part(tee=claims.tee, claims=claims, checks=checks))
        return
    from broch.attest.azure import examine_vtpm

    # One by one: the hardware's part is to be told also if what follows is not authentic.
    for part in examine_vtpm(evidence, claims, policy, at=at, nonce=nonce):
        parts.append(part)


def _endorsements(evidence: Evidence, source: Source, policy: Policy) -> Endorsements:
    """What the caller has, and below it what came along with the evidence."""
    given = source(evidence.tee, evidence.data)
    items = {**evidence.items, **given.items}
    # Only a policy can say that going without a list is all right, never a file or a sender.
    items.pop(_NO_LIST, None)
    if policy.allow_no_revocation and evidence.tee in _TAKES_NO_LIST and "crl" not in items:
        items[_NO_LIST] = b""
    return replace(given, items=items)
