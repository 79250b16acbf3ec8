"""Keystone's own figures.

``keystone/``: printed by Keystone's C code (keystone-enclave/keystone at 88c49ee) for seed 00..1f,
and the security monitor's public keys that its boot loader can derive from the published test key.
``evidence/keystone/``: a report made with that code and key, "keystone-nonce-0001\\0" as data; its
verifier accepts it, and everyone else must refuse the key.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from broch.crypto import ed25519_sha3
from broch.crypto.ed25519_sha3 import KeyPair
from broch.errors import UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.keystone import TEE
from broch.tee.keystone.keys import TEST_DEVICE_KEY, derive_sealing_key, derive_sm_key
from broch.tee.keystone.report import Report

# The published secret of the test device (bootrom/test_dev_key.h): no secret at all.
TEST_DEVICE: Final = KeyPair.from_secret(
    bytes.fromhex(
        "40a099478ccefa3a0663abc95e7a1ec954b4f5f645bad804db13e7d7826c7073"
        "576a9ab62160d9d1c6aedc29852fb960ee5132835a1689ec06a8723451aa0e4a"
    )
)


@pytest.fixture(scope="module")
def figures(vectors: Path) -> dict[str, bytes]:
    text = (vectors / "keystone" / "ed25519_sha3_and_sealing.txt").read_text()
    return {
        name: bytes.fromhex(value) for name, value in (line.split("=") for line in text.split())
    }


@pytest.fixture(scope="module")
def report(vectors: Path) -> bytes:
    return (vectors / "evidence" / "keystone" / "keystone_report_testkey.bin").read_bytes()


@pytest.fixture(scope="module")
def facts(vectors: Path) -> dict[str, str]:
    path = vectors / "evidence" / "keystone" / "keystone_report_testkey.json"
    found: dict[str, str] = json.loads(path.read_text())
    return found


def test_key_pair_of_a_seed(figures: dict[str, bytes]) -> None:
    pair = KeyPair.from_seed(bytes(range(32)))
    assert pair.public == figures["pk"]
    assert pair.secret == figures["sk"]


def test_sealing_key(figures: dict[str, bytes]) -> None:
    monitor = KeyPair.from_seed(bytes(range(32)))
    message = bytes(index * 3 % 256 for index in range(100))
    enclave_hash = hashlib.sha3_512(message).digest()
    assert enclave_hash == figures["sha3"]
    assert monitor.sign(message) == figures["sig"]
    made = derive_sealing_key(monitor, enclave_hash, b"identifier")
    assert made.key == figures["sealing"]
    assert made.signature == figures["sealsig"]


def test_the_test_device_key_belongs_to_its_secret() -> None:
    assert TEST_DEVICE.public == TEST_DEVICE_KEY


def test_monitor_keys_as_built_are_the_256_published_ones(vectors: Path) -> None:
    path = vectors / "keystone" / "sm_public_keys_of_test_device.json"
    expected: dict[str, int] = json.loads(path.read_text())
    found = {
        derive_sm_key(TEST_DEVICE, bytes([first]) + bytes(63), as_built=True).public.hex(): first
        for first in range(256)
    }
    assert found == expected


def test_the_genuine_report_parses_to_what_it_says(report: bytes, facts: dict[str, str]) -> None:
    parsed = Report.from_bytes(report)
    assert parsed.to_bytes() == report
    assert parsed.data == facts["nonce"].encode() + b"\0"
    assert parsed.enclave_hash.hex() == facts["enclave_hash"]
    assert parsed.enclave_signature.hex() == facts["enclave_sig"]
    assert parsed.sm_hash.hex() == facts["sm_hash"]
    assert parsed.sm_public_key.hex() == facts["sm_public_key"]
    assert parsed.dev_public_key.hex() == facts["dev_public_key"]
    for again in (parsed.to_compressed(), parsed.to_json()):
        assert Report.decode(again) == parsed


def test_the_genuine_reports_signatures_hold(report: bytes) -> None:
    parsed = Report.from_bytes(report)
    ed25519_sha3.verify(parsed.sm_signature, parsed.signed_by_device(), TEST_DEVICE_KEY)
    ed25519_sha3.verify(parsed.enclave_signature, parsed.signed_by_sm(), parsed.sm_public_key)


def test_the_genuine_report_can_be_made_again(report: bytes) -> None:
    """From the device's secret and the monitor's hash, to the last byte."""
    parsed = Report.from_bytes(report)
    monitor = derive_sm_key(TEST_DEVICE, parsed.sm_hash, as_built=True)
    assert monitor.public == parsed.sm_public_key
    assert TEST_DEVICE.sign(parsed.sm_hash + monitor.public) == parsed.sm_signature
    assert monitor.sign(parsed.signed_by_sm()) == parsed.enclave_signature


def test_the_test_key_is_refused_all_the_same(report: bytes) -> None:
    parsed = Report.from_bytes(report)
    trusting = Endorsements(
        anchors=(), items={"enrolled_device_key": TEST_DEVICE_KEY, "sm_hash": parsed.sm_hash}
    )
    with pytest.raises(UntrustedError, match="test key"):
        TEE.verify(report, trusting, at=datetime(2026, 3, 1, tzinfo=UTC))
