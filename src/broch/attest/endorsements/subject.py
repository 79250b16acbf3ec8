"""What endorsements are about: the unit in which they are published, fetched and kept.

    dcap.root                     revocations by Intel's root
    dcap.pck.CA                   revocations by a PCK CA: "platform" or "processor"
    dcap.tcb.TEE.FMSPC            TCB info of a platform family: 12 hexadecimal digits
    dcap.qe.TEE                   identity of the quoting enclave: of "sgx" or "tdx"
    snp.PRODUCT.KIND              ASK or ASVK, ARK and its revocations: "vcek" or "vlek"
    snp.PRODUCT.vcek.CHIP.TCB     the VCEK of one chip at one TCB: 16 or 128, and 16 digits

Items of a subject come together and are replaced together. Names are lower case throughout.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from broch.errors import DecodeError

MAX_NAME: Final = 200  # characters
CHAIN: Final = "_issuer_chain"
_SIGNED: Final = ("", "_signature", CHAIN)


class Kind(Enum):
    """What a subject is; ``items`` are the names of what belongs to it."""

    DCAP_ROOT = (r"dcap\.root", ("root_ca_crl", f"root_ca_crl{CHAIN}"))
    DCAP_PCK = (r"dcap\.pck\.(platform|processor)", ("pck_crl", f"pck_crl{CHAIN}"))
    DCAP_TCB = (r"dcap\.tcb\.(sgx|tdx)\.([0-9a-f]{12})", tuple(f"tcb_info{s}" for s in _SIGNED))
    DCAP_QE = (r"dcap\.qe\.(sgx|tdx)", tuple(f"qe_identity{s}" for s in _SIGNED))
    SNP_CHAIN = (r"snp\.(milan|genoa|turin)\.(vcek|vlek)", ("ask", "ark", "crl"))
    SNP_VEK = (
        r"snp\.(milan|genoa|turin)\.vcek\.([0-9a-f]{16}|[0-9a-f]{128})\.([0-9a-f]{16})",
        ("vek", "ask", "ark"),
    )

    def __init__(self, pattern: str, items: tuple[str, ...]) -> None:
        self.pattern = re.compile(pattern)
        self.items = items


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """One subject, by its name. :meth:`of` checks; the constructor is for those below."""

    name: str

    @classmethod
    def of(cls, name: str) -> Self:
        """The subject of that name.

        Raises:
            DecodeError: not the name of a subject.
        """
        subject = cls(name)
        subject.match()
        return subject

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.match()[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What it is about, in the order of the name."""
        return self.match()[1]

    def match(self) -> tuple[Kind, tuple[str, ...]]:
        """Kind and arguments.

        Raises:
            DecodeError: not the name of a subject.
        """
        if len(self.name) <= MAX_NAME:
            for kind in Kind:
                found = kind.pattern.fullmatch(self.name)
                if found is not None:
                    return kind, found.groups()
        raise DecodeError(0, f"no subject of endorsements: {self.name!r:.80}", what="subject")

    def __str__(self) -> str:
        return self.name


def dcap_root() -> Subject:
    """Revocations by Intel's root."""
    return Subject("dcap.root")


def dcap_pck(ca: str) -> Subject:
    """Revocations by a PCK CA: "platform" or "processor"."""
    return Subject.of(f"dcap.pck.{ca}")


def dcap_tcb(tee: str, fmspc: bytes) -> Subject:
    """TCB info of the platforms with this FMSPC (6 bytes)."""
    return Subject.of(f"dcap.tcb.{tee}.{fmspc.hex()}")


def dcap_qe(tee: str) -> Subject:
    """Identity of the quoting enclave of "sgx" or "tdx"."""
    return Subject.of(f"dcap.qe.{tee}")


def snp_chain(product: str, kind: str) -> Subject:
    """What issues the keys of a product line: "vcek" or "vlek"."""
    return Subject.of(f"snp.{product.lower()}.{kind}")


def snp_vek(product: str, chip: bytes, tcb: bytes) -> Subject:
    """The VCEK of a chip (64 bytes, of which Turin uses 8) at a TCB version (8 bytes)."""
    size = 8 if product.lower() == "turin" else 64
    return Subject.of(f"snp.{product.lower()}.vcek.{chip[:size].hex()}.{tcb.hex()}")
