"""A check: one rule, how the evidence stands to it, and why. A result is a table of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from broch.errors import PolicyError


class Outcome(StrEnum):
    """How evidence stands to a rule. Skipped is not passed: ``why`` says what was not looked at."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule, and how the evidence stands to it."""

    rule: str  # "measurement", "tcb_status", "chain": docs/verify.md lists them
    outcome: Outcome
    why: str  # for people: what was expected, what came
    hint: str | None = None  # what to do where it failed; never to weaken security

    @property
    def passed(self) -> bool:
        """Whether it was performed and holds."""
        return self.outcome is Outcome.PASSED


def passed(rule: str, why: str) -> Check:
    """The rule was checked and holds."""
    return Check(rule=rule, outcome=Outcome.PASSED, why=why)


def failed(rule: str, why: str, hint: str) -> Check:
    """The rule was checked and does not hold."""
    return Check(rule=rule, outcome=Outcome.FAILED, why=why, hint=hint)


def compared(rule: str, why: str, good: bool, hint: str) -> Check:
    """The rule was checked; ``why`` says what came and what was expected, so it fits both ways."""
    return passed(rule, why) if good else failed(rule, why, hint)


def skipped(rule: str, why: str) -> Check:
    """The rule was not checked."""
    return Check(rule=rule, outcome=Outcome.SKIPPED, why=why)


class AppraisalError(PolicyError):
    """Authentic, and not acceptable; ``checks`` has every rule, those that passed too."""

    def __init__(
        self, message: str, checks: Sequence[Check], *, place: str | None, hint: str | None
    ) -> None:
        super().__init__(message, place=place, hint=hint)
        self.checks = tuple(checks)


def raise_first_failure(checks: Sequence[Check], place: str | None = None) -> None:
    """Refuse if a check failed; its reason is the message, the number of others is added.

    Raises:
        AppraisalError: a check failed.
    """
    bad = [check for check in checks if check.outcome is Outcome.FAILED]
    if not bad:
        return
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    raise AppraisalError(bad[0].why + more, checks, place=place, hint=bad[0].hint)


def one_of(rule: str, what: str, found: bytes, accepted: Iterable[bytes], *, hint: str) -> Check:
    """``found`` is among ``accepted``; messages show a lone expected value in full."""
    wanted = sorted(accepted)
    if found in wanted:
        return passed(rule, f"{what} {found.hex()} is accepted")
    if len(wanted) == 1:
        return failed(rule, f"{what} {found.hex()}, expected {wanted[0].hex()}", hint)
    why = f"{what} {found.hex()} is none of the {len(wanted)} that the policy accepts"
    return failed(rule, why, hint)
