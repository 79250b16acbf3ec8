"""Emulated nodes for tests."""

from datetime import UTC, datetime
from typing import Final

from broch.tee.contract import DeviceSettings
from broch.tee.sancus.device import SancusDevice

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


class NoMemory:
    """A microcontroller remembers nothing."""

    def get(self, name: str) -> bytes | None:
        raise AssertionError(name)

    def put(self, name: str, value: bytes) -> None:
        raise AssertionError(name)


def device(name: str = "field", secret: bytes = bytes(32)) -> SancusDevice:
    """A node whose random numbers are not."""
    settings = DeviceSettings(name=name, secret=secret, nv=NoMemory(), now=NOW)
    return SancusDevice(settings, random=lambda size: b"r" * size)
