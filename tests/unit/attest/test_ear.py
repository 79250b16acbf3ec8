"""Results as EARs: both forms, both dialects, read back; and nothing is affirmed that was not."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from tests.pki import NOW
from tests.unit.attest import support
from tests.unit.attest.support import CASES, failures

from broch.attest import ear
from broch.attest.ear import PROFILE, VERAISON, Dialect, Ear, Form
from broch.attest.result import Result
from broch.attest.vector import Vector, tier, vector
from broch.errors import DecodeError, MalformedError, UntrustedError, UsageError
from broch.wire import cbor, cose, jws

KEY: Final = ec.derive_private_key(21, ec.SECP256R1())
PUBLIC: Final = KEY.public_key()


@pytest.fixture(scope="module")
def accepted() -> Result:
    return support.sgx().examine()


def read(token: bytes, form: str) -> Ear:
    if form == Form.JWT:
        return ear.read_jwt(token.decode(), PUBLIC, at=NOW)
    return ear.read_cwt(token, PUBLIC, at=NOW)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("tee", sorted(CASES))
def test_round_trip(tee: str, form: str, dialect: str) -> None:
    result = CASES[tee]().examine()
    token = ear.sign(result, KEY, form=form, dialect=dialect, issued=NOW)
    found = read(token, form)
    assert found.profile == (PROFILE if dialect == Dialect.EAR_04 else VERAISON)
    assert found.issued == NOW.replace(microsecond=0)
    assert found.expires == found.issued + ear.LIFETIME
    assert found.nonce == result.nonce
    assert found.policies == {tee: ("test",)}
    assert found.vectors == {tee: vector(result.parts[0], result.policy).names()}
    assert set(found.status) == {tee}


def test_the_names_of_draft_04(accepted: Result) -> None:
    token = ear.sign(accepted, KEY, issued=NOW).decode()
    header, payload = jws.peek(token)
    assert header == {"alg": "ES256", "typ": "eat+jwt"}
    claims = json.loads(payload)
    assert claims.keys() == {
        "eat_profile",
        "iat",
        "exp",
        "ear_verifier_id",
        "submods",
        "eat_nonce",
    }
    assert claims["eat_profile"] == "tag:ietf.org,2026:rats/ear#04"
    assert claims["ear_verifier_id"].keys() == {"developer", "build"}
    assert base64.urlsafe_b64decode(claims["eat_nonce"] + "==") == accepted.nonce
    part = claims["submods"]["sgx"]
    assert part.keys() == {
        "ear_status",
        "ear_trustworthiness_vector",
        "ear_appraisal_policy_ids",
        "ear_verifier_claims",
        "ear_attester_claims",
    }
    assert part["ear_attester_claims"]["measurement"] == "45" * 32
    assert part["ear_verifier_claims"]["relaxations"] == ["emulated"]
    assert part["ear_verifier_claims"]["emulated"] is True
    assert part["ear_verifier_claims"]["checks"][0] == {
        "rule": "format",
        "outcome": "passed",
        "why": "(1) header, key type, QE vendor, lengths, certification data",
    }


def test_the_labels_of_draft_04(accepted: Result) -> None:
    token = ear.sign(accepted, KEY, form="cwt", issued=NOW)
    message = cose.Message.from_bytes(
        token, tag=cose.SIGN1_TAG, tagging=cose.Tagging.TAGGED, what="test"
    )
    claims = cbor.decode(message.payload, what="test")
    assert claims.keys() == {265, 6, 4, 10, 1004, 266}
    assert claims[10] == accepted.nonce
    assert claims[1004].keys() == {0, 1}
    part = claims[266]["sgx"]
    assert part.keys() == {1000, 1001, 1003, 1005, 1006}
    assert part[1000] == 32
    assert part[1001] == {1: 2, 2: 3, 4: 32, 5: 32}


def test_the_names_that_are_deployed(accepted: Result) -> None:
    token = ear.sign(accepted, KEY, dialect="veraison", issued=NOW).decode()
    header, payload = jws.peek(token)
    assert header["typ"] == "JWT"
    claims = json.loads(payload)
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert claims["ear.verifier-id"].keys() == {"developer", "build"}
    part = claims["submods"]["sgx"]
    assert part["ear.status"] == "warning"
    assert part["ear.appraisal-policy-id"] == "test"
    assert part["ear.trustworthiness-vector"]["hardware"] == 32
    assert part["ear.veraison.annotated-evidence"]["tee"] == "sgx"


def test_a_result_of_veraisons_own_is_read() -> None:
    """The example of the Rust library, with a time."""
    claims = {
        "iat": 1666091373,
        "ear.verifier-id": {"build": "rrtrap-v1.0.0", "developer": "Acme Inc."},
        "eat_profile": VERAISON,
        "submods": {
            "test": {
                "ear.status": "affirming",
                "ear.trustworthiness-vector": {"instance-identity": 2, "hardware": 2},
                "ear.appraisal-policy-id": "policy://psa/60a0068d",
            }
        },
    }
    token = jws.sign(json.dumps(claims).encode(), KEY, typ="JWT")
    found = ear.read_jwt(token, PUBLIC, at=NOW)
    assert found.affirming
    assert found.expires is None
    assert found.vectors["test"] == {"instance-identity": 2, "hardware": 2}
    assert found.policies["test"] == ("policy://psa/60a0068d",)


@pytest.mark.parametrize("tee", sorted(CASES))
def test_what_is_refused_is_contraindicated(tee: str) -> None:
    case = CASES[tee]()
    for result in (
        case.examine(nonce=b"another nonce"),
        case.examine(evidence=case.evidence[:-1]),
        case.examine(replace(case.policy(), references={"abacus": case.reference})),
    ):
        assert result.exit_code in (3, 4, 5)
        found = read(ear.sign(result, KEY, issued=NOW), Form.JWT)
        assert found.status == {tee: "contraindicated"}
        assert not found.affirming


def test_what_is_undecided_affirms_nothing() -> None:
    case = support.sgx()
    empty = replace(case.endorsements, items={})
    result = case.examine(source=lambda tee, data: empty)
    assert result.exit_code == 6
    found = read(ear.sign(result, KEY, issued=NOW), Form.JWT)
    assert found.status == {"sgx": "none"}
    assert found.vectors == {"sgx": {}}


def test_bad_signatures_are_crypto_failures() -> None:
    case = support.sgx()
    place = case.evidence.index(case.nonce)
    bad = case.evidence[:place] + b"\xff" + case.evidence[place + 1 :]
    made = vector(case.examine(evidence=bad).parts[0], case.policy())
    assert set(made.names().values()) == {99}


def test_results_expire(accepted: Result) -> None:
    token = ear.sign(accepted, KEY, issued=NOW, lifetime=timedelta(minutes=5)).decode()
    ear.read_jwt(token, PUBLIC, at=NOW + timedelta(minutes=4))
    with pytest.raises(UntrustedError, match="expired"):
        ear.read_jwt(token, PUBLIC, at=NOW + timedelta(minutes=5))
    with pytest.raises(UsageError, match="time zone"):
        ear.read_jwt(token, PUBLIC, at=NOW.replace(tzinfo=None))


def test_another_key_and_another_type(accepted: Result) -> None:
    stranger = ec.derive_private_key(22, ec.SECP256R1())
    for form in Form:
        token = ear.sign(accepted, stranger, form=form, issued=NOW)
        with pytest.raises(UntrustedError):
            read(token, form)
    session = jws.sign(b'{"eat_profile": "x"}', KEY, typ="at+jwt")
    with pytest.raises(UntrustedError, match="type 'at\\+jwt'"):
        ear.read_jwt(session, PUBLIC, at=NOW)


def sound() -> dict[str, Any]:
    return {
        "eat_profile": PROFILE,
        "iat": 1,
        "submods": {"a": {"ear_status": "affirming", "ear_trustworthiness_vector": {}}},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"eat_profile": "other"},
        {"iat": "1"},
        {"iat": None},
        {"iat": -1},
        {"iat": 1 << 60},
        {"iat": 253402300800},  # the year 10000
        {"exp": 1.5},
        {"submods": {}},
        {"submods": []},
        {"submods": {"a": []}},
        {"submods": {"a": {}}},
        {"submods": {"a": {"ear_status": "good"}}},
        {"submods": {"a": {"ear_status": 3}}},
        {"submods": {"a": {"ear_status": True}}},
        {"submods": {"a": {"ear_status": "none", "ear_trustworthiness_vector": {"x": 1}}}},
        {"submods": {"a": {"ear_status": "none", "ear_trustworthiness_vector": 0}}},
        {"submods": {"a": {"ear_status": "none", "ear_appraisal_policy_ids": False}}},
        {"submods": {"a": {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": 128}}}},
        {"submods": {"a": {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": "2"}}}},
        {"submods": {"a": {"ear_status": "none", "ear_appraisal_policy_ids": [1]}}},
        {"eat_nonce": "?"},
        {"eat_nonce": 3},
    ],
)
def test_claims_that_are_none(change: dict[str, Any]) -> None:
    assert ear.read_jwt(token_of(sound()), PUBLIC, at=NOW).affirming
    with pytest.raises(DecodeError):
        ear.read_jwt(token_of({**sound(), **change}), PUBLIC, at=NOW)


def token_of(claims: dict[str, Any]) -> str:
    return jws.sign(json.dumps(claims).encode(), KEY, typ="eat+jwt")


def test_long_nonces_are_hashed() -> None:
    assert ear.eat_nonce(b"n" * 64) == b"n" * 64
    assert len(ear.eat_nonce(b"n" * 65)) == 64


def test_forms_dialects_and_keys(accepted: Result) -> None:
    for options in ({"form": "xml"}, {"dialect": "other"}):
        with pytest.raises(UsageError, match="unknown form"):
            ear.sign(accepted, KEY, issued=NOW, **options)  # type: ignore[arg-type]
    edwards = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    token = ear.sign(accepted, edwards, issued=NOW).decode()
    assert ear.read_jwt(token, edwards.public_key(), at=NOW).status == {"sgx": "warning"}
    with pytest.raises(UsageError, match="CWT"):
        ear.sign(accepted, edwards, form="cwt", issued=NOW)


def test_private_keys() -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(ear.read_key(pem, "key.pem"), ec.EllipticCurvePrivateKey)
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for bad in (b"", b"\xff" * 40, locked, pem[:-40]):
        with pytest.raises(MalformedError, match="not an unencrypted PEM") as caught:
            ear.read_key(bad, "key.pem")
        assert caught.value.hint


# The vector


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (1, 0),
        (-1, 0),
        (2, 2),
        (31, 2),
        (-2, 2),
        (-32, 2),
        (32, 32),
        (95, 32),
        (-33, 32),
        (-96, 32),
        (96, 96),
        (127, 96),
        (-97, 96),
        (-128, 96),
    ],
)
def test_tiers(value: int, expected: int) -> None:
    assert tier(value) == expected


def test_the_status_is_that_of_the_worst_claim() -> None:
    assert Vector().status() == 0
    assert Vector(hardware=2).status() == 2
    assert Vector(hardware=2, configuration=32).status() == 32
    assert Vector(hardware=97, configuration=32, executables=2).status() == 96


def component(case: support.Case, name: str, **policy: Any) -> int:
    made = vector(case.examine(case.policy(**policy)).parts[0], case.policy(**policy))
    return int(getattr(made, name))


def test_hardware_follows_the_tcb_status() -> None:
    level = support.module("tdx", "attester").level
    for status, expected in (
        ("UpToDate", 32),  # emulated: never genuine
        ("OutOfDate", 32),
        ("SWHardeningNeeded", 32),
        ("Revoked", 96),
    ):
        assert component(support.tdx(levels=[level(status)]), "hardware") == expected
    assert component(support.tdx(levels=[level("UpToDate", sgx=99)]), "hardware") == 97
    assert component(support.tdx(levels=[level("ConfigurationNeeded")]), "configuration") == 32
    assert component(support.tdx(), "configuration") == 2


def test_emulated_hardware_is_not_recognised_where_it_is_not_accepted() -> None:
    assert component(support.sgx(), "hardware", emulated=False) == 97


def test_debug_makes_memory_visible() -> None:
    case = support.cca(platform={2395: 0x5000})
    assert component(case, "runtime_opaque", allow_debug=True) == 96
    assert component(case, "configuration", allow_debug=True) == 96
    assert component(support.cca(), "runtime_opaque") == 2
    assert component(support.nitro(), "runtime_opaque") == 32


def test_code_that_is_not_known() -> None:
    case = support.sgx()
    assert component(case, "executables") == 3
    other = replace(case.reference, measurements=frozenset({b"?" * 32}))
    assert component(case, "executables", reference=other) == 33
    anything = replace(case.reference, measurements=frozenset(), allow_any_measurement=True)
    assert component(case, "executables", reference=anything) == 33


@pytest.mark.parametrize("tee", sorted(CASES))
def test_code_is_known_only_by_what_names_it(tee: str) -> None:
    """Neither a product line, nor a version, nor a check of the evidence itself names code."""
    case = CASES[tee]()
    assert component(case, "executables") == 3
    changes: dict[str, Any] = {"measurements": frozenset(), "allow_any_measurement": True}
    for name, value in (
        ("firmware", frozenset()),
        ("allow_any_firmware", True),
        ("min_version", 1 if tee == "sgx" else 0),
    ):
        if hasattr(case.reference, name):
            changes[name] = value
    anything = replace(case.reference, **changes)
    assert not failures(case.examine(case.policy(reference=anything)))
    assert component(case, "executables", reference=anything) == 33


def test_instances() -> None:
    case = support.sgx()
    assert component(case, "instance_identity") == 0
    own = replace(case.reference, ppids=frozenset({b"P" * 16}))  # type: ignore[call-arg]
    assert component(case, "instance_identity", reference=own) == 2
    other = replace(case.reference, ppids=frozenset({b"?" * 16}))  # type: ignore[call-arg]
    assert component(case, "instance_identity", reference=other) == 97
