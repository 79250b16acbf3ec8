"""The emulated device, rule by rule."""

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tests.emulated import Memory

from broch.errors import DecodeError, InternalError, PolicyError, UsageError
from broch.tee.contract import (
    Device,
    Identity,
    Measurement,
    Packed,
    PackSettings,
    SealBinding,
    SealKeyRequest,
    Tee,
)
from broch.tee.keystone import TEE
from broch.tee.keystone.device import (
    EMULATED_SM_HASH,
    SM_SIZE,
    SM_TEXT,
    KeystoneDevice,
    KeystoneIdentity,
)
from broch.tee.keystone.measurement import Triple
from broch.tee.keystone.report import Report

from .conftest import NOW, SECRET, load, make_device, make_image

LABEL = SealKeyRequest(label=b"store", binding=SealBinding.CODE)


def test_it_is_what_the_contract_says(device: KeystoneDevice) -> None:
    tee: Tee = TEE
    same: Device = device
    assert (tee.name, same.tee, same.name, same.emulated) == ("keystone", "keystone", "field", True)
    assert tee.report_data_size == 64
    assert tee.seal_bindings == (SealBinding.CODE,)
    assert not tee.needs_signing_key


def test_images_are_not_signed() -> None:
    with pytest.raises(UsageError, match="not signed"):
        TEE.new_signing_key()


def test_packing_is_reproducible() -> None:
    image = make_image()
    first = TEE.pack(image, PackSettings(), None)
    assert first == TEE.pack(image, PackSettings(version=9, debug=True), None)
    assert first.signature is None


def test_loading_measures(device: KeystoneDevice) -> None:
    image = make_image()
    packed = TEE.pack(image, PackSettings(), None)
    loaded = device.load(packed)
    assert loaded.image == image
    assert loaded.identity.measurement == TEE.measure(packed)
    assert loaded.identity.measurement.value == Triple.of(image).measure()
    assert loaded.identity.emulated
    assert not loaded.identity.debug


def test_another_tees_image_is_refused(device: KeystoneDevice) -> None:
    packed = replace(TEE.pack(make_image(), PackSettings(), None), tee="sgx")
    with pytest.raises(DecodeError, match="packed for sgx"):
        device.load(packed)
    with pytest.raises(DecodeError, match="packed for sgx"):
        TEE.measure(packed)


def triple(**changes: bytes) -> Packed:
    parts = Triple.of(make_image())
    return Packed(tee="keystone", data=replace(parts, **changes).to_bytes())


def test_another_loader_is_refused(device: KeystoneDevice) -> None:
    with pytest.raises(PolicyError, match="loader"):
        device.load(triple(loader=b"other"))


def test_another_runtime_than_the_image_demands_is_refused(device: KeystoneDevice) -> None:
    with pytest.raises(PolicyError, match="runtime"):
        device.load(triple(runtime=Triple.of(make_image(runtime=1)).runtime))


def test_an_eapp_that_is_no_image_is_refused(device: KeystoneDevice) -> None:
    eapp = make_image().to_bytes()
    for wrong in (b"junk", eapp + b"\0", eapp[:-1]):
        with pytest.raises(DecodeError):
            device.load(triple(eapp=wrong))


def test_the_monitors_hash_is_that_of_its_memory() -> None:
    assert hashlib.sha3_512(SM_TEXT.ljust(SM_SIZE, b"\0")).digest() == EMULATED_SM_HASH


def test_evidence_is_a_report_with_nothing_in_the_padding(
    device: KeystoneDevice, identity: Identity
) -> None:
    report = Report.from_bytes(device.evidence(identity, bytes(range(64))))
    assert report.enclave_hash == identity.measurement.value
    assert report.data == bytes(range(64))
    assert report.sm_hash == EMULATED_SM_HASH


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_has_64_bytes(device: KeystoneDevice, identity: Identity, size: int) -> None:
    with pytest.raises(UsageError, match="not 64"):
        device.evidence(identity, bytes(size))


def test_a_device_speaks_only_for_what_it_loaded(device: KeystoneDevice) -> None:
    elsewhere = load(make_device("other"), make_image(b"y = 2\n"))
    forged = KeystoneIdentity(
        measurement=Measurement(tee="keystone", value=bytes(64)), debug=False, emulated=True
    )
    for identity in (elsewhere, forged):
        with pytest.raises(PolicyError, match="has not loaded"):
            device.evidence(identity, bytes(64))
        with pytest.raises(PolicyError, match="has not loaded"):
            device.seal_key(identity, LABEL)
        with pytest.raises(PolicyError, match="has not loaded"):
            device.counter(identity, "n")


