"""Azure's binding: each rule alone."""

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.tee.tpm.hcl import SNP, TDX, HclReport

from .attester import AK_RSA, spki


def url(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


NUMBERS: Final = AK_RSA.public_key().public_numbers()
AK: Final[dict[str, Any]] = {
    "kid": "HCLAkPub",
    "key_ops": ["sign"],
    "kty": "RSA",
    "e": url(NUMBERS.e),
    "n": url(NUMBERS.n),
}
EK: Final[dict[str, Any]] = {**AK, "kid": "HCLEkPub", "key_ops": ["encrypt"]}


def runtime(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys), "vm-configuration": {}}).encode()


def report(data: bytes = runtime(AK, EK), **changes: Any) -> HclReport:
    sound = HclReport(
        version=2,
        size=2000,
        reserved=bytes(12),
        hardware=bytes(1184),
        report_type=SNP,
        runtime_data=data,
        padding=10,
    )
    return replace(sound, **changes)


def bound(data: bytes = runtime(AK, EK)) -> bytes:
    return report(data).bound_key(hashlib.sha256(data).digest() + bytes(32))


@pytest.mark.parametrize("kind", [SNP, TDX])
@pytest.mark.parametrize("version", [1, 2])
def test_round_trip(kind: int, version: int) -> None:
    made = report(report_type=kind, version=version)
    assert HclReport.from_bytes(made.to_bytes()) == made


def test_the_key() -> None:
    assert bound() == spki(AK_RSA)
    load_der_public_key(bound())


def test_runtime_data_that_the_hardware_does_not_vouch_for() -> None:
    data = runtime(AK, EK)
    digest = hashlib.sha256(data).digest()
    for report_data in (
        bytes(64),
        digest,
        digest + b"\1" + bytes(31),
        bytes(32) + digest,
        hashlib.sha256(data + b" ").digest() + bytes(32),
        b"",
    ):
        with pytest.raises(UntrustedError, match="does not bind"):
            report(data).bound_key(report_data)


def test_json_that_was_serialised_again() -> None:
    data = runtime(AK, EK)
    again = json.dumps(json.loads(data), separators=(",", ":")).encode()
    with pytest.raises(UntrustedError, match="does not bind"):
        report(again).bound_key(hashlib.sha256(data).digest() + bytes(32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[],"keys":[]}',
        b'{"keys":[1]}',
        runtime(EK),
        runtime(AK, AK),
        runtime({**AK, "kty": "EC"}),
        runtime({**AK, "key_ops": ["encrypt"]}),
        runtime({**AK, "key_ops": ["sign", "decrypt"]}),
        runtime({**AK, "n": "AQAB"}),
        runtime({**AK, "n": AK["n"] + "="}),
        runtime({**AK, "n": 1}),
        runtime({**AK, "n": "A" * 1025}),
        runtime({**AK, "e": url(2)}),
        runtime({**AK, "e": "A"}),
        runtime({**AK, "n": url(NUMBERS.n << 4096)}),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_each_rule_of_the_runtime_data(data: bytes) -> None:
    with pytest.raises(DecodeError):
        bound(data)


@pytest.mark.parametrize(
    ("offset", "patch"),
    [
        pytest.param(0, b"HCLB", id="magic"),
        pytest.param(4, b"\3", id="version"),
        pytest.param(12, b"\1", id="request type"),
        pytest.param(16, b"\1", id="status"),
        pytest.param(1216, b"\0", id="size"),
        pytest.param(1220, b"\2", id="runtime version"),
        pytest.param(1224, b"\3", id="report type"),
        pytest.param(1228, b"\2", id="hash"),
        pytest.param(1232, b"\xff\xff\xff\xff", id="size of runtime data"),
        pytest.param(-1, b"\1", id="padding"),
    ],
)
def test_each_rule_of_the_layout(offset: int, patch: bytes) -> None:
    data = bytearray(report().to_bytes())
    place = offset % len(data)
    data[place : place + len(patch)] = patch
    with pytest.raises(DecodeError):
        HclReport.from_bytes(bytes(data))


def test_lengths() -> None:
    data = report(padding=0).to_bytes()
    for size in range(0, len(data), 7):
        with pytest.raises(DecodeError):
            HclReport.from_bytes(data[:size])
    with pytest.raises(DecodeError, match="longer than"):
        HclReport.from_bytes(data + bytes(20000))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_noise_gives_our_errors(data: bytes) -> None:
    with pytest.raises(BrochError):
        HclReport.from_bytes(data)
    with pytest.raises(BrochError):
        bound(data)
