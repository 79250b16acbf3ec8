"""Keystone, TrustZone, Sancus: reports, statements, what is enrolled, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import cbor2
from tests.unit.tee.keystone import conftest as keystone_maker
from tests.unit.tee.keystone import test_verify as keystone_tests
from tests.unit.tee.sancus import test_verify as sancus_tests
from tests.unit.tee.trustzone import conftest as trustzone_maker
from tests.unit.tee.trustzone import test_verify as trustzone_tests

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.contract import Endorsements
from broch.tee.keystone import TEE as KEYSTONE
from broch.tee.keystone.keys import TEST_DEVICE_KEY
from broch.tee.keystone.report import Report
from broch.tee.sancus import TEE as SANCUS
from broch.tee.sancus.evidence import Evidence as Answer
from broch.tee.trustzone import TEE as TRUSTZONE
from broch.tee.trustzone.attestation import Envelope

from .case import Errors, Mutation, at_step, bent_bytes, each_field, flip, with_items

NOW: Final = keystone_maker.NOW
DATA: Final = bytes(range(64))
SLOTS: Final = {
    "keystone report:": Report.__slots__,
    "trustzone envelope:": tuple(name for name in Envelope.__slots__ if name != "uuid"),
    "sancus answer:": Answer.__slots__,
}
PADDING: Final = (72 + len(DATA), 72 + 1024)  # of a report
SM_PART: Final = 72 + 1024 + 64  # where what the device signs begins
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


REPORT: Final[dict[str, tuple[str, str]]] = {
    "dev_public_key": ("device", "device key is not the enrolled one"),
    **dict.fromkeys(("sm_hash", "sm_public_key", "sm_signature"), ("sm_signature", "signature")),
    **dict.fromkeys(("enclave_hash", "data", "enclave_signature"), ("signature", "signature")),
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
            step=REPORT[name][0],
            check=REPORT[name][1],
        )
    leaked = replace(keystone_tests.GOOD, dev_public_key=TEST_DEVICE_KEY).to_bytes()
    whole = sound.evidence
    for title, evidence, step, wrong, check in (
        ("the published test key", leaked, "test_key", UntrustedError, "published test key"),
        ("cut off", whole[:-1], "format", DecodeError, "expected 392 bytes, got 1351"),
        ("too long", whole + b"\0", "format", DecodeError, "expected 392 bytes, got 1353"),
        ("data_len of 1025", with_data_len(1025), "format", DecodeError, "1024"),
    ):
        changed = replace(sound, name=f"keystone {title}", evidence=evidence)
        yield replace(changed, error=wrong, step=step, check=check)
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
            step="sm_hash" if name == "sm_hash" else "device",
            check=check,
        )
    yield from at_step("device", keystone_device())
    for offset, bent in bent_bytes(sound.evidence, 41):
        made = replace(sound, name=f"keystone byte {offset}", evidence=bent, error=ANY)
        made = replace(made, step="signature" if offset < SM_PART else "sm_signature")
        if PADDING[0] <= offset < PADDING[1]:
            # Firmware leaves there what was on its stack; nobody signs it and nobody reads it.
            made = replace(made, error=None, shows=lambda claims: claims.report_data == DATA)
        yield made


def with_data_len(size: int) -> bytes:
    report = keystone_tests.GOOD.to_bytes()
    return report[:64] + size.to_bytes(8, "little") + report[72:]


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
            step="signature",
            check="did not sign this nonce and hash",
        )
    other_command = cbor2.dumps({**cbor2.loads(sound.evidence), "command": 1}, canonical=True)
    for name, evidence, check in (
        ("another command", other_command, "command 1: only 2"),
        ("a byte after it", sound.evidence + b"\0", "OP-TEE evidence"),
        ("a short nonce", replace(envelope, nonce=b"n" * 63).to_bytes(), "nonce has 63 bytes"),
    ):
        changed_to = replace(sound, name=f"trustzone {name}", evidence=evidence)
        yield replace(changed_to, error=DecodeError, step="format", check=check)
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
            step="signature" if name == "another" else "key",
            check=check,
        )
    yield from at_step("key", trustzone_device(sound))


def trustzone_device(sound: Mutation) -> Iterator[Mutation]:
    """The same under a certificate of an emulated device."""
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


def sound_sancus() -> Mutation:
    """Nothing broken."""
    return Mutation(
        name="sancus",
        verifier=SANCUS,
        evidence=sancus_tests.evidence().to_bytes(),
        endorsements=sancus_tests.EMULATED,
        at=NOW,
        error=None,
    )


VENDOR: Final = "vendor_id"
EMULATED: Final = "emulated_vendor_key"
UNPROVED: Final = "the tag is not that of this text, at this place"


def sancus() -> Iterator[Mutation]:
    """Every field of the answer, the layout's edges, the vendor key, bytes all over."""
    sound, answer, place = sound_sancus(), sancus_tests.evidence(), sancus_tests.PLACE
    for name in SLOTS["sancus answer:"]:
        value = getattr(answer, name)
        moved = replace(place, secret_end=place.secret_end + 2)
        changes: dict[str, Any] = {name: moved if name == "layout" else flip(value)}
        bent = replace(answer, **changes)
        made = replace(sound, name=f"sancus answer: {name}", evidence=bent.to_bytes())
        if name == "vendor_id":  # nobody signs it; the key that is endorsed says whose it is
            yield replace(made, shows=lambda claims: "said by the sender" in claims.details[VENDOR])
        else:
            yield replace(made, error=UntrustedError, step="mac", check=UNPROVED)
    yield from at_step("mac", sancus_places(sound))
    vendor = sancus_tests.VENDOR
    for name, items, step, error, check in (
        ("no key", {}, "key", UndecidedError, "neither vendor_key nor"),
        ("two keys", {"vendor_key": vendor, EMULATED: vendor}, "key", UntrustedError, "which is"),
        ("a short key", {EMULATED: vendor[:8]}, "key", DecodeError, "8 bytes, expected 16"),
        ("another's key", {EMULATED: flip(vendor)}, "mac", UntrustedError, UNPROVED),
        ("another's real key", {"vendor_key": flip(vendor)}, "mac", UntrustedError, UNPROVED),
    ):
        given = Endorsements(anchors=(), items=items)
        changed_to = replace(sound, name=f"sancus {name}", endorsements=given)
        yield replace(changed_to, error=error, step=step, check=check)
    real = replace(sound, endorsements=sancus_tests.REAL)
    yield replace(real, name="sancus real node", shows=lambda claims: not claims.emulated)
    yield replace(sound, name="sancus emulated node", shows=lambda claims: claims.emulated)
    for offset, data in bent_bytes(sound.evidence, 5):
        made = replace(sound, name=f"sancus byte {offset}", evidence=data)
        if offset not in (4, 5):  # the vendor id
            made = replace(made, error=ANY, step="format|mac")
        yield made


