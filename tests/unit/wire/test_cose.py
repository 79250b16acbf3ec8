"""COSE messages: the examples of the working group's rules, each broken alone."""

from typing import Any, Final

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.wire import cbor, cose
from broch.wire.cose import MAC0_TAG, SIGN1_TAG, Alg, Message, Tagging

KEY: Final = ec.derive_private_key(12345, ec.SECP256R1())
KEY384: Final = ec.derive_private_key(12345, ec.SECP384R1())
KEY521: Final = ec.derive_private_key(12345, ec.SECP521R1())
MAC_KEY: Final = bytes(range(32))
PAYLOAD: Final = b"This is the content."


def read(data: bytes, tag: int = SIGN1_TAG, tagging: Tagging = Tagging.TAGGED) -> Message:
    return Message.from_bytes(data, tag=tag, tagging=tagging, what="test")


def parts(**changes: Any) -> list[Any]:
    """Parts of a sound ES256 message with some of them changed."""
    message = read(cose.sign1(PAYLOAD, KEY, Alg.ES256, tagging=Tagging.TAGGED))
    sound = {
        "protected": message.protected,
        "unprotected": {},
        "payload": message.payload,
        "signature": message.signature,
    }
    return list({**sound, **changes}.values())


def tagged(items: Any, tag: int = SIGN1_TAG) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, items))


@pytest.mark.parametrize(
    ("alg", "key"), [(Alg.ES256, KEY), (Alg.ES384, KEY384), (Alg.ES512, KEY521)]
)
@pytest.mark.parametrize("tagging", list(Tagging))
def test_signatures_round_trip(alg: Alg, key: ec.EllipticCurvePrivateKey, tagging: Tagging) -> None:
    data = cose.sign1(PAYLOAD, key, alg, tagging=tagging, external=b"aad")
    message = read(data, tagging=tagging)
    assert message.to_bytes() == data
    assert message.payload == PAYLOAD
    cose.verify1(message, key.public_key(), alg, "test", b"aad")
    with pytest.raises(UntrustedError, match="does not hold"):
        cose.verify1(message, key.public_key(), alg, "test", b"")


def test_an_example_of_the_working_group() -> None:
    """cose-wg/Examples, sign1-tests/sign-pass-01.json: ES256, empty protected header, no alg in it.

    The algorithm is only in the unprotected header there, which is what must not be trusted.
    """
    data = bytes.fromhex(
        "D28441A0A201260442313154546869732069732074686520636F6E74656E742E584087DB0D2E5571843B78AC33"
        "ECB2830DF7B6E0A4D5B7376DE336B23C591C90C425317E56127FBE04370097CE347087B233BF722B64072BEB4486"
        "BDA4031D27244F"
    )
    with pytest.raises(DecodeError):
        read(data)


def test_a_second_example_of_the_working_group() -> None:
    """cose-wg/Examples, ecdsa-examples/ecdsa-sig-01.json: ES256 in the protected header."""
    key = ec.EllipticCurvePublicKey.from_encoded_point(
        ec.SECP256R1(),
        bytes.fromhex(
            "04"
            "bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff"
            "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
        ),
    )
    data = bytes.fromhex(
        "D28443A10126A10442313154546869732069732074686520636F6E74656E742E58408EB33E4CA31D1C465AB05A"
        "AC34CC6B23D58FEF5C083106C4D25A91AEF0B0117E2AF9A291AA32E14AB834DC56ED2A223444547E01F11D3B09"
        "16E5A4C345CACB36"
    )
    message = read(data)
    assert message.to_bytes() == data
    cose.verify1(message, key, Alg.ES256, "test")


def test_macs_round_trip() -> None:
    data = cose.mac0(PAYLOAD, MAC_KEY, tagging=Tagging.TAGGED)
    message = read(data, MAC0_TAG)
    assert message.to_bytes() == data
    cose.verify_mac0(message, MAC_KEY, "test")
    with pytest.raises(UntrustedError, match="does not hold"):
        cose.verify_mac0(message, MAC_KEY[::-1], "test")
    with pytest.raises(UntrustedError, match="0 bytes"):
        cose.verify_mac0(message, b"", "test")


