"""The emulated machine: loading, evidence, sealing keys, counters, what it publishes."""

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, PolicyError, UntrustedError, UsageError
from broch.tee.contract import (
    Device,
    DeviceSettings,
    Identity,
    Measurement,
    Packed,
    SealBinding,
    SealKeyRequest,
)
from broch.tee.dcap.report import DEBUG, INIT, MODE64BIT, PROVISIONKEY
from broch.tee.sgx import TEE, sgxs, sigstruct
from broch.tee.sgx.device import SgxDevice, SgxIdentity, build
from broch.tee.sgx.faults import SgxError
from broch.tee.sgx.sgxs import Sgxs

from .support import NOW, REPORT_DATA, SECRET, Memory, load, make_image, pack, settings, signed

CODE = SealKeyRequest(label=b"state", binding=SealBinding.CODE)
SIGNER = SealKeyRequest(label=b"state", binding=SealBinding.SIGNER)


# Loading


def test_loading_gives_back_the_image_that_was_measured(device: SgxDevice, packed: Packed) -> None:
    loaded = device.load(packed)
    assert loaded.image == make_image()
    assert loaded.identity.measurement == TEE.measure(packed)
    assert loaded.identity.emulated
    assert not loaded.identity.debug
    identity = loaded.identity
    assert isinstance(identity, SgxIdentity)
    assert identity.secs.flags == INIT | MODE64BIT
    assert (identity.secs.isvsvn, identity.secs.isvprodid) == (3, 7)


def test_it_is_a_device_of_the_contract(device: SgxDevice) -> None:
    of_contract: Device = device
    assert (of_contract.tee, of_contract.name, of_contract.emulated) == ("sgx", "bench", True)


def test_debug_images_load_as_debug(device: SgxDevice, key: RSAPrivateKey) -> None:
    identity = load(device, pack(key, debug=True))
    assert identity.debug
    assert identity.secs.flags & DEBUG


def test_a_changed_image_is_not_what_was_signed(device: SgxDevice, packed: Packed) -> None:
    changed = bytearray(packed.data)
    changed[sgxs.RECORD * 3 + 100] ^= 1
    with pytest.raises(UntrustedError) as caught:
        device.load(replace(packed, data=bytes(changed)))
    assert isinstance(caught.value, SgxError)
    assert int(caught.value.number) == 4


def test_a_changed_signature(device: SgxDevice, packed: Packed) -> None:
    assert packed.signature is not None
    changed = bytearray(packed.signature)
    changed[600] ^= 1
    with pytest.raises(UntrustedError):
        device.load(replace(packed, signature=bytes(changed)))


def test_debug_cannot_be_switched_on_in_a_signature(device: SgxDevice, packed: Packed) -> None:
    assert packed.signature is not None
    changed = bytearray(packed.signature)
    changed[928] |= DEBUG
    with pytest.raises(UntrustedError):
        device.load(replace(packed, signature=bytes(changed)))


@pytest.mark.parametrize("signature", [None, b"", bytes(1808), bytes(1807)])
def test_no_sigstruct(device: SgxDevice, packed: Packed, signature: bytes | None) -> None:
    with pytest.raises(DecodeError):
        device.load(replace(packed, signature=signature))


def test_not_a_stream(device: SgxDevice, packed: Packed) -> None:
    with pytest.raises(DecodeError):
        device.load(replace(packed, data=packed.data[:-1]))


def test_an_enclave_that_is_no_image(device: SgxDevice, key: RSAPrivateKey) -> None:
    stream = sgxs.create_record(sgxs.Create(ssaframesize=1, size=8192))
    template = sigstruct.template(sgxs.measure(stream))
    data = sigstruct.sign(template, key).to_bytes()
    with pytest.raises(DecodeError, match="without pages"):
        device.load(Packed(tee="sgx", data=stream, signature=data))


def test_an_unsized_stream(key: RSAPrivateKey) -> None:
    stream = Sgxs(create=sgxs.Create(ssaframesize=1, size=0, sized=False), pages=())
    with pytest.raises(DecodeError, match="UNSIZED"):
        build(stream, signed(key))


def test_the_provision_key_is_for_none(key: RSAPrivateKey) -> None:
    stream = Sgxs(create=sgxs.Create(ssaframesize=1, size=8192), pages=())
    with pytest.raises(PolicyError, match="PROVISIONKEY"):
        build(stream, signed(key, flags=MODE64BIT | PROVISIONKEY))


