"""What of the hardware that Broch knows is under this machine; tried, where that is harmless.

Nothing is asked for evidence here: quotes can take seconds, and hosts limit how many they give.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broch.errors import BrochError
from broch.tee.kernel import Linux, problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One device."""

    path: str
    problem: str | None  # None: it is here and can be used
    found: str
    means: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    path: str
    what: str
    use: str  # what nodes do with it; empty: nothing yet
    try_it: Callable[[Linux], str] | None = None  # what it says of itself


def look(root: Path = Path("/")) -> Iterator[Finding]:
    """Every device below ``root``, in the order in which they are shown."""
    for device in _DEVICES:
        trouble, found = None, "here"
        try:
            found = _try(device, root)
        except BrochError as exc:
            trouble = str(exc)
        yield Finding(
            path=device.path,
            problem=trouble,
            found=found,
            means=_means(device, is_here=trouble is None),
        )


def _means(device: _Device, *, is_here: bool) -> str:
    if not is_here:
        return f"{device.what}: not for nodes on this machine"
    if device.use:
        return f"{device.what}: {device.use}"
    return f"{device.what}: this version of Broch does not use it"


def _try(device: _Device, root: Path) -> str:
    path = root / device.path.lstrip("/")
    if not path.exists():
        raise _AbsentError("not here")
    if not os.access(path, os.R_OK if path.is_dir() else os.R_OK | os.W_OK):
        raise _AbsentError("may not be used by this user")
    return device.try_it(Linux(root)) if device.try_it is not None else "here"


class _AbsentError(BrochError):
    """The device is not here, or not for this user."""


def _provider(kernel: Linux) -> str:
    from broch.tee import tsm

    try:
        return f"provider {tsm.provider(kernel, 'broch-doctor')}"
    except OSError as exc:
        raise problem(exc, tsm.FOLDER, "configfs-tsm") from None


def _attestation_type(kernel: Linux) -> str:
    from broch.tee.sgx import native

    return f"attestation by {native.attestation_type(kernel)}"


def _registers(kernel: Linux) -> str:
    from broch.tee.tpm import native

    with native.commands(kernel) as tpm:
        tpm.registers(native.BOOT)
    return "answers; has SHA-256 registers"


_NODES: Final = 'nodes may say device = "native"'
_DEVICES: Final = (
    _Device(path="/dev/sgx_enclave", what="Intel SGX, enclaves", use="Gramine runs nodes in them"),
    _Device(path="/dev/sgx_provision", what="Intel SGX, quotes", use="Gramine's nodes need them"),
    _Device(
        path="/dev/attestation",
        what="Gramine, this is an SGX enclave",
        use=_NODES,
        try_it=_attestation_type,
    ),
    _Device(
        path="/sys/kernel/config/tsm/report",
        what="configfs-tsm, evidence of TDX and SEV-SNP",
        use=_NODES,
        try_it=_provider,
    ),
    _Device(
        path="/dev/tdx_guest",
        what="Intel TDX, this is a trust domain",
        use="quotes come from configfs-tsm",
    ),
    _Device(path="/dev/sev-guest", what="AMD SEV-SNP, this is a confidential guest", use=_NODES),
    _Device(path="/dev/nsm", what="AWS Nitro, this is an enclave", use=_NODES),
    _Device(path="/dev/tee0", what="Arm TrustZone, OP-TEE", use=""),
    _Device(path="/dev/keystone_enclave", what="RISC-V Keystone", use=""),
    _Device(path="/dev/tpmrm0", what="TPM 2.0", use=_NODES, try_it=_registers),
)
