"""Assertions: only true is true, and every error refuses and says which."""

import builtins
from typing import Any

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import CASES, failures

from broch.attest import assertions
from broch.attest.checks import Outcome
from broch.attest.result import Status
from broch.attest.view import claims_view
from broch.errors import UsageError


def judge(expression: str, tee: str = "sgx") -> tuple[Outcome, str]:
    case = CASES[tee]()
    result = case.examine(case.policy(assertions={"mine": expression}))
    check = next(
        item for part in result.parts for item in part.checks if item.rule == "assertion mine"
    )
    assert (result.status is Status.ACCEPTED) is (check.outcome is Outcome.PASSED)
    assert failures(result) == ([] if check.passed else ["assertion mine"])
    return check.outcome, check.why


@pytest.mark.parametrize(
    "expression",
    [
        "true",
        "claims.tee == 'sgx' && claims.version == 2 && claims.product_id == 1",
        "claims.sgx.report.isvsvn >= 2",
        "claims.sgx.tcb.status in ['UpToDate']",
        "claims.signer.startsWith('5353')",
        "claims.details.tcb_status == 'UpToDate'",
        "claims.emulated && !claims.debug",
        "size(claims.sgx.tcb.advisories) == 0",
        "at > timestamp('2025-01-01T00:00:00Z')",
        "has(claims.sgx) && !has(claims.tdx)",
    ],
)
def test_what_holds(expression: str) -> None:
    assert judge(expression) == (Outcome.PASSED, expression)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("claims.debug", "assertion 'mine' does not hold: claims.debug"),
        ("false", "does not hold"),
        ("1", "gives int, expected true or false"),
        ("'true'", "gives str, expected true or false"),
        ("null", "gives NoneType"),
        ("claims", "gives dict"),
        ("claims.nothing", "cannot be evaluated: KeyError"),
        ("claims.details.nothing == ''", "cannot be evaluated: KeyError"),
        ("claim.debug == false", "cannot be evaluated: RuntimeError"),
        ("claims.version / 0 == 1", "cannot be evaluated: ZeroDivisionError"),
        ("claims.tee > 3", "cannot be evaluated"),
        ("claims.tee + 1 == ''", "cannot be evaluated: TypeError"),
        ("(", "cannot be evaluated: ValueError"),
        ("", "cannot be evaluated"),
        ("claims.signer.matches('(')", "cannot be evaluated"),
        ("exec('import os')", "cannot be evaluated"),
    ],
)
def test_what_does_not(expression: str, why: str) -> None:
    outcome, said = judge(expression)
    assert outcome is Outcome.FAILED
    assert said.startswith("assertion 'mine' ")
    assert why in said
    assert "\n" not in said


@pytest.mark.parametrize("tee", sorted(CASES))
def test_claims_of_every_kind_can_be_asked(tee: str) -> None:
    assert judge(f"claims.tee == '{tee}' && has(claims.{tee})", tee)[0] is Outcome.PASSED


def test_all_of_them_are_looked_at() -> None:
    case = support.sgx()
    named = {"first": "false", "second": "true", "third": "claims.x"}
    result = case.examine(case.policy(assertions=named))
    assert failures(result) == ["assertion first", "assertion third"]
    assert "and 1 more" in str(result.error)


def test_what_claims_are_made_of() -> None:
    case = support.tdx()
    view = claims_view(case.examine().parts[0].claims)  # type: ignore[arg-type]
    assert view["tdx"]["report"]["mr_td"] == "54" * 48
    assert view["tdx"]["pck"]["ppid"] == "50" * 16
    assert view["tdx"]["module"]["name"] == "TDX_01"

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                walk(item)
        else:
            assert isinstance(value, str | int | None), value

    walk(view)


def test_without_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name == "cel":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="no CEL evaluator") as caught:
        assertions.library()
    assert caught.value.hint == "pip install 'broch[policy]'"
