"""Native devices: a machine, or a library OS, that is an enclave as a whole.

On TDX, SEV-SNP and Nitro the whole guest is the enclave, and under Gramine all that runs in it; the
agent is inside the trust boundary. Evidence measures the *system*, not a module, so the runtime
binds each module's image into the report data:

    report data = SHA-512("broch/guest/1" || SHA-256 of the image || what the module asks for)

cut to the TEE's size. The machine does this and no module can: it asks for evidence through its
device, which knows which image it loaded. A verifier compares the system with reference values, and
the report data with the image that it built. Where the hardware has a register that software can
extend and not set, the digest of every image is also measured into it before the image runs.

A kind of native device is found through the entry-point group ``broch.native``.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broch.errors import PolicyError, UsageError
from broch.image import Image
from broch.tee.contract import (
    Claims,
    DeviceSettings,
    Endorsements,
    Identity,
    Loaded,
    Measurement,
    Packed,
    PackSettings,
    SealBinding,
    SealKeyRequest,
)
from broch.tee.kernel import Kernel
from broch.tee.verifier import Verifier

_BIND: Final = b"broch/guest/1"
_SEAL: Final = b"broch/guest/seal/1"
_MAX_LABEL: Final = 64
_REPORT_DATA_SIZE: Final = 64  # bytes of SHA-512


def bind(image: bytes, report_data: bytes, size: int) -> bytes:
    """The report data that says which image (its SHA-256) asked for it: ``size`` bytes, or 64."""
    return hashlib.sha512(_BIND + image + report_data).digest()[:size]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMeasurement(Measurement):
    """An image's own digest, which the report data binds, beside what evidence measures.

    ``value`` is the image's digest as well until a verifier puts the system's there.
    """

    image: bytes  # 32 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSettings:
    """Which native device to open."""

    name: str  # of the node
    kernel: Kernel


class Hardware(Protocol):
    """What one kind of native device can do."""

    def evidence(self, report_data: bytes) -> bytes:
        """Evidence of this machine over ``report_data``."""
        ...

    def extend(self, digest: bytes) -> None:
        """Measure 48 bytes into the runtime's register; nothing where there is no such register.

        Raises:
            UndecidedError: there is one, and it cannot be extended.
        """
        ...

    def seal_secret(self) -> bytes:
        """A secret that only this system on this machine can get.

        Raises:
            PolicyError: this hardware keeps none.
        """
        ...

    def endorsements(self) -> Endorsements:
        """What the machine itself hands out; perhaps nothing."""
        ...


class GuestTee:
    """A kind of native device (:class:`broch.tee.contract.Tee`, which emulates nothing).

    Args:
        verifier: of its evidence; gives name and title too.
        hardware: opens the machine under us.
        seal_bindings: empty where the hardware has no sealing keys.
    """

    needs_signing_key: bool = False

    def __init__(
        self,
        verifier: Verifier,
        hardware: Callable[[NativeSettings], Hardware],
        seal_bindings: tuple[SealBinding, ...],
    ) -> None:
        self.name = verifier.name
        self.title = verifier.title
        self.report_data_size = min(verifier.report_data_size, _REPORT_DATA_SIZE)
        self.seal_bindings = seal_bindings
        self.open = hardware  # of this process's machine, for evidence over any report data
        self._verifier = verifier

    def new_signing_key(self) -> RSAPrivateKey:
        """Images for native devices carry no signature.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"images for native {self.title} are not signed: evidence names them")

    def pack(
        self, image: Image, settings: PackSettings, signing_key: RSAPrivateKey | None
    ) -> Packed:
        """The image as it is: the system, which is measured, loads it."""
        return Packed(tee=self.name, data=image.to_bytes())

    def measure(self, packed: Packed) -> GuestMeasurement:
        """SHA-256 of the image.

        Raises:
            DecodeError: not an image.
        """
        digest = Image.from_bytes(packed.data).digest()
        return GuestMeasurement(tee=self.name, value=digest, image=digest)

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """See the TEE's own ``verify``."""
        return self._verifier.verify(evidence, endorsements, at=at)

    def device(self, settings: DeviceSettings) -> NoReturn:
        """There is no emulated device of this kind.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.title} is not emulated", hint='use device = "native"')

    def native(self, settings: NativeSettings) -> "GuestDevice":
        """The machine under us.

        Raises:
            UndecidedError: it is not of this kind, or its device may not be used.
        """
        return GuestDevice(self, settings.name, self.open(settings))


class GuestDevice:
    """The machine that this process runs on (:class:`broch.tee.contract.Device`)."""

    emulated: bool = False

    def __init__(self, tee: GuestTee, name: str, hardware: Hardware) -> None:
        self.tee = tee.name
        self.name = name
        self._kind = tee
        self._hardware = hardware
        self._loaded: set[Identity] = set()
        self._secret: bytes | None = None

    def load(self, packed: Packed) -> Loaded:
        """Measure the image into the runtime's register, where there is one.

        Raises:
            DecodeError: not an image.
            UndecidedError: the register cannot be extended.
        """
        measurement = self._kind.measure(packed)
        image = Image.from_bytes(packed.data)
        self._hardware.extend(hashlib.sha384(packed.data).digest())
        identity = Identity(measurement=measurement, debug=image.debug, emulated=False)
        self._loaded.add(identity)
        return Loaded(identity=identity, image=image)

    def evidence(self, identity: Identity, report_data: bytes) -> bytes:
        """Evidence of the machine over :func:`bind` of this image and ``report_data``.

        Raises:
            PolicyError: the image was not loaded here.
            UndecidedError: the hardware gives none now.
        """
        bound = bind(self._image_of(identity), report_data, self._kind.report_data_size)
        return self._hardware.evidence(bound)

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """32 bytes for this machine, its system, this exact image and label.

        Raises:
            PolicyError: the hardware keeps no secret, or has no such binding.
            UsageError: the label is too long.
        """
        image = self._image_of(identity)
        if self._secret is None:
            self._secret = self._hardware.seal_secret()  # says why where there is none
        if request.binding not in self._kind.seal_bindings:
            raise PolicyError(f"{self._kind.title} cannot bind a sealing key to {request.binding}")
        if request.version:
            raise PolicyError(f"native {self._kind.title} knows no versions of images")
        if len(request.label) > _MAX_LABEL:
            raise UsageError(f"label of {len(request.label)} bytes; at most {_MAX_LABEL}")
        hkdf = HKDF(hashes.SHA256(), 32, salt=image, info=_SEAL + request.label)
        return hkdf.derive(self._secret)

    def counter(self, identity: Identity, name: str) -> NoReturn:
        """Monotonic counters.

        Raises:
            PolicyError: always: none of this hardware has one that its host cannot roll back.
        """
        raise PolicyError(
            f"{self._kind.title} has no monotonic counter, so no store that refuses rollback",
            hint="keep state in a module of a TEE that has counters, or in memory",
        )

    def endorsements(self) -> Endorsements:
        """What the machine hands out by itself."""
        return self._hardware.endorsements()

    def _image_of(self, identity: Identity) -> bytes:
        if identity not in self._loaded:
            raise PolicyError(f"device {self.name!r} has not loaded this image")
        return identity.measurement.value
