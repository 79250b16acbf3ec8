"""Devices of the adversary's own: emulated, and so at hand for everybody."""

import os
from datetime import UTC, datetime, timedelta

from broch.tee import registry
from broch.tee.contract import Device, DeviceSettings


class Memory:
    """Non-volatile memory that forgets with the process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def put(self, name: str, value: bytes) -> None:
        self.kept[name] = value


def own_device(tee: str, name: str = "own") -> Device:
    """A new device with a secret of its own."""
    now = datetime.now(UTC) - timedelta(days=1)
    settings = DeviceSettings(name=name, secret=os.urandom(32), nv=Memory(), now=now)
    return registry.find(tee).device(settings)
