"""What every TEE offers to the rest of Broch, and nothing else.

A :class:`Tee` is a kind of hardware, a :class:`Device` one instance of it. A TEE package is found
through the entry-point group ``broch.tees`` (see :mod:`broch.tee.registry`), whose value is an
object that satisfies :class:`Tee`.

    Image --pack--> Packed --load--> Identity --evidence--> bytes --verify--> Claims
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import UndecidedError
from broch.image import Image
from broch.tee.cache import VerificationCache


class SealBinding(StrEnum):
    """What a sealing key is bound to. No TEE offers all of these; each says which it does."""

    CODE = "code"  # the exact measurement: SGX MRENCLAVE, Keystone enclave hash
    SIGNER = "signer"  # who signed, which product, and not before which SVN: SGX MRSIGNER
    UUID = "uuid"  # the TA's UUID under the signing root: OP-TEE


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Who an image is, and who vouches for it."""

    tee: str
    value: bytes  # SGX 32, TrustZone 32, Keystone 64 bytes
    signer: bytes | None = None  # SGX MRSIGNER (32 bytes); None where evidence names no signer


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """What the TEE's own format wants to know besides the image."""

    version: int = 0  # SGX ISVSVN (16 bits), TrustZone ta_version (32 bits)
    product_id: int = 0  # SGX ISVPRODID (16 bits)
    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An image in its TEE's own format, ready to load."""

    tee: str
    data: bytes  # SGX: SGXS stream; TrustZone: signed TA; Keystone: loader, runtime, eapp
    signature: bytes | None = None  # SGX: SIGSTRUCT (1808 bytes); None where data carries it


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A loaded image, as its device knows it. TEEs subclass it with what their hardware keeps."""

    measurement: Measurement
    debug: bool
    emulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The outcome of :meth:`Device.load`: who it is, and the image that was measured."""

    identity: Identity
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKeyRequest:
    """Which sealing key is wanted."""

    label: bytes  # at most 64 bytes; different labels give unrelated keys
    binding: SealBinding
    version: int | None = None  # SVN to derive for, at most the caller's own; None: the caller's


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What a verifier needs besides the evidence. Names of items are each TEE's own."""

    anchors: tuple[bytes, ...]  # DER certificates that the caller trusts as roots
    items: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # Sancus: a key
    cache: VerificationCache = field(default_factory=VerificationCache, compare=False, repr=False)

    def item(self, name: str, hint: str) -> bytes:
        """An item that a verifier cannot do without; ``hint`` says where it comes from.

        Raises:
            UndecidedError: it is missing.
        """
        value = self.items.get(name)
        if value is None:
            raise UndecidedError(f"the endorsements lack {name}", hint=hint)
        return bytes(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What verified evidence says. Only a ``verify`` makes one. Says nothing of acceptability."""

    tee: str
    measurement: bytes
    signer: bytes | None
    report_data: bytes  # exactly as many bytes as the TEE's report carries
    debug: bool
    emulated: bool  # the chain of trust ends in a root named "Broch Emulated ... Root"
    version: int = 0
    product_id: int = 0
    details: Mapping[str, str] = field(default_factory=dict)  # for people: TCB status, SM hash ...
    skipped: Mapping[str, str] = field(default_factory=dict)  # steps that were not made, and why

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        # Claims travel between processes by the thousand; the way of dataclasses takes twice as
        # long, since it asks for the fields anew each time.
        kind = type(self)
        _, values_of = _fields_of(kind)
        return _rebuild, (kind, values_of(self))


_Fields = tuple[tuple[str, ...], "attrgetter[tuple[object, ...]]"]
_fields: Final[dict[type[Claims], _Fields]] = {}


def _fields_of(kind: type[Claims]) -> _Fields:
    """Names, and what takes their values out of claims at once."""
    if kind not in _fields:
        names = tuple(item.name for item in fields(kind))
        _fields[kind] = names, attrgetter(*names)
    return _fields[kind]


def _rebuild(kind: type[Claims], values: tuple[object, ...]) -> Claims:
    claims, put = object.__new__(kind), object.__setattr__
    names, _ = _fields_of(kind)
    for name, value in zip(names, values, strict=True):
        put(claims, name, value)
    return claims


class MonotonicCounter(Protocol):
    """A number that its device only lets rise."""

    def read(self) -> int: ...
    def increment(self) -> int:
        """Add one, make it durable, return the new value."""
        ...


class NonVolatile(Protocol):
    """A device's own durable memory: small, private to the device, survives power cuts."""

    def get(self, name: str) -> bytes | None: ...
    def put(self, name: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """How to make an emulated device. The device itself does no I/O and reads no clock."""

    name: str
    secret: bytes = field(repr=False)  # 32 random bytes of this installation, root of every key
    nv: NonVolatile = field(repr=False)
    now: datetime  # when certificates made by the device begin; timezone-aware


class Device(Protocol):
    """One machine of a TEE."""

    tee: str
    name: str
    emulated: bool

    def load(self, packed: Packed) -> Loaded:
        """Measure and check ``packed`` as the hardware would.

        Raises:
            DecodeError: not in the TEE's format.
            UntrustedError: signature or measurement do not hold.
            PolicyError: well signed, refused by the hardware's own rules.
        """
        ...

    def evidence(self, identity: Identity, report_data: bytes) -> bytes: ...

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """32 bytes, the same for the same device, identity (by binding) and label.

        Raises:
            PolicyError: this TEE has no such binding, or the version is above the caller's own.
        """
        ...

    def counter(self, identity: Identity, name: str) -> MonotonicCounter: ...

    def endorsements(self) -> Endorsements:
        """The public half of the device: what a verifier elsewhere needs to believe it."""
        ...


class Tee(Protocol):
    """A kind of hardware."""

    name: str
    title: str  # for people: "Intel SGX"
    report_data_size: int  # bytes that a report can carry
    seal_bindings: tuple[SealBinding, ...]  # first one is the default; empty: it cannot seal
    needs_signing_key: bool

    def new_signing_key(self) -> RSAPrivateKey:
        """Make a key fit for :meth:`pack`."""
        ...

    def pack(
        self, image: Image, settings: PackSettings, signing_key: RSAPrivateKey | None
    ) -> Packed:
        """Put ``image`` into the TEE's own format and sign it; deterministic but for PSS salts."""
        ...

    def measure(self, packed: Packed) -> Measurement: ...

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """Decide whether ``evidence`` is authentic. No I/O, no clock.

        Raises:
            DecodeError: not evidence of this TEE.
            UntrustedError: a signature, a certificate or an endorsement does not hold.
            UndecidedError: an endorsement that is needed is missing.
        """
        ...

    def device(self, settings: DeviceSettings) -> Device: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSettings:
    """How to build a module in C. A TEE refuses what its hardware does not have.

    Sizes are in bytes; None leaves the choice to the TEE.
    """

    name: str  # of the module
    files: tuple[Path, ...] = ()  # further C files
    version: int = 0
    product_id: int = 0
    debug: bool = False
    library: bool = False  # called by its host; there is no main
    heap_size: int | None = None
    stack_size: int | None = None  # of each thread
    threads: int | None = None
    slot: int = 0  # Sancus: which place in the microcontroller's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A module in C, built."""

    packed: Packed
    files: Mapping[str, bytes] = field(repr=False)  # what to write: by suffix, ".elf", ".sgxs"


@runtime_checkable
class Compiler(Protocol):
    """A :class:`Tee` that also builds modules in C: it has a start file and headers for them."""

    def compile(
        self, source: Path, settings: CompileSettings, signing_key: RSAPrivateKey | None
    ) -> Compiled:
        """Compile, link, convert, sign; equal sources and settings give equal bytes.

        Raises:
            MalformedError: the source does not compile; the place is ``file:line``.
            UsageError: no compiler, no such file, a setting that this TEE does not have.
        """
        ...
