"""One test a rule, and that no message asks for a weaker policy."""

import dataclasses

import pytest

from broch.attest import AppraisalError, Policy, appraise
from broch.errors import PolicyError
from broch.tee.contract import Claims, Measurement

EXPECTED = Measurement(tee="sgx", value=bytes(32), signer=b"s" * 32)
GOOD = Claims(
    tee="sgx",
    measurement=bytes(32),
    signer=b"s" * 32,
    report_data=bytes(64),
    debug=False,
    emulated=False,
)


def test_real_production_evidence_of_the_built_image_is_accepted() -> None:
    verdict = appraise(GOOD, Policy(), EXPECTED)
    assert [check.rule for check in verdict.checks] == [
        "measurement",
        "signer",
        "emulated",
        "debug",
    ]
    assert all(check.passed for check in verdict.checks)
    assert str(verdict) == "accepted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tee": "keystone"}, "evidence of keystone, expected sgx"),
        ({"measurement": b"\1" * 32}, f"measurement {'01' * 32}, expected {'00' * 32}"),
        ({"signer": b"t" * 32}, f"signed by {'74' * 32}, expected {'73' * 32}"),
        ({"signer": None}, f"signed by nobody, expected {'73' * 32}"),
        ({"emulated": True}, "emulated SGX device; the policy accepts real devices only"),
        (
            {"debug": True},
            "debug enclave, whose host can read it; the policy accepts production enclaves only",
        ),
    ],
)
def test_each_rule_refuses(change: dict[str, object], message: str) -> None:
    claims = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    with pytest.raises(AppraisalError) as caught:
        appraise(claims, Policy(), EXPECTED, place="controller")
    assert str(caught.value) == f"controller: {message}"
    assert [check.passed for check in caught.value.checks].count(False) == 1
    assert isinstance(caught.value, PolicyError)
    assert caught.value.hint
    assert "policy" not in caught.value.hint
    assert "true" not in caught.value.hint


def test_a_policy_may_accept_emulated_and_debug() -> None:
    claims = dataclasses.replace(GOOD, emulated=True, debug=True)
    verdict = appraise(claims, Policy(emulated=True, debug=True), EXPECTED)
    assert "emulated" in verdict.checks[2].why
    assert "debug" in verdict.checks[3].why


def test_a_tee_without_signers_is_judged_by_measurement() -> None:
    expected = Measurement(tee="keystone", value=bytes(64))
    claims = dataclasses.replace(GOOD, tee="keystone", measurement=bytes(64), signer=None)
    assert appraise(claims, Policy(), expected).checks[1].passed
