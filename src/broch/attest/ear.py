"""Results as EAT Attestation Results (draft-ietf-rats-ear-04), signed as JWT or CWT, and read back.

    JSON name                      CBOR     JSON name, in each submodule   CBOR
    eat_profile                    265      ear_status                     1000
    iat, exp                       6, 4     ear_trustworthiness_vector     1001
    eat_nonce                      10       ear_appraisal_policy_ids       1003
    ear_verifier_id                1004     ear_attester_claims            1005
      developer, build             0, 1     ear_verifier_claims            1006
    submods                        266

The dialect ``veraison`` has the names that Veraison and Trustee deploy ("ear.status", one policy
id, "ear.veraison.annotated-evidence") under the profile tag:github.com,2023:veraison/ear. Both are
read. A submodule is named after its kind of hardware.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broch.attest.result import Part, Result, Status
from broch.attest.vector import CONTRAINDICATED, NONE, TIERS, Vector, vector
from broch.attest.view import claims_view
from broch.errors import DecodeError, MalformedError, UntrustedError, UsageError
from broch.wire import base64url, cbor, cose, jws, strict_json
from broch.wire.cose import Tagging

PROFILE: Final = "tag:ietf.org,2026:rats/ear#04"
VERAISON: Final = "tag:github.com,2023:veraison/ear"
DEVELOPER: Final = "https://pypi.org/project/broch/"
LIFETIME: Final = timedelta(hours=1)  # how long a result may be relied upon, if nobody says
_MAX_TIME: Final = 253402300799  # seconds: the end of the year 9999
MAX_NONCE: Final = 64  # bytes of an eat_nonce; a longer one is replaced by its SHA-512
_TYP: Final = {PROFILE: "eat+jwt", VERAISON: "JWT"}
_W: Final = "attestation result"
_LABELS: Final = {
    "eat_profile": 265,
    "iat": 6,
    "exp": 4,
    "eat_nonce": 10,
    "submods": 266,
    "ear_verifier_id": 1004,
    "ear.verifier-id": 1004,
    "developer": 0,
    "build": 1,
    "ear_status": 1000,
    "ear.status": 1000,
    "ear_trustworthiness_vector": 1001,
    "ear.trustworthiness-vector": 1001,
    "ear_appraisal_policy_ids": 1003,
    "ear.appraisal-policy-id": 1003,
    "ear_attester_claims": 1005,
    "ear_verifier_claims": 1006,
    "ear.veraison.annotated-evidence": -70000,
    "ear.veraison.policy-claims": -70001,
}


class Dialect(StrEnum):
    """Whose names."""

    EAR_04 = "ear-04"
    VERAISON = "veraison"


class Form(StrEnum):
    """How it is signed."""

    JWT = "jwt"
    CWT = "cwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """A result that somebody signed, read back. Both dialects come out the same."""

    profile: str
    issued: datetime
    expires: datetime | None
    nonce: bytes | None
    status: Mapping[str, str]  # submodule -> tier: "affirming" ...
    vectors: Mapping[str, Mapping[str, int]]
    policies: Mapping[str, tuple[str, ...]]
    claims: Mapping[str, Any] = field(repr=False)  # everything, by JSON names or CBOR keys

    @property
    def affirming(self) -> bool:
        """Whether every part is affirmed: the only state to rely on without further thought."""
        return bool(self.status) and set(self.status.values()) == {"affirming"}


def sign(
    result: Result,
    key: jws.SigningKey,
    *,
    form: str = Form.JWT,
    dialect: str = Dialect.EAR_04,
    issued: datetime,
    lifetime: timedelta = LIFETIME,
) -> bytes:
    """The signed result: a compact JWS, or a CWT (tagged COSE_Sign1).

    Raises:
        UsageError: an unknown form or dialect, or a key that the form has no algorithm for.
    """
    if form not in tuple(Form) or dialect not in tuple(Dialect):
        known = ", ".join((*Form, *Dialect))
        raise UsageError(f"unknown form {form!r:.40} or dialect {dialect!r:.40}", hint=known)
    claims = to_claims(result, dialect=dialect, issued=issued, lifetime=lifetime)
    if form == Form.JWT:
        payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode()
        return jws.sign(payload, key, typ=_TYP[claims["eat_profile"]]).encode("ascii")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (alg := cose.algorithm(key)) is None:
        raise UsageError("a CWT is signed by a key on P-256, P-384 or P-521")
    if result.nonce is not None:
        claims["eat_nonce"] = eat_nonce(result.nonce)
    payload = cbor.encode(_numbered(claims))
    return cose.sign1(payload, key, alg, tagging=Tagging.TAGGED)


def to_claims(
    result: Result, *, dialect: str, issued: datetime, lifetime: timedelta = LIFETIME
) -> dict[str, Any]:
    """The claims under their JSON names."""
    from broch import __version__

    theirs = dialect == Dialect.VERAISON
    claims: dict[str, Any] = {
        "eat_profile": VERAISON if theirs else PROFILE,
        "iat": int(issued.timestamp()),
        "exp": int((issued + lifetime).timestamp()),
        "ear.verifier-id" if theirs else "ear_verifier_id": {
            "developer": DEVELOPER,
            "build": f"broch {__version__}",
        },
        "submods": {
            part.tee: _veraison(part, result) if theirs else _submodule(part, result)
            for part in result.parts
        },
    }
    if result.nonce is not None:
        claims["eat_nonce"] = base64url.encode(eat_nonce(result.nonce))
    return claims


def eat_nonce(nonce: bytes) -> bytes:
    """A nonce as EAT takes it (RFC 9711, section 4.1: 8 to 64 bytes)."""
    return nonce if len(nonce) <= MAX_NONCE else hashlib.sha512(nonce).digest()


def _status(part: Part, result: Result, made: Vector) -> str:
    """The tier of the worst claim; what was refused is contraindicated whatever the claims say."""
    refused = any(check.outcome == "failed" for check in part.checks)
    if result.status is Status.UNDECIDED:
        return TIERS[NONE]
    if refused or result.status not in (Status.ACCEPTED, Status.REFUSED):
        return TIERS[CONTRAINDICATED]
    return TIERS[made.status()]


def _submodule(part: Part, result: Result) -> dict[str, Any]:
    made = vector(part, result.policy)
    claims: dict[str, Any] = {
        "ear_status": _status(part, result, made),
        "ear_trustworthiness_vector": made.names(),
        "ear_appraisal_policy_ids": [result.policy.name],
        "ear_verifier_claims": _verifier_claims(part, result),
    }
    if part.claims is not None:
        claims["ear_attester_claims"] = claims_view(part.claims)
    return claims


def _veraison(part: Part, result: Result) -> dict[str, Any]:
    made = vector(part, result.policy)
    claims: dict[str, Any] = {
        "ear.status": _status(part, result, made),
        "ear.trustworthiness-vector": made.names(),
        "ear.appraisal-policy-id": result.policy.name,
        "ear.veraison.policy-claims": _verifier_claims(part, result),
    }
    if part.claims is not None:
        claims["ear.veraison.annotated-evidence"] = claims_view(part.claims)
    return claims


def _verifier_claims(part: Part, result: Result) -> dict[str, Any]:
    return {
        "verdict": result.status.value,
        "emulated": part.claims is not None and part.claims.emulated,
        "appraised_at": result.at.isoformat(),
        "relaxations": list(result.policy.relaxations()),
        "evidence_sha256": result.digest,
        "checks": [
            {"rule": check.rule, "outcome": check.outcome.value, "why": check.why}
            for check in part.checks
        ],
    }


def _numbered(claims: Mapping[str, Any]) -> dict[int | str, Any]:
    """The same under CBOR's keys. What evidence and verifier say keeps its names."""
    found: dict[int | str, Any] = {}
    for name, value in claims.items():
        if name == "submods":
            value = {tee: _numbered(inner) for tee, inner in value.items()}
        elif name.endswith(("verifier_id", "verifier-id")):
            value = _numbered(value)
        elif name in ("ear_trustworthiness_vector", "ear.trustworthiness-vector"):
            value = Vector(**{key.replace("-", "_"): item for key, item in value.items()}).numbers()
        elif name in ("ear_status", "ear.status"):
            value = next(number for number, tier in TIERS.items() if tier == value)
        found[_LABELS.get(name, name)] = value
    return found


