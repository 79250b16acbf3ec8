"""A module, a signer and an emulated device to try things on."""

from datetime import UTC, datetime
from functools import cache
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.emulated import Memory

from broch.image import Image, Interface
from broch.tee.contract import DeviceSettings, Packed, PackSettings
from broch.tee.trustzone import TEE
from broch.tee.trustzone.device import TrustZoneDevice, TrustZoneIdentity

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECRET: Final = bytes(range(100, 132))


def signing_key(number: int = 0) -> rsa.RSAPrivateKey:
    """The key of one of several signers; 2048 bits, as they are made in a moment."""
    return _signing_key(number)


@cache
def _signing_key(number: int) -> rsa.RSAPrivateKey:
    assert number in (0, 1)
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_image(code: bytes = b"x = 1\n", module: str = "valve") -> Image:
    """A small module."""
    return Image(
        app="garden",
        module=module,
        files={"main.py": code},
        main="main.py",
        interface=Interface(),
        runtime=bytes(32),
        deployer=bytes(32),
    )


def pack(image: Image | None = None, version: int = 0, signer: int = 0) -> Packed:
    """A signed TA, by default of the small module."""
    settings = PackSettings(version=version)
    return TEE.pack(image or make_image(), settings, signing_key(signer))


@cache
def _provisioned() -> Memory:
    memory = Memory()
    TEE.device(
        DeviceSettings(name="field", secret=SECRET, nv=memory, now=NOW)
    ).endorsements()  # makes the attestation key, which takes a while
    return memory


def provisioned() -> Memory:
    """The memory of the device "field" after its first use."""
    return Memory(_provisioned())


def make_device(
    name: str = "field", memory: Memory | None = None, secret: bytes = SECRET, now: datetime = NOW
) -> TrustZoneDevice:
    """A device; the one called "field" has its attestation key already."""
    if memory is None:
        memory = provisioned() if (name, secret) == ("field", SECRET) else Memory()
    return TEE.device(DeviceSettings(name=name, secret=secret, nv=memory, now=now))


def load(device: TrustZoneDevice, packed: Packed | None = None) -> TrustZoneIdentity:
    """Load a TA, by default that of the small module."""
    identity = device.load(packed or pack()).identity
    assert isinstance(identity, TrustZoneIdentity)
    return identity


@pytest.fixture
def device() -> TrustZoneDevice:
    return make_device()


@pytest.fixture
def identity(device: TrustZoneDevice) -> TrustZoneIdentity:
    return load(device)
