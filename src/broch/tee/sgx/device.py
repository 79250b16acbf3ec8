"""An emulated machine with SGX: CPU, quoting enclave, chain of trust, monotonic counters.

Pure logic: its secret, its durable memory and the time come in through
:class:`~broch.tee.contract.DeviceSettings`. In durable memory it keeps

    sgx.pki          the certificates and collateral it has made (public, but must not change)
    sgx.counter.HEX  8 bytes, little-endian: the value of one monotonic counter
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broch.errors import PolicyError, UsageError
from broch.image import Image
from broch.tee.contract import (
    DeviceSettings,
    Endorsements,
    Identity,
    Loaded,
    Measurement,
    MonotonicCounter,
    Packed,
    SealBinding,
    SealKeyRequest,
)
from broch.tee.counter import Counter
from broch.tee.dcap.ecdsa import derive_key
from broch.tee.dcap.report import DEBUG, INIT, PROVISIONKEY
from broch.tee.sgx import layout
from broch.tee.sgx.build import Building
from broch.tee.sgx.faults import InvalidSigStructError, SgxNumber, SgxRefusedError
from broch.tee.sgx.keys import Fuses, egetkey, ereport
from broch.tee.sgx.pki import load_or_issue, make_pck_key
from broch.tee.sgx.quoting import QuotingEnclave
from broch.tee.sgx.sgxs import Sgxs, size_is_open
from broch.tee.sgx.sigstruct import Sigstruct
from broch.tee.sgx.structures import (
    POLICY_MRENCLAVE,
    POLICY_MRSIGNER,
    KeyName,
    KeyRequest,
    Report,
    Secs,
    TargetInfo,
)

# Names the emulation wherever a report is looked at raw; also the components of the TCB level.
CPUSVN: Final = b"BROCH-EMULATED\x00\x01"
MAX_LABEL: Final = 64  # bytes
MAX_COUNTER_NAME: Final = 255  # characters
# As Intel's SDK seals by default: INIT, DEBUG and the reserved bits count, XFRM does not.
_SEAL_FLAGS_MASK: Final = 0xFF0000000000000B
_SEAL_MISC_MASK: Final = 0xF0000000
_POLICIES: Final = {SealBinding.CODE: POLICY_MRENCLAVE, SealBinding.SIGNER: POLICY_MRSIGNER}


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxIdentity(Identity):
    """An enclave that EINIT has accepted, with what the CPU keeps of it."""

    secs: Secs = field(repr=False)


class SgxDevice:
    """One emulated machine (:class:`broch.tee.contract.Device`)."""

    tee: str = "sgx"
    emulated: bool = True

    def __init__(self, settings: DeviceSettings) -> None:
        """Make the machine, and its certificates if it has none yet.

        Raises:
            UsageError: the secret has not 32 bytes, or the time has no time zone.
        """
        if len(settings.secret) != 32:
            raise UsageError(f"a device secret of {len(settings.secret)} bytes, expected 32")
        if settings.now.tzinfo is None:
            raise UsageError("the time at which a device is made has no time zone")
        self.name: str = settings.name
        self._settings = settings
        self._fuses = Fuses(
            device_key=self._derive("device key", 16),
            seal_fuses=self._derive("seal fuses", 16),
            owner_epoch=self._derive("owner epoch", 16),
            report_keyid=self._derive("report keyid", 32),
            cpusvn=CPUSVN,
        )
        self._pki = load_or_issue(settings, cpusvn=CPUSVN, derive=self._derive)

    def load(self, packed: Packed) -> Loaded:
        """ECREATE, EADD and EEXTEND of each page, EINIT; then read the image that was measured.

        Raises:
            DecodeError: not an SGXS stream, not a SIGSTRUCT, or not an image of Broch.
            SgxError: the hardware's refusal, an UntrustedError or a PolicyError.
        """
        if packed.tee != self.tee:
            raise UsageError(f"an image for {packed.tee} given to an SGX device")
        if packed.signature is None:
            raise InvalidSigStructError(0, "an SGX image without its SIGSTRUCT", what="sigstruct")
        stream = Sgxs.from_bytes(packed.data)
        identity = self.launch(stream, packed.signature)
        return Loaded(identity=identity, image=Image.from_bytes(layout.unpack(stream)))

    def launch(self, stream: Sgxs, signature: bytes) -> SgxIdentity:
        """ECREATE, EADD and EEXTEND of each page, EINIT, of any enclave.

        Raises:
            DecodeError: the size of the enclave is open (UNSIZED), or not a SIGSTRUCT.
            SgxError: the hardware's refusal.
        """
        secs = build(stream, signature)
        return SgxIdentity(
            measurement=Measurement(tee=self.tee, value=secs.mrenclave, signer=secs.mrsigner),
            debug=secs.debug,
            emulated=True,
            secs=secs,
        )

    def report(self, identity: SgxIdentity, target: TargetInfo, report_data: bytes) -> Report:
        """EREPORT, as the enclave executes it.

        Raises:
            SgxFaultError: #GP: not 64 bytes of report data.
        """
        return ereport(self._fuses, identity.secs, target, report_data)

    def key(self, identity: SgxIdentity, request: KeyRequest) -> bytes:
        """EGETKEY (16 bytes), as the enclave executes it.

        Raises:
            SgxFaultError: #GP.
            SgxRefusedError: the number that the enclave finds in RAX.
        """
        return egetkey(self._fuses, identity.secs, request)

    @property
    def quote_target(self) -> TargetInfo:
        """Whom a REPORT must be for, to become a quote."""
        return self._quoting.target

    def quote(self, report: Report) -> bytes:
        """A DCAP quote of a REPORT that an enclave made for the quoting enclave.

        Raises:
            UntrustedError: the REPORT is not for the quoting enclave, or not of this machine.
        """
        return self._quoting.quote(report)

    def evidence(self, identity: Identity, report_data: bytes) -> bytes:
        """EREPORT for the quoting enclave, then a DCAP quote.

        Raises:
            UsageError: not 64 bytes of report data, or an identity of another TEE.
        """
        secs = _secs(identity)
        if len(report_data) != 64:
            raise UsageError(f"report data of {len(report_data)} bytes, expected 64")
        return self._quoting.quote(ereport(self._fuses, secs, self._quoting.target, report_data))

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """EGETKEY of the SEAL key, spread to 32 bytes for the label.

        Raises:
            PolicyError: a binding that SGX lacks; INVALID_ISVSVN above the enclave's own version.
            UsageError: a label over 64 bytes, or a version below 0.
        """
        secs = _secs(identity)
        if len(request.label) > MAX_LABEL:
            raise UsageError(f"a label of {len(request.label)} bytes; the limit is {MAX_LABEL}")
        policy = _POLICIES.get(request.binding)
        if policy is None:
            raise PolicyError(f"SGX cannot bind a sealing key to the {request.binding.value}")
        isvsvn = secs.isvsvn if request.version is None else request.version
        if isvsvn < 0:
            raise UsageError(f"version {isvsvn} is below 0")
        if isvsvn > 0xFFFF:
            raise SgxRefusedError(SgxNumber.INVALID_ISVSVN, f"version {isvsvn} is over 16 bits")
        key = egetkey(
            self._fuses,
            secs,
            KeyRequest(
                keyname=KeyName.SEAL,
                keypolicy=policy,
                isvsvn=isvsvn,
                cpusvn=self._fuses.cpusvn,
                flags_mask=_SEAL_FLAGS_MASK,
                miscmask=_SEAL_MISC_MASK,
            ),
        )
        info = b"broch sgx seal\0" + request.label
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)

    def counter(self, identity: Identity, name: str) -> MonotonicCounter:
        """A counter of exactly this code by this signer, in this mode (debug or production).

        Modules of one signer may share a product id, so that would not keep their counters apart;
        the price is that the next version of a module begins with new counters.

        Raises:
            UsageError: a name of no or over 255 characters, or an identity of another TEE.
        """
        secs = _secs(identity)
        if not 1 <= len(name) <= MAX_COUNTER_NAME:
            raise UsageError(f"a counter's name has 1 to {MAX_COUNTER_NAME} characters")
        mode = bytes([secs.flags & (INIT | DEBUG)])
        owner = secs.mrenclave + secs.mrsigner + mode
        digest = hashlib.sha256(owner + name.encode("utf-8", "surrogatepass")).hexdigest()
        return Counter(self._settings.nv, f"sgx.counter.{digest}")

    def endorsements(self) -> Endorsements:
        """The emulated root as the anchor, and the collateral under the names of DCAP."""
        return Endorsements(anchors=(self._pki.anchor,), items=dict(self._pki.items))

    def _derive(self, label: str, size: int) -> bytes:
        info = f"broch sgx device {label}".encode()
        return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(
            self._settings.secret
        )

    @cached_property
    def _quoting(self) -> QuotingEnclave:
        return QuotingEnclave(
            self._fuses,
            attestation_key=derive_key(self._settings.secret, "broch sgx attestation key"),
            pck_key=make_pck_key(self._settings.secret),
            pck_chain=self._pki.pck_chain,
            platform_id=self._derive("qe id", 16),
        )


def build(stream: Sgxs, signature: bytes) -> Secs:
    """Run the instructions of ``stream`` on this CPU, with the attributes that the signer asks for.

    Raises:
        DecodeError: the size of the enclave is open (UNSIZED), or not a SIGSTRUCT.
        SgxError: the hardware's refusal.
    """
    signed = Sigstruct.from_bytes(signature)
    if not stream.create.sized:
        raise size_is_open()
    if signed.flags & PROVISIONKEY:
        # As Linux: the key that names the machine is for who may open /dev/sgx_provision.
        raise PolicyError("the enclave asks for PROVISIONKEY, which this device gives to none")
    building = Building(
        Secs(
            size=stream.create.size,
            ssaframesize=stream.create.ssaframesize,
            miscselect=signed.miscselect,
            flags=signed.flags & ~INIT,
            xfrm=signed.xfrm,
        )
    )
    for page in stream.pages:
        building.add(page)
    return building.einit(signature)


def _secs(identity: Identity) -> Secs:
    if not isinstance(identity, SgxIdentity):
        raise UsageError(f"an identity of {identity.measurement.tee} given to an SGX device")
    return identity.secs
