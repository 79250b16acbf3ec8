"""Evidence of emulated devices goes the same way as that of real ones, and says what it is."""

from dataclasses import dataclass
from typing import Final

import pytest
from tests.emulated import IMAGE, Memory
from tests.pki import NOW
from tests.unit.attest.support import failures, outcomes

from broch.attest import Policy, formats
from broch.attest.checks import Outcome
from broch.attest.formats import Evidence
from broch.attest.inspection import taken_apart
from broch.attest.reference import Reference, reference_type
from broch.attest.result import Result, Status, examine
from broch.crypto.spongent import SpongeWrap
from broch.tee import registry
from broch.tee.contract import DeviceSettings, Endorsements, PackSettings
from broch.tee.sancus.evidence import Evidence as Answer
from broch.tee.sancus.keys import module_key
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import measure

NONCE: Final = bytes(range(1, 33))


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one made, and what is known of it."""

    evidence: bytes
    endorsements: Endorsements
    measurement: bytes


def emulated(name: str) -> Device:
    """A device that loaded an image and was asked for evidence."""
    tee = registry.find(name)
    settings = DeviceSettings(name="field", secret=bytes(range(32)), nv=Memory(), now=NOW)
    device = tee.device(settings)
    key = tee.new_signing_key() if tee.needs_signing_key else None
    packed = tee.pack(IMAGE, PackSettings(), key)
    identity = device.load(packed).identity
    return Device(
        evidence=device.evidence(identity, NONCE.ljust(tee.report_data_size, b"\0")),
        endorsements=device.endorsements(),
        measurement=identity.measurement.value,
    )


def sancus(key: str = "emulated_vendor_key") -> Device:
    """A module's answer, made with the key that its vendor holds."""
    vendor, text = bytes(range(16)), b"text of a module"
    layout = Layout(public_start=0x6000, public_end=0x6010, secret_start=0x300, secret_end=0x310)
    answer = Answer(
        vendor_id=7, layout=layout, challenge=NONCE, nonce=b"m" * 16, tag=b"", text=text
    )
    tag = SpongeWrap(module_key(vendor, text, layout)).mac(answer.signed())
    signed = Answer(
        vendor_id=7, layout=layout, challenge=NONCE, nonce=b"m" * 16, tag=tag, text=text
    )
    return Device(
        evidence=signed.to_bytes(),
        endorsements=Endorsements(anchors=(), items={key: vendor}),
        measurement=measure(text, layout),
    )


@pytest.fixture(scope="module", params=["keystone", "sancus", "sgx", "trustzone"])
def device(request: pytest.FixtureRequest) -> tuple[str, Device]:
    name: str = request.param
    return name, sancus() if name == "sancus" else emulated(name)


def judge(name: str, device: Device, policy: Policy, **changes: bytes) -> Result:
    return examine(
        Evidence(tee=name, data=changes.get("evidence", device.evidence)),
        lambda tee, data: device.endorsements,
        policy,
        at=NOW,
        nonce=changes.get("nonce", NONCE),
    )


def policy(name: str, measurement: bytes, *, emulated: bool = True) -> Policy:
    reference: Reference = reference_type(name)(measurements=frozenset({measurement}))
    return Policy(name="test", emulated=emulated, references={name: reference})


def test_accepted_by_name_only(device: tuple[str, Device]) -> None:
    name, made = device
    result = judge(name, made, policy(name, made.measurement))
    assert result.status is Status.ACCEPTED, result.error
    assert result.emulated
    strict = judge(name, made, policy(name, made.measurement, emulated=False))
    assert strict.status is Status.REFUSED
    assert failures(strict) == ["emulated"]


def test_other_code_another_challenge_and_bent_evidence(device: tuple[str, Device]) -> None:
    name, made = device
    other = bytes(len(made.measurement))
    assert failures(judge(name, made, policy(name, other))) == ["measurement"]
    good = policy(name, made.measurement)
    assert failures(judge(name, made, good, nonce=b"another nonce")) == ["nonce"]
    place = made.evidence.index(NONCE)
    bent = made.evidence[:place] + b"\xff" + made.evidence[place + 1 :]
    assert judge(name, made, good, evidence=bent).status is Status.UNTRUSTED


def test_it_is_told_for_what_it_is(device: tuple[str, Device]) -> None:
    name, made = device
    for written in (made.evidence, made.evidence.hex().encode()):
        found = formats.read(written)
        assert (found.tee, found.data) == (name, made.evidence)
    shown = str(taken_apart(found))
    assert NONCE.hex() in shown
    assert made.measurement.hex() in shown or name == "sancus"


def test_nothing_of_it_is_ever_affirmed_as_genuine(device: tuple[str, Device]) -> None:
    name, made = device
    result = judge(name, made, policy(name, made.measurement))
    part = result.to_dict()["parts"][0]
    assert part["trustworthiness"]["hardware"] == 32
    assert part["trustworthiness"]["runtime-opaque"] == 32


def test_a_real_sancus_node_is_a_warning_too() -> None:
    """Its verifier could have made the evidence itself, so nobody else has to believe it."""
    made = sancus("vendor_key")
    result = judge("sancus", made, policy("sancus", made.measurement, emulated=False))
    assert result.status is Status.ACCEPTED
    assert not result.emulated
    assert result.to_dict()["parts"][0]["trustworthiness"]["hardware"] == 32
    assert outcomes(result)["revocation"] is Outcome.SKIPPED
