"""Two ends of attested TLS, each an image on an emulated SGX device, and what is between them."""

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.unit.tee.sgx import support

from broch.attest.policy import Policy
from broch.attest.tls import AttestedSocket, Credential, DeviceAttester, Expected, judge_by
from broch.tee.contract import Endorsements
from broch.tee.sgx import TEE
from broch.tee.sgx.device import SgxDevice

NOW: Final = support.NOW
DEVICE: Final = SgxDevice(support.settings())
ENDORSEMENTS: Final = DEVICE.endorsements()
SECONDS: Final = 30  # more than anything takes; what hangs fails its test


_MAKING: Final = threading.RLock()  # both ends ask, and there is to be one of each


@cache
def _signing_key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@cache
def _attester(module: str) -> DeviceAttester:
    packed = support.pack(_signing_key(), module=module)
    return DeviceAttester(DEVICE, DEVICE.load(packed).identity)


@cache
def _credential(module: str) -> Credential:
    return Credential.create(attester(module), now=NOW)


def attester(module: str = "server") -> DeviceAttester:
    """An image of this name, loaded; always the same."""
    with _MAKING:
        return _attester(module)


def credential(module: str = "server") -> Credential:
    """Its credential; always the same."""
    with _MAKING:
        return _credential(module)


def policy(module: str = "server", **changes: Any) -> Policy:
    """Exactly this image, on an emulated device."""
    measurement = attester(module).identity.measurement
    return Policy(**{"emulated": True, **changes}).for_image(measurement)


def source(tee: str, evidence: bytes) -> Endorsements:
    return ENDORSEMENTS


def expected(module: str = "server", **changes: Any) -> Expected:
    return Expected(judge=judge_by(policy(module, **changes), source), now=lambda: NOW)


@dataclass
class Outcome:
    """What an end that runs in a thread came to."""

    result: Any = None
    error: BaseException | None = None
    thread: threading.Thread = field(default_factory=threading.Thread)

    def join(self) -> "Outcome":
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "it hangs"
        return self


def start(action: Callable[[], Any]) -> Outcome:
    """Run one end."""
    outcome = Outcome()

    def run() -> None:
        try:
            outcome.result = action()
        except BaseException as exc:  # noqa: BLE001 (the test looks at it)
            outcome.error = exc

    outcome.thread = threading.Thread(target=run, daemon=True)
    outcome.thread.start()
    return outcome


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a line."""
    left, right = socket.socketpair()
    for end in (left, right):
        end.settimeout(SECONDS)
    try:
        yield left, right
    finally:
        left.close()
        right.close()


def echo(end: AttestedSocket) -> None:
    """Give everything back until the other end has had enough."""
    with end:
        while data := end.recv(100_000):
            end.sendall(data)


@contextmanager
def files(own: Credential) -> Iterator[tuple[str, str]]:
    """A credential's certificate and key as files, for what takes nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/certificate", f"{folder}/key"]
        certificate = x509.load_der_x509_certificate(own.certificate)
        secret = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for path, data in zip(paths, (certificate.public_bytes(Encoding.PEM), secret), strict=True):
            Path(path).write_bytes(data)
        yield paths[0], paths[1]


def stranger(*, evidence_of: Credential) -> Credential:
    """A key of nobody's, and a certificate for it with somebody else's evidence."""
    taken = x509.load_der_x509_certificate(evidence_of.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=taken.issuer,
        subject_name=taken.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=taken.not_valid_before_utc,
        not_valid_after=taken.not_valid_after_utc,
    )
    for extension in taken.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    return Credential(attester=evidence_of.attester, key=key, certificate=certificate)