def sancus_places(sound: Mutation) -> Iterator[Mutation]:
    """(1), (3): the module elsewhere, and places that are none."""
    answer, place = sancus_tests.evidence(), sancus_tests.PLACE
    for name, changes in (
        ("text elsewhere", {"public_start": 0x6100, "public_end": 0x6120}),
        ("secret elsewhere", {"secret_start": 0x2100, "secret_end": 0x2110}),
        ("secret smaller", {"secret_end": 0x200E}),
    ):
        evidence = replace(answer, layout=replace(place, **changes)).to_bytes()
        made = replace(sound, name=f"sancus {name}", evidence=evidence)
        yield replace(made, error=UntrustedError, check=UNPROVED)
    whole = sound.evidence
    for name, evidence, check in (
        ("no text", cut(answer, public_end=place.public_start), "not the layout of a module"),
        ("secret inverted", cut(answer, secret_end=0x1FFE), "not the layout of a module"),
        ("text longer than it is", cut(answer, public_end=0x6022), "34 bytes is announced"),
        ("another magic", b"SNC2" + whole[4:], "expected b'SNC1'"),
        ("cut off", whole[:79], "at least 80 bytes"),
        ("a byte after it", whole + b"\0", "33 came"),
    ):
        made = replace(sound, name=f"sancus {name}", evidence=evidence)
        yield replace(made, error=DecodeError, step="format", check=check)


def cut(answer: Answer, **changes: int) -> bytes:
    """The same text under another layout."""
    return replace(answer, layout=replace(answer.layout, **changes)).to_bytes()