def test_signatures_are_not_macs() -> None:
    signed = read(cose.sign1(PAYLOAD, KEY, Alg.ES256, tagging=Tagging.TAGGED))
    mac = read(cose.mac0(PAYLOAD, MAC_KEY, tagging=Tagging.TAGGED), MAC0_TAG)
    with pytest.raises(UntrustedError, match="not a MAC"):
        cose.verify_mac0(signed, MAC_KEY, "test")
    with pytest.raises(UntrustedError, match="not a signature"):
        cose.verify1(mac, KEY.public_key(), Alg.ES256, "test")
    with pytest.raises(UntrustedError, match="not a signature"):
        cose.verify1(signed, KEY.public_key(), Alg.HMAC_256, "test")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(tagged(parts(), 17), "not tagged 18", id="other tag"),
        pytest.param(cbor2.dumps(parts()), "not tagged 18", id="no tag"),
        pytest.param(tagged(tagged(parts())), "array of four", id="not an array"),
        pytest.param(tagged(parts()[:3]), "array of four", id="three parts"),
        pytest.param(tagged([*parts(), 0]), "array of four", id="five parts"),
        pytest.param(tagged(parts(protected={1: -7})), "protected header", id="header a map"),
        pytest.param(tagged(parts(protected=b"\xa0")), "with entries", id="empty map"),
        pytest.param(tagged(parts(protected=b"\x80")), "with entries", id="not a map"),
        pytest.param(tagged(parts(protected=b"\xa1\x01\x26\0")), "after", id="more than a map"),
        pytest.param(
            tagged(parts(protected=bytes.fromhex("a201260126"))), "twice", id="alg comes twice"
        ),
        pytest.param(tagged(parts(unprotected=None)), "unprotected header", id="no map"),
        pytest.param(tagged(parts(unprotected={1: -7})), "both", id="alg twice"),
        pytest.param(
            tagged(parts(protected=b"", unprotected={1: -7})), "alg or crit", id="alg unprotected"
        ),
        pytest.param(tagged(parts(unprotected={2: [1]})), "alg or crit", id="crit unprotected"),
        pytest.param(tagged(parts(payload=None)), "payload", id="detached"),
        pytest.param(tagged(parts(signature="x")), "signature", id="signature is text"),
        pytest.param(tagged(parts()) + b"\0", "after the item", id="trailing byte"),
    ],
)
def test_each_rule_of_decoding(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        read(data)


def test_a_tag_where_none_is_wanted() -> None:
    with pytest.raises(DecodeError, match="array of four"):
        read(tagged(parts()), tagging=Tagging.UNTAGGED)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        pytest.param({1: -35}, "algorithm -35", id="another algorithm"),
        pytest.param({1: "ES256"}, "algorithm 'ES256'", id="a name"),
        pytest.param({4: b"x"}, "algorithm None", id="none"),
        pytest.param({1: -7, 2: [4], 4: b"x"}, "critical", id="critical"),
    ],
)
def test_the_algorithm_is_the_callers(header: dict[int, Any], problem: str) -> None:
    """Section 2.9: COSE alg from header trusted. Properly signed over the header that is bent."""
    bent = read(tagged(parts(protected=cbor.encode(dict(header)))))
    with pytest.raises(UntrustedError, match=problem):
        cose.verify1(bent, KEY.public_key(), Alg.ES256, "test")


def test_a_key_of_another_curve() -> None:
    message = read(tagged(parts()))
    with pytest.raises(UntrustedError, match="secp384r1 for ES256"):
        cose.verify1(message, KEY384.public_key(), Alg.ES256, "test")


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_a_signature_of_another_size(size: int) -> None:
    message = read(tagged(parts(signature=bytes(size))))
    with pytest.raises(UntrustedError, match=f"{size} bytes, expected 64"):
        cose.verify1(message, KEY.public_key(), Alg.ES256, "test")


def test_every_byte_counts() -> None:
    sound = tagged(parts())
    for offset in range(len(sound)):
        bent = bytearray(sound)
        bent[offset] ^= 1
        with pytest.raises((DecodeError, UntrustedError)):
            cose.verify1(read(bytes(bent)), KEY.public_key(), Alg.ES256, "test")


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_noise_gives_our_errors(data: bytes) -> None:
    try:
        message = read(b"\xd2\x84" + data)
    except BrochError:
        return
    assert message.to_bytes() == b"\xd2\x84" + data


def cose_key(key: ec.EllipticCurvePrivateKey, crv: int, size: int) -> dict[int, Any]:
    numbers = key.public_key().public_numbers()
    return {1: 2, -1: crv, -2: numbers.x.to_bytes(size, "big"), -3: numbers.y.to_bytes(size, "big")}


@pytest.mark.parametrize(("key", "crv", "size"), [(KEY, 1, 32), (KEY384, 2, 48), (KEY521, 3, 66)])
def test_keys(key: ec.EllipticCurvePrivateKey, crv: int, size: int) -> None:
    found = cose.public_key(cose_key(key, crv, size), "test")
    assert found.public_numbers() == key.public_key().public_numbers()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({1: 1}, "not an EC2 key"),
        ({-1: 8}, "not an EC2 key"),
        ({-1: True}, "not an EC2 key"),
        ({-1: [1]}, "not an EC2 key"),
        ({-2: bytes(31)}, "32 bytes each"),
        ({-3: True}, "32 bytes each"),
        ({-4: b"private"}, "unknown parameters"),
    ],
)
def test_bad_keys(change: dict[int, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        cose.public_key({**cose_key(KEY, 1, 32), **change}, "test")


def test_a_point_off_the_curve() -> None:
    with pytest.raises(UntrustedError, match="not a point"):
        cose.public_key({**cose_key(KEY, 1, 32), -3: bytes(32)}, "test")
