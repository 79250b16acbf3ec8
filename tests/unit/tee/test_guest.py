"""Native devices: what they bind, what they measure, what they seal, and what they refuse."""

import hashlib
from typing import Any

import pytest
from tests.kernels import (
    GramineKernel,
    Machine,
    NoKernel,
    NsmKernel,
    SevGuestKernel,
    TdxGuestKernel,
    TsmKernel,
)

from broch.errors import DecodeError, InternalError, PolicyError, UndecidedError, UsageError
from broch.image import Image, Interface
from broch.tee import registry
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
from broch.tee.guest import GuestDevice, GuestTee, NativeSettings, bind
from broch.tee.snp.native import TEE as SNP

NAMES = ("nitro", "sgx", "snp", "tdx", "tpm")


def image(module: str = "valve", **changes: Any) -> Image:
    fields: dict[str, Any] = {
        "app": "garden",
        "module": module,
        "files": {"main.py": b"pass\n"},
        "main": "main.py",
        "interface": Interface(),
        "runtime": bytes(32),
        "deployer": bytes(32),
        **changes,
    }
    return Image(**fields)


def packed(tee: GuestTee = SNP, **changes: Any) -> Packed:
    return tee.pack(image(**changes), PackSettings(), None)


def device(kernel: Any = None) -> GuestDevice:
    made = kernel or SevGuestKernel(make=lambda data: data.ljust(1184, b"."))
    return SNP.native(NativeSettings(name="cloud", kernel=made))


def request(label: bytes = b"a", **changes: Any) -> SealKeyRequest:
    return SealKeyRequest(**{"label": label, "binding": SealBinding.CODE, **changes})


def test_all_of_them_are_found() -> None:
    assert set(NAMES) <= set(registry.native_names())
    with pytest.raises(UsageError, match="unknown native TEE 'abacus'"):
        registry.find_native("abacus")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_tee_that_emulates_nothing(name: str) -> None:
    tee: Tee = registry.find_native(name)
    assert tee.name == name
    assert tee.title == registry.find_verifier(name).title
    assert tee.report_data_size == (32 if name == "tpm" else 64)
    assert not tee.needs_signing_key
    with pytest.raises(UsageError, match="are not signed"):
        tee.new_signing_key()
    with pytest.raises(UsageError, match="is not emulated"):
        tee.device(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_no_machine_is_made_up(name: str) -> None:
    with pytest.raises(UndecidedError, match="is missing"):
        registry.find_native(name).native(NativeSettings(name="cloud", kernel=NoKernel()))


def test_the_image_is_loaded_as_it_is() -> None:
    loaded = device().load(packed())
    assert loaded.image == image()
    assert loaded.identity.measurement == SNP.measure(packed())
    assert loaded.identity.measurement.value == hashlib.sha256(image().to_bytes()).digest()
    assert not loaded.identity.emulated


def test_what_is_no_image_is_not_loaded() -> None:
    with pytest.raises(DecodeError):
        device().load(Packed(tee="snp", data=b"none"))


def test_evidence_is_over_image_and_question() -> None:
    this: Device = device()
    valve, pump = (this.load(packed(module=name)).identity for name in ("valve", "pump"))
    asked = bytes(64)
    expected = hashlib.sha512(b"broch/guest/1" + image().digest() + asked).digest()
    assert this.evidence(valve, asked)[:64] == expected == bind(image().digest(), asked, 64)
    assert this.evidence(pump, asked)[:64] != expected
    assert this.evidence(valve, b"\1" * 64)[:64] != expected
    assert bind(image().digest(), asked, 32) == expected[:32]


def test_an_image_that_was_not_loaded_here_gets_nothing() -> None:
    this, measurement = device(), SNP.measure(packed())
    stranger = Identity(measurement=measurement, debug=False, emulated=False)
    with pytest.raises(PolicyError, match="has not loaded this image"):
        this.evidence(stranger, bytes(64))
    with pytest.raises(PolicyError, match="has not loaded this image"):
        this.seal_key(stranger, request())
    this.load(packed())
    lying = Identity(
        measurement=Measurement(tee="snp", value=image().digest()), debug=True, emulated=False
    )
    with pytest.raises(PolicyError, match="has not loaded this image"):
        this.evidence(lying, bytes(64))


def test_keys_differ_by_image_label_and_machine() -> None:
    this = device()
    valve, pump = (this.load(packed(module=name)).identity for name in ("valve", "pump"))
    other = device(SevGuestKernel(make=lambda data: bytes(1184), chip=b"another"))
    keys = [
        this.seal_key(valve, request()),
        this.seal_key(valve, request(b"b")),
        this.seal_key(pump, request()),
        other.seal_key(other.load(packed()).identity, request()),
    ]
    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
    again = device()
    assert again.seal_key(again.load(packed()).identity, request()) == keys[0]


def test_what_keys_cannot_be_bound_to() -> None:
    this = device()
    valve = this.load(packed()).identity
    with pytest.raises(PolicyError, match="cannot bind a sealing key to signer"):
        this.seal_key(valve, request(binding=SealBinding.SIGNER))
    with pytest.raises(PolicyError, match="knows no versions"):
        this.seal_key(valve, request(version=1))
    with pytest.raises(UsageError, match="label of 65 bytes"):
        this.seal_key(valve, request(bytes(65)))
    assert len(this.seal_key(valve, request(bytes(64)))) == 32


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("nitro", NsmKernel()),
        ("sgx", GramineKernel(key=None)),
    ],
)
def test_where_there_is_no_secret_there_are_no_keys(name: str, kernel: Any) -> None:
    tee = registry.find_native(name)
    this = tee.native(NativeSettings(name="cloud", kernel=kernel))
    identity = this.load(packed(tee)).identity
    with pytest.raises(PolicyError, match="no sealing key"):
        this.seal_key(identity, request())


