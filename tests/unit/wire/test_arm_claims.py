"""Claims that PSA and CCA share: each rule alone."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.pki import ec_key, rsa_key

from broch.errors import DecodeError
from broch.wire import arm_claims
from broch.wire.arm_claims import Lifecycle
from broch.wire.cose import Alg

COMPONENT = {1: "BL", 2: bytes(32), 4: "1.0", 5: bytes(48), 6: "SHA256"}


def spki(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made


@pytest.mark.parametrize(
    ("value", "state", "debug", "attestable"),
    [
        (0x0000, Lifecycle.UNKNOWN, False, False),
        (0x00FF, Lifecycle.UNKNOWN, False, False),
        (0x1000, Lifecycle.ASSEMBLY_AND_TEST, False, False),
        (0x2000, Lifecycle.ROT_PROVISIONING, False, False),
        (0x3000, Lifecycle.SECURED, False, True),
        (0x30FF, Lifecycle.SECURED, False, True),
        (0x4000, Lifecycle.NON_ROT_DEBUG, True, True),
        (0x5000, Lifecycle.RECOVERABLE_ROT_DEBUG, True, True),
        (0x60FF, Lifecycle.DECOMMISSIONED, False, False),
    ],
)
def test_lifecycles(value: int, state: Lifecycle, debug: bool, attestable: bool) -> None:
    found = arm_claims.lifecycle({2395: value}, 2395, "test")
    assert found is state
    assert found.debug is debug
    assert found.attestable is attestable


@pytest.mark.parametrize(
    "value", [0x0100, 0x2FFF, 0x3100, 0x6100, 0xFFFF, 0x10000, 0x13000, -1, True, "x", None]
)
def test_undefined_lifecycles(value: Any) -> None:
    with pytest.raises(DecodeError, match="undefined lifecycle"):
        arm_claims.lifecycle({2395: value}, 2395, "test")


def test_components() -> None:
    (full, least) = arm_claims.components({1: [COMPONENT, {2: bytes(64), 5: bytes(32)}]}, 1, "test")
    assert (full.type, full.version, full.description) == ("BL", "1.0", "SHA256")
    assert (len(full.measurement), len(full.signer_id)) == (32, 48)
    assert (least.type, least.version, least.description) == ("", "", "")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        [COMPONENT] * 65,
        [[]],
        [{**COMPONENT, 3: "x"}],
        [{**COMPONENT, 2: bytes(31)}],
        [{**COMPONENT, 5: bytes(20)}],
        [{**COMPONENT, 1: 1}],
        [{**COMPONENT, 4: ""}],
        [{**COMPONENT, 6: "x" * 1025}],
        [{k: v for k, v in COMPONENT.items() if k != 2}],
        [{k: v for k, v in COMPONENT.items() if k != 5}],
    ],
)
def test_bad_components(value: Any) -> None:
    with pytest.raises(DecodeError):
        arm_claims.components({1: value}, 1, "test")


def test_a_key_fixes_its_algorithm() -> None:
    for curve, alg in (
        (ec.SECP256R1, Alg.ES256),
        (ec.SECP384R1, Alg.ES384),
        (ec.SECP521R1, Alg.ES512),
    ):
        assert arm_claims.enrolled_key(spki(ec_key("x", curve)), "key")[1] is alg
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    k1 = ec.derive_private_key(5, ec.SECP256K1())
    for other in (spki(ed), spki(k1), spki(rsa_key("x")), b"", b"\x30\x00"):
        with pytest.raises(DecodeError):
            arm_claims.enrolled_key(other, "key")
