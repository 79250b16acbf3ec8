"""An emulated Keystone device: boot ROM, security monitor, and what they keep.

Every key comes from the installation's secret: the device key by HKDF, the SM key from it as the
boot ROM does, sealing keys as the security monitor does. The device's memory holds the
certificates that it issued for itself and the counters.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broch.crypto.ed25519_sha3 import KeyPair
from broch.errors import DecodeError, PolicyError, UsageError
from broch.image import Image
from broch.tee.contract import (
    DeviceSettings,
    Endorsements,
    Identity,
    Loaded,
    Measurement,
    Packed,
    SealBinding,
    SealKeyRequest,
)
from broch.tee.counter import Counter
from broch.tee.keystone.keys import derive_sealing_key, derive_sm_key
from broch.tee.keystone.measurement import LOADER, Triple, runtime_text
from broch.tee.keystone.report import Report, message_of_sm
from broch.tee.keystone.verify import DEVICE_ENDORSEMENT, SM_HASH

REPORT_DATA_SIZE: Final = 64  # bytes; a report can carry up to 1024
SM_TEXT: Final = b"broch emulated keystone security monitor 1\n"
SM_SIZE: Final = 0x1FF000  # bytes that the boot ROM hashes, from the start of memory
_SEAL_IDENT: Final = b"broch/seal/1"
_MAX_LABEL: Final = 64  # bytes

# SHA3-512 of SM_TEXT filled with zeros to SM_SIZE: hashing 2 MB at every start would be a waste.
EMULATED_SM_HASH: Final = bytes.fromhex(
    "21d06ebb180dbc5f948daebec2449fe3b03dce3863f1507d5af131de8ec24c7e"
    "4b5e37b83f2b5f214b11834b9149d4d8e79baded9be380850e561bfc2a1f28ee"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeystoneIdentity(Identity):
    """A loaded enclave. The security monitor keeps no more of one than its hash."""


class KeystoneDevice:
    """One emulated machine. Pure logic: durable memory is the ``nv`` of its settings."""

    tee: str = "keystone"
    emulated: bool = True

    def __init__(self, settings: DeviceSettings) -> None:
        self.name: str = settings.name
        self._settings = settings
        self._loaded: set[Identity] = set()

    def load(self, packed: Packed) -> Loaded:
        """Measure a triple and take it in.

        Raises:
            DecodeError: not a packed triple, or its eapp is not an image.
            PolicyError: another loader, or another runtime than the image demands.
        """
        if packed.tee != self.tee:
            raise DecodeError(0, f"packed for {packed.tee}, this is a {self.tee} device")
        triple = Triple.from_bytes(packed.data)
        image = Image.from_bytes(triple.eapp)
        # Real hardware would run whatever these are. The emulated device has one loader, and one
        # way to name a runtime, and must not measure something else than it runs.
        if triple.loader != LOADER:
            raise PolicyError("the loader is not one that this device can run")
        if triple.runtime != runtime_text(image.runtime):
            raise PolicyError("the measured runtime is not the one that the image demands")
        identity = KeystoneIdentity(
            measurement=Measurement(tee=self.tee, value=triple.measure()),
            debug=False,
            emulated=True,
        )
        self._loaded.add(identity)
        return Loaded(identity=identity, image=image)

    def evidence(self, identity: Identity, report_data: bytes) -> bytes:
        """A report of 1352 bytes over 64 bytes of the enclave's choice.

        Raises:
            UsageError: another size.
            PolicyError: the enclave was not loaded here.
        """
        enclave_hash = self._hash_of(identity)
        if len(report_data) != REPORT_DATA_SIZE:
            raise UsageError(f"report data has {len(report_data)} bytes, not {REPORT_DATA_SIZE}")
        return Report(
            enclave_hash=enclave_hash,
            data=report_data,
            enclave_signature=self._sm_key.sign(message_of_sm(enclave_hash, report_data)),
            sm_hash=EMULATED_SM_HASH,
            sm_public_key=self._sm_key.public,
            sm_signature=self._sm_signature,
            dev_public_key=self._device_key.public,
        ).to_bytes()

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """32 bytes for this device, security monitor, exact enclave hash and label.

        Raises:
            PolicyError: Keystone binds to code alone and knows no versions.
            UsageError: the label is too long.
        """
        enclave_hash = self._hash_of(identity)
        if request.binding is not SealBinding.CODE:
            raise PolicyError(f"Keystone cannot bind a sealing key to {request.binding}, only code")
        if request.version:
            raise PolicyError(f"Keystone enclaves have no version; {request.version} was asked for")
        if len(request.label) > _MAX_LABEL:
            raise UsageError(f"label of {len(request.label)} bytes; at most {_MAX_LABEL}")
        raw = derive_sealing_key(self._sm_key, enclave_hash, _SEAL_IDENT).key
        return _hkdf(raw, b"broch/seal/1/" + request.label)

    def counter(self, identity: Identity, name: str) -> Counter:
        """A counter of this exact enclave: no other can name it."""
        owner = hashlib.sha256(self._hash_of(identity)).digest()
        place = hashlib.sha256(owner + name.encode("utf-8", "surrogatepass")).hexdigest()
        return Counter(self._settings.nv, f"counter.{place}")

    def endorsements(self) -> Endorsements:
        """The root of this device, its word for the device key, and the SM's hash."""
        root, statement = self._issued
        return Endorsements(
            anchors=(root,), items={DEVICE_ENDORSEMENT: statement, SM_HASH: EMULATED_SM_HASH}
        )

    def _hash_of(self, identity: Identity) -> bytes:
        if identity not in self._loaded:
            raise PolicyError(f"device {self.name!r} has not loaded this enclave")
        return identity.measurement.value

    @cached_property
    def _device_key(self) -> KeyPair:
        info = b"broch/keystone/device-key/1/" + self.name.encode("utf-8")
        return KeyPair.from_seed(_hkdf(self._settings.secret, info))

    @cached_property
    def _sm_key(self) -> KeyPair:
        return derive_sm_key(self._device_key, EMULATED_SM_HASH)

    @cached_property
    def _sm_signature(self) -> bytes:
        return self._device_key.sign(EMULATED_SM_HASH + self._sm_key.public)

    @cached_property
    def _issued(self) -> tuple[bytes, bytes]:
        """Root certificate and statement: made once, kept, so that a pinned root stays good."""
        from broch.tee import roots
        from broch.tee.keystone import endorsement

        nv = self._settings.nv
        root, statement = nv.get("endorsement.root"), nv.get("endorsement.device")
        if root is None or statement is None:
            key = roots.derive_key(self._settings.secret, self.tee)
            root = roots.make(endorsement.ROOT_NAME, key, self._settings.now)
            start = int(self._settings.now.astimezone(UTC).timestamp())
            statement = endorsement.endorse(
                key,
                endorsement.Statement(
                    device=self.name,
                    key=self._device_key.public,
                    start=start,
                    end=start + roots.YEARS * 365 * 86400,
                ),
            )
            nv.put("endorsement.root", root)
            nv.put("endorsement.device", statement)
        return root, statement


def _hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)
