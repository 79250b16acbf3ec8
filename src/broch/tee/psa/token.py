"""The claims of a PSA attestation token (RFC 9783, section 4).

    claim                          psa#tfm   legacy
    profile                        265       -75000
    nonce, 32, 48 or 64 bytes      10        -75008
    instance id, 33 bytes          256       -75009   begins with 1
    client id, 32 bits, signed     2394      -75001   negative: non-secure caller; never 0
    security lifecycle             2395      -75002
    implementation id, 32 bytes    2396      -75003
    boot seed, 8 to 32 bytes       2397      -75004   legacy: 32, required
    certification reference, text  2398      -75005   "dddddddddddddd-ddddd", optional
    software components            2399      -75006
    no software measurements       -         -75007   1, in place of components: refused
    verification service, text     2400      -75010   optional

Exactly these claims, by profile: ``tag:psacertified.org,2023:psa#tfm`` (or its predecessor
``http://arm.com/psa/2.0.0``, which has the same labels) and ``PSA_IOT_PROFILE_1``.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Self

from broch.errors import DecodeError
from broch.wire import arm_claims, cbor
from broch.wire.arm_claims import HASH_SIZES, Component, Lifecycle

MAX_SIZE: Final = 64 * 1024  # bytes
PROFILES: Final = ("tag:psacertified.org,2023:psa#tfm", "http://arm.com/psa/2.0.0")
LEGACY: Final = "PSA_IOT_PROFILE_1"
INSTANCE_SIZE: Final = 33
IMPLEMENTATION_SIZE: Final = 32
_W: Final = "PSA token"
_CERTIFICATION: Final = re.compile(r"[0-9]{13}(-[0-9]{5})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labels:
    profile: int
    nonce: int
    instance: int
    client: int
    lifecycle: int
    implementation: int
    seed: int
    certification: int
    components: int
    service: int
    seed_sizes: tuple[int, ...]
    seed_required: bool


_NEW: Final = _Labels(
    profile=265,
    nonce=10,
    instance=256,
    client=2394,
    lifecycle=2395,
    implementation=2396,
    seed=2397,
    certification=2398,
    components=2399,
    service=2400,
    seed_sizes=tuple(range(8, 33)),
    seed_required=False,
)
_OLD: Final = _Labels(
    profile=-75000,
    nonce=-75008,
    instance=-75009,
    client=-75001,
    lifecycle=-75002,
    implementation=-75003,
    seed=-75004,
    certification=-75005,
    components=-75006,
    service=-75010,
    seed_sizes=(32,),
    seed_required=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The claims, decoded. Nothing in them has been verified."""

    profile: str
    nonce: bytes
    instance_id: bytes
    client_id: int
    lifecycle: Lifecycle
    implementation_id: bytes
    boot_seed: bytes | None
    certification: str | None
    components: tuple[Component, ...]
    service: str | None
    components_raw: bytes  # the components as they were encoded

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the payload of a token.

        Raises:
            DecodeError: a claim is missing, unknown or not as its profile says.
        """
        claims = cbor.decode(data, what=_W, max_size=MAX_SIZE)
        if not isinstance(claims, dict):
            raise _bad("the claims are not a map")
        labels = _labels(claims)
        used = [getattr(labels, name) for name in labels.__slots__ if not name.startswith("seed_")]
        unknown = claims.keys() - set(used)
        if unknown:
            raise _bad(f"unknown claims {sorted(map(repr, unknown))}")
        seed = None
        if labels.seed in claims or labels.seed_required:
            seed = arm_claims.octets(claims, labels.seed, labels.seed_sizes, _W)
        return cls(
            profile=claims[labels.profile],
            nonce=arm_claims.octets(claims, labels.nonce, HASH_SIZES, _W),
            instance_id=_instance(claims, labels.instance),
            client_id=_client(claims, labels.client),
            lifecycle=arm_claims.lifecycle(claims, labels.lifecycle, _W),
            implementation_id=arm_claims.octets(
                claims, labels.implementation, (IMPLEMENTATION_SIZE,), _W
            ),
            boot_seed=seed,
            certification=_certification(claims, labels.certification),
            components=arm_claims.components(claims, labels.components, _W),
            service=arm_claims.text(claims, labels.service, _W)
            if labels.service in claims
            else None,
            components_raw=cbor.encode(claims[labels.components]),
        )


def _bad(problem: str) -> DecodeError:
    return DecodeError(0, problem, what=_W)


def _labels(claims: dict[Any, Any]) -> _Labels:
    if claims.get(_NEW.profile) in PROFILES:
        return _NEW
    if claims.get(_OLD.profile) == LEGACY:
        return _OLD
    raise _bad("no profile that is known")


def _instance(claims: dict[Any, Any], label: int) -> bytes:
    value = arm_claims.octets(claims, label, (INSTANCE_SIZE,), _W)
    if value[0] != 1:
        raise _bad("the instance id does not begin with 1")
    return value


def _client(claims: dict[Any, Any], label: int) -> int:
    value = claims.get(label)
    if type(value) is not int or not -(1 << 31) <= value < 1 << 31 or value == 0:
        raise _bad("the client id is not a number of 32 bits other than 0")
    return value


def _certification(claims: dict[Any, Any], label: int) -> str | None:
    if label not in claims:
        return None
    value = arm_claims.text(claims, label, _W)
    if not _CERTIFICATION.fullmatch(value):
        raise _bad(f"certification reference {value!r:.60}")
    return value
