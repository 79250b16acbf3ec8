"""Bad evidence, policies, requests and results give our errors, and nothing bent is accepted."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.attest.support import CASES, Case
from tests.unit.attest.test_policy_file import FULL

from broch.attest import ear, formats
from broch.attest.inspection import result_in, taken_apart
from broch.attest.policy_file import from_toml
from broch.attest.result import Status
from broch.attest.server import decode
from broch.errors import BrochError, MalformedError, UntrustedError, UsageError
from broch.wire import cbor, cose, jws

calm = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
KEY: Final = ec.derive_private_key(51, ec.SECP256R1())
AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
LINES: Final = FULL.strip().splitlines()


# Made here: some of their modules have tests with @given, which must not be imported inside one.
SOUND: Final[dict[str, Case]] = {tee: make() for tee, make in CASES.items()}


@pytest.mark.parametrize("tee", sorted(CASES))
@given(data=st.data())
@calm
def test_no_bent_bit_is_accepted(tee: str, data: st.DataObject) -> None:
    sound = SOUND[tee]
    bent = bytearray(sound.evidence)
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.integers(0, len(bent) - 1))
        bent[offset] ^= 1 << data.draw(st.integers(0, 7))
    result = sound.examine(evidence=bytes(bent))
    same = bytes(bent) == sound.evidence
    assert (result.status is Status.ACCEPTED) is same
    # 6: a PSA token whose tag says that it is a MAC, for which there is no key.
    assert result.exit_code in ((0,) if same else (3, 4, 6))
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("tee", sorted(CASES))
@given(data=st.data())
@calm
def test_no_cut_or_longer_evidence_is_accepted(tee: str, data: st.DataObject) -> None:
    sound = SOUND[tee]
    end = data.draw(st.integers(0, len(sound.evidence) - 1))
    assert sound.examine(evidence=sound.evidence[:end]).exit_code in (3, 4)
    more = data.draw(st.binary(min_size=1, max_size=64)) + b"\x01"
    assert sound.examine(evidence=sound.evidence + more).exit_code in (3, 4)


@given(st.binary(max_size=2000))
@calm
def test_any_bytes_as_evidence(data: bytes) -> None:
    if refusal(formats.read, data) is None:
        refusal(taken_apart, formats.read(data))
    refusal(lambda: result_in(data) or ())


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["platform", "evidence", "version", "hcl_report", "tpm_quote", "vcek", "x"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@calm
def test_any_json_as_evidence(value: Any) -> None:
    with pytest.raises(MalformedError):
        formats.read(json.dumps({"platform": value}).encode())


@given(st.data())
@calm
def test_policies_with_lines_taken_out_doubled_or_bent(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "double", "letter", "value"]))
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "letter" and lines[at]:
            place = data.draw(st.integers(0, len(lines[at]) - 1))
            letter = data.draw(st.characters(codec="utf-8"))
            lines[at] = lines[at][:place] + letter + lines[at][place + 1 :]
        elif "=" in lines[at]:
            value = data.draw(st.sampled_from(["1", "-1", '"x"', "true", "[]", "{}", "1.5", "nan"]))
            lines[at] = f"{lines[at].split('=')[0]}= {value}"
    problem = refusal(from_toml, "\n".join(lines), "p.toml")
    assert problem is None or (problem.startswith("p.toml:") and "\n" not in problem)


def refusal(action: Callable[..., object], *arguments: object) -> str | None:
    """What an action refuses with; None if it does not. Other errors are failures."""
    try:
        assert action(*arguments) is not None
    except (MalformedError, UntrustedError, UsageError) as exc:
        return str(exc)
    return None


@given(st.text(max_size=300))
@calm
def test_any_text_as_policy(text: str) -> None:
    problem = refusal(from_toml, text, "p.toml")
    assert problem is None or problem.startswith("p.toml:")


@given(st.binary(max_size=500) | JSON.map(lambda value: json.dumps({"evidence": value}).encode()))
@calm
def test_any_request(body: bytes) -> None:
    for kind in ("application/json", "text/plain", "application/octet-stream", "x/y", ""):
        for nonce in (None, "00", "zz"):
            refusal(decode, body, kind, nonce)


@given(st.data())
@calm
def test_results_with_a_bent_character_are_not_believed(data: st.DataObject) -> None:
    token = signed()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCabc012-_.=+ "))
    bent = token[:place] + letter + token[place + 1 :]
    if bent == token:
        return
    with pytest.raises(BrochError):
        ear.read_jwt(bent, KEY.public_key(), at=AT)


@cache
def signed() -> str:
    return ear.sign(SOUND["psa"].examine(), KEY, issued=AT).decode()


@given(JSON)
@calm
def test_any_claims_that_somebody_signed(value: Any) -> None:
    for claims in (value, {"eat_profile": ear.PROFILE, "iat": 1, "submods": {"a": value}}):
        payload = json.dumps(claims).encode()
        token = jws.sign(payload, KEY, typ="eat+jwt")
        refusal(lambda token=token: ear.read_jwt(token, KEY.public_key(), at=AT))


@given(st.binary(max_size=200))
@calm
def test_any_cwt(data: bytes) -> None:
    made = cose.sign1(data, KEY, cose.Alg.ES256, tagging=cose.Tagging.TAGGED)
    wrapped = cose.sign1(
        cbor.encode({265: ear.PROFILE, 6: 1, 266: {"a": data}}),
        KEY,
        cose.Alg.ES256,
        tagging=cose.Tagging.TAGGED,
    )
    for token in (data, made, wrapped):
        with pytest.raises(BrochError) as caught:
            ear.read_cwt(token, KEY.public_key(), at=AT)
        assert caught.value.exit_code in (3, 4)
