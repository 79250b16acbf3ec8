"""The object that the entry point ``sgx`` names; every method imports what it needs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from broch.errors import UsageError
from broch.tee.contract import (
    Claims,
    Compiled,
    CompileSettings,
    Device,
    DeviceSettings,
    Endorsements,
    Measurement,
    Packed,
    PackSettings,
    SealBinding,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from broch.image import Image


class Sgx:
    """Intel SGX, as :class:`broch.tee.contract.Tee` wants it."""

    name: str = "sgx"
    title: str = "Intel SGX"
    report_data_size: int = 64
    seal_bindings: tuple[SealBinding, ...] = (SealBinding.CODE, SealBinding.SIGNER)
    needs_signing_key: bool = True

    def new_signing_key(self) -> RSAPrivateKey:
        """An RSA-3072 key with exponent 3, the only kind that EINIT verifies."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        return rsa.generate_private_key(public_exponent=3, key_size=3072)

    def pack(
        self, image: Image, settings: PackSettings, signing_key: RSAPrivateKey | None
    ) -> Packed:
        """An SGXS stream and its SIGSTRUCT; both are functions of the arguments alone.

        Raises:
            UsageError: no key or not RSA-3072 with exponent 3; version or product id over 16 bits.
        """
        from broch.tee.sgx import layout, sgxs, sigstruct

        if signing_key is None:
            raise UsageError("SGX images must be signed, and no signing key was given")
        data = layout.pack(image.to_bytes())
        unsigned = sigstruct.template(
            sgxs.measure(data),
            isvprodid=settings.product_id,
            isvsvn=settings.version,
            debug=settings.debug,
        )
        signed = sigstruct.sign(unsigned, signing_key)
        return Packed(tee=self.name, data=data, signature=signed.to_bytes())

    def measure(self, packed: Packed) -> Measurement:
        """MRENCLAVE of the stream and MRSIGNER of its SIGSTRUCT; the signature is not checked.

        Raises:
            DecodeError: the stream or the SIGSTRUCT is not one.
        """
        from broch.tee.sgx import sgxs, sigstruct

        signer = None
        if packed.signature is not None:
            signer = sigstruct.Sigstruct.from_bytes(packed.signature).mrsigner()
        return Measurement(tee=self.name, value=sgxs.measure(packed.data), signer=signer)

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """See :func:`broch.tee.sgx.verify.verify`."""
        from broch.tee.sgx.verify import verify

        return verify(evidence, endorsements, at=at)

    def compile(
        self, source: Path, settings: CompileSettings, signing_key: RSAPrivateKey | None
    ) -> Compiled:
        """See :func:`broch.tee.sgx.compiling.build`."""
        from broch.tee.sgx.compiling import build

        return build(source, settings, signing_key)

    def device(self, settings: DeviceSettings) -> Device:
        """An emulated CPU with its quoting enclave and its own chain of trust."""
        from broch.tee.sgx.device import SgxDevice

        return SgxDevice(settings)


TEE: Final = Sgx()
