"""Sancus: protected modules on a 16-bit microcontroller, an MSP430.

>>> from broch.tee.sancus import TEE
>>> TEE.report_data_size
32

Modules are in C. There are no asymmetric keys: a module and its deployer share a key that the
hardware derives from the node's key, the vendor's number, the module's text and its place. Nothing
can be sealed, and nothing is remembered over a reset.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from broch.errors import DecodeError, UsageError
from broch.image import Image, Interface
from broch.tee.contract import (
    Claims,
    Compiled,
    CompileSettings,
    DeviceSettings,
    Endorsements,
    Measurement,
    NonVolatile,
    Packed,
    PackSettings,
    SealBinding,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from broch.tee.sancus.device import SancusDevice
    from broch.tee.sancus.module_file import ModuleFile

__all__ = ["TEE", "Sancus"]


class Sancus:
    """The TEE; see :class:`broch.tee.contract.Tee` and :class:`broch.tee.hosting.SharedKeyTee`."""

    name: str = "sancus"
    title: str = "Sancus (MSP430)"
    report_data_size: int = 32
    seal_bindings: tuple[SealBinding, ...] = ()
    needs_signing_key: bool = False
    ciphers: tuple[str, ...] = ("spongent-128",)

    def new_signing_key(self) -> "RSAPrivateKey":
        """Sancus modules carry no signature; raises :class:`UsageError`."""
        raise UsageError("Sancus modules are not signed: they are known by text and place alone")

    def pack(
        self, image: Image, settings: PackSettings, signing_key: "RSAPrivateKey | None"
    ) -> NoReturn:
        """A microcontroller runs no Python; raises :class:`UsageError`."""
        raise UsageError(
            "a Sancus node runs modules in C, not in Python",
            place=image.module,
            hint='write it in C: source = "NAME.c"',
        )

    def measure(self, packed: Packed) -> Measurement:
        """SHA-256 over the module's text and place; raises :class:`MalformedError`."""
        return Measurement(tee=self.name, value=self._read(packed).measure())

    def interface(self, packed: Packed) -> Interface:
        """What the module's port table declares; raises :class:`MalformedError`."""
        return self._read(packed).ports.interface

    def numbers(self, packed: Packed) -> Mapping[str, int]:
        """Positions in the port table, by name."""
        return self._read(packed).ports.numbers

    def module_key(
        self, packed: Packed, endorsements: Endorsements, store: NonVolatile | None = None
    ) -> bytes:
        """The module's key on the endorsed node (16 bytes); raises :class:`UndecidedError`."""
        from broch.tee.sancus.keys import recalled_module_key
        from broch.tee.sancus.verify import vendor_key_of

        module = self._read(packed).module
        vendor, _ = vendor_key_of(endorsements)
        return recalled_module_key(vendor, module.text, module.layout, store)

    def module_nonce(self, evidence: bytes) -> bytes:
        """The nonce in an attestation (16 bytes); raises :class:`DecodeError`."""
        from broch.tee.sancus.evidence import Evidence

        return Evidence.from_bytes(evidence).nonce

    def authorise(self, packed: Packed, endorsements: Endorsements) -> bytes | None:
        """The deployer's word that this module may own its peripherals; None if it owns none."""
        from broch.tee.sancus.device import authorisation
        from broch.tee.sancus.verify import vendor_key_of

        file = self._read(packed)
        return authorisation(vendor_key_of(endorsements)[0], file) if file.drivers else None

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """Check an attestation; see :func:`broch.tee.sancus.verify.verify`."""
        from broch.tee.sancus.verify import verify

        return verify(evidence, endorsements, at=at)

    def compile(
        self,
        source: "Path",
        settings: CompileSettings,
        signing_key: "RSAPrivateKey | None" = None,
    ) -> Compiled:
        """Build a module in C; see :func:`broch.tee.sancus.compiling.build`."""
        from broch.tee.sancus.compiling import build

        return build(source, settings)

    def device(self, settings: DeviceSettings) -> "SancusDevice":
        """An emulated node."""
        from broch.tee.sancus.device import SancusDevice

        return SancusDevice(settings)

    def _read(self, packed: Packed) -> "ModuleFile":
        if packed.tee != self.name:
            raise DecodeError(0, f"packed for {packed.tee}, not for {self.name}")
        from broch.tee.sancus.module_file import read_module

        return read_module(packed.data)


TEE = Sancus()
