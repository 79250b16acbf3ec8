"""Every step of verification, each broken alone."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from broch.crypto.ed25519_sha3 import KeyPair
from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee import roots
from broch.tee.contract import Endorsements
from broch.tee.keystone import TEE
from broch.tee.keystone.device import EMULATED_SM_HASH
from broch.tee.keystone.endorsement import ROOT_NAME, Statement, endorse
from broch.tee.keystone.keys import TEST_DEVICE_KEY
from broch.tee.keystone.report import Report

from .conftest import NOW, SECRET, load, make_device

DEVICE: Final = KeyPair.from_seed(b"1" * 32)
MONITOR: Final = KeyPair.from_seed(b"2" * 32)
SM_HASH: Final = b"\x33" * 64
DATA: Final = bytes(range(64))


def attest(
    device: KeyPair = DEVICE,
    monitor: KeyPair = MONITOR,
    data: bytes = DATA,
    sm_hash: bytes = SM_HASH,
) -> Report:
    """A working attester that can be bent."""
    unsigned = Report(
        enclave_hash=b"\x44" * 64,
        data=data,
        enclave_signature=bytes(64),
        sm_hash=sm_hash,
        sm_public_key=monitor.public,
        sm_signature=device.sign(sm_hash + monitor.public),
        dev_public_key=device.public,
    )
    return replace(unsigned, enclave_signature=monitor.sign(unsigned.signed_by_sm()))


GOOD: Final = attest()
ENROLLED: Final = {"enrolled_device_key": DEVICE.public, "sm_hash": SM_HASH}


def endorsements(
    items: Mapping[str, bytes] = ENROLLED, anchors: tuple[bytes, ...] = ()
) -> Endorsements:
    return Endorsements(anchors=anchors, items=items)


def test_an_enrolled_device_is_believed_and_not_emulated() -> None:
    claims = TEE.verify(GOOD.to_bytes(), endorsements(), at=NOW)
    assert claims.tee == "keystone"
    assert claims.measurement == b"\x44" * 64
    assert claims.report_data == DATA
    assert claims.signer is None
    assert not claims.emulated
    assert not claims.debug
    assert claims.details["sm_hash"] == SM_HASH.hex()


def test_an_emulated_device_is_believed_and_emulated() -> None:
    device = make_device()
    identity = load(device)
    evidence = device.evidence(identity, DATA)
    claims = TEE.verify(evidence, device.endorsements(), at=NOW)
    assert claims.measurement == identity.measurement.value
    assert claims.report_data == DATA
    assert claims.emulated
    assert claims.details["device"] == "field"


@pytest.mark.parametrize("size", [0, 20, 1024])
def test_report_data_is_exactly_what_the_report_carries(size: int) -> None:
    report = attest(data=bytes(size))
    for form in (report.to_bytes(), report.to_compressed(), report.to_json()):
        assert TEE.verify(form, endorsements(), at=NOW).report_data == bytes(size)


def test_what_a_device_left_in_the_padding_is_dropped() -> None:
    leaked = GOOD.to_bytes()[:1095] + b"!" + GOOD.to_bytes()[1096:]
    claims = TEE.verify(leaked, endorsements(), at=NOW)
    assert claims == TEE.verify(GOOD.to_bytes(), endorsements(), at=NOW)


def test_the_time_needs_a_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        TEE.verify(GOOD.to_bytes(), endorsements(), at=datetime(2026, 3, 1))


@pytest.mark.parametrize("evidence", [b"", b"junk", bytes(1351), b'{"device_pubkey": 1}'])
def test_1_other_things_are_malformed(evidence: bytes) -> None:
    with pytest.raises(DecodeError):
        TEE.verify(evidence, endorsements(), at=NOW)


def test_2_the_test_key_is_refused_even_when_enrolled() -> None:
    report = replace(GOOD, dev_public_key=TEST_DEVICE_KEY)
    with pytest.raises(UntrustedError, match="test key"):
        TEE.verify(
            report.to_bytes(),
            endorsements({**ENROLLED, "enrolled_device_key": TEST_DEVICE_KEY}),
            at=NOW,
        )


def test_2_the_test_key_is_refused_even_when_endorsed() -> None:
    root_key = roots.derive_key(SECRET, "keystone")
    statement = Statement(device="x", key=TEST_DEVICE_KEY, start=0, end=2**40)
    with pytest.raises(UntrustedError, match="test key"):
        TEE.verify(
            replace(GOOD, dev_public_key=TEST_DEVICE_KEY).to_bytes(),
            endorsements(
                {"device_endorsement": endorse(root_key, statement), "sm_hash": SM_HASH},
                (roots.make(ROOT_NAME, root_key, NOW),),
            ),
            at=NOW,
        )


def test_3_the_key_in_the_report_is_not_believed() -> None:
    with pytest.raises(UndecidedError, match="device_endorsement nor enrolled_device_key"):
        TEE.verify(GOOD.to_bytes(), endorsements({"sm_hash": SM_HASH}), at=NOW)


def test_3_another_key_than_the_enrolled_one() -> None:
    stranger = KeyPair.from_seed(b"9" * 32)
    with pytest.raises(UntrustedError, match="not the enrolled one"):
        TEE.verify(attest(device=stranger).to_bytes(), endorsements(), at=NOW)


def test_3_an_enrolled_key_has_32_bytes() -> None:
    items = {**ENROLLED, "enrolled_device_key": DEVICE.public + b"\0"}
    with pytest.raises(DecodeError, match="enrolled_device_key"):
        TEE.verify(GOOD.to_bytes(), endorsements(items), at=NOW)


def test_3_another_key_than_the_endorsed_one() -> None:
    device, other = make_device(), make_device("other")
    evidence = other.evidence(load(other), DATA)
    with pytest.raises(UntrustedError, match="not the endorsed one"):
        TEE.verify(evidence, device.endorsements(), at=NOW)


def test_3_a_statement_counts_before_an_enrolled_key() -> None:
    """Whoever enrolls an emulated device's key as well does not make it a real one."""
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    given = device.endorsements()
    items = {**given.items, "enrolled_device_key": Report.from_bytes(evidence).dev_public_key}
    assert TEE.verify(evidence, endorsements(items, given.anchors), at=NOW).emulated