def test_a_sealing_key_survives_a_restart() -> None:
    memory = Memory()
    first, second = make_device(memory=memory), make_device(memory=memory)
    assert first.seal_key(load(first), LABEL) == second.seal_key(load(second), LABEL)


def test_a_sealing_key_is_the_hardwares_with_the_label(
    device: KeystoneDevice, identity: Identity
) -> None:
    from broch.tee.keystone.keys import derive_sealing_key

    raw = derive_sealing_key(device._sm_key, identity.measurement.value, b"broch/seal/1").key
    expected = HKDF(hashes.SHA256(), 32, salt=None, info=b"broch/seal/1/store").derive(raw)
    assert device.seal_key(identity, LABEL) == expected


def test_sealing_keys_differ_by_device_secret_code_and_label() -> None:
    device = make_device()
    keys = [
        device.seal_key(load(device), LABEL),
        device.seal_key(load(device), replace(LABEL, label=b"other")),
        device.seal_key(load(device, make_image(b"x = 2\n")), LABEL),
    ]
    for other in (make_device("other"), make_device(secret=bytes(32))):
        keys.append(other.seal_key(load(other), LABEL))
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


@pytest.mark.parametrize("binding", [SealBinding.SIGNER, SealBinding.UUID])
def test_keystone_seals_to_code_only(
    device: KeystoneDevice, identity: Identity, binding: SealBinding
) -> None:
    with pytest.raises(PolicyError, match="only code"):
        device.seal_key(identity, SealKeyRequest(label=b"", binding=binding))


def test_enclaves_have_no_versions(device: KeystoneDevice, identity: Identity) -> None:
    assert device.seal_key(identity, replace(LABEL, version=0)) == device.seal_key(identity, LABEL)
    with pytest.raises(PolicyError, match="no version"):
        device.seal_key(identity, replace(LABEL, version=1))


def test_a_label_has_64_bytes_at_most(device: KeystoneDevice, identity: Identity) -> None:
    device.seal_key(identity, replace(LABEL, label=bytes(64)))
    with pytest.raises(UsageError, match="65 bytes"):
        device.seal_key(identity, replace(LABEL, label=bytes(65)))


def test_a_counter_rises_and_survives_a_restart() -> None:
    memory = Memory()
    device = make_device(memory=memory)
    counter = device.counter(load(device), "epoch")
    assert [counter.read(), counter.increment(), counter.increment(), counter.read()] == [
        0,
        1,
        2,
        2,
    ]
    again = make_device(memory=memory)
    assert again.counter(load(again), "epoch").read() == 2


def test_counters_of_other_names_and_enclaves_are_others() -> None:
    memory = Memory()
    device = make_device(memory=memory)
    device.counter(load(device), "epoch").increment()
    assert device.counter(load(device), "epoch2").read() == 0
    assert device.counter(load(device, make_image(b"x = 2\n")), "epoch").read() == 0


def test_a_counter_does_not_wrap() -> None:
    memory = Memory()
    device = make_device(memory=memory)
    counter = device.counter(load(device), "epoch")
    counter.increment()
    place = next(name for name in memory if name.startswith("counter."))
    memory[place] = b"\xff" * 8
    with pytest.raises(PolicyError, match="reached its end"):
        counter.increment()
    memory[place] = b"\xff" * 7
    with pytest.raises(InternalError, match="durable memory has"):
        counter.read()


def test_endorsements_survive_a_restart_at_another_time() -> None:
    memory = Memory()
    first = make_device(memory=memory).endorsements()
    later = make_device(memory=memory, now=NOW + timedelta(days=99)).endorsements()
    assert first == later


def test_devices_of_an_installation_share_the_roots_key() -> None:
    one, two = make_device("one"), make_device("two")
    evidence = two.evidence(load(two), bytes(64))
    given = replace(two.endorsements(), anchors=one.endorsements().anchors)
    assert TEE.verify(evidence, given, at=NOW).emulated


def test_the_root_says_that_it_is_emulated(device: KeystoneDevice) -> None:
    root = x509.load_der_x509_certificate(device.endorsements().anchors[0])
    assert root.subject.rfc4514_string() == "CN=Broch Emulated Keystone Root"
    root.verify_directly_issued_by(root)


def test_no_secret_in_repr(device: KeystoneDevice) -> None:
    assert SECRET.hex() not in repr(vars(device))
    assert repr(SECRET) not in repr(vars(device))
