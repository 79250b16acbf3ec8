"""SGX under Gramine: evidence and sealing keys of the library OS that runs this very process.

    /dev/attestation/attestation_type     "dcap"; "none" where the manifest asks for no quotes
    /dev/attestation/user_report_data     write 64 bytes; fewer would be padded, more cut off
    /dev/attestation/target_info          512 bytes, for a report to another enclave here
    /dev/attestation/my_target_info       512 bytes, of this enclave
    /dev/attestation/report               432 bytes, EREPORT for target_info
    /dev/attestation/quote                a DCAP quote of version 3
    /dev/attestation/keys/_sgx_mrenclave  16 bytes, the sealing key of this MRENCLAVE

MRENCLAVE covers Gramine, its manifest, and through that every trusted file: the *system*. SGX has
no register that software extends. Sources: Gramine, attestation.rst, manifest-syntax.rst (which
wants a KDF over the key, as :mod:`broch.tee.guest` has), libos/src/fs/dev/attestation.c.
"""

from typing import Final

from broch.errors import DecodeError, PolicyError, UndecidedError, UsageError
from broch.tee.contract import Endorsements, SealBinding
from broch.tee.guest import GuestTee, NativeSettings
from broch.tee.kernel import Kernel, problem
from broch.tee.sgx.kind import TEE as EMULATED

FOLDER: Final = "/dev/attestation"
REPORT_DATA_SIZE: Final = 64
TARGET_INFO_SIZE: Final = 512
REPORT_SIZE: Final = 432
MAX_QUOTE: Final = 32 * 1024
KEY_SIZE: Final = 16
_WHAT: Final = "SGX (Gramine)"


class Gramine:
    """The library OS around us (:class:`broch.tee.guest.Hardware`).

    Raises:
        UndecidedError: there is none, or its manifest has no remote attestation by DCAP.
    """

    def __init__(self, settings: NativeSettings) -> None:
        self._kernel = settings.kernel
        kind = attestation_type(self._kernel)
        if kind != "dcap":
            raise UndecidedError(
                f"Gramine's attestation is of type {kind!r}, expected 'dcap'",
                hint='put sgx.remote_attestation = "dcap" into the manifest',
            )

    def evidence(self, report_data: bytes) -> bytes:
        """A quote over 64 bytes."""
        _write(self._kernel, "user_report_data", report_data, REPORT_DATA_SIZE)
        return _read(self._kernel, "quote", MAX_QUOTE)

    def extend(self, digest: bytes) -> None:
        """SGX has no such register."""

    def seal_secret(self) -> bytes:
        """The sealing key of this MRENCLAVE on this processor, 16 bytes.

        Raises:
            PolicyError: Gramine gives none.
        """
        path = f"{FOLDER}/keys/_sgx_mrenclave"
        try:
            key = self._kernel.read(path, KEY_SIZE)
        except OSError as exc:
            raise PolicyError(f"Gramine gives no sealing key: {path}: {exc.strerror}") from None
        if len(key) != KEY_SIZE or not any(key):
            raise PolicyError(f"Gramine gives no sealing key: {path} has {len(key)} bytes")
        return key

    def endorsements(self) -> Endorsements:
        """Gramine hands out none; PCK certificates are in the quote."""
        return Endorsements(anchors=())


def attestation_type(kernel: Kernel) -> str:
    """By which scheme Gramine attests: "dcap", or "none".

    Raises:
        UndecidedError: this is not under Gramine.
    """
    return _read(kernel, "attestation_type", 64).strip().decode("ascii", "replace")


def target_info(kernel: Kernel) -> bytes:
    """What another enclave of this machine needs to make a report to this one: 512 bytes.

    Raises:
        UndecidedError: this is not under Gramine.
        DecodeError: Gramine gave another size.
    """
    return _sized(_read(kernel, "my_target_info", TARGET_INFO_SIZE), TARGET_INFO_SIZE)


def local_report(kernel: Kernel, target: bytes, report_data: bytes) -> bytes:
    """A report (432 bytes) that the enclave of ``target`` (512 bytes), and only it, can verify.

    Raises:
        UsageError: a size is wrong.
        UndecidedError: this is not under Gramine.
        DecodeError: Gramine gave another size.
    """
    _write(kernel, "target_info", target, TARGET_INFO_SIZE)
    _write(kernel, "user_report_data", report_data, REPORT_DATA_SIZE)
    return _sized(_read(kernel, "report", REPORT_SIZE), REPORT_SIZE)


def _write(kernel: Kernel, name: str, data: bytes, size: int) -> None:
    # Gramine would pad or cut off silently.
    if len(data) != size:
        raise UsageError(f"{name} has {len(data)} bytes, expected {size}")
    try:
        kernel.write(f"{FOLDER}/{name}", data)
    except OSError as exc:
        raise problem(exc, f"{FOLDER}/{name}", _WHAT) from None


def _read(kernel: Kernel, name: str, limit: int) -> bytes:
    try:
        return kernel.read(f"{FOLDER}/{name}", limit)
    except OSError as exc:
        raise problem(exc, f"{FOLDER}/{name}", _WHAT) from None


def _sized(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise DecodeError(len(data), f"expected {size} bytes", what=_WHAT)
    return data


TEE: Final = GuestTee(EMULATED, Gramine, (SealBinding.CODE,))
