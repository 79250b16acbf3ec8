"""CCA tokens: each claim, binding and step broken alone."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pki import NOW, ec_key

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.cca import VERIFIER
from broch.tee.cca.token import PLATFORM, REALM, REALM_PROFILE, Collection, Platform, Realm
from broch.tee.cca.verify import CcaClaims
from broch.tee.contract import Endorsements
from broch.tee.verifier import Verifier
from broch.wire import cbor, cose
from broch.wire.cbor import Tag
from broch.wire.cose import Alg, Tagging

CPAK: Final = ec_key("cpak")
RAK: Final = ec_key("rak")
INSTANCE: Final = b"\x01" * 33
HASHES: Final = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


def raw(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def cose_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    point = raw(key)
    return cbor.encode({1: 2, -1: 2, -2: point[1:49], -3: point[49:]})


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(kw_only=True)
class Attester:
    """A realm on its platform; change a claim, then ask for evidence."""

    realm: dict[Any, Any] = field(default_factory=dict)
    platform: dict[Any, Any] = field(default_factory=dict)
    without: tuple[tuple[str, int], ...] = ()
    legacy: bool = False
    cpak: ec.EllipticCurvePrivateKey = CPAK
    platform_alg: Alg = Alg.ES384
    rak: ec.EllipticCurvePrivateKey = RAK
    realm_alg: Alg = Alg.ES384
    tagging: Tagging = Tagging.TAGGED

    def evidence(self) -> bytes:
        realm: dict[Any, Any] = {
            265: REALM_PROFILE,
            10: b"c" * 64,
            44235: b"p" * 64,
            44236: "sha-256",
            44237: raw(RAK) if self.legacy else cose_key(RAK),
            44238: b"r" * 32,
            44239: [b"0" * 32, b"1" * 32, b"2" * 32, b"3" * 32],
            44240: "sha-256",
        }
        if self.legacy:
            del realm[265]
        realm |= self.realm
        key, name = realm.get(44237), HASHES.get(str(realm.get(44240)), "sha256")
        platform: dict[Any, Any] = {
            265: "tag:arm.com,2023:cca_platform#1.0.0",
            10: hashlib.new(name, key if isinstance(key, bytes) else b"").digest(),
            2396: b"i" * 32,
            256: INSTANCE,
            2401: b"config",
            2395: 0x3003,
            2399: [{1: "BL", 2: b"m" * 32, 4: "1", 5: b"s" * 32, 6: "sha-256"}],
            2400: "verifier.example",
            2402: "sha-256",
        }
        platform |= self.platform
        for which, label in self.without:
            del {"realm": realm, "platform": platform}[which][label]
        return self.wrap(
            {
                PLATFORM: self.sign(platform, self.cpak, self.platform_alg),
                REALM: self.sign(realm, self.rak, self.realm_alg),
            }
        )

    def sign(self, claims: dict[Any, Any], key: ec.EllipticCurvePrivateKey, alg: Alg) -> bytes:
        return cose.sign1(cbor.encode(claims), key, alg, tagging=self.tagging)

    @staticmethod
    def wrap(tokens: Any) -> bytes:
        return cbor.encode(Tag(399, tokens))


def verify(evidence: bytes, **changes: bytes | None) -> CcaClaims:
    sound: dict[str, bytes | None] = {
        "implementation_id": b"i" * 32,
        "instance_id": INSTANCE,
        "platform_key": spki(CPAK),
        **changes,
    }
    items = {name: value for name, value in sound.items() if value is not None}
    return VERIFIER.verify(evidence, Endorsements(anchors=(), items=items), at=NOW)


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("cca", "Arm CCA")


@pytest.mark.parametrize("legacy", [False, True])
def test_claims(legacy: bool) -> None:
    evidence = Attester(legacy=legacy).evidence()
    found = verify(evidence)
    assert found.tee == "cca"
    assert found.measurement == b"r" * 32
    assert found.report_data == b"c" * 64
    assert len(found.report_data) == VERIFIER.report_data_size
    assert not found.debug
    assert not found.emulated
    assert found.details["rem3"] == "33" * 32
    assert found.details["lifecycle"] == "SECURED"
    assert found.details["realm_profile"] == ("" if legacy else REALM_PROFILE)
    assert Collection.from_bytes(evidence).to_bytes() == evidence


def test_either_order() -> None:
    evidence = Attester().evidence()
    tokens = cbor.decode(evidence, what="test").value
    turned = Attester.wrap({REALM: tokens[REALM], PLATFORM: tokens[PLATFORM]})
    assert turned != evidence
    assert verify(turned).measurement == b"r" * 32


@pytest.mark.parametrize("name", ["sha-256", "sha-384", "sha-512"])
def test_hashes_of_the_key(name: str) -> None:
    assert verify(Attester(realm={44240: name}).evidence()).realm.key_hash_algorithm == name


@pytest.mark.parametrize("size", [32, 48, 64])
def test_measurements_of_each_size(size: int) -> None:
    attester = Attester(realm={44238: bytes(size), 44239: [bytes(size)] * 4})
    assert len(verify(attester.evidence()).measurement) == size


# The binding


def test_an_unbound_realm_key() -> None:
    """Section 2.9: a genuine platform token beside the token of a realm that it never saw."""
    with pytest.raises(UntrustedError, match="does not bind the realm's key"):
        verify(Attester(platform={10: b"x" * 32}).evidence())
    stranger = ec_key("stranger")
    genuine = cbor.decode(Attester().evidence(), what="test").value
    forged = cbor.decode(
        Attester(realm={44237: cose_key(stranger)}, rak=stranger).evidence(), what="test"
    ).value
    with pytest.raises(UntrustedError, match="does not bind the realm's key"):
        verify(Attester.wrap({PLATFORM: genuine[PLATFORM], REALM: forged[REALM]}))


def test_the_binding_is_over_the_bytes_of_the_key() -> None:
    """The same key in another encoding has another hash."""
    point = raw(RAK)
    other = cbor.encode({-3: point[49:], -2: point[1:49], -1: 2, 1: 2})
    digest = hashlib.sha256(other).digest()
    with pytest.raises(UntrustedError, match="does not bind"):
        verify(Attester(platform={10: digest}).evidence())
    assert verify(Attester(realm={44237: other}).evidence()).realm.key == other


def test_the_realm_signs_with_the_bound_key() -> None:
    with pytest.raises(UntrustedError, match="CCA realm token: the signature"):
        verify(Attester(rak=ec_key("stranger")).evidence())


def test_the_realm_signs_with_es384_and_nothing_else() -> None:
    p256 = ec_key("rak", ec.SECP256R1)
    point = raw(p256)
    key = cbor.encode({1: 2, -1: 1, -2: point[1:33], -3: point[33:]})
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        verify(Attester(realm={44237: key}, rak=p256, realm_alg=Alg.ES256).evidence())
    # A header that says ES384 over a key on P-256.
    with pytest.raises(UntrustedError, match="secp256r1 for ES384"):
        verify(Attester(realm={44237: key}).evidence())


@pytest.mark.parametrize(
    ("legacy", "key"),
    [
        (False, raw(RAK)),
        (True, cose_key(RAK)),
        (True, raw(RAK)[:-1]),
        (True, b"\x03" + raw(RAK)[1:]),
        (True, b"\x04" + bytes(96)),
        (False, b"\xa0"),
        (False, b""),
        (False, bytes(257)),
        (False, None),
    ],
)
def test_keys_that_are_none(legacy: bool, key: Any) -> None:
    with pytest.raises((DecodeError, UntrustedError)):
        verify(Attester(legacy=legacy, realm={44237: key}).evidence())


# The platform


def test_a_stranger_as_platform() -> None:
    with pytest.raises(UntrustedError, match="CCA platform token: the signature"):
        verify(Attester(cpak=ec_key("stranger")).evidence())


def test_the_platforms_algorithm_is_that_of_its_key() -> None:
    p256 = ec_key("cpak", ec.SECP256R1)
    evidence = Attester(cpak=p256, platform_alg=Alg.ES256).evidence()
    assert verify(evidence, platform_key=spki(p256)).measurement == b"r" * 32
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        verify(evidence)


@pytest.mark.parametrize("name", ["implementation_id", "instance_id", "platform_key"])
def test_nothing_is_optional(name: str) -> None:
    with pytest.raises(UndecidedError, match=f"lack {name}"):
        verify(Attester().evidence(), **{name: None})


@pytest.mark.parametrize("name", ["implementation_id", "instance_id"])
def test_the_key_is_of_this_platform(name: str) -> None:
    with pytest.raises(UntrustedError, match=f"{name} is not the enrolled one"):
        verify(Attester().evidence(), **{name: b"\x01" * 32})


@pytest.mark.parametrize(("value", "debug"), [(0x4000, True), (0x5000, True), (0x3000, False)])
def test_debug_is_a_claim(value: int, debug: bool) -> None:
    assert verify(Attester(platform={2395: value}).evidence()).debug is debug


@pytest.mark.parametrize("value", [0x0000, 0x1000, 0x2000, 0x6000])
def test_states_in_which_nobody_can_attest(value: int) -> None:
    with pytest.raises(UntrustedError, match="cannot attest"):
        verify(Attester(platform={2395: value}).evidence())


# Claims


@pytest.mark.parametrize(
    "claims",
    [
        {265: "other"},
        {265: None},
        {10: b"c" * 63},
        {10: b"c" * 32},
        {44235: b"p" * 63},
        {44236: "md5"},
        {44236: None},
        {44238: b"r" * 31},
        {44238: b"r" * 48},
        {44239: [b"0" * 32] * 3},
        {44239: [b"0" * 32] * 5},
        {44239: [b"0" * 32] * 3 + [b"0" * 48]},
        {44239: [b"0" * 32] * 3 + ["0"]},
        {44239: b"0" * 128},
        {44240: "sha-1"},
        {44240: []},
        {1: 1},
    ],
)
def test_each_claim_of_the_realm(claims: dict[Any, Any]) -> None:
    with pytest.raises(DecodeError):
        verify(Attester(realm=claims).evidence())


@pytest.mark.parametrize(
    "claims",
    [
        {265: "other"},
        {10: b"n" * 31},
        {2396: b"i" * 31},
        {256: b"\x01" * 32},
        {256: b"\x02" * 33},
        {2401: "config"},
        {2401: bytes(1025)},
        {2395: 0x7000},
        {2399: []},
        {2400: 1},
        {2402: "sha-1"},
        {2394: 1},
    ],
)
def test_each_claim_of_the_platform(claims: dict[Any, Any]) -> None:
    with pytest.raises(DecodeError):
        verify(Attester(platform=claims).evidence())


@pytest.mark.parametrize("label", [10, 44235, 44236, 44237, 44238, 44239, 44240])
def test_claims_that_a_realm_has(label: int) -> None:
    with pytest.raises(DecodeError):
        verify(Attester(without=(("realm", label),)).evidence())


@pytest.mark.parametrize("label", [265, 10, 2396, 256, 2401, 2395, 2399, 2402])
def test_claims_that_a_platform_has(label: int) -> None:
    with pytest.raises(DecodeError):
        verify(Attester(without=(("platform", label),)).evidence())


# Envelope


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens: Attester.wrap({PLATFORM: tokens[PLATFORM]}),
        lambda tokens: Attester.wrap({REALM: tokens[REALM]}),
        lambda tokens: Attester.wrap({**tokens, 1: b""}),
        lambda tokens: Attester.wrap({**tokens, REALM: 1}),
        lambda tokens: Attester.wrap([tokens[PLATFORM], tokens[REALM]]),
        lambda tokens: cbor.encode(tokens),
        lambda tokens: cbor.encode(Tag(907, tokens)),
        lambda tokens: Attester.wrap(tokens) + b"\0",
        lambda tokens: Attester.wrap({**tokens, REALM: tokens[REALM] + b"\0"}),
        lambda tokens: bytes(65537),
    ],
)
def test_envelope(change: Any) -> None:
    tokens = cbor.decode(Attester().evidence(), what="test").value
    with pytest.raises(DecodeError):
        verify(change(tokens))


def test_tokens_are_tagged() -> None:
    with pytest.raises(DecodeError, match="not tagged 18"):
        verify(Attester(tagging=Tagging.UNTAGGED).evidence())


def test_tokens_swapped() -> None:
    tokens = cbor.decode(Attester().evidence(), what="test").value
    with pytest.raises(UntrustedError, match="CCA platform token: the signature"):
        verify(Attester.wrap({PLATFORM: tokens[REALM], REALM: tokens[PLATFORM]}))


def test_a_time_without_zone() -> None:
    with pytest.raises(UsageError):
        VERIFIER.verify(
            Attester().evidence(), Endorsements(anchors=()), at=NOW.replace(tzinfo=None)
        )


def test_bytes_all_over_the_token_count() -> None:
    evidence = Attester().evidence()
    for offset in range(0, len(evidence), 3):
        bent = bytearray(evidence)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            verify(bytes(bent))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_noise_gives_our_errors(data: bytes) -> None:
    for reader in (Collection.from_bytes, Platform.from_bytes, Realm.from_bytes):
        with pytest.raises(BrochError):
            reader(data)
