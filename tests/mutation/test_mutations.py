"""The mutation suite: sound evidence in which one thing is broken, the verdict and the check.

Each mutation changes one signed or endorsed field, one certificate's role, one date or one entry of
a revocation list; all else stays sound, and where it can be, is signed over the change. What must
come of it is written beside it: the class of the error, the step of the verification that fails and
what the message says, or, for what is a finding and no error, the claim that shows it.
"""

import pickle
import re
from functools import cache

import pytest

from broch.attest.steps import STEPS
from broch.errors import BrochError
from broch.tee import registry

from . import amd, intel, ours, tcg
from .case import Mutation
from .suites import SOUND, SUITES

# Nothing ends a verification there: what they find is in the claims.
FINDINGS = {"sgx": {"tcb_level"}, "tdx": {"tcb_level"}}
LEAST = {
    "sgx": 230,
    "tdx": 150,
    "snp": 250,
    "nitro": 140,
    "psa": 95,
    "cca": 145,
    "tpm": 150,
    "keystone": 60,
    "trustzone": 48,
    "sancus": 40,
}


@cache
def mutations(suite: str) -> tuple[Mutation, ...]:
    return tuple(SUITES[suite]())


@pytest.mark.parametrize("suite", SUITES)
def test_every_mutation(suite: str) -> None:
    """In one test a kind, since there are some thousand: all that go wrong are listed."""
    wrong: list[str] = []
    names: set[str] = set()
    for mutation in mutations(suite):
        assert mutation.name not in names, f"{mutation.name} comes twice"
        names.add(mutation.name)
        wrong += judge(mutation)
    assert not wrong, "\n".join(wrong)
    assert len(names) >= LEAST[suite], f"{len(names)} mutations: the suite has shrunk"


def judge(mutation: Mutation) -> list[str]:
    if mutation.error is None:
        try:
            claims = mutation.run()
        except BrochError as exc:
            return [f"{mutation.name}: {type(exc).__name__}: {exc}; expected to be believed"]
        shown = mutation.shows(claims)
        return [] if shown else [f"{mutation.name}: the claims do not show it: {claims.details}"]
    if not mutation.check and " byte " not in mutation.name:
        return [f"{mutation.name}: it is not said which check fails"]
    try:
        claims = mutation.run()
    except BrochError as exc:
        at_step = mutation.step and re.fullmatch(mutation.step, exc.step or "")
        if at_step and isinstance(exc, mutation.error) and re.search(mutation.check, str(exc)):
            return []
        found = f"{type(exc).__name__} at {exc.step}: {exc}"
        wanted = f"{mutation.error} at {mutation.step or '?'}, {mutation.check!r}"
        return [f"{mutation.name}: {found}; expected {wanted}"]
    return [f"{mutation.name}: believed: {claims.details}"]


@pytest.mark.parametrize("suite", SUITES)
def test_the_same_without_a_change_is_believed(suite: str) -> None:
    """Otherwise a suite in which everything fails for another reason would pass."""
    sound = SOUND[suite]()
    assert sound.error is None
    claims = sound.run()
    assert claims.tee == suite
    assert pickle.loads(pickle.dumps(claims)) == claims, "claims go to other processes and back"


@pytest.mark.parametrize("suite", SUITES)
def test_every_step_is_seen_to_fail(suite: str) -> None:
    """And no other: the table of steps and the verifier name the same."""
    steps = {rule for rule, _ in STEPS[suite]}
    broken = (mutation for mutation in mutations(suite) if mutation.error is not None)
    found = {mutation.step for mutation in broken if "|" not in mutation.step}
    assert found == steps - FINDINGS.get(suite, set())


def test_every_kind_of_evidence_has_a_suite() -> None:
    assert set(SUITES) == set(SOUND) == set(LEAST) == set(registry.verifier_names()) == set(STEPS)


def test_no_field_is_left_out() -> None:
    """Of structures whose fields are named in the code: a new one needs a verdict."""
    found = {mutation.name for suite in SUITES for mutation in mutations(suite)}
    for place, slots in {**intel.SLOTS, **amd.SLOTS, **tcg.SLOTS, **ours.SLOTS}.items():
        missing = {name for name in slots if f"{place} {name}" not in found}
        assert not missing, f"{place}: {missing}"
