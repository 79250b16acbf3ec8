"""Keystone: enclaves on RISC-V, measured by loader, runtime and application.

>>> from broch.tee.keystone import TEE
>>> TEE.report_data_size
64

A report can carry up to 1024 bytes of data; Broch's protocols use 64. Images are not signed. What
an enclave seals is bound to its exact measurement: an update cannot read what its predecessor
sealed. Evidence does not tell a debug image from another but by its measurement.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from broch.errors import DecodeError, UsageError
from broch.image import Image
from broch.tee.contract import (
    Claims,
    DeviceSettings,
    Endorsements,
    Measurement,
    Packed,
    PackSettings,
    SealBinding,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from broch.tee.keystone.device import KeystoneDevice

__all__ = ["TEE", "Keystone"]


class Keystone:
    """The TEE; see :class:`broch.tee.contract.Tee`."""

    name: str = "keystone"
    title: str = "Keystone (RISC-V)"
    report_data_size: int = 64
    seal_bindings: tuple[SealBinding, ...] = (SealBinding.CODE,)
    needs_signing_key: bool = False

    def new_signing_key(self) -> "RSAPrivateKey":
        """Keystone images carry no signature.

        Raises:
            UsageError: always.
        """
        raise UsageError("Keystone images are not signed: they are known by measurement alone")

    def pack(
        self, image: Image, settings: PackSettings, signing_key: "RSAPrivateKey | None"
    ) -> Packed:
        """Put the image into a loader, runtime, eapp triple. Keystone has no use for the rest."""
        from broch.tee.keystone.measurement import Triple

        return Packed(tee=self.name, data=Triple.of(image).to_bytes())

    def measure(self, packed: Packed) -> Measurement:
        """The enclave hash (SHA3-512).

        Raises:
            DecodeError: not a packed triple.
        """
        from broch.tee.keystone.measurement import Triple

        if packed.tee != self.name:
            raise DecodeError(0, f"packed for {packed.tee}, not for {self.name}")
        return Measurement(tee=self.name, value=Triple.from_bytes(packed.data).measure())

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """Check a report; see :func:`broch.tee.keystone.verify.verify`."""
        from broch.tee.keystone.verify import verify

        return verify(evidence, endorsements, at=at)

    def device(self, settings: DeviceSettings) -> "KeystoneDevice":
        """An emulated device."""
        from broch.tee.keystone.device import KeystoneDevice

        return KeystoneDevice(settings)


TEE = Keystone()
