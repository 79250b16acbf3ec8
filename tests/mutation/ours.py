"""Keystone and TrustZone: reports, statements and what is enrolled, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from tests.unit.tee.keystone import conftest as keystone_maker
from tests.unit.tee.keystone import test_verify as keystone_tests
from tests.unit.tee.trustzone import conftest as trustzone_maker
from tests.unit.tee.trustzone import test_verify as trustzone_tests

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.contract import Endorsements
from broch.tee.keystone import TEE as KEYSTONE
from broch.tee.keystone.report import Report
from broch.tee.trustzone import TEE as TRUSTZONE
from broch.tee.trustzone.attestation import Envelope

from .case import Errors, Mutation, bent_bytes, each_field, flip, with_items

NOW: Final = keystone_maker.NOW
DATA: Final = bytes(range(64))
SLOTS: Final = {
    "keystone report:": Report.__slots__,
    "trustzone envelope:": tuple(name for name in Envelope.__slots__ if name != "uuid"),
}
PADDING: Final = (72 + len(DATA), 72 + 1024)  # of a report
ANY: Final[Any] = (DecodeError, UntrustedError)


def keystone_case(evidence: bytes, given: Endorsements, error: Errors | None) -> Mutation:
    return Mutation(
        name="keystone",
        verifier=KEYSTONE,
        evidence=evidence,
        endorsements=given,
        at=NOW,
        error=error,
    )


def sound_keystone() -> Mutation:
    """Nothing broken."""
    given = Endorsements(anchors=(), items=keystone_tests.ENROLLED)
    return keystone_case(keystone_tests.GOOD.to_bytes(), given, None)


REPORT: Final[dict[str, str]] = {
    "dev_public_key": "device key is not the enrolled one",
    "sm_hash": "signature",
    "sm_public_key": "signature",
    "sm_signature": "signature",
    "enclave_hash": "signature",
    "data": "signature",
    "enclave_signature": "signature",
}


def keystone() -> Iterator[Mutation]:
    """Every field of the report, every enrolled thing, every date of the statement."""
    sound = sound_keystone()
    for name, report in each_field(keystone_tests.GOOD):
        yield replace(
            sound,
            name=f"keystone report: {name}",
            evidence=report.to_bytes(),
            error=UntrustedError,
            check=REPORT[name],
        )
    for name, value, error, check in (
        ("sm_hash", None, UndecidedError, "no endorsement of the security monitor"),
        ("sm_hash", b"\x34" * 64, UntrustedError, "is not a known one"),
        ("sm_hash", b"\x33" * 63, DecodeError, "not a multiple of 64"),
        ("enrolled_device_key", None, UndecidedError, "no endorsement of the device key"),
        ("enrolled_device_key", b"\x33" * 32, UntrustedError, "is not the enrolled one"),
        ("enrolled_device_key", b"\x33" * 31, DecodeError, "expected 32"),
    ):
        yield replace(
            sound,
            name=f"keystone endorsement {name} {check}",
            endorsements=with_items(sound.endorsements, {name: value}),
            error=error,
            check=check,
        )
    yield from keystone_device()
    for offset, bent in bent_bytes(sound.evidence, 41):
        made = replace(sound, name=f"keystone byte {offset}", evidence=bent, error=ANY)
        if PADDING[0] <= offset < PADDING[1]:
            # Firmware leaves there what was on its stack; nobody signs it and nobody reads it.
            made = replace(made, error=None, shows=lambda claims: claims.report_data == DATA)
        yield made


def keystone_device() -> Iterator[Mutation]:
    """The same under a statement of an emulated device."""
    device = keystone_maker.make_device()
    evidence = device.evidence(keystone_maker.load(device), DATA)
    sound = keystone_case(evidence, device.endorsements(), None)
    yield replace(sound, name="keystone device", shows=lambda claims: claims.emulated)
    for days, problem in ((-1, "not valid before"), (40 * 365, "has expired")):
        at = NOW + timedelta(days=days)
        yield replace(
            sound, name=f"keystone device {problem}", at=at, error=UntrustedError, check=problem
        )
    foreign = roots.make("Broch Emulated Keystone Root", roots.derive_key(bytes(32), "x"), NOW)
    for name, anchors, error, check in (
        ("another anchor", (foreign,), UntrustedError, "no anchor signed the endorsement"),
        ("no anchor", (), UndecidedError, "no anchor"),
    ):
        given = Endorsements(anchors=anchors, items=sound.endorsements.items)
        yield replace(sound, name=f"keystone {name}", endorsements=given, error=error, check=check)
    other = keystone_maker.make_device(secret=bytes(32)).endorsements().items
    changed = with_items(sound.endorsements, {"device_endorsement": other["device_endorsement"]})
    yield replace(
        sound,
        name="keystone statement of another device",
        endorsements=changed,
        error=UntrustedError,
        check="no anchor signed the endorsement",
    )
    statement = sound.endorsements.items["device_endorsement"]
    for offset, bent in bent_bytes(statement, 17):
        given = with_items(sound.endorsements, {"device_endorsement": bent})
        name = f"keystone statement byte {offset}"
        yield replace(sound, name=name, endorsements=given, error=ANY)


def sound_trustzone() -> Mutation:
    """Nothing broken."""
    return Mutation(
        name="trustzone",
        verifier=TRUSTZONE,
        evidence=trustzone_tests.good().to_bytes(),
        endorsements=trustzone_tests.enrolled(),
        at=NOW,
        error=None,
    )


def trustzone() -> Iterator[Mutation]:
    """Every signed field, every enrolled thing, every date of the certificates."""
    sound = sound_trustzone()
    envelope = trustzone_tests.good()
    for name in SLOTS["trustzone envelope:"]:
        changed = replace(envelope, **{name: flip(getattr(envelope, name))})
        yield replace(
            sound,
            name=f"trustzone envelope: {name}",
            evidence=changed.to_bytes(),
            error=UntrustedError,
            check="did not sign this nonce and hash",
        )
    for name, value, error, check in (
        ("none", None, UndecidedError, "no endorsement of the attestation key"),
        ("another", trustzone_tests.spki(1), UntrustedError, "did not sign"),
        ("junk", b"junk", DecodeError, "not a public key"),
    ):
        given = with_items(sound.endorsements, {"enrolled_attestation_key": value})
        yield replace(
            sound,
            name=f"trustzone enrolled key: {name}",
            endorsements=given,
            error=error,
            check=check,
        )
    device = trustzone_maker.make_device()
    evidence = device.evidence(trustzone_maker.load(device), DATA)
    issued = replace(sound, evidence=evidence, endorsements=device.endorsements())
    yield replace(issued, name="trustzone device", shows=lambda claims: claims.emulated)
    for days, problem in ((-1, "not valid before"), (40 * 365, "has expired")):
        at = NOW + timedelta(days=days)
        yield replace(
            issued, name=f"trustzone device {problem}", at=at, error=UntrustedError, check=problem
        )
    foreign = roots.make("Broch Emulated TrustZone Root", roots.derive_key(bytes(32), "x"), NOW)
    for name, anchors, error, check in (
        ("another anchor", (foreign,), UntrustedError, "no anchor issued"),
        ("no anchor", (), UndecidedError, "no anchor"),
    ):
        given = Endorsements(anchors=anchors, items=issued.endorsements.items)
        yield replace(
            issued, name=f"trustzone {name}", endorsements=given, error=error, check=check
        )
    certificate = issued.endorsements.items["attestation_key_certificate"]
    for offset, bent in bent_bytes(certificate, 19):
        given = with_items(issued.endorsements, {"attestation_key_certificate": bent})
        name = f"trustzone certificate byte {offset}"
        yield replace(issued, name=name, endorsements=given, error=ANY)
