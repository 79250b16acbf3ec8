"""PSA tokens: each claim, key and step broken alone."""

import hashlib
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pki import NOW, ec_key

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.psa import VERIFIER
from broch.tee.psa.token import LEGACY, PROFILES, Token
from broch.tee.psa.verify import PsaClaims
from broch.tee.verifier import Verifier
from broch.wire import cbor, cose
from broch.wire.cose import Alg, Tagging

KEY: Final = ec_key("psa", ec.SECP256R1)
KEY384: Final = ec_key("psa", ec.SECP384R1)
MAC_KEY: Final = bytes(range(32))
POINT: Final = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
INSTANCE: Final = b"\x01" + hashlib.sha256(POINT).digest()
COMPONENTS: Final = [{1: "SPE", 2: b"m" * 32, 4: "1.6.0", 5: b"s" * 32, 6: "SHA256"}]
NEW: Final[dict[Any, Any]] = {
    265: PROFILES[0],
    10: b"n" * 64,
    256: INSTANCE,
    2394: 3002,
    2395: 0x3000,
    2396: b"i" * 32,
    2397: b"b" * 32,
    2398: "0604565272829-10010",
    2399: COMPONENTS,
    2400: "verifier.example",
}
TO_OLD: Final = {
    265: -75000,
    10: -75008,
    256: -75009,
    2394: -75001,
    2395: -75002,
    2396: -75003,
    2397: -75004,
    2398: -75005,
    2399: -75006,
    2400: -75010,
}
OLD: Final[dict[Any, Any]] = {**{TO_OLD[k]: v for k, v in NEW.items()}, -75000: LEGACY}


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def items(**changes: bytes | None) -> dict[str, bytes]:
    sound: dict[str, bytes | None] = {
        "implementation_id": b"i" * 32,
        "attestation_key": spki(KEY),
        **changes,
    }
    return {name: value for name, value in sound.items() if value is not None}


def sign(claims: Any, key: ec.EllipticCurvePrivateKey = KEY, alg: Alg = Alg.ES256) -> bytes:
    return cose.sign1(cbor.encode(claims), key, alg, tagging=Tagging.TAGGED)


def verify(evidence: bytes, **changes: bytes | None) -> PsaClaims:
    return VERIFIER.verify(evidence, Endorsements(anchors=(), items=items(**changes)), at=NOW)


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("psa", "Arm PSA")


@pytest.mark.parametrize(
    "claims", [NEW, {**NEW, 265: PROFILES[1]}, OLD], ids=["2023", "2.0.0", "legacy"]
)
def test_claims(claims: dict[Any, Any]) -> None:
    found = verify(sign(claims))
    assert found.tee == "psa"
    assert found.report_data == b"n" * 64
    assert found.measurement == hashlib.sha256(cbor.encode(COMPONENTS)).digest()
    assert found.signer is None
    assert not found.debug
    assert not found.emulated
    assert not found.symmetric
    assert found.details["lifecycle"] == "SECURED"
    assert found.details["caller"] == "secure"
    assert found.token.components[0].type == "SPE"


def test_optional_claims() -> None:
    least = {label: value for label, value in NEW.items() if label not in (2397, 2398, 2400)}
    token = verify(sign(least)).token
    assert (token.boot_seed, token.certification, token.service) == (None, None, None)
    least = {label: value for label, value in OLD.items() if label not in (-75005, -75010)}
    assert verify(sign(least)).token.certification is None


@pytest.mark.parametrize("size", [32, 48, 64])
def test_nonces(size: int) -> None:
    assert len(verify(sign({**NEW, 10: bytes(size)})).report_data) == size


def test_a_caller_on_the_non_secure_side() -> None:
    assert verify(sign({**NEW, 2394: -1})).details["caller"] == "non-secure"


@pytest.mark.parametrize(("value", "debug"), [(0x4000, True), (0x5000, True), (0x3001, False)])
def test_debug_is_a_claim(value: int, debug: bool) -> None:
    assert verify(sign({**NEW, 2395: value})).debug is debug


@pytest.mark.parametrize("value", [0x0000, 0x1000, 0x2000, 0x6000])
def test_states_in_which_nobody_can_attest(value: int) -> None:
    with pytest.raises(UntrustedError, match="cannot attest"):
        verify(sign({**NEW, 2395: value}))


BAD: Final[list[tuple[int, Any]]] = [
    (10, b"n" * 31),
    (10, b"n" * 8),
    (10, "n" * 32),
    (10, [b"n" * 32, b"m" * 32]),
    (256, INSTANCE[:-1]),
    (256, b"\x02" + INSTANCE[1:]),
    (2394, 0),
    (2394, 1 << 31),
    (2394, -(1 << 31) - 1),
    (2394, "1"),
    (2394, True),
    (2395, 0x7000),
    (2396, b"i" * 31),
    (2397, b"b" * 7),
    (2397, b"b" * 33),
    (2398, "not a number"),
    (2398, "0604565272829-1001"),
    (2398, "0604565272829\n"),
    (2399, []),
    (2399, [{}]),
    (2400, ""),
    (2400, 1),
]