def test_a_package_of_another_tee(device: SgxDevice, packed: Packed) -> None:
    with pytest.raises(UsageError, match="keystone"):
        device.load(replace(packed, tee="keystone"))


# Evidence


def test_evidence_verifies_and_says_that_it_is_emulated(
    device: SgxDevice, identity: SgxIdentity
) -> None:
    evidence = device.evidence(identity, REPORT_DATA)
    claims = TEE.verify(evidence, device.endorsements(), at=NOW)
    assert claims.tee == "sgx"
    assert claims.measurement == identity.measurement.value
    assert claims.signer == identity.measurement.signer
    assert claims.report_data == REPORT_DATA
    assert (claims.version, claims.product_id) == (3, 7)
    assert claims.emulated
    assert not claims.debug
    assert claims.details["tcb_status"] == "UpToDate"
    assert claims.details["root"] == "Broch Emulated SGX Root"


def test_evidence_of_a_debug_enclave_says_so(device: SgxDevice, key: RSAPrivateKey) -> None:
    identity = load(device, pack(key, debug=True))
    evidence = device.evidence(identity, REPORT_DATA)
    assert TEE.verify(evidence, device.endorsements(), at=NOW).debug


def test_evidence_of_one_device_does_not_verify_under_another(
    device: SgxDevice, identity: SgxIdentity
) -> None:
    other = SgxDevice(settings(secret=bytes(32)))
    evidence = device.evidence(identity, REPORT_DATA)
    with pytest.raises(UntrustedError, match="not among the anchors"):
        TEE.verify(evidence, other.endorsements(), at=NOW)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_has_64_bytes(device: SgxDevice, identity: SgxIdentity, size: int) -> None:
    with pytest.raises(UsageError, match="expected 64"):
        device.evidence(identity, bytes(size))


# Identities of elsewhere

FOREIGN = Identity(
    measurement=Measurement(tee="keystone", value=bytes(64)), debug=False, emulated=True
)


def test_identities_of_other_tees_are_refused(device: SgxDevice) -> None:
    for use in (
        lambda: device.evidence(FOREIGN, REPORT_DATA),
        lambda: device.seal_key(FOREIGN, CODE),
        lambda: device.counter(FOREIGN, "c"),
    ):
        with pytest.raises(UsageError, match="keystone"):
            use()


# Sealing keys


def test_keys_are_stable_over_loads_and_power_cuts(
    device: SgxDevice, packed: Packed, identity: SgxIdentity
) -> None:
    again = SgxDevice(settings(now=NOW + timedelta(days=400)))
    for request in (CODE, SIGNER):
        key = device.seal_key(identity, request)
        assert len(key) == 32
        assert device.seal_key(load(device, packed), request) == key
        assert again.seal_key(load(again, packed), request) == key


@pytest.mark.parametrize(
    ("change", "code_differs", "signer_differs"),
    [
        pytest.param("device", True, True, id="another device"),
        pytest.param("label", True, True, id="another label"),
        pytest.param("signer", False, True, id="another signer"),
        pytest.param("product", True, True, id="another product of the signer"),
        pytest.param("debug", True, True, id="debug for production"),
        pytest.param("code", True, False, id="another module of the signer"),
        pytest.param("version", True, True, id="another version"),
        pytest.param("version asked", False, False, id="the version before, asked for"),
    ],
)
def test_separation(
    device: SgxDevice,
    key: RSAPrivateKey,
    other_key: RSAPrivateKey,
    identity: SgxIdentity,
    change: str,
    code_differs: bool,
    signer_differs: bool,
) -> None:
    used = SgxDevice(settings(secret=bytes(32))) if change == "device" else device
    packed = pack(
        other_key if change == "signer" else key,
        module="other" if change == "code" else "blink",
        version=4 if change.startswith("version") else 3,
        product_id=8 if change == "product" else 7,
        debug=change == "debug",
    )
    other = load(used, packed)
    for request, differs in ((CODE, code_differs), (SIGNER, signer_differs)):
        asked = replace(
            request,
            label=b"other" if change == "label" else request.label,
            version=3 if change == "version asked" else None,
        )
        differ = used.seal_key(other, asked) != device.seal_key(identity, request)
        assert differ == differs, request.binding


def test_bindings_and_labels_give_unrelated_keys(device: SgxDevice, identity: SgxIdentity) -> None:
    labels = (b"", b"a", b"b", b"a\0", b"L" * 64)
    requests = [
        SealKeyRequest(label=label, binding=binding)
        for label, binding in itertools.product(labels, (SealBinding.CODE, SealBinding.SIGNER))
    ]
    assert len({device.seal_key(identity, request) for request in requests}) == len(requests)


