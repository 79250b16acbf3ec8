"""The TPM of this machine, by the kernel's resource manager /dev/tpmrm0: quotes and a sealing key.

A TPM measures how the machine booted; it closes nobody in. Who is root there, or has a logic
analyser at a discrete TPM's bus, can do more than on the other TEEs.

The attestation key is a primary key of the owner's hierarchy (ECC P-256, restricted): made anew for
each quote and always the same one, so that nothing is kept. Azure's virtual TPM has one of its own,
at :data:`AZURE_AK`, which its HCL report binds to the hardware (:mod:`.hcl`). Verifiers enrol the
key; it does not come with the evidence. The sealing key is the HMAC by a primary key whose policy
is that registers 0 to 7 are as they are now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from broch.errors import PolicyError, UndecidedError
from broch.tee.contract import Endorsements, SealBinding
from broch.tee.guest import GuestTee, NativeSettings
from broch.tee.kernel import Kernel, problem
from broch.tee.tpm import VERIFIER
from broch.tee.tpm.attest import Attest, Selection
from broch.tee.tpm.commands import Commands, digest_of, policy_of
from broch.tee.tpm.event_log import MAX_LOG, EventLog
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.hcl import HclReport
from broch.tee.tpm.public import (
    ATTESTATION,
    ECC,
    FIXED_PARENT,
    FIXED_TPM,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
)
from broch.tee.tpm.reader import SHA256, sized

DEVICE: Final = "/dev/tpmrm0"
EVENT_LOG: Final = "/sys/kernel/security/tpm0/binary_bios_measurements"
AZURE_AK: Final = 0x81000003
AZURE_HCL: Final = 0x01400001
BOOT: Final = Selection(bank=SHA256, width=3, indices=tuple(range(8)))  # firmware to boot manager
_USER_WITH_AUTH: Final = 1 << 6
_KEYED_HASH: Final = 0x0008
_HMAC: Final = 0x0005
_ECDSA: Final = 0x0018
_P256: Final = 0x0003
_NULL: Final = 0x0010
_SEAL: Final = b"broch/tpm/seal/1"
_ATTEMPTS: Final = 3


def _numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


#: TPMT_PUBLIC of the attestation key, before the TPM has filled in the point.
AK_TEMPLATE: Final = (
    _numbers(ECC, SHA256)
    + (ATTESTATION | _USER_WITH_AUTH).to_bytes(4, "big")
    + sized(b"")
    + _numbers(_NULL, _ECDSA, SHA256, _P256, _NULL)
    + sized(b"") * 2
)


def seal_template(digest: bytes) -> bytes:
    """TPMT_PUBLIC of an HMAC key that only obeys while :data:`BOOT` has this digest."""
    attributes = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | SIGN
    return (
        _numbers(_KEYED_HASH, SHA256)
        + attributes.to_bytes(4, "big")
        + sized(policy_of(BOOT, digest))
        + _numbers(_HMAC, SHA256)
        + sized(b"")
    )


@contextmanager
def commands(kernel: Kernel) -> Iterator[Commands]:
    """A conversation with the TPM; what it made in it, the resource manager forgets at its end.

    Raises:
        UndecidedError: there is no TPM, it may not be used, or it is busy.
        InternalError: it failed otherwise.
    """
    try:
        with kernel.talk(DEVICE) as exchange:
            yield Commands(exchange)
    except OSError as exc:
        raise problem(exc, DEVICE, VERIFIER.title) from None


@contextmanager
def _primary(tpm: Commands, template: bytes) -> Iterator[tuple[int, bytes]]:
    handle, public = tpm.create_primary(template)
    try:
        yield handle, public
    finally:
        tpm.flush(handle)


def ak_public(kernel: Kernel, handle: int | None = None) -> bytes:
    """TPMT_PUBLIC of our attestation key, or of the one at a persistent ``handle``.

    It belongs into a verifier's endorsements as ``ak_public``, once the verifier has a reason to
    believe that it is of this TPM.
    """
    with commands(kernel) as tpm:
        if handle is not None:
            return tpm.read_public(handle)
        with _primary(tpm, AK_TEMPLATE) as (_, public):
            return public


def quote(
    kernel: Kernel,
    qualifying: bytes,
    selection: Selection = BOOT,
    handle: int | None = None,
) -> bytes:
    """Evidence over ``qualifying`` (at most 32 bytes that every TPM takes), with its registers.

    Raises:
        UndecidedError: no TPM, or its registers change all the time.
        InternalError, DecodeError: the TPM failed.
    """
    for _ in range(_ATTEMPTS):
        with commands(kernel) as tpm:
            if handle is not None:
                attest, signature = tpm.quote(handle, qualifying, selection)
            else:
                with _primary(tpm, AK_TEMPLATE) as (made, _public):
                    attest, signature = tpm.quote(made, qualifying, selection)
            values = tpm.registers(selection)
        if Attest.from_bytes(attest).pcr_digest == digest_of(values.values()):
            pcrs = {selection.bank: values}
            return Evidence(attest=attest, signature=signature, pcrs=pcrs).to_bytes()
    raise UndecidedError("the TPM's registers change all the time", hint="try again")


def with_event_log(kernel: Kernel, evidence: bytes) -> bytes:
    """The same evidence, and what the firmware of this machine measured before the system started.

    Raises:
        UndecidedError: the kernel has no log, or it may not be read.
        DecodeError: it is none of TPM 2.0, or too long.
        InternalError: reading it failed.
    """
    try:
        log = kernel.read(EVENT_LOG, MAX_LOG + 1)
    except OSError as exc:
        raise problem(exc, EVENT_LOG, "TPM event log") from None
    EventLog.from_bytes(log)
    return replace(Evidence.from_bytes(evidence), event_log=log).to_bytes()


def hcl_report(kernel: Kernel) -> HclReport:
    """Azure's report, which binds the key at :data:`AZURE_AK` to the hardware.

    Raises:
        UndecidedError: this is not one of Azure's confidential machines.
        DecodeError: what is there is no such report.
    """
    with commands(kernel) as tpm:
        return HclReport.from_bytes(tpm.nv_read(AZURE_HCL))


class TpmMachine:
    """The machine around us (:class:`broch.tee.guest.Hardware`).

    Raises:
        UndecidedError: it has no TPM, or that may not be used.
    """

    def __init__(self, settings: NativeSettings) -> None:
        self._kernel = settings.kernel
        quote(self._kernel, b"")  # whether all of this works

    def evidence(self, report_data: bytes) -> bytes:
        """A quote of registers 0 to 7 over 32 bytes."""
        return quote(self._kernel, report_data)

    def extend(self, digest: bytes) -> None:
        """The registers that are left to applications can be reset, so they would prove nothing."""

    def seal_secret(self) -> bytes:
        """32 bytes that this TPM gives while registers 0 to 7 are as they are now.

        Raises:
            PolicyError: the owner's hierarchy asks for a password.
        """
        with commands(self._kernel) as tpm:
            digest = digest_of(tpm.registers(BOOT).values())
            try:
                with _primary(tpm, seal_template(digest)) as (key, _):
                    return tpm.hmac_under_policy(key, BOOT, digest, _SEAL)
            except UndecidedError as exc:
                raise PolicyError(f"the TPM gives no sealing key: {exc}", hint=exc.hint) from None

    def endorsements(self) -> Endorsements:
        """None: a key that came from the machine itself would prove nothing."""
        return Endorsements(anchors=())


TEE: Final = GuestTee(VERIFIER, TpmMachine, (SealBinding.CODE,))
