"""Reference values: which code, whose, on which platforms, is accepted of each kind of hardware.

An empty set of optional values (``ppids``, ``chip_ids``, registers) asks for nothing further; what
identifies the code is never optional. :mod:`.policy_file` insists on that for policies in files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from broch.tee.snp.product import Product, Tcb

Registers = Mapping[int, frozenset[bytes]]  # index -> accepted values
_NONE: Final[Mapping[int, frozenset[bytes]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What every kind of hardware has. Where measurements and signers are given, both must hold."""

    measurements: frozenset[bytes] = frozenset()
    signers: frozenset[bytes] = frozenset()
    product_ids: frozenset[int] = frozenset()  # of SGX
    min_version: int = 0  # SGX ISVSVN, SNP guest SVN
    allow_any_measurement: bool = False

    def named_by(self) -> str:
        """What says which code is accepted besides measurements; empty if nothing does."""
        if self.signers:
            return "its signer"
        return "nothing: allow_any_measurement" if self.allow_any_measurement else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelReference(Reference):
    """What SGX and TDX share."""

    min_tcb_evaluation: int = 0  # tcbEvaluationDataNumber of the collateral
    ppids: frozenset[bytes] = frozenset()  # only these platforms
    allow_attributes: frozenset[str] = frozenset()  # names, of those that are refused else


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxReference(IntelReference):
    """``allow_attributes``: PROVISIONKEY, EINITTOKENKEY."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxReference(IntelReference):
    """``allow_attributes``: MIGRATABLE, PERFMON, KL, PKS."""

    rtmrs: Registers = field(default_factory=lambda: _NONE)  # 0 to 3
    mr_seams: frozenset[bytes] = frozenset()
    service_tds: frozenset[bytes] = frozenset()  # MRSERVICETD other than zeros
    allow_sept_ve: bool = False  # TDs whose host can inject #VE (SEPT_VE_DISABLE is not set)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReference(Reference):
    """Product lines are named: that a line's keys can be extracted is known of Milan."""

    products: frozenset[Product] = frozenset()
    min_tcb: Mapping[Product, Tcb] = field(default_factory=lambda: MappingProxyType({}))
    allow_any_tcb: bool = False
    vmpls: frozenset[int] = frozenset({0})
    chip_ids: frozenset[bytes] = frozenset()
    host_data: frozenset[bytes] = frozenset()
    require_platform: frozenset[str] = frozenset()  # names of platform_info bits
    allow_migration_agent: bool = False
    forbid_smt: bool = False
    forbid_cxl: bool = False
    require_policy: frozenset[str] = frozenset()  # names of bits of the guest's policy
    min_abi: tuple[int, int] = (0, 0)  # that the guest's policy asks of the firmware
    author_keys: frozenset[bytes] = frozenset()  # digests of keys that vouch for ID keys


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroReference(Reference):
    """Measurements are PCR0, signers PCR8."""

    pcrs: Registers = field(default_factory=lambda: _NONE)
    max_age_seconds: int = 0  # 0: as long as the document's certificate is valid (3 hours)

    def named_by(self) -> str:
        """See :meth:`Reference.named_by`."""
        # Image, kernel, application, who signed the image; others are of the instance.
        code = self.pcrs.keys() & {0, 1, 2, 8}
        return Reference.named_by(self) or ("its registers" if code else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareReference(Reference):
    """PSA and CCA: pieces of firmware by their measurements, and who signed them."""

    firmware: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaReference(FirmwareReference):
    """Measurements are the SHA-256 of all components together, ``firmware`` the components."""

    allow_mac: bool = False  # tokens under a key that every verifier can forge with
    client_ids: frozenset[int] = frozenset()

    def named_by(self) -> str:
        """See :meth:`Reference.named_by`."""
        return Reference.named_by(self) or ("its firmware" if self.firmware else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaReference(FirmwareReference):
    """Measurements are the realm's initial measurement (RIM), ``firmware`` the platform's."""

    allow_any_firmware: bool = False
    rems: Registers = field(default_factory=lambda: _NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmReference(Reference):
    """Measurements are the digest over all registers of the quote; or registers one by one."""

    pcrs: Mapping[str, Registers] = field(default_factory=lambda: MappingProxyType({}))  # by bank
    allow_unproved_key: bool = False  # a key whose TPM attributes nobody has shown
    allow_unsafe_clock: bool = False
    require_event_log: bool = False  # that leads to all of the firmware's registers
    require_secure_boot: bool = False  # as the event log shows it

    def named_by(self) -> str:
        """See :meth:`Reference.named_by`."""
        return Reference.named_by(self) or ("its registers" if self.pcrs else "")


REFERENCES: Final[Mapping[str, type[Reference]]] = MappingProxyType(
    {
        "sgx": SgxReference,
        "tdx": TdxReference,
        "snp": SnpReference,
        "nitro": NitroReference,
        "psa": PsaReference,
        "cca": CcaReference,
        "tpm": TpmReference,
    }
)


def reference_type(tee: str) -> type[Reference]:
    """The kind of reference values that a kind of hardware has."""
    return REFERENCES.get(tee, Reference)