@pytest.mark.parametrize(("label", "value"), BAD)
@pytest.mark.parametrize("legacy", [False, True])
def test_each_claim(label: int, value: Any, legacy: bool) -> None:
    sound = OLD if legacy else NEW
    with pytest.raises(DecodeError):
        verify(sign({**sound, TO_OLD[label] if legacy else label: value}))


@pytest.mark.parametrize("label", [10, 256, 265, 2394, 2395, 2396, 2399])
def test_claims_that_are_required(label: int) -> None:
    for sound, missing in ((NEW, label), (OLD, TO_OLD[label])):
        with pytest.raises(DecodeError):
            verify(sign({key: value for key, value in sound.items() if key != missing}))
    with pytest.raises(DecodeError):
        verify(sign({key: value for key, value in OLD.items() if key != -75004}))


@pytest.mark.parametrize(
    "claims",
    [
        {**NEW, 2401: b"x"},
        {**NEW, -75007: 1},
        {**OLD, -75007: 1},
        {**NEW, "x": 1},
        {**OLD, 10: b"n" * 32},
        {**NEW, 265: LEGACY},
        {**OLD, -75000: PROFILES[0]},
        {**NEW, 265: "tag:psacertified.org,2019:psa#other"},
        {**NEW, -75000: LEGACY},
        [1],
    ],
)
def test_exactly_the_claims_of_the_profile(claims: Any) -> None:
    with pytest.raises(DecodeError):
        verify(sign(claims))


# Keys


def test_keys_of_other_curves_fix_other_algorithms() -> None:
    token = sign(NEW, KEY384, Alg.ES384)
    assert verify(token, attestation_key=spki(KEY384), instance_id=INSTANCE).debug is False
    with pytest.raises(UntrustedError, match="algorithm -35, expected ES256"):
        verify(token)
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        verify(sign(NEW), attestation_key=spki(KEY384))


def test_a_stranger() -> None:
    with pytest.raises(UntrustedError, match="signature does not hold"):
        verify(sign(NEW, ec_key("stranger", ec.SECP256R1)))


@pytest.mark.parametrize("name", ["implementation_id", "attestation_key"])
def test_nothing_is_optional(name: str) -> None:
    with pytest.raises(UndecidedError, match=f"lack {name}"):
        verify(sign(NEW), **{name: None})


def test_the_key_is_of_this_kind_of_device_and_of_this_device() -> None:
    with pytest.raises(UntrustedError, match="implementation id"):
        verify(sign(NEW), implementation_id=b"x" * 32)
    with pytest.raises(UntrustedError, match="instance id"):
        verify(sign(NEW), instance_id=b"\x01" * 33)
    other = {**NEW, 256: b"\x01" * 33}
    assert verify(sign(other), instance_id=b"\x01" * 33).token.instance_id == b"\x01" * 33
    with pytest.raises(UntrustedError, match="instance id"):
        verify(sign(other))


def test_macs() -> None:
    token = cose.mac0(cbor.encode(NEW), MAC_KEY, tagging=Tagging.TAGGED)
    found = verify(token, mac_key=MAC_KEY, instance_id=INSTANCE)
    assert found.symmetric
    assert found.details["authentication"] == "MAC"
    with pytest.raises(UndecidedError, match="lack mac_key"):
        verify(token)
    with pytest.raises(UndecidedError, match="lack instance_id"):
        verify(token, mac_key=MAC_KEY)
    with pytest.raises(UntrustedError, match="does not hold"):
        verify(token, mac_key=MAC_KEY[::-1])


def test_a_mac_under_the_public_key_is_nothing() -> None:
    """The public key is no secret: it is never taken for a MAC key."""
    token = cose.mac0(cbor.encode(NEW), spki(KEY), tagging=Tagging.TAGGED)
    with pytest.raises(UndecidedError, match="lack mac_key"):
        verify(token)


# Envelope


def test_envelope() -> None:
    with pytest.raises(DecodeError, match="not tagged"):
        verify(cose.sign1(cbor.encode(NEW), KEY, Alg.ES256, tagging=Tagging.UNTAGGED))
    with pytest.raises(DecodeError, match="after the item"):
        verify(sign(NEW) + b"\0")
    with pytest.raises(DecodeError, match="longer than"):
        verify(bytes(65537))
    with pytest.raises(UsageError):
        VERIFIER.verify(sign(NEW), Endorsements(anchors=(), items={}), at=NOW.replace(tzinfo=None))


def test_duplicate_claims() -> None:
    """Section 2.9: signed as they are, and refused."""
    payload = cbor.encode(NEW)
    twice = b"\xab" + payload[1:] + cbor.encode(2395) + cbor.encode(0x3000)
    assert payload[0] == 0xAA
    with pytest.raises(DecodeError, match="comes twice"):
        verify(cose.sign1(twice, KEY, Alg.ES256, tagging=Tagging.TAGGED))


def test_every_byte_counts() -> None:
    token = sign(NEW)
    for offset in range(len(token)):
        bent = bytearray(token)
        bent[offset] ^= 1
        with pytest.raises((DecodeError, UntrustedError, UndecidedError)):
            verify(bytes(bent))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_noise_gives_our_errors(data: bytes) -> None:
    with pytest.raises(BrochError):
        Token.from_bytes(data)
    with pytest.raises(BrochError):
        verify(cose.sign1(data, KEY, Alg.ES256, tagging=Tagging.TAGGED))
