"""An AMD-like hierarchy and a guest on its processor, to be bent in one place at a time."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from tests.pki import Cert, Tree, ec_key, rsa_key, usage

from broch.tee.contract import Endorsements
from broch.tee.snp.product import Product
from broch.tee.snp.report import SIGNED_SIZE, Report
from broch.tee.snp.vek import ARC

CHIP: Final = bytes(range(64))
REPORT_DATA: Final = bytes(range(100, 164))
ROOT_NAME: Final = "Broch Emulated SNP Root"
CPUID: Final = {Product.MILAN: (0x19, 1, 1), Product.GENOA: (0x19, 0x11, 2)}
CPUID_TURIN: Final = (0x1A, 2, 1)
TCB: Final = {
    Product.MILAN: bytes((4, 1, 0, 0, 0, 0, 24, 219)),
    Product.GENOA: bytes((10, 1, 0, 0, 0, 0, 27, 27)),
    Product.TURIN: bytes((1, 2, 3, 4, 0, 0, 0, 75)),
}
REPORT: Final = Report(
    version=3,
    guest_svn=7,
    policy=0x3001F,
    family_id=b"F" * 16,
    image_id=b"I" * 16,
    vmpl=0,
    signature_algo=1,
    current_tcb=TCB[Product.MILAN],
    platform_info=0x25,
    flags=0,
    report_data=REPORT_DATA,
    measurement=b"M" * 48,
    host_data=b"H" * 32,
    id_key_digest=b"K" * 48,
    author_key_digest=bytes(48),
    report_id=b"R" * 32,
    report_id_ma=b"\xff" * 32,
    reported_tcb=TCB[Product.MILAN],
    cpuid_family=0x19,
    cpuid_model=1,
    cpuid_stepping=1,
    chip_id=CHIP,
    committed_tcb=TCB[Product.MILAN],
    current_version=bytes((29, 55, 1)),
    committed_version=bytes((29, 55, 1)),
    launch_tcb=TCB[Product.MILAN],
    launch_mit_vector=0,
    current_mit_vector=0,
    signature_r=bytes(72),
    signature_s=bytes(72),
)


def integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return bytes((2, size)) + value.to_bytes(size, "big")


def text(value: str) -> bytes:
    return bytes((0x16, len(value))) + value.encode()


def extensions(product: Product, *, vlek: bool = False) -> dict[str, bytes]:
    """Extensions of a VCEK or VLEK of this product at :data:`TCB`."""
    tcb = TCB[product]
    turin = product is Product.TURIN
    order = (
        {".3.9": 0, ".3.1": 1, ".3.2": 2, ".3.3": 3, ".3.8": 7}
        if turin
        else {".3.1": 0, ".3.2": 1, ".3.3": 6, ".3.8": 7}
    )
    found = {".1": integer(0), ".2": text(f"{product}-B0")}
    found |= {name: integer(tcb[index]) for name, index in order.items()}
    found |= {f".3.{n}": integer(0) for n in (4, 5, 6, 7)}
    found |= {".5": text("CN=cloud.example")} if vlek else {".4": CHIP[:8] if turin else CHIP}
    return {ARC + name: value for name, value in found.items()}


def tree(product: Product = Product.MILAN, *, vlek: bool = False) -> Tree:
    """A sound hierarchy: labels ark, ask, vek and a stranger."""
    kind = "VLEK-" if vlek else ""
    return Tree(
        certs={
            "ark": Cert(
                common=ROOT_NAME,
                key=rsa_key("ark"),
                ca=True,
                key_usage=usage(ca=True),
                serial=0x10000,
                pss=True,
            ),
            "ask": Cert(
                common=f"SEV-{kind}{product}",
                key=rsa_key("ask"),
                issuer="ark",
                ca=True,
                path_length=0,
                key_usage=usage(ca=True, crl_sign=False),
                serial=0x10001,
                pss=True,
            ),
            "vek": Cert(
                common="SEV-VLEK" if vlek else "SEV-VCEK",
                key=ec_key("vek"),
                issuer="ask",
                with_constraints=False,
                extensions=extensions(product, vlek=vlek),
                serial=0,
                pss=True,
            ),
            "stranger": Cert(common="Stranger", key=rsa_key("stranger"), pss=True),
        }
    )


def sign(report: Report, key: ec.EllipticCurvePrivateKey) -> Report:
    """The report with the signature of ``key``."""
    algorithm = ec.ECDSA(SHA384(), deterministic_signing=True)
    der = key.sign(report.to_bytes()[:SIGNED_SIZE], algorithm)
    r, s = (number.to_bytes(72, "little") for number in decode_dss_signature(der))
    return replace(report, signature_r=r, signature_s=s)


def report_for(product: Product, *, vlek: bool = False) -> Report:
    """A sound report of a processor of this product, unsigned."""
    tcb = TCB[product]
    family, model, stepping = CPUID.get(product, CPUID_TURIN)
    chip = CHIP[:8].ljust(64, b"\0") if product is Product.TURIN else CHIP
    return replace(
        REPORT,
        current_tcb=tcb,
        reported_tcb=tcb,
        committed_tcb=tcb,
        launch_tcb=tcb,
        cpuid_family=family,
        cpuid_model=model,
        cpuid_stepping=stepping,
        chip_id=bytes(64) if vlek else chip,
        flags=4 if vlek else 0,
    )


@dataclass(kw_only=True)
class Attester:
    """A guest and its certificates; change a field, then ask for evidence and endorsements."""

    product: Product = Product.MILAN
    vlek: bool = False
    tree: Tree = field(init=False)
    report: Report = field(init=False)
    crl_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = tree(self.product, vlek=self.vlek)
        self.report = report_for(self.product, vlek=self.vlek)

    def change(self, label: str, **changes: Any) -> "Attester":
        self.tree = self.tree.change(label, **changes)
        return self

    def bend(self, **changes: Any) -> "Attester":
        """Change fields of the report, before it is signed."""
        self.report = replace(self.report, **changes)
        return self

    def evidence(self) -> bytes:
        key = self.tree.certs["vek"].key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return sign(self.report, key).to_bytes()

    def items(self) -> dict[str, bytes]:
        return {
            "vek": self.tree.der("vek"),
            "ask": self.tree.der("ask"),
            "crl": self.tree.crl("ark", **self.crl_options),
        }

    def endorsements(self) -> Endorsements:
        return Endorsements(anchors=(self.tree.der("ark"),), items=self.items())
