"""The CCA attestation token: a platform token and a realm token in a collection.

    399({ 44234: bytes, COSE_Sign1 of the platform; 44241: bytes, COSE_Sign1 of the realm })

Realm (RMM specification, A7.2.3.1)            Platform (A7.2.3.2)
    10     challenge, 64 bytes                     265   profile
    265    profile; absent in the oldest form      10    nonce: hash of the realm's key, 32-64
    44235  personalisation value, 64               2396  implementation id, 32
    44236  hash algorithm, text                    256   instance id, 33, begins with 1
    44237  realm attestation key, bytes            2401  configuration, bytes
    44238  initial measurement (RIM)               2395  security lifecycle
    44239  extensible measurements (REM), four     2399  software components
    44240  hash algorithm of the key, text         2400  verification service, text, optional
                                                   2402  hash algorithm, text

The realm's key is a COSE_Key in profile ``tag:arm.com,2023:realm#1.0.0`` and a raw point (97 bytes)
without a profile; it is always on P-384.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from broch.errors import DecodeError, UntrustedError
from broch.wire import arm_claims, cbor, cose
from broch.wire.arm_claims import HASH_SIZES, Component, Lifecycle
from broch.wire.cose import SIGN1_TAG, Message, Tagging

MAX_SIZE: Final = 64 * 1024  # bytes
COLLECTION_TAG: Final = 399
PLATFORM: Final = 44234
REALM: Final = 44241
PLATFORM_PROFILES: Final = ("tag:arm.com,2023:cca_platform#1.0.0", "http://arm.com/CCA-SSD/1.0.0")
REALM_PROFILE: Final = "tag:arm.com,2023:realm#1.0.0"
HASHES: Final = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}
RAW_KEY_SIZE: Final = 97
MAX_CONFIGURATION: Final = 1024
_PLATFORM_CLAIMS: Final = {265, 10, 2396, 256, 2401, 2395, 2399, 2400, 2402}
_REALM_CLAIMS: Final = {265, 10, 44235, 44236, 44237, 44238, 44239, 44240}
_W: Final = "CCA token"
_P: Final = "CCA platform token"
_R: Final = "CCA realm token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Both tokens, taken apart. Nothing in them has been verified."""

    platform: Message
    realm: Message

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one collection.

        Raises:
            DecodeError: not one, or a token that is no COSE_Sign1.
        """
        outer = cbor.decode(data, what=_W, max_size=MAX_SIZE)
        if not isinstance(outer, cbor.Tag) or outer.number != COLLECTION_TAG:
            raise DecodeError(0, f"not tagged {COLLECTION_TAG}", what=_W)
        tokens = outer.value
        if not isinstance(tokens, dict) or tokens.keys() != {PLATFORM, REALM}:
            raise DecodeError(0, "not a platform and a realm token", what=_W)
        if not all(isinstance(token, bytes) for token in tokens.values()):
            raise DecodeError(0, "a token is no byte string", what=_W)
        found = cls(platform=_message(tokens[PLATFORM], _P), realm=_message(tokens[REALM], _R))
        if found.to_bytes(platform_first=next(iter(tokens)) == PLATFORM) != data:
            raise DecodeError(0, "not canonical", what=_W)
        return found

    def to_bytes(self, *, platform_first: bool = True) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        tokens = {PLATFORM: self.platform.to_bytes(), REALM: self.realm.to_bytes()}
        order = (PLATFORM, REALM) if platform_first else (REALM, PLATFORM)
        return cbor.encode(cbor.Tag(COLLECTION_TAG, {label: tokens[label] for label in order}))


def _message(data: bytes, what: str) -> Message:
    return Message.from_bytes(data, tag=SIGN1_TAG, tagging=Tagging.TAGGED, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Claims of the platform."""

    profile: str
    nonce: bytes
    implementation_id: bytes
    instance_id: bytes
    configuration: bytes
    lifecycle: Lifecycle
    components: tuple[Component, ...]
    service: str | None
    hash_algorithm: str

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the payload of a platform token.

        Raises:
            DecodeError: a claim is missing, unknown or not as specified.
        """
        claims = _claims(data, _PLATFORM_CLAIMS, _P)
        profile = claims.get(265)
        if profile not in PLATFORM_PROFILES:
            raise DecodeError(0, f"profile {profile!r:.60} is not known", what=_P)
        instance = arm_claims.octets(claims, 256, (33,), _P)
        if instance[0] != 1:
            raise DecodeError(0, "the instance id does not begin with 1", what=_P)
        return cls(
            profile=profile,
            nonce=arm_claims.octets(claims, 10, HASH_SIZES, _P),
            implementation_id=arm_claims.octets(claims, 2396, (32,), _P),
            instance_id=instance,
            configuration=_configuration(claims),
            lifecycle=arm_claims.lifecycle(claims, 2395, _P),
            components=arm_claims.components(claims, 2399, _P),
            service=arm_claims.text(claims, 2400, _P) if 2400 in claims else None,
            hash_algorithm=_hash(claims, 2402, _P),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """Claims of the realm."""

    profile: str | None
    challenge: bytes
    personalization: bytes
    hash_algorithm: str
    key: bytes  # exactly as it came: this is what the platform's nonce is the hash of
    key_hash_algorithm: str
    rim: bytes
    rems: tuple[bytes, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the payload of a realm token.

        Raises:
            DecodeError: a claim is missing, unknown or not as specified.
        """
        claims = _claims(data, _REALM_CLAIMS, _R)
        profile = claims.get(265)
        if 265 in claims and profile != REALM_PROFILE:
            raise DecodeError(0, f"profile {profile!r:.60} is not known", what=_R)
        rim = arm_claims.octets(claims, 44238, HASH_SIZES, _R)
        rems = claims.get(44239)
        if not isinstance(rems, list) or len(rems) != 4:
            raise DecodeError(0, "claim 44239 is not four measurements", what=_R)
        if not all(isinstance(rem, bytes) and len(rem) == len(rim) for rem in rems):
            raise DecodeError(0, f"claim 44239: a measurement is not {len(rim)} bytes", what=_R)
        key = claims.get(44237)
        if not isinstance(key, bytes) or not 0 < len(key) <= 256:
            raise DecodeError(0, "claim 44237 is no key", what=_R)
        return cls(
            profile=profile,
            challenge=arm_claims.octets(claims, 10, (64,), _R),
            personalization=arm_claims.octets(claims, 44235, (64,), _R),
            hash_algorithm=_hash(claims, 44236, _R),
            key=key,
            key_hash_algorithm=_hash(claims, 44240, _R),
            rim=rim,
            rems=tuple(rems),
        )

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The realm attestation key, on P-384.

        Raises:
            DecodeError: not in the form of the profile.
            UntrustedError: not a point of P-384.
        """
        if self.profile is not None:
            return cose.public_key(cbor.decode(self.key, what=_R), _R)
        if len(self.key) != RAW_KEY_SIZE or self.key[0] != 4:
            raise DecodeError(0, f"a key of {len(self.key)} bytes, expected a raw point", what=_R)
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), self.key)
        except ValueError:
            raise UntrustedError(f"{_R}: not a point of P-384") from None


def _claims(data: bytes, known: AbstractSet[int], what: str) -> dict[Any, Any]:
    claims = cbor.decode(data, what=what, max_size=MAX_SIZE)
    if not isinstance(claims, dict):
        raise DecodeError(0, "the claims are not a map", what=what)
    unknown = claims.keys() - known
    if unknown:
        raise DecodeError(0, f"unknown claims {sorted(map(repr, unknown))}", what=what)
    return claims


def _hash(claims: dict[Any, Any], label: int, what: str) -> str:
    value = claims.get(label)
    if not isinstance(value, str) or value not in HASHES:
        raise DecodeError(0, f"claim {label}: hash algorithm {value!r:.40} is not known", what=what)
    return value


def _configuration(claims: dict[Any, Any]) -> bytes:
    value = claims.get(2401)
    if not isinstance(value, bytes) or len(value) > MAX_CONFIGURATION:
        raise DecodeError(0, "claim 2401 is missing or too long", what=_P)
    return value