def read_jwt(token: str, key: jws.VerifyingKey, *, at: datetime) -> Ear:
    """A result in a JWT that ``key`` signed.

    Raises:
        DecodeError: not a JWT, or no result.
        UntrustedError: not signed by this key, or expired ``at`` that time.
    """
    header, _ = jws.peek(token)
    typ = header.get("typ")
    if typ not in _TYP.values():
        raise UntrustedError(f"JWT of type {typ!r:.40}, expected {' or '.join(_TYP.values())}")
    claims = strict_json.document(jws.verify(token, key, typ=str(typ)), _W)
    return _checked(_read(claims, json_names=True), at)


def read_cwt(data: bytes, key: ec.EllipticCurvePublicKey, *, at: datetime) -> Ear:
    """A result in a CWT that ``key`` signed.

    Raises:
        DecodeError: not a CWT, or no result.
        UntrustedError: not signed by this key, or expired ``at`` that time.
        UsageError: a key on another curve.
    """
    alg = cose.algorithm(key)
    if alg is None:
        raise UsageError("a CWT is signed by a key on P-256, P-384 or P-521")
    message = cose.Message.from_bytes(data, tag=cose.SIGN1_TAG, tagging=Tagging.TAGGED, what=_W)
    cose.verify1(message, key, alg, _W)
    claims = cbor.decode(message.payload, what=_W)
    if not isinstance(claims, dict):
        raise DecodeError(0, "the claims are no map", what=_W)
    return _checked(_read(claims, json_names=False), at)


