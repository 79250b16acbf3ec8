"""Emulated nodes for tests."""

from datetime import UTC, datetime
from typing import Final

from broch.tee.contract import DeviceSettings
from broch.tee.sancus.device import SancusDevice

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Memory(dict[str, bytes]):
    """Durable memory: the emulator keeps keys there that it has computed."""

    def get(self, name: str) -> bytes | None:  # type: ignore[override]
        return super().get(name)

    def put(self, name: str, value: bytes) -> None:
        self[name] = value


def device(
    name: str = "field", secret: bytes = bytes(32), nv: Memory | None = None
) -> SancusDevice:
    """A node whose random numbers are not."""
    settings = DeviceSettings(
        name=name, secret=secret, nv=nv if nv is not None else Memory(), now=NOW
    )
    return SancusDevice(settings, random=lambda size: b"r" * size)
