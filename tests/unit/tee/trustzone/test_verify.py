"""Every step of verification, each broken alone."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee import roots
from broch.tee.contract import Endorsements
from broch.tee.trustzone import TEE
from broch.tee.trustzone.attestation import Envelope, attest
from broch.tee.trustzone.endorsement import ROOT_NAME, endorse
from broch.tee.trustzone.ta_elf import uuid_of

from .conftest import NOW, SECRET, load, make_device, signing_key

DATA: Final = bytes(range(64))
TA: Final = uuid_of("garden", "valve")


def spki(number: int = 0) -> bytes:
    return (
        signing_key(number)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def good() -> Envelope:
    """A working attester that can be bent."""
    return attest(signing_key(), TA, b"h" * 32, DATA)


def enrolled(number: int = 0) -> Endorsements:
    return Endorsements(anchors=(), items={"enrolled_attestation_key": spki(number)})


def given(items: Mapping[str, bytes], anchors: tuple[bytes, ...] = ()) -> Endorsements:
    return Endorsements(anchors=anchors, items=items)


def test_an_enrolled_device_is_believed_and_not_emulated() -> None:
    claims = TEE.verify(good().to_bytes(), enrolled(), at=NOW)
    assert claims.tee == "trustzone"
    assert claims.measurement == b"h" * 32
    assert claims.report_data == DATA
    assert claims.signer is None
    assert not claims.emulated
    assert not claims.debug


def test_an_emulated_device_is_believed_and_emulated() -> None:
    device = make_device()
    identity = load(device)
    claims = TEE.verify(device.evidence(identity, DATA), device.endorsements(), at=NOW)
    assert claims.measurement == identity.measurement.value
    assert claims.report_data == DATA
    assert claims.emulated
    assert claims.details["device"] == "field"


def test_the_uuid_is_shown_as_what_it_is() -> None:
    """The signature does not cover it, so nobody may read more into it."""
    other = replace(good(), uuid=uuid_of("garden", "pump"))
    claims = TEE.verify(other.to_bytes(), enrolled(), at=NOW)
    assert "said by the sender" in claims.details["uuid"]


def test_the_time_needs_a_zone() -> None:
    with pytest.raises(UsageError, match="time zone"):
        TEE.verify(good().to_bytes(), enrolled(), at=datetime(2026, 3, 1))


@pytest.mark.parametrize("evidence", [b"", b"junk", b"\xa0", bytes(3000)])
def test_1_other_things_are_malformed(evidence: bytes) -> None:
    with pytest.raises(DecodeError):
        TEE.verify(evidence, enrolled(), at=NOW)


def test_2_without_an_endorsement_there_is_no_decision() -> None:
    with pytest.raises(UndecidedError, match="attestation_key_certificate nor enrolled"):
        TEE.verify(good().to_bytes(), given({}), at=NOW)


def test_2_without_an_anchor_there_is_no_decision() -> None:
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    with pytest.raises(UndecidedError, match="no anchor"):
        TEE.verify(evidence, given(device.endorsements().items), at=NOW)


def test_2_a_certificate_under_no_anchor_of_the_callers() -> None:
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    foreign = roots.make(ROOT_NAME, roots.derive_key(bytes(32), "trustzone"), NOW)
    with pytest.raises(UntrustedError, match="no anchor issued"):
        TEE.verify(evidence, given(device.endorsements().items, (foreign,)), at=NOW)


@pytest.mark.parametrize("shift", [timedelta(seconds=-1), timedelta(days=30 * 366)])
def test_2_a_certificate_has_its_time(shift: timedelta) -> None:
    device = make_device()
    evidence = device.evidence(load(device), DATA)
    with pytest.raises(UntrustedError, match=r"not valid before|has expired"):
        TEE.verify(evidence, device.endorsements(), at=NOW + shift)


def test_2_a_certificate_counts_before_an_enrolled_key() -> None:
    """Whoever enrolls an emulated device's key as well does not make it a real one."""
    key = roots.derive_key(SECRET, "trustzone")
    certificate = endorse(key, "field", signing_key().public_key(), NOW)
    items = {"attestation_key_certificate": certificate, "enrolled_attestation_key": spki()}
    claims = TEE.verify(good().to_bytes(), given(items, (roots.make(ROOT_NAME, key, NOW),)), at=NOW)
    assert claims.emulated


def test_3_another_key_did_not_sign() -> None:
    with pytest.raises(UntrustedError, match="did not sign"):
        TEE.verify(good().to_bytes(), enrolled(1), at=NOW)


def test_3_nonce_and_hash_are_signed() -> None:
    for bent in (replace(good(), nonce=bytes(64)), replace(good(), memory_hash=bytes(32))):
        with pytest.raises(UntrustedError, match="did not sign"):
            TEE.verify(bent.to_bytes(), enrolled(), at=NOW)
