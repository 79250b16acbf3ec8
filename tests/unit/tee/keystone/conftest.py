"""A module and an emulated device to try things on."""

from datetime import UTC, datetime
from typing import Final

import pytest
from tests.emulated import Memory

from broch.image import Image, Interface
from broch.tee.contract import DeviceSettings, Identity, PackSettings
from broch.tee.keystone import TEE
from broch.tee.keystone.device import KeystoneDevice

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECRET: Final = bytes(range(100, 132))


def make_image(code: bytes = b"x = 1\n", module: str = "valve", runtime: int = 0) -> Image:
    """A small module."""
    return Image(
        app="garden",
        module=module,
        files={"main.py": code},
        main="main.py",
        interface=Interface(),
        runtime=bytes([runtime]) * 32,
        deployer=bytes(32),
    )


def make_device(
    name: str = "field", memory: Memory | None = None, secret: bytes = SECRET, now: datetime = NOW
) -> KeystoneDevice:
    """A device with a memory of its own, unless one is given."""
    nv = Memory() if memory is None else memory
    return TEE.device(DeviceSettings(name=name, secret=secret, nv=nv, now=now))


def load(device: KeystoneDevice, image: Image | None = None) -> Identity:
    """Load a module, by default the small one."""
    packed = TEE.pack(image or make_image(), PackSettings(), None)
    return device.load(packed).identity


@pytest.fixture
def device() -> KeystoneDevice:
    return make_device()


@pytest.fixture
def identity(device: KeystoneDevice) -> Identity:
    return load(device)