def test_3_a_statement_under_no_anchor_of_the_callers() -> None:
    device, foreign = make_device(), make_device(secret=bytes(32))
    evidence = device.evidence(load(device), DATA)
    with pytest.raises(UntrustedError, match="no anchor signed"):
        TEE.verify(
            evidence,
            endorsements(device.endorsements().items, foreign.endorsements().anchors),
            at=NOW,
        )


@pytest.mark.parametrize("shift", [timedelta(seconds=-1), timedelta(days=30 * 366)])
def test_3_an_endorsement_has_its_time(shift: timedelta) -> None:
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    with pytest.raises(UntrustedError, match=r"not valid before|has expired|hold at"):
        TEE.verify(evidence, device.endorsements(), at=NOW + shift)


def test_4_the_device_must_sign_the_security_monitor() -> None:
    stranger = KeyPair.from_seed(b"9" * 32)
    report = replace(GOOD, sm_signature=stranger.sign(GOOD.signed_by_device()))
    with pytest.raises(UntrustedError, match="does not match"):
        TEE.verify(report.to_bytes(), endorsements(), at=NOW)


def test_5_the_security_monitor_must_be_known() -> None:
    with pytest.raises(UntrustedError, match="not a known one"):
        TEE.verify(attest(sm_hash=b"\x34" * 64).to_bytes(), endorsements(), at=NOW)


def test_5_several_may_be_known() -> None:
    items = {**ENROLLED, "sm_hash": bytes(64) + SM_HASH}
    TEE.verify(GOOD.to_bytes(), endorsements(items), at=NOW)


def test_5_without_known_monitors_there_is_no_decision() -> None:
    with pytest.raises(UndecidedError, match="sm_hash"):
        TEE.verify(GOOD.to_bytes(), endorsements({"enrolled_device_key": DEVICE.public}), at=NOW)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_5_a_monitors_hash_has_64_bytes(size: int) -> None:
    with pytest.raises(DecodeError, match="sm_hash"):
        TEE.verify(GOOD.to_bytes(), endorsements({**ENROLLED, "sm_hash": bytes(size)}), at=NOW)


def test_6_the_monitor_must_sign_the_enclave() -> None:
    report = replace(GOOD, enclave_signature=DEVICE.sign(GOOD.signed_by_sm()))
    with pytest.raises(UntrustedError, match="does not match"):
        TEE.verify(report.to_bytes(), endorsements(), at=NOW)


def test_6_data_and_hash_are_signed() -> None:
    for report in (replace(GOOD, data=DATA[:-1]), replace(GOOD, enclave_hash=bytes(64))):
        with pytest.raises(UntrustedError):
            TEE.verify(report.to_bytes(), endorsements(), at=NOW)


def test_the_emulated_monitor_is_not_a_default() -> None:
    """A caller who names no monitor gets no verdict, not the emulated one."""
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    given = device.endorsements()
    assert given.items["sm_hash"] == EMULATED_SM_HASH
    items = {name: value for name, value in given.items.items() if name != "sm_hash"}
    with pytest.raises(UndecidedError):
        TEE.verify(evidence, endorsements(items, given.anchors), at=NOW)
