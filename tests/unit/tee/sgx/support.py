"""What the tests of SGX are made of: one secret, one time, a memory, an image, small enclaves."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.image import Image, Interface
from broch.tee.contract import Device, DeviceSettings, Identity, Packed, PackSettings
from broch.tee.dcap.report import MODE64BIT
from broch.tee.sgx import TEE, layout, sgxs, sigstruct
from broch.tee.sgx.build import Building
from broch.tee.sgx.device import SgxIdentity
from broch.tee.sgx.keys import Fuses
from broch.tee.sgx.sgxs import PAGE, Page
from broch.tee.sgx.structures import Secs

NOW: Final = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECRET: Final = bytes(range(32))
REPORT_DATA: Final = hashlib.sha512(b"report data").digest()


class Memory:
    """Durable memory that counts writes."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.writes = 0

    def get(self, name: str) -> bytes | None:
        return self.values.get(name)

    def put(self, name: str, value: bytes) -> None:
        self.writes += 1
        self.values[name] = value


def settings(
    *, secret: bytes = SECRET, memory: Memory | None = None, now: datetime = NOW
) -> DeviceSettings:
    return DeviceSettings(name="bench", secret=secret, nv=memory or Memory(), now=now)


def make_image(*, module: str = "blink", size: int = 5000) -> Image:
    return Image(
        app="demo",
        module=module,
        files={"blink.py": bytes(range(256)) * (size // 256)},
        main="blink.py",
        interface=Interface(),
        runtime=bytes(32),
        deployer=bytes(32),
    )


def pack(
    key: RSAPrivateKey,
    *,
    module: str = "blink",
    version: int = 3,
    product_id: int = 7,
    debug: bool = False,
) -> Packed:
    chosen = PackSettings(version=version, product_id=product_id, debug=debug)
    return TEE.pack(make_image(module=module), chosen, key)


def load(device: Device, packed: Packed) -> SgxIdentity:
    identity: Identity = device.load(packed).identity
    assert isinstance(identity, SgxIdentity)
    return identity


SECS: Final = Secs(size=4 * PAGE, ssaframesize=1, flags=MODE64BIT, xfrm=3)
CODE_PAGE: Final = Page(0, sgxs.PT_REG | sgxs.R | sgxs.X, sgxs.ALL_MEASURED, b"\x90" * PAGE)
TCS_PAGE: Final = Page(PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, layout.tcs(PAGE))

FUSES: Final = Fuses(
    device_key=b"D" * 16,
    seal_fuses=b"S" * 16,
    owner_epoch=b"O" * 16,
    report_keyid=b"R" * 32,
    cpusvn=b"\x05" * 16,
)


def measured(secs: Secs = SECS) -> Building:
    """A two-page enclave up to EINIT."""
    building = Building(secs)
    building.add(CODE_PAGE)
    building.add(TCS_PAGE)
    return building


def mrenclave() -> bytes:
    """The measurement of :func:`measured`, by the definition and not by the code under test."""
    stream = sgxs.Sgxs(
        create=sgxs.Create(ssaframesize=1, size=4 * PAGE), pages=(CODE_PAGE, TCS_PAGE)
    )
    return hashlib.sha256(stream.to_bytes()).digest()


def signed(key: RSAPrivateKey, **fields: int | bytes) -> bytes:
    """A SIGSTRUCT for :func:`measured` with some fields changed before signing."""
    return sigstruct.sign(with_fields(sigstruct.template(mrenclave()), fields), key).to_bytes()


def with_fields(
    unsigned: sigstruct.Sigstruct, fields: Mapping[str, int | bytes]
) -> sigstruct.Sigstruct:
    values = {name: getattr(unsigned, name) for name in unsigned.__slots__}
    return sigstruct.Sigstruct(**{**values, **fields})
