"""TrustZone: trusted applications (TAs) under OP-TEE.

>>> from broch.tee.trustzone import TEE
>>> TEE.report_data_size
64

A module becomes a signed TA file. Its measurement is the hash of the TA's memory, as OP-TEE's
attestation pseudo-TA computes it. What a TA seals is bound to its UUID, which stands for the names
of application and module: an update can read it, and so could any code that the same signer signs
under that name. TAs have no debug mode: a debug image differs by its measurement.

``Packed.signature`` holds the public key (SubjectPublicKeyInfo, DER) of the signer, which a TA file
does not carry.
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

    from broch.tee.trustzone.device import TrustZoneDevice

__all__ = ["TEE", "TrustZone"]

_SIGNING_KEY_BITS = 3072


class TrustZone:
    """The TEE; see :class:`broch.tee.contract.Tee`."""

    name: str = "trustzone"
    title: str = "Arm TrustZone (OP-TEE)"
    report_data_size: int = 64
    seal_bindings: tuple[SealBinding, ...] = (SealBinding.UUID,)
    needs_signing_key: bool = True

    def new_signing_key(self) -> "RSAPrivateKey":
        """An RSA key of 3072 bits."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        return rsa.generate_private_key(public_exponent=65537, key_size=_SIGNING_KEY_BITS)

    def pack(
        self, image: Image, settings: PackSettings, signing_key: "RSAPrivateKey | None"
    ) -> Packed:
        """Make a bootstrap TA under the UUID of the module's name, signed with RSASSA-PSS.

        Raises:
            UsageError: there is no signing key.
            DecodeError: version or key do not fit the format.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        from broch.tee.trustzone.ta_elf import TaElf
        from broch.tee.trustzone.ta_file import TaFile

        if signing_key is None:
            raise UsageError("a TrustZone image has to be signed, and no signing key is given")
        elf = TaElf.of(image)
        file = TaFile.sign(elf.to_bytes(), elf.uuid, settings.version, signing_key)
        spki = signing_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return Packed(tee=self.name, data=file.to_bytes(), signature=spki)

    def measure(self, packed: Packed) -> Measurement:
        """The memory hash that the TA will have (SHA-256). Does not check the signature.

        Raises:
            DecodeError: not a TA file of Broch's.
        """
        from broch.tee.trustzone.ta_elf import TaElf
        from broch.tee.trustzone.ta_file import TaFile

        if packed.tee != self.name:
            raise DecodeError(0, f"packed for {packed.tee}, not for {self.name}")
        elf = TaElf.from_bytes(TaFile.from_bytes(packed.data).program)
        return Measurement(tee=self.name, value=elf.memory_hash())

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """Check evidence; see :func:`broch.tee.trustzone.verify.verify`."""
        from broch.tee.trustzone.verify import verify

        return verify(evidence, endorsements, at=at)

    def device(self, settings: DeviceSettings) -> "TrustZoneDevice":
        """An emulated device."""
        from broch.tee.trustzone.device import TrustZoneDevice

        return TrustZoneDevice(settings)


TEE = TrustZone()
