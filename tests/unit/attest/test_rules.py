"""One test a rule of a kind of hardware: evidence that is sound but for that, and who says so."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import CASES, bent, failures, outcomes, tdx_with

from broch.attest.checks import Outcome
from broch.attest.result import Status
from broch.attest.steps import STEPS
from broch.tee.dcap.report import INIT, MODE64BIT
from broch.tee.snp.report import POLICY_DEBUG
from broch.tee.tdx.report import DEBUG, SEPT_VE_DISABLE


@pytest.mark.parametrize("tee", sorted(CASES))
def test_sound_evidence_is_accepted(tee: str) -> None:
    result = CASES[tee]().examine()
    assert result.status is Status.ACCEPTED, result.error
    assert result.exit_code == 0
    assert not failures(result)


@pytest.mark.parametrize("tee", sorted(CASES))
def test_of_another_kind_it_is_refused(tee: str) -> None:
    case = CASES[tee]()
    result = case.examine(replace(case.policy(), references={"abacus": case.reference}))
    assert result.exit_code == 5
    assert failures(result)[0] == "kind"


@pytest.mark.parametrize("tee", sorted(CASES))
def test_other_code_is_refused(tee: str) -> None:
    case = CASES[tee]()
    changes: dict[str, Any] = {"measurements": frozenset({b"?" * 32})}
    result = case.examine(case.policy(reference=bent(case, **changes)))
    assert result.exit_code == 5
    assert failures(result) == ["measurement"]


@pytest.mark.parametrize("tee", sorted(CASES))
def test_a_reference_that_names_no_code_accepts_none(tee: str) -> None:
    case = CASES[tee]()
    empty = type(case.reference)()
    assert "measurement" in failures(case.examine(case.policy(reference=empty)))


@pytest.mark.parametrize(
    ("tee", "changes", "known"),
    [
        ("cca", {"firmware": frozenset({b"m" * 32})}, False),  # the platform's, not the realm's
        ("psa", {"firmware": frozenset({b"m" * 32})}, True),
        ("nitro", {"pcrs": {2: frozenset({b"\3" * 48})}}, True),
        ("nitro", {"pcrs": {4: frozenset({b"\5" * 48})}}, False),  # which instance
        ("tdx", {"rtmrs": {1: frozenset({b"1" * 48})}}, False),
        ("tpm", {"pcrs": {"sha256": {0: frozenset({b"\1" * 32})}}}, True),
    ],
)
def test_what_names_code_without_a_measurement(
    tee: str, changes: dict[str, Any], known: bool
) -> None:
    case = CASES[tee]()
    result = case.examine(case.policy(reference=type(case.reference)(**changes)))
    assert failures(result) == ([] if known else ["measurement"])


@pytest.mark.parametrize("tee", sorted(CASES))
def test_the_nonce(tee: str) -> None:
    case = CASES[tee]()
    assert failures(case.examine(nonce=b"another nonce")) == ["nonce"]
    assert failures(case.examine(nonce=None)) == ["nonce"]
    assert not failures(case.examine(case.policy(allow_no_nonce=True), nonce=None))


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro"])
def test_emulated_devices_only_by_name(tee: str) -> None:
    case = CASES[tee]()
    assert failures(case.examine(case.policy(emulated=False))) == ["emulated"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: support.sgx(body_fields={"flags": INIT | MODE64BIT | 2}), id="sgx"),
        pytest.param(lambda: tdx_with(td_attributes=SEPT_VE_DISABLE | DEBUG), id="tdx"),
        pytest.param(lambda: support.snp(policy=0x30000 | POLICY_DEBUG), id="snp"),
        pytest.param(
            lambda: support.nitro(pcrs=dict.fromkeys(range(4), bytes(48))), id="nitro: zero PCRs"
        ),
        pytest.param(lambda: support.psa(claims={2395: 0x4000}), id="psa"),
        pytest.param(lambda: support.cca(platform={2395: 0x5000}), id="cca"),
    ],
)
def test_debug_only_by_name(case: Any) -> None:
    found = case()
    assert "debug" in failures(found.examine())
    assert "debug" not in failures(found.examine(found.policy(allow_debug=True)))


# AWS


def test_nitro_registers() -> None:
    case = support.nitro()
    for pcrs, expected in (
        ({2: frozenset({b"\3" * 48})}, []),
        ({2: frozenset({b"?" * 48})}, ["pcr2"]),
        ({7: frozenset({bytes(48)})}, ["pcr7"]),  # not in the document
    ):
        reference = bent(case, pcrs=pcrs)
        assert failures(case.examine(case.policy(reference=reference))) == expected
    signed = bent(case, signers=frozenset({b"?" * 48}))
    assert failures(case.examine(case.policy(reference=signed))) == ["signer"]


def test_the_age_of_a_nitro_document() -> None:
    case = support.nitro()
    claims: Any = case.examine().parts[0].claims
    bounded = case.policy(reference=bent(case, max_age_seconds=300))
    for seconds, expected in ((0, []), (300, []), (301, ["age"]), (-60, []), (-61, ["age"])):
        at = claims.timestamp + timedelta(seconds=seconds)
        assert failures(case.examine(bounded, at=at)) == expected, seconds
    assert outcomes(case.examine())["age"] is Outcome.SKIPPED


def test_fields_without_a_size_of_their_own_are_compared_whole() -> None:
    case = support.nitro(nonce=b"n" * 20 + b"\0")
    assert failures(case.examine()) == ["nonce"]
    assert not failures(case.examine(nonce=b"n" * 20 + b"\0"))
    theirs = support.module("tpm", "attester")
    assert failures(support.tpm(extra_data=theirs.NONCE + b"\0").examine()) == ["nonce"]


def test_a_nitro_document_without_a_nonce_answers_none() -> None:
    """Its user data is another field, and does not pass for a nonce."""
    case = support.nitro(nonce=None, user_data=b"n" * 20)
    assert failures(case.examine()) == ["nonce"]


# Arm


def test_psa_macs_only_by_name() -> None:
    theirs = support.module("psa", "test_psa")
    sound = support.psa()
    mac = theirs.cose.mac0(
        theirs.cbor.encode(theirs.NEW), theirs.MAC_KEY, tagging=theirs.Tagging.TAGGED
    )
    items = {
        "implementation_id": b"i" * 32,
        "mac_key": theirs.MAC_KEY,
        "instance_id": theirs.INSTANCE,
    }
    case = replace(sound, evidence=mac, endorsements=replace(sound.endorsements, items=items))
    assert failures(case.examine()) == ["authentication"]
    assert not failures(case.examine(case.policy(reference=bent(case, allow_mac=True))))


def test_psa_firmware_and_callers() -> None:
    case = support.psa()
    for changes, expected in (
        ({"firmware": frozenset({b"?" * 32})}, ["firmware"]),
        ({"client_ids": frozenset({3002})}, []),
        ({"client_ids": frozenset({-1})}, ["client"]),
    ):
        reference = bent(case, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes


def test_cca_firmware_and_registers() -> None:
    case = support.cca()
    for changes, expected in (
        ({"firmware": frozenset({b"?" * 32})}, ["firmware"]),
        ({"firmware": frozenset()}, ["firmware"]),
        ({"firmware": frozenset(), "allow_any_firmware": True}, []),
        ({"rems": {1: frozenset({b"1" * 32})}}, []),
        ({"rems": {1: frozenset({b"0" * 32})}}, ["rem1"]),
    ):
        reference = bent(case, **changes)
        assert failures(case.examine(case.policy(reference=reference))) == expected, changes


# TPM


def test_keys_that_nobody_has_shown_to_be_in_a_tpm() -> None:
    theirs = support.module("tpm", "attester")
    sound = support.tpm()
    items = {"attestation_key": theirs.spki(theirs.AK_EC)}
    case = replace(sound, endorsements=replace(sound.endorsements, items=items))
    assert failures(case.examine()) == ["ak_attributes"]
    lax = case.policy(reference=bent(case, allow_unproved_key=True))
    assert outcomes(case.examine(lax))["ak_attributes"] is Outcome.SKIPPED
    assert not failures(case.examine(lax))


def test_clocks_that_may_have_gone_back() -> None:
    case = support.tpm(safe=False)
    assert failures(case.examine()) == ["clock"]
    assert not failures(case.examine(case.policy(reference=bent(case, allow_unsafe_clock=True))))


def test_registers_one_by_one() -> None:
    theirs = support.module("tpm", "attester")
    case = support.tpm()
    (index, value), *_ = theirs.PCRS[theirs.SHA256].items()
    for bank, registers, expected in (
        ("sha256", {index: frozenset({value})}, []),
        ("sha256", {index: frozenset({b"?" * 32})}, [f"pcr sha256:{index}"]),
        ("sha256", {31: frozenset({bytes(32)})}, ["pcr sha256:31"]),
        ("sha384", {index: frozenset({bytes(48)})}, [f"pcr sha384:{index}"]),
    ):
        reference = bent(case, pcrs={bank: registers})
        assert failures(case.examine(case.policy(reference=reference))) == expected


# What is not authentic


ENDS_AT = {  # which step finds the bent byte
    **dict.fromkeys(("sgx", "tdx", "snp", "nitro", "psa"), "signature"),
    "cca": "realm_signature",
    "tpm": "registers",
}


@pytest.mark.parametrize("tee", sorted(CASES))
def test_bent_evidence_is_never_appraised(tee: str) -> None:
    case = CASES[tee]()
    bad = case.evidence[:-1] + bytes((case.evidence[-1] ^ 1,))
    if tee in ("sgx", "tdx"):  # the end is the chain, in PEM; bend the report data
        place = case.evidence.index(case.nonce)
        bad = case.evidence[:place] + b"\xff" + case.evidence[place + 1 :]
    if tee == "snp":  # the end is reserved
        bad = case.evidence[:0x90] + b"\xff" + case.evidence[0x91:]
    result = case.examine(evidence=bad)
    assert result.status in (Status.UNTRUSTED, Status.MALFORMED)
    assert result.exit_code in (3, 4)
    assert result.parts[0].claims is None
    checks = {item.rule: item for item in result.parts[0].checks}
    names = list(checks)
    at = names.index(ENDS_AT[tee])
    assert [checks[name].outcome for name in names] == [
        *[Outcome.PASSED] * at,
        Outcome.FAILED,
        *[Outcome.SKIPPED] * (len(names) - at - 1),
    ]
    assert result.failure is checks[names[at]]
    assert names == [rule for rule, _ in STEPS[tee]]
    told = result.to_dict()
    assert told["error"]["check"] == ENDS_AT[tee]
    assert all("not reached" in checks[name].why for name in names[at + 1 :])
    assert str(result.error) in checks[names[at]].why


@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp", "nitro"])
def test_another_day(tee: str) -> None:
    case = CASES[tee]()
    for away in (-5000, 20_000):
        result = case.examine(at=case.at + timedelta(days=away))
        assert result.exit_code == 4