def test_there_are_no_counters() -> None:
    this = device()
    with pytest.raises(PolicyError, match="AMD SEV-SNP has no monotonic counter") as caught:
        this.counter(this.load(packed()).identity, "store")
    assert caught.value.hint


def test_an_image_is_measured_before_it_runs() -> None:
    kernel = NsmKernel()
    tee = registry.find_native("nitro")
    tee.native(NativeSettings(name="cloud", kernel=kernel)).load(packed(tee))
    digest = hashlib.sha384(image().to_bytes()).digest()
    assert kernel.pcrs[16] == hashlib.sha384(bytes(48) + digest).digest()


def test_a_trust_domain_measures_images_in_order() -> None:
    domain = TdxGuestKernel()
    reports = TsmKernel(provider="tdx_guest", make=lambda data, level: data)
    tee = registry.find_native("tdx")
    this = tee.native(NativeSettings(name="cloud", kernel=Machine((reports, domain))))
    expected = bytes(48)
    for module in ("valve", "pump", "valve"):
        this.load(packed(tee, module=module))
        digest = hashlib.sha384(image(module).to_bytes()).digest()
        expected = hashlib.sha384(expected + digest).digest()
        assert domain.rtmr3 == expected


def test_an_image_that_cannot_be_measured_does_not_run() -> None:
    domain = TdxGuestKernel(frozen=True)
    reports = TsmKernel(provider="tdx_guest", make=lambda data, level: data)
    tee = registry.find_native("tdx")
    this = tee.native(NativeSettings(name="cloud", kernel=Machine((reports, domain))))
    with pytest.raises(InternalError, match="did not change"):
        this.load(packed(tee))
    unloaded = Identity(measurement=tee.measure(packed(tee)), debug=False, emulated=False)
    with pytest.raises(PolicyError, match="has not loaded this image"):
        this.evidence(unloaded, bytes(64))


def test_no_secret_is_shown() -> None:
    this = device()
    this.seal_key(this.load(packed()).identity, request())
    assert this._secret is not None
    assert this._secret.hex() not in repr(this)
