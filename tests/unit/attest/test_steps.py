"""The table of a verification that failed: what held, what failed, what was not reached."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.mutation.case import with_items
from tests.unit.attest import support
from tests.unit.attest.support import outcomes

from broch.attest.checks import Outcome
from broch.attest.endorsements import load
from broch.attest.result import Result, Status
from broch.attest.steps import STEPS, stopped
from broch.errors import MalformedError, PolicyError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.snp.product import Product
from broch.tee.snp.report import SIGNED_SIZE

DAY = timedelta(days=1)
PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


def failing_step(result: Result) -> str:
    assert result.failure is not None
    return result.failure.rule


def test_a_quote_whose_tcb_info_is_not_signed() -> None:
    case = support.sgx()
    bent = with_items(case.endorsements, {"tcb_info_signature": bytes(64)})
    result = case.examine(source=lambda tee, data: bent)
    assert outcomes(result) == {
        **dict.fromkeys(("format", "chain", "crl"), PASSED),
        "tcb_info": FAILED,
        **dict.fromkeys(("qe_identity", "qe_report", "signature", "tcb_level"), SKIPPED),
    }
    whys = {item.rule: item.why for item in result.parts[0].checks}
    assert whys["crl"].startswith("(3) both revocation lists")
    assert whys["tcb_info"] == f"(4) {result.error}"
    assert whys["qe_identity"] == "not reached: verification ended at tcb_info"


def test_times_are_looked_at_before_the_next_step() -> None:
    """Otherwise the table would say of an expired certificate that it is valid now."""
    support_ = support.module("sgx", "support")
    old = (support_.NOW - 2 * DAY, support_.NOW - DAY)
    case = support.sgx(periods={"leaf": old})
    bent = with_items(case.endorsements, {"tcb_info_signature": bytes(64)})
    assert failing_step(case.examine(source=lambda tee, data: bent)) == "chain"
    assert failing_step(support.sgx(periods={"pck_crl": old, "tcb_info": old}).examine()) == "crl"


@pytest.mark.parametrize(
    ("make", "periods", "steps"),
    [
        ("sgx", {"leaf": 2, "pck_crl": 3, "tcb_info": 4, "qe_identity": 5}, "chain"),
        ("sgx", {"leaf": 5, "pck_crl": 2, "tcb_info": 3, "qe_identity": 4}, "crl"),
        ("sgx", {"leaf": 5, "pck_crl": 4, "tcb_info": 2, "qe_identity": 3}, "tcb_info"),
        ("sgx", {"leaf": 5, "pck_crl": 4, "tcb_info": 4, "qe_identity": 2}, "qe_identity"),
    ],
)
def test_a_cached_platform_that_has_grown_old(
    make: str, periods: dict[str, int], steps: str
) -> None:
    now = support.module("sgx", "support").NOW
    case = support.sgx(periods={name: (now - DAY, now + n * DAY) for name, n in periods.items()})
    assert case.examine().status is Status.ACCEPTED
    assert len(case.endorsements.cache)
    assert failing_step(case.examine(at=now + 2 * DAY + timedelta(minutes=1))) == steps


def bent_measurement(evidence: bytes) -> bytes:
    return evidence[:0x90] + bytes([evidence[0x90] ^ 1]) + evidence[0x91:]


def test_what_was_left_out_before_the_failure_is_not_called_passed() -> None:
    case = support.snp(Product.GENOA)
    bare = with_items(case.endorsements, {"crl": None})
    lax = case.policy(allow_no_revocation=True)
    result = case.examine(
        lax, evidence=bent_measurement(case.evidence), source=lambda tee, data: bare
    )
    assert failing_step(result) == "signature"
    found = {item.rule: item for item in result.parts[0].checks}
    assert found["crl"].outcome is SKIPPED
    assert found["crl"].why == "no list was given"
    assert found["chain"].outcome is PASSED
    # And of evidence that is believed the same is told.
    sound = case.examine(lax, source=lambda tee, data: bare)
    assert outcomes(sound)["crl"] is SKIPPED


def test_a_providers_key_is_of_no_chip() -> None:
    case = support.snp(Product.GENOA, vlek=True)
    tcb = support.module("snp", "attester").TCB[Product.GENOA]
    older = support.snp(Product.GENOA, vlek=True, launch_tcb=bytes((tcb[0] + 1, *tcb[1:])))
    assert outcomes(case.examine())["chip_id"] is SKIPPED
    result = older.examine()
    assert failing_step(result) == "relations"
    assert outcomes(result)["chip_id"] is SKIPPED
    assert len(case.evidence) > SIGNED_SIZE


def test_what_is_missing_is_missed_at_a_step() -> None:
    case = support.sgx()
    without = with_items(case.endorsements, {"pck_crl": None})
    result = case.examine(source=lambda tee, data: without)
    assert result.status is Status.UNDECIDED
    assert (failing_step(result), result.exit_code) == ("crl", 6)
    assert outcomes(result)["chain"] is PASSED
    assert result.to_dict()["parts"][0]["trustworthiness"] == {}


def test_a_list_that_is_missing_is_missed_where_lists_are_checked() -> None:
    """The chain before it is whole, and is said to be."""
    case = support.snp()
    without = with_items(case.endorsements, {"crl": None})
    result = case.examine(source=lambda tee, data: without)
    assert (failing_step(result), result.exit_code) == ("crl", 6)
    assert outcomes(result)["chain"] is PASSED
    broken = with_items(without, {"ask": without.items["vek"]})
    result = case.examine(source=lambda tee, data: broken)
    assert (failing_step(result), result.exit_code) == ("chain", 4)


def dcap_folder(folder: Path, case: support.Case, **changes: str | None) -> Path:
    """Collateral as one document, with members changed or (None) left out."""
    items = case.endorsements.items
    binary = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
    members: dict[str, str | None] = {
        name: data.hex() if name in binary else data.decode() for name, data in items.items()
    }
    kept = {name: text for name, text in {**members, **changes}.items() if text is not None}
    (folder / "collateral.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("tcb_info_issuer_chain", "chain"),
        ("root_ca_crl", "crl"),
        ("tcb_info", "tcb_info"),
        ("qe_identity_signature", "qe_identity"),
    ],
)
def test_collateral_that_is_missing_is_named(tmp_path: Path, name: str, step: str) -> None:
    case = support.sgx()
    folder = dcap_folder(tmp_path, case, **{name: None})
    anchors = case.endorsements.anchors
    result = case.examine(source=lambda tee, data: load(folder, tee, data, anchors=anchors))
    assert (result.status, result.exit_code) == (Status.UNDECIDED, 6)
    assert f"lack {name}" in str(result.error)
    assert "fetch the collateral" in str(result.hint)
    assert failing_step(result) == step


def test_whole_collateral_is_accepted(tmp_path: Path) -> None:
    case = support.sgx()
    folder, anchors = dcap_folder(tmp_path, case), case.endorsements.anchors
    result = case.examine(source=lambda tee, data: load(folder, tee, data, anchors=anchors))
    assert result.error is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "not JSON"), ("zz", "root_ca_crl cannot be decoded"), ("00", "root_ca_crl")],
)
def test_collateral_that_is_malformed_is_named(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    """Nobody is sent to the attester for what is wrong with endorsements."""
    case = support.sgx()
    folder, anchors = dcap_folder(tmp_path, case, root_ca_crl=text), case.endorsements.anchors
    if text is None:
        (folder / "collateral.json").write_text("{")
    result = case.examine(source=lambda tee, data: load(folder, tee, data, anchors=anchors))
    assert (result.status, result.exit_code) == (Status.MALFORMED, 3)
    assert problem in str(result.error)
    assert "not in the evidence" in str(result.hint)
    if text == "00":  # a list that is none is found where lists are checked
        assert failing_step(result) == "crl"
    else:
        assert failing_step(result) == "endorsements"
        assert str(folder / "collateral.json") in str(result.error)


def test_before_the_first_step() -> None:
    """What cannot be fetched ends it before anything was looked at."""
    case = support.psa()

    def nothing(tee: str, data: bytes) -> Endorsements:
        raise UndecidedError("no store")

    result = case.examine(source=nothing)
    assert failing_step(result) == "endorsements"
    assert set(outcomes(result).values()) == {FAILED, SKIPPED}


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (UntrustedError("x"), "authentic"),
        (MalformedError("x"), "well_formed"),
        (UndecidedError("x"), "endorsements"),
    ],
)
def test_a_verifier_that_names_no_steps(error: Any, rule: str) -> None:
    """One of somebody else's: its word is taken."""
    (check,) = stopped("theirs", error)
    assert (check.rule, check.outcome, check.why) == (rule, FAILED, "x")


def test_the_policy_is_asked_only_of_what_is_authentic() -> None:
    case = support.nitro()
    result = case.examine(evidence=case.evidence[:-1])
    assert failing_step(result) == "format"
    assert [item.rule for item in result.parts[0].checks] == [rule for rule, _ in STEPS["nitro"]]
    refused = case.examine(nonce=b"another nonce, of course")
    assert isinstance(refused.error, PolicyError)
    assert refused.to_dict()["error"]["check"] == "nonce"
    assert case.examine().failure is None
