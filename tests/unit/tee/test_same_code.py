"""Evidence of emulated devices is verified by the code that verifies the genuine."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from tests.unit.tee.keystone import conftest as keystone_maker
from tests.unit.tee.sgx import support
from tests.unit.tee.trustzone import conftest as trustzone_maker

from broch.crypto import ed25519_sha3
from broch.tee import registry
from broch.tee.contract import Claims, Endorsements
from broch.tee.dcap import platform, trust
from broch.tee.keystone import TEE as KEYSTONE
from broch.tee.keystone import verify as keystone_verify
from broch.tee.sgx import TEE as SGX
from broch.tee.sgx import verify as sgx_verify
from broch.tee.trustzone import TEE as TRUSTZONE
from broch.tee.trustzone import verify as trustzone_verify
from broch.tee.trustzone.attestation import Envelope

DATA = bytes(range(64))
Made = tuple[bytes, Endorsements]


def sgx() -> Made:
    device = SGX.device(support.settings())
    identity = support.load(device, support.pack(SGX.new_signing_key()))
    return device.evidence(identity, DATA), device.endorsements()


def keystone() -> Made:
    device = keystone_maker.make_device()
    return device.evidence(keystone_maker.load(device), DATA), device.endorsements()


def trustzone() -> Made:
    device = trustzone_maker.make_device()
    return device.evidence(trustzone_maker.load(device), DATA), device.endorsements()


MAKERS: dict[str, Callable[[], Made]] = {
    "sgx": cache(sgx),
    "keystone": cache(keystone),
    "trustzone": cache(trustzone),
}
CASES: dict[str, tuple[Any, list[tuple[Any, str]]]] = {
    # TEE -> its verifier's module, the steps that must be gone through
    "sgx": (
        sgx_verify,
        [
            (trust, "establish"),
            (trust, "_check_described"),
            (platform, "check_qe"),
            (platform, "check_signature"),
            (platform, "judge"),
        ],
    ),
    "keystone": (
        keystone_verify,
        [(keystone_verify, "_check_device_key"), (ed25519_sha3, "verify")],
    ),
    "trustzone": (
        trustzone_verify,
        [(trustzone_verify, "_check_key"), (Envelope, "verify")],
    ),
}
TEES = {"sgx": SGX, "keystone": KEYSTONE, "trustzone": TRUSTZONE}


@pytest.mark.parametrize("name", CASES)
def test_emulated_evidence_goes_through_every_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, steps = CASES[name]
    evidence, made = MAKERS[name]()
    endorsements = Endorsements(anchors=made.anchors, items=made.items)  # nothing cached
    gone: list[str] = []
    for owner, step in [(module, "verify"), *steps]:
        watch(monkeypatch, owner, step, gone)
    at = support.NOW if name == "sgx" else keystone_maker.NOW
    claims: Claims = registry.find_verifier(name).verify(evidence, endorsements, at=at)
    assert claims.emulated
    assert claims.report_data[: len(DATA)] == DATA
    assert {"verify", *(step for _, step in steps)} == set(gone)


def watch(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, gone: list[str]) -> None:
    original = getattr(owner, name)

    def step(*arguments: Any, **named: Any) -> Any:
        gone.append(name)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, step)


@pytest.mark.parametrize("name", CASES)
def test_the_verifier_of_emulated_devices_is_the_one_of_the_hardware(name: str) -> None:
    """There is one verifier of a name; which root it ended in is all that it can tell by."""
    assert registry.find_verifier(name) is TEES[name]
    evidence, endorsements = MAKERS[name]()
    at = support.NOW if name == "sgx" else keystone_maker.NOW
    claims = registry.find_verifier(name).verify(evidence, endorsements, at=at)
    root = claims.details.get("root", "")
    assert claims.emulated is True
    assert not root or root.startswith("Broch Emulated ")
