"""The emulated device, rule by rule."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.errors import DecodeError, InternalError, PolicyError, UntrustedError, UsageError
from broch.tee.contract import (
    Device,
    Identity,
    Packed,
    PackSettings,
    SealBinding,
    SealKeyRequest,
    Tee,
)
from broch.tee.trustzone import TEE
from broch.tee.trustzone.attestation import PTA_UUID, Envelope
from broch.tee.trustzone.device import TrustZoneDevice, TrustZoneIdentity
from broch.tee.trustzone.htree import SecureObject
from broch.tee.trustzone.keys import derive_ssk, derive_ta_unique_key, derive_tsk
from broch.tee.trustzone.ta_elf import TaElf, uuid_of
from broch.tee.trustzone.ta_file import ImageType, TaFile

from .conftest import (
    NOW,
    SECRET,
    load,
    make_device,
    make_image,
    pack,
    provisioned,
    signing_key,
)

LABEL = SealKeyRequest(label=b"store", binding=SealBinding.UUID)


def test_it_is_what_the_contract_says(device: TrustZoneDevice) -> None:
    tee: Tee = TEE
    same: Device = device
    assert (tee.name, same.tee, same.name) == ("trustzone", "trustzone", "field")
    assert same.emulated
    assert tee.report_data_size == 64
    assert tee.seal_bindings == (SealBinding.UUID,)
    assert tee.needs_signing_key


def test_a_new_signing_key_is_rsa_3072() -> None:
    key = TEE.new_signing_key()
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


def test_packing_needs_a_key() -> None:
    with pytest.raises(UsageError, match="no signing key"):
        TEE.pack(make_image(), PackSettings(), None)


def test_packing_differs_by_the_salt_of_the_signature_only() -> None:
    first, second = (TaFile.from_bytes(pack(version=3).data) for _ in range(2))
    assert replace(first, signature=b"") == replace(second, signature=b"")
    assert first.ta_version == 3
    assert first.uuid == uuid_of("garden", "valve")


def test_loading_measures(device: TrustZoneDevice) -> None:
    packed = pack(version=5)
    loaded = device.load(packed)
    assert loaded.image == make_image()
    assert loaded.identity.measurement == TEE.measure(packed)
    assert loaded.identity.measurement.value == TaElf.of(make_image()).memory_hash()
    assert isinstance(loaded.identity, TrustZoneIdentity)
    assert loaded.identity.uuid == uuid_of("garden", "valve")
    assert loaded.identity.ta_version == 5
    assert loaded.identity.emulated
    assert not loaded.identity.debug


def test_the_measurement_depends_on_the_image_not_on_signer_or_version() -> None:
    assert TEE.measure(pack()) == TEE.measure(pack(version=2, signer=1))
    assert TEE.measure(pack()) != TEE.measure(pack(make_image(b"x = 2\n")))


def test_another_tees_image_is_refused(device: TrustZoneDevice) -> None:
    packed = replace(pack(), tee="sgx")
    with pytest.raises(DecodeError, match="packed for sgx"):
        device.load(packed)
    with pytest.raises(DecodeError, match="packed for sgx"):
        TEE.measure(packed)


def test_the_signers_key_must_come_along(device: TrustZoneDevice) -> None:
    packed = pack()
    with pytest.raises(DecodeError, match="signer is missing"):
        device.load(replace(packed, signature=None))
    curve = ec.derive_private_key(5, ec.SECP256R1()).public_key()
    for junk in (b"", b"junk", curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
        with pytest.raises(DecodeError, match="TA signer"):
            device.load(replace(packed, signature=junk))


def test_another_signers_key_is_refused(device: TrustZoneDevice) -> None:
    with pytest.raises(UntrustedError, match="not signed"):
        device.load(replace(pack(), signature=pack(signer=1).signature))


def sign(elf: TaElf, uuid: UUID) -> Packed:
    """A TA file that is well signed, whatever it holds."""
    file = TaFile.sign(elf.to_bytes(), uuid, 0, signing_key())
    return Packed(tee="trustzone", data=file.to_bytes(), signature=pack().signature)


def test_header_head_and_name_must_agree_on_the_uuid(device: TrustZoneDevice) -> None:
    valve, pump = uuid_of("garden", "valve"), uuid_of("garden", "pump")
    image = make_image().to_bytes()
    assert device.load(sign(TaElf(uuid=valve, image=image), valve)).image == make_image()
    for head, header in ((valve, pump), (pump, valve), (pump, pump)):
        with pytest.raises(UntrustedError, match="the header says UUID"):
            device.load(sign(TaElf(uuid=head, image=image), header))


def test_a_program_that_is_no_image_is_refused(device: TrustZoneDevice) -> None:
    valve = uuid_of("garden", "valve")
    for image in (b"junk", make_image().to_bytes() + b"\0"):
        with pytest.raises(DecodeError):
            device.load(sign(TaElf(uuid=valve, image=image), valve))


def test_a_legacy_ta_is_refused(device: TrustZoneDevice) -> None:
    program = TaElf.of(make_image()).to_bytes()
    file = replace(
        TaFile.from_bytes(pack().data),
        img_type=ImageType.TA,
        uuid=None,
        ta_version=0,
        program=program,
    )
    digest = hashlib.sha256(file._shdr() + program).digest()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    signature = signing_key().sign(digest, pss, Prehashed(hashes.SHA256()))
    legacy = replace(file, hash=digest, signature=signature).to_bytes()
    with pytest.raises(PolicyError, match="legacy"):
        device.load(replace(pack(), data=legacy))


def test_an_older_version_than_before_is_refused_for_good() -> None:
    memory = provisioned()
    device = make_device(memory=memory)
    load(device, pack(version=2))
    load(device, pack(version=2))
    load(device, pack(version=4))
    for again in (device, make_device(memory=memory)):
        with pytest.raises(PolicyError, match="version 4 has run"):
            load(again, pack(version=3))
    load(device, pack(make_image(module="pump"), version=0))


def test_a_ta_that_is_refused_does_not_raise_the_version() -> None:
    device = make_device()
    load(device, pack(version=1))
    for bad in (
        replace(pack(version=9), signature=pack(signer=1).signature),
        pack(version=9, signer=1),
    ):
        with pytest.raises((UntrustedError, PolicyError)):
            device.load(bad)
    load(device, pack(version=1))


def test_the_first_signer_of_a_uuid_owns_it() -> None:
    memory = provisioned()
    load(make_device(memory=memory), pack(signer=0))
    with pytest.raises(PolicyError, match="another signer") as caught:
        load(make_device(memory=memory), pack(version=9, signer=1))
    assert caught.value.hint
    load(make_device(memory=memory), pack(make_image(module="pump"), signer=1))


def test_a_damaged_rollback_database_is_noticed() -> None:
    memory = provisioned()
    memory[f"rollback.{uuid_of('garden', 'valve')}"] = b"short"
    with pytest.raises(InternalError, match="damaged"):
        load(make_device(memory=memory))


def test_evidence_is_what_the_pseudo_ta_says(
    device: TrustZoneDevice, identity: TrustZoneIdentity
) -> None:
    envelope = Envelope.from_bytes(device.evidence(identity, bytes(range(64))))
    assert envelope.nonce == bytes(range(64))
    assert envelope.memory_hash == identity.measurement.value
    assert envelope.uuid == identity.uuid
    assert len(envelope.signature) == 384


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_has_64_bytes(
    device: TrustZoneDevice, identity: TrustZoneIdentity, size: int
) -> None:
    with pytest.raises(UsageError, match="not 64"):
        device.evidence(identity, bytes(size))


def test_a_device_speaks_only_for_what_it_loaded(
    device: TrustZoneDevice, identity: TrustZoneIdentity
) -> None:
    forged: list[Identity] = [
        replace(identity, uuid=uuid_of("garden", "pump")),
        replace(identity, ta_version=99),
        Identity(measurement=identity.measurement, debug=False, emulated=True),
    ]
    for other in forged:
        with pytest.raises(PolicyError, match="has not loaded"):
            device.evidence(other, bytes(64))
        with pytest.raises(PolicyError, match="has not loaded"):
            device.seal_key(other, LABEL)
        with pytest.raises(PolicyError, match="has not loaded"):
            device.counter(other, "n")


def test_the_attestation_key_is_made_once_and_kept_in_a_secure_object() -> None:
    memory = provisioned()
    kept = memory[f"object.{PTA_UUID}.key"]
    first, second = make_device(memory=memory), make_device(memory=memory)
    assert first._attestation_key.private_numbers() == second._attestation_key.private_numbers()
    assert memory[f"object.{PTA_UUID}.key"] == kept
    tsk = derive_tsk(derive_ssk(first._huk), PTA_UUID)
    content = SecureObject.open(tsk, kept).read()
    assert content[:5] == b"\x00\x03\x01\x00\x01"
    assert content not in kept


def test_another_device_cannot_read_the_attestation_key() -> None:
    stolen = make_device("other", memory=provisioned())
    with pytest.raises(UntrustedError):
        stolen.evidence(load(stolen), bytes(64))


def test_an_update_keeps_its_sealing_key() -> None:
    """What binding to a UUID means: code and version may change, the name may not."""
    device = make_device()
    old = device.seal_key(load(device, pack(version=1)), LABEL)
    new = device.seal_key(load(device, pack(make_image(b"x = 2\n"), version=2)), LABEL)
    assert old == new


def test_a_sealing_key_survives_a_restart() -> None:
    memory = provisioned()
    first, second = make_device(memory=memory), make_device(memory=memory)
    assert first.seal_key(load(first), LABEL) == second.seal_key(load(second), LABEL)


def test_a_sealing_key_is_the_hardwares_with_the_label(
    device: TrustZoneDevice, identity: TrustZoneIdentity
) -> None:
    raw = derive_ta_unique_key(device._huk, identity.uuid, b"broch/seal/1")
    expected = HKDF(hashes.SHA256(), 32, salt=None, info=b"broch/seal/1/store").derive(raw)
    assert device.seal_key(identity, LABEL) == expected


def test_sealing_keys_differ_by_device_secret_uuid_and_label() -> None:
    device = make_device()
    keys = [
        device.seal_key(load(device), LABEL),
        device.seal_key(load(device), replace(LABEL, label=b"other")),
        device.seal_key(load(device, pack(make_image(module="pump"))), LABEL),
    ]
    for other in (make_device("other"), make_device(secret=bytes(32))):
        keys.append(other.seal_key(load(other), LABEL))
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


@pytest.mark.parametrize("binding", [SealBinding.SIGNER, SealBinding.CODE])
def test_optee_seals_to_the_uuid_only(
    device: TrustZoneDevice, identity: TrustZoneIdentity, binding: SealBinding
) -> None:
    with pytest.raises(PolicyError, match="only uuid"):
        device.seal_key(identity, SealKeyRequest(label=b"", binding=binding))


def test_a_version_above_its_own_is_refused(device: TrustZoneDevice) -> None:
    identity = load(device, pack(version=3))
    assert device.seal_key(identity, replace(LABEL, version=3)) == device.seal_key(identity, LABEL)
    with pytest.raises(PolicyError, match="above"):
        device.seal_key(identity, replace(LABEL, version=4))


def test_a_label_has_64_bytes_at_most(device: TrustZoneDevice, identity: TrustZoneIdentity) -> None:
    device.seal_key(identity, replace(LABEL, label=bytes(64)))
    with pytest.raises(UsageError, match="65 bytes"):
        device.seal_key(identity, replace(LABEL, label=bytes(65)))


def test_a_counter_belongs_to_the_uuid_and_survives_a_restart() -> None:
    memory = provisioned()
    device = make_device(memory=memory)
    counter = device.counter(load(device), "epoch")
    assert [counter.read(), counter.increment(), counter.increment(), counter.read()] == [
        0,
        1,
        2,
        2,
    ]
    again = make_device(memory=memory)
    assert again.counter(load(again, pack(make_image(b"x = 2\n"))), "epoch").read() == 2
    assert again.counter(load(again, pack(make_image(module="pump"))), "epoch").read() == 0
    assert again.counter(load(again), "other").read() == 0


def test_a_counter_does_not_wrap() -> None:
    memory = provisioned()
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
    memory = provisioned()
    first = make_device(memory=memory).endorsements()
    later = make_device(memory=memory, now=NOW + timedelta(days=99)).endorsements()
    assert first == later


def test_the_root_says_that_it_is_emulated(device: TrustZoneDevice) -> None:
    root = x509.load_der_x509_certificate(device.endorsements().anchors[0])
    assert root.subject.rfc4514_string() == "CN=Broch Emulated TrustZone Root"
    root.verify_directly_issued_by(root)


def test_no_secret_in_repr(device: TrustZoneDevice) -> None:
    assert SECRET.hex() not in repr(vars(device))
    assert repr(SECRET) not in repr(vars(device))


def test_names_in_memory_are_plain(device: TrustZoneDevice) -> None:
    """A memory may keep each name as a file of that name."""
    memory = provisioned()
    again = make_device(memory=memory)
    again.counter(load(again), "../../etc/passwd\0 and more" * 20).increment()
    assert all(
        len(name) < 100 and name.replace("-", "").replace(".", "").isalnum() for name in memory
    )
