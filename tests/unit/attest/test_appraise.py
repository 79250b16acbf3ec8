"""One test a rule, and that no message asks for a weaker policy."""

import dataclasses
from datetime import UTC, datetime
from typing import Final

import pytest

from broch.attest import AppraisalError, Policy, Verdict, appraise
from broch.attest.checks import Outcome
from broch.attest.reference import Reference
from broch.errors import PolicyError, UsageError
from broch.tee.contract import Claims, Measurement

AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
NONCE: Final = b"n" * 32
EXPECTED: Final = Measurement(tee="keystone", value=bytes(64), signer=b"s" * 32)
GOOD: Final = Claims(
    tee="keystone",
    measurement=bytes(64),
    signer=b"s" * 32,
    report_data=NONCE + bytes(32),
    debug=False,
    emulated=False,
)
STRICT: Final = Policy()


def judge(claims: Claims, policy: Policy = STRICT, expected: Measurement = EXPECTED) -> Verdict:
    return appraise(claims, policy.for_image(expected), at=AT, nonce=NONCE, place="controller")


def test_real_production_evidence_of_the_built_image_is_accepted() -> None:
    verdict = judge(GOOD)
    assert {check.rule: check.outcome for check in verdict.checks} == {
        "kind": Outcome.PASSED,
        "measurement": Outcome.PASSED,
        "signer": Outcome.PASSED,
        "emulated": Outcome.PASSED,
        "debug": Outcome.PASSED,
        "nonce": Outcome.PASSED,
        "revocation": Outcome.SKIPPED,
    }
    assert str(verdict) == "accepted"


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"tee": "abacus"}, "kind", "evidence of abacus, expected keystone: "),
        (
            {"measurement": b"\1" * 64},
            "measurement",
            f"measurement {'01' * 64}, expected {'00' * 64}",
        ),
        ({"signer": b"t" * 32}, "signer", f"signed by {'74' * 32}, expected {'73' * 32}"),
        ({"signer": None}, "signer", f"signed by nobody, expected {'73' * 32}"),
        (
            {"emulated": True},
            "emulated",
            "emulated Keystone device; the policy accepts real devices only",
        ),
        (
            {"debug": True},
            "debug",
            "debug enclave, whose host can read it; the policy accepts production enclaves only",
        ),
        ({"report_data": bytes(64)}, "nonce", "the evidence does not answer this challenge"),
        ({"report_data": NONCE + b"x"}, "nonce", "the evidence does not answer this challenge"),
        ({"report_data": NONCE[:-1]}, "nonce", "the evidence does not answer this challenge"),
        ({"report_data": b""}, "nonce", "the evidence does not answer this challenge"),
        ({"details": {"revocation": "not checked"}}, "revocation", "no revocation list was"),
    ],
)
def test_each_rule_refuses(change: dict[str, object], rule: str, message: str) -> None:
    claims = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    with pytest.raises(AppraisalError) as caught:
        judge(claims)
    assert str(caught.value).startswith(f"controller: {message}")
    bad = [check.rule for check in caught.value.checks if check.outcome is Outcome.FAILED]
    assert bad[0] == rule
    assert bad[1:] == (["measurement"] if rule == "kind" else [])
    assert isinstance(caught.value, PolicyError)
    assert caught.value.hint
    assert "policy" not in caught.value.hint
    assert "true" not in caught.value.hint
    assert "allow" not in caught.value.hint


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro", "psa", "cca", "tpm"])
def test_claims_without_what_their_hardware_says_are_refused(tee: str) -> None:
    """Only the verifier of that hardware makes claims that can be accepted."""
    claims = dataclasses.replace(GOOD, tee=tee)
    with pytest.raises(AppraisalError) as caught:
        judge(claims, expected=dataclasses.replace(EXPECTED, tee=tee))
    bad = [check.why for check in caught.value.checks if check.outcome is Outcome.FAILED]
    assert any(why.startswith(f"claims of {tee} without") for why in bad)


def test_a_policy_may_accept_emulated_and_debug() -> None:
    claims = dataclasses.replace(GOOD, emulated=True, debug=True)
    verdict = judge(claims, Policy(emulated=True, allow_debug=True))
    why = {check.rule: check.why for check in verdict.checks}
    assert "the policy accepts it" in why["emulated"]
    assert "the policy accepts it" in why["debug"]


def test_without_a_signer_the_measurement_decides() -> None:
    expected = Measurement(tee="keystone", value=bytes(64))
    verdict = judge(dataclasses.replace(GOOD, signer=None), expected=expected)
    assert {check.rule: check.outcome for check in verdict.checks}["signer"] is Outcome.SKIPPED


def test_an_empty_policy_accepts_nothing() -> None:
    for policy in (Policy(), Policy(references={"keystone": Reference()})):
        with pytest.raises(AppraisalError):
            appraise(GOOD, policy, at=AT, nonce=NONCE)


def test_without_a_nonce_it_is_refused_unless_by_name() -> None:
    with pytest.raises(AppraisalError, match="may be a recording"):
        appraise(GOOD, Policy().for_image(EXPECTED), at=AT, nonce=None)
    lax = Policy(allow_no_nonce=True).for_image(EXPECTED)
    verdict = appraise(GOOD, lax, at=AT, nonce=None)
    assert [c.outcome for c in verdict.checks if c.rule == "nonce"] == [Outcome.SKIPPED]
    # It is the absence that is allowed, not a wrong answer.
    with pytest.raises(AppraisalError, match="does not answer"):
        appraise(GOOD, lax, at=AT, nonce=b"m" * 32)


@pytest.mark.parametrize("size", [0, 7, 1025])
def test_nonces_that_are_none(size: int) -> None:
    with pytest.raises(UsageError, match=f"nonce of {size} bytes"):
        appraise(GOOD, Policy().for_image(EXPECTED), at=AT, nonce=bytes(size))


def test_a_time_without_a_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        appraise(GOOD, Policy().for_image(EXPECTED), at=AT.replace(tzinfo=None), nonce=NONCE)


def test_all_failures_are_told() -> None:
    claims = dataclasses.replace(GOOD, debug=True, emulated=True)
    with pytest.raises(AppraisalError, match=r"emulated.*\(and 1 more\)"):
        judge(claims)


def test_relaxations_have_names() -> None:
    lax = Policy(emulated=True, grace_days=3, allow_no_nonce=True)
    assert list(lax.relaxations()) == ["emulated", "allow_no_nonce", "grace_days = 3"]
    assert not list(Policy().relaxations())