def _checked(ear: Ear, at: datetime) -> Ear:
    if at.tzinfo is None:
        raise UsageError("the time to read a result at has no time zone")
    if ear.expires is not None and at >= ear.expires:
        raise UntrustedError(f"the attestation result has expired on {ear.expires}, at {at}")
    return ear


def _read(claims: Mapping[Any, Any], *, json_names: bool) -> Ear:
    """Both dialects, both encodings."""

    def get(item: Mapping[Any, Any], *names: str) -> Any:
        keys = names if json_names else {_LABELS[name] for name in names}
        return next((item[key] for key in keys if key in item), None)

    profile = get(claims, "eat_profile")
    submods = get(claims, "submods")
    if profile not in _TYP:
        raise DecodeError(0, f"profile {profile!r:.60} is no attestation result's", what=_W)
    if not isinstance(submods, Mapping) or not submods:
        raise DecodeError(0, "no submodules", what=_W)
    status: dict[str, str] = {}
    vectors: dict[str, Mapping[str, int]] = {}
    policies: dict[str, tuple[str, ...]] = {}
    for name, part in submods.items():
        if not isinstance(name, str) or not isinstance(part, Mapping):
            raise DecodeError(0, "a submodule is no map under a name", what=_W)
        status[name] = _tier(get(part, "ear_status", "ear.status"))
        found = get(part, "ear_trustworthiness_vector", "ear.trustworthiness-vector")
        vectors[name] = _vector({} if found is None else found, json_names=json_names)
        ids = get(part, "ear_appraisal_policy_ids", "ear.appraisal-policy-id")
        policies[name] = () if ids is None else _texts([ids] if isinstance(ids, str) else ids)
    return Ear(
        profile=profile,
        issued=_time(get(claims, "iat"), "iat"),
        expires=None if get(claims, "exp") is None else _time(get(claims, "exp"), "exp"),
        nonce=_nonce(get(claims, "eat_nonce")),
        status=status,
        vectors=vectors,
        policies=policies,
        claims=claims,
    )


def _tier(value: Any) -> str:
    found = TIERS.get(value) if type(value) is int else value
    if found not in TIERS.values():
        raise DecodeError(0, f"status {value!r:.40} is no tier", what=_W)
    return str(found)


def _vector(value: Any, *, json_names: bool) -> dict[str, int]:
    names = [name.replace("_", "-") for name in Vector.__slots__]
    known: Mapping[Any, str] = dict(zip(names if json_names else range(8), names, strict=True))
    if not isinstance(value, Mapping) or not value.keys() <= known.keys():
        raise DecodeError(0, "no trustworthiness vector", what=_W)
    for number in value.values():
        if type(number) is not int or not -128 <= number <= 127:
            raise DecodeError(0, f"claim {number!r:.40} is not from -128 to 127", what=_W)
    return {known[key]: number for key, number in value.items()}


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DecodeError(0, "policy ids are no text", what=_W)
    return tuple(value)


def _time(value: Any, what: str) -> datetime:
    if type(value) is not int or not 0 <= value <= _MAX_TIME:
        raise DecodeError(0, f"{what} is no number of seconds", what=_W)
    return datetime.fromtimestamp(value, UTC)


def _nonce(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (ValueError, TypeError):
        raise DecodeError(0, "eat_nonce is not base64url", what=_W) from None


def read_key(pem: bytes, place: str) -> jws.SigningKey:
    """A private key to sign results with: PEM, unencrypted; EC or Ed25519.

    Raises:
        MalformedError: not that. The message has nothing of the key.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise MalformedError(
            "not an unencrypted PEM private key, EC or Ed25519",
            place=place,
            hint="make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        )
    return key
