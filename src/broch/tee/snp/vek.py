"""What AMD certifies of a versioned endorsement key (VCEK and VLEK certificate specification).

Extensions under 1.3.6.1.4.1.3704.1, their values in DER:

    .1    structure version, INTEGER 0 or 1   .3.4-.3.7  reserved TCB components
    .2    product, IA5String "Milan-B0"       .3.8  microcode
    .3.1  boot loader, INTEGER                .3.9  FMC (Turin)
    .3.2  TEE                                 .4    chip's identity: 64 bytes raw or as OCTET
    .3.3  SNP firmware                              STRING, 8 bytes for Turin (VCEK)
                                              .5    cloud provider, IA5String (VLEK)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from broch.errors import DecodeError, UntrustedError
from broch.tee.snp.product import Product, Tcb
from broch.tee.snp.report import SigningKey
from broch.wire.x509 import Certificate

ARC: Final = "1.3.6.1.4.1.3704.1"
COMMON_NAMES: Final = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}
_INTEGER, _OCTETS, _IA5 = 0x02, 0x04, 0x16
_COMPONENTS: Final = {"boot_loader": ".3.1", "tee": ".3.2", "snp": ".3.3", "microcode": ".3.8"}
_FMC: Final = ".3.9"
_RESERVED: Final = (".3.4", ".3.5", ".3.6", ".3.7")
_KNOWN: Final = {".1", ".2", ".3.1", ".3.2", ".3.3", *_RESERVED, ".3.8", _FMC, ".4", ".5"}
_W: Final = "VEK certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vek:
    """Role and extensions of a VCEK or VLEK certificate."""

    kind: SigningKey
    product: Product
    product_name: str  # with the stepping: "Milan-B0"
    tcb: Tcb
    hwid: bytes | None  # VCEK: 64 bytes, Turin 8
    csp_id: str | None  # VLEK

    @classmethod
    def from_certificate(cls, cert: Certificate) -> Self:
        """Read the extensions.

        Raises:
            DecodeError: one is missing, unknown or not as specified.
            UntrustedError: the certificate is neither a VCEK nor a VLEK.
        """
        kind = next((kind for kind, name in COMMON_NAMES.items() if name == cert.name), None)
        if kind is None:
            raise UntrustedError(f"certificate {cert.name!r} is neither SEV-VCEK nor SEV-VLEK")
        found = {
            oid.removeprefix(ARC): value
            for oid, value in cert.extensions.items()
            if oid.startswith(ARC + ".")
        }
        unknown = found.keys() - _KNOWN
        if unknown:
            raise DecodeError(0, f"unknown extension {ARC}{min(unknown)}", what=_W)
        if _integer(found, ".1") > 1:
            raise DecodeError(0, "unknown structure version", what=_W)
        name = _text(found, ".2")
        line = name.split("-")[0]
        if line not in tuple(Product):
            raise UntrustedError(f"product {name!r} is not a known one")
        product = Product(line)
        is_vcek = kind is SigningKey.VCEK
        if (".5" in found) is is_vcek or (".4" in found) is not is_vcek:
            raise DecodeError(0, f"extensions .4 and .5 are not those of a {cert.name}", what=_W)
        return cls(
            kind=kind,
            product=product,
            product_name=name,
            tcb=_tcb(found, product),
            hwid=_hwid(found[".4"], product) if is_vcek else None,
            csp_id=None if is_vcek else _text(found, ".5"),
        )


def _tcb(found: Mapping[str, bytes], product: Product) -> Tcb:
    for name in _RESERVED:
        if name in found and _integer(found, name):
            raise DecodeError(0, f"reserved TCB component {name} is not zero", what=_W)
    if (_FMC in found) is not (product is Product.TURIN):
        raise DecodeError(0, f"the FMC component does not fit {product}", what=_W)
    values = {name: _integer(found, oid) for name, oid in _COMPONENTS.items()}
    return Tcb(fmc=_integer(found, _FMC) if _FMC in found else 0, **values)


def _hwid(value: bytes, product: Product) -> bytes:
    """Older certificates hold the bytes as they are, newer ones in an OCTET STRING."""
    size = 8 if product is Product.TURIN else 64
    if len(value) == size:
        return value
    if value[:2] == bytes((_OCTETS, size)) and len(value) == size + 2:
        return value[2:]
    raise DecodeError(0, f"extension .4 is not {size} bytes", what=_W)


def _primitive(found: Mapping[str, bytes], name: str, tag: int) -> bytes:
    value = found.get(name)
    if value is None:
        raise DecodeError(0, f"extension {ARC}{name} is missing", what=_W)
    if len(value) < 3 or value[0] != tag or value[1] != len(value) - 2 or value[1] > 127:
        raise DecodeError(0, f"extension {ARC}{name} is not of its type", what=_W)
    return value[2:]


def _integer(found: Mapping[str, bytes], name: str) -> int:
    """An INTEGER from 0 to 255."""
    value = _primitive(found, name, _INTEGER)
    number = int.from_bytes(value, "big", signed=True)
    if not 0 <= number < 256 or len(value) != (2 if number > 127 else 1):
        raise DecodeError(0, f"extension {ARC}{name} is no number of one byte", what=_W)
    return number


def _text(found: Mapping[str, bytes], name: str) -> str:
    value = _primitive(found, name, _IA5)
    if not all(0x20 <= byte < 0x7F for byte in value):
        raise DecodeError(0, f"extension {ARC}{name} is not printable", what=_W)
    return value.decode("ascii")