def test_a_newer_version_reads_older_state_and_not_the_other_way(
    device: SgxDevice, key: RSAPrivateKey, identity: SgxIdentity
) -> None:
    newer = load(device, pack(key, module="other", version=9))
    old = device.seal_key(identity, SIGNER)
    assert device.seal_key(newer, replace(SIGNER, version=3)) == old
    with pytest.raises(PolicyError) as caught:
        device.seal_key(identity, replace(SIGNER, version=9))
    assert isinstance(caught.value, SgxError)
    assert int(caught.value.number) == 64


def test_versions_out_of_range(device: SgxDevice, identity: SgxIdentity) -> None:
    with pytest.raises(UsageError):
        device.seal_key(identity, replace(CODE, version=-1))
    with pytest.raises(PolicyError):
        device.seal_key(identity, replace(CODE, version=2**16))


def test_sgx_binds_to_no_uuid(device: SgxDevice, identity: SgxIdentity) -> None:
    with pytest.raises(PolicyError, match="uuid"):
        device.seal_key(identity, replace(CODE, binding=SealBinding.UUID))


def test_labels_have_at_most_64_bytes(device: SgxDevice, identity: SgxIdentity) -> None:
    with pytest.raises(UsageError, match="64"):
        device.seal_key(identity, replace(CODE, label=bytes(65)))


# Counters


def test_counters_survive_power_cuts(packed: Packed) -> None:
    memory = Memory()
    first = SgxDevice(settings(memory=memory))
    assert first.counter(load(first, packed), "c").increment() == 1
    second = SgxDevice(settings(memory=memory))
    assert second.counter(load(second, packed), "c").increment() == 2


def test_no_other_enclave_touches_a_counter(
    key: RSAPrivateKey, other_key: RSAPrivateKey, packed: Packed
) -> None:
    device = SgxDevice(settings())
    device.counter(load(device, packed), "c").increment()
    for stranger in (pack(other_key), pack(key, module="other"), pack(key, debug=True)):
        assert device.counter(load(device, stranger), "c").increment() == 1
    assert device.counter(load(device, packed), "d").read() == 0
    assert device.counter(load(device, packed), "c").read() == 1


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_names_of_counters(device: SgxDevice, identity: SgxIdentity, name: str) -> None:
    with pytest.raises(UsageError, match="255"):
        device.counter(identity, name)


def test_any_name_of_a_fair_length_will_do(device: SgxDevice, identity: SgxIdentity) -> None:
    for name in ("n" * 255, "../..", "\0", "\udc80", "größe"):
        assert device.counter(identity, name).read() == 0


# The machine itself


def test_endorsements_are_stable_and_public(packed: Packed) -> None:
    memory = Memory()
    first = SgxDevice(settings(memory=memory)).endorsements()
    assert SgxDevice(settings(memory=memory)).endorsements() == first
    assert len(first.anchors) == 1
    published = b"".join((*first.anchors, *first.items.values()))
    assert SECRET not in published


def test_evidence_of_a_restarted_device_verifies_under_old_endorsements(packed: Packed) -> None:
    memory = Memory()
    endorsements = SgxDevice(settings(memory=memory)).endorsements()
    again = SgxDevice(settings(memory=memory, now=NOW + timedelta(days=90)))
    evidence = again.evidence(load(again, packed), REPORT_DATA)
    TEE.verify(evidence, endorsements, at=NOW + timedelta(days=90))


def test_a_verifier_with_a_clock_a_little_behind_still_agrees(
    device: SgxDevice, identity: SgxIdentity
) -> None:
    evidence = device.evidence(identity, REPORT_DATA)
    TEE.verify(evidence, device.endorsements(), at=NOW - timedelta(minutes=59))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"secret": bytes(31)}, id="short secret"),
        pytest.param({"secret": b""}, id="no secret"),
        pytest.param({"now": datetime(2026, 1, 1)}, id="no time zone"),
    ],
)
def test_settings_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SgxDevice(settings(**bad))  # type: ignore[arg-type]  # bad on purpose


def test_secrets_do_not_show(device: SgxDevice, identity: SgxIdentity) -> None:
    shown = repr(device) + repr(vars(device)) + repr(identity)
    assert SECRET.hex() not in shown
    assert repr(SECRET) not in shown
    assert isinstance(settings(), DeviceSettings)
