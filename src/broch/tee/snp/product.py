"""Product lines of EPYC processors: what their roots, CPUIDs and TCB versions look like.

TCB_VERSION, 8 bytes (SEV-SNP firmware ABI, table 3; Turin: table 4):

    Milan, Genoa   boot_loader  tee          0    0    0  0  snp  microcode
    Turin          fmc          boot_loader  tee  snp  0  0  0    microcode
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from broch.errors import DecodeError, UntrustedError


class Product(StrEnum):
    """A product line, as AMD's key distribution service names it."""

    MILAN = "Milan"
    GENOA = "Genoa"  # Bergamo and Siena too
    TURIN = "Turin"


# SHA-256 of the DER certificates "ARK-<product>" of https://kdsintf.amd.com/vcek/v1/<product>/
# cert_chain (the second of the two); the vlek chains end in the same roots.
ARKS: Final = {
    bytes.fromhex(
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"
    ): Product.MILAN,
    bytes.fromhex(
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"
    ): Product.GENOA,
    bytes.fromhex(
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"
    ): Product.TURIN,
}
# (family, upper half of model) of CPUID -> product line.
_BY_CPUID: Final = {
    (0x19, 0x0): Product.MILAN,
    (0x19, 0x1): Product.GENOA,
    (0x19, 0xA): Product.GENOA,
    (0x1A, 0x0): Product.TURIN,
    (0x1A, 0x1): Product.TURIN,
}
_FIELDS: Final = {
    Product.MILAN: ("boot_loader", "tee", "", "", "", "", "snp", "microcode"),
    Product.GENOA: ("boot_loader", "tee", "", "", "", "", "snp", "microcode"),
    Product.TURIN: ("fmc", "boot_loader", "tee", "snp", "", "", "", "microcode"),
}
TCB_SIZE: Final = 8


def by_cpuid(family: int, model: int) -> Product:
    """The product line of a processor.

    Raises:
        UntrustedError: not one that is known here.
    """
    product = _BY_CPUID.get((family, model >> 4))
    if product is None:
        raise UntrustedError(f"CPUID family 0x{family:x}, model 0x{model:x} is of no known product")
    return product


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """Security versions of the firmware, one a component. They are compared one by one."""

    fmc: int = 0  # Turin only
    boot_loader: int
    tee: int
    snp: int
    microcode: int

    @classmethod
    def from_bytes(cls, data: bytes, product: Product, what: str) -> Self:
        """Decode a TCB_VERSION.

        Raises:
            DecodeError: not 8 bytes, or a reserved byte is not zero.
        """
        if len(data) != TCB_SIZE:
            raise DecodeError(len(data), f"expected {TCB_SIZE} bytes", what=what)
        values: dict[str, int] = {}
        for offset, (name, value) in enumerate(zip(_FIELDS[product], data, strict=True)):
            if name:
                values[name] = value
            elif value:
                raise DecodeError(offset, "a reserved byte is not zero", what=what)
        return cls(**values)

    def to_bytes(self, product: Product) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return bytes(getattr(self, name) if name else 0 for name in _FIELDS[product])

    def reaches(self, other: "Tcb") -> bool:
        """Whether no component is below that of ``other``."""
        return all(getattr(self, name) >= getattr(other, name) for name in self.__slots__)

    def __str__(self) -> str:
        names = [name for name in self.__slots__ if name != "fmc" or self.fmc]
        return " ".join(f"{name}={getattr(self, name)}" for name in names)
