"""An emulated TrustZone device that runs OP-TEE: its loader, storage keys and attestation.

The hardware unique key comes from the installation's secret by HKDF, everything else from that as
in OP-TEE. The device's memory holds the attestation key (in a secure object of the pseudo-TA, as
OP-TEE keeps it), the certificates issued for it, the rollback database and the counters.

OP-TEE has one signer's key built in. So has an emulated device whose memory holds the digest of one
(``signer``), put there when the device was made: a host that is the first to load a TA cannot make
its own key the signer's. Any other device learns signers: the first to load a TA under a UUID owns
that UUID on this device for good. Without either, anyone could sign a TA of the same UUID and take
its sealed data; evidence does not name the signer.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broch.errors import DecodeError, InternalError, PolicyError, UntrustedError, UsageError
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
from broch.tee.trustzone import attestation
from broch.tee.trustzone.keys import HUK_SIZE, derive_ssk, derive_ta_unique_key, derive_tsk
from broch.tee.trustzone.ta_elf import TaElf, uuid_of
from broch.tee.trustzone.ta_file import TaFile
from broch.tee.trustzone.verify import CERTIFICATE

_SEAL_EXTRA: Final = b"broch/seal/1"
_MAX_LABEL: Final = 64  # bytes
_ROLLBACK: Final = struct.Struct("<I32s")  # least ta_version, SHA-256 of the signer's key
_SIGNER: Final = "signer"  # SHA-256 of the public key (SubjectPublicKeyInfo) built in, if any
_KEY_OBJECT: Final = f"object.{attestation.PTA_UUID}.key"
_ROOT: Final = "endorsement.2.root"  # in 1, roots had no key usage
_CERTIFICATE: Final = "endorsement.2.device"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustZoneIdentity(Identity):
    """A loaded TA: what OP-TEE keeps of one besides its memory."""

    uuid: UUID
    ta_version: int


class TrustZoneDevice:
    """One emulated machine. Pure logic: durable memory is the ``nv`` of its settings."""

    tee: str = "trustzone"
    emulated: bool = True

    def __init__(self, settings: DeviceSettings) -> None:
        self.name: str = settings.name
        self._settings = settings
        self._loaded: set[Identity] = set()

    def load(self, packed: Packed) -> Loaded:
        """Check a signed TA in the order in which OP-TEE does, and take it in.

        Raises:
            DecodeError: not a signed TA, or it does not hold an image.
            UntrustedError: hash, signature or UUID do not hold, or it is not the device's signer's.
            PolicyError: another signer than the UUID's owner, or an older version than before.
        """
        if packed.tee != self.tee:
            raise DecodeError(0, f"packed for {packed.tee}, this is a {self.tee} device")
        # (1) The signed header (ree_fs_ta.c, shdr.c).
        file = TaFile.from_bytes(packed.data)
        if packed.signature is None:
            raise DecodeError(0, "the public key of the TA's signer is missing")
        signer = hashlib.sha256(packed.signature).digest()
        file.verify(_load_signer(packed.signature))
        self._check_signer(signer)

        # (2) The TA is the one that its header names.
        if file.uuid is None:
            raise PolicyError("a legacy TA (img_type 0): its header names no UUID and no version")
        elf = TaElf.from_bytes(file.program)
        image = Image.from_bytes(elf.image)
        if not file.uuid == elf.uuid == uuid_of(image.app, image.module):
            raise UntrustedError(
                f"the header says UUID {file.uuid}, the TA's head {elf.uuid}, "
                f"the module's name {uuid_of(image.app, image.module)}"
            )

        # (3) The rollback database, last: only what would run may raise it.
        self._check_rollback(file.uuid, file.ta_version, signer)
        identity = TrustZoneIdentity(
            measurement=Measurement(tee=self.tee, value=elf.memory_hash()),
            debug=False,
            emulated=True,
            uuid=file.uuid,
            ta_version=file.ta_version,
        )
        self._loaded.add(identity)
        return Loaded(identity=identity, image=image)

    def evidence(self, identity: Identity, report_data: bytes) -> bytes:
        """What HASH_TA_MEMORY says to the TA that calls, over 64 bytes of its choice.

        Raises:
            UsageError: another size.
            PolicyError: the TA was not loaded here.
        """
        ta = self._check(identity)
        if len(report_data) != attestation.NONCE_SIZE:
            raise UsageError(
                f"report data has {len(report_data)} bytes, not {attestation.NONCE_SIZE}"
            )
        return attestation.attest(
            self._attestation_key, ta.uuid, ta.measurement.value, report_data
        ).to_bytes()

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """32 bytes for this device, UUID and label, the same for every version of the TA.

        Raises:
            PolicyError: OP-TEE binds to the UUID alone; or a version above the caller's own.
            UsageError: the label is too long.
        """
        ta = self._check(identity)
        if request.binding is not SealBinding.UUID:
            raise PolicyError(f"OP-TEE cannot bind a sealing key to {request.binding}, only uuid")
        if request.version is not None and request.version > ta.ta_version:
            raise PolicyError(f"version {request.version} is above the TA's own {ta.ta_version}")
        if len(request.label) > _MAX_LABEL:
            raise UsageError(f"label of {len(request.label)} bytes; at most {_MAX_LABEL}")
        raw = derive_ta_unique_key(self._huk, ta.uuid, _SEAL_EXTRA)
        return _hkdf(raw, 32, b"broch/seal/1/" + request.label)

    def counter(self, identity: Identity, name: str) -> Counter:
        """A counter of the TAs of this UUID: no other can name it."""
        owner = hashlib.sha256(self._check(identity).uuid.bytes).digest()
        place = hashlib.sha256(owner + name.encode("utf-8", "surrogatepass")).hexdigest()
        return Counter(self._settings.nv, f"counter.{place}")

    def endorsements(self) -> Endorsements:
        """The root of this device, and its certificate for the attestation key."""
        root, certificate = self._issued
        return Endorsements(anchors=(root,), items={CERTIFICATE: certificate})

    def _check(self, identity: Identity) -> TrustZoneIdentity:
        if not isinstance(identity, TrustZoneIdentity) or identity not in self._loaded:
            raise PolicyError(f"device {self.name!r} has not loaded this TA")
        return identity

    def _check_signer(self, signer: bytes) -> None:
        expected = self._settings.nv.get(_SIGNER)
        if expected is not None and signer != expected:
            raise UntrustedError(
                f"signed by {signer.hex()[:16]}, this device's signer is {expected.hex()[:16]}",
                hint="sign the module with the key that the device was made for",
            )

    def _check_rollback(self, uuid: UUID, version: int, signer: bytes) -> None:
        nv, place = self._settings.nv, f"rollback.{uuid}"
        entry = nv.get(place)
        if entry is not None:
            if len(entry) != _ROLLBACK.size:
                raise InternalError(f"the device's memory is damaged at {place}")
            least, owner = _ROLLBACK.unpack(entry)
            if signer != owner:
                raise PolicyError(
                    f"TA {uuid} belongs to another signer on this device",
                    hint="sign the module with the key that signed it when it was first loaded",
                )
            if version < least:
                raise PolicyError(
                    f"TA {uuid} of version {version}: version {least} has run on this device"
                )
            if version == least:
                return
        nv.put(place, _ROLLBACK.pack(version, signer))

    @cached_property
    def _huk(self) -> bytes:
        info = b"broch/trustzone/huk/1/" + self.name.encode("utf-8")
        return _hkdf(self._settings.secret, HUK_SIZE, info)

    @cached_property
    def _attestation_key(self) -> rsa.RSAPrivateKey:
        """Made on first use and kept, as the pseudo-TA does."""
        from broch.tee.trustzone.htree import SecureObject

        tsk = derive_tsk(derive_ssk(self._huk), attestation.PTA_UUID)
        kept = self._settings.nv.get(_KEY_OBJECT)
        if kept is not None:
            return attestation.key_from_object(SecureObject.open(tsk, kept).read())
        key = rsa.generate_private_key(public_exponent=65537, key_size=attestation.KEY_BITS)
        made = SecureObject.create(tsk, attestation.key_to_object(key))
        self._settings.nv.put(_KEY_OBJECT, bytes(made.data))
        return key

    @cached_property
    def _issued(self) -> tuple[bytes, bytes]:
        """Root and key certificate: made once, kept, so that a pinned root stays good."""
        from broch.tee import roots
        from broch.tee.trustzone import endorsement

        nv = self._settings.nv
        root, certificate = nv.get(_ROOT), nv.get(_CERTIFICATE)
        if root is None or certificate is None:
            key = roots.derive_key(self._settings.secret, self.tee)
            root = roots.make(endorsement.ROOT_NAME, key, self._settings.now)
            certificate = endorsement.endorse(
                key, self.name, self._attestation_key.public_key(), self._settings.now
            )
            nv.put(_ROOT, root)
            nv.put(_CERTIFICATE, certificate)
        return root, certificate


def _load_signer(spki: bytes) -> rsa.RSAPublicKey:
    try:
        key = load_der_public_key(spki)
    except Exception as exc:  # noqa: BLE001  (it raises several unrelated classes)
        raise DecodeError(0, f"not a public key: {exc}", what="TA signer") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise DecodeError(0, "not an RSA key", what="TA signer")
    return key


def _hkdf(secret: bytes, size: int, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), size, salt=None, info=info).derive(secret)
