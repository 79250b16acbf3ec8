"""One's own end: a key that is made here, a certificate with evidence of it, an attester."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broch.attest.tls import binding
from broch.attest.tls.binding import Role
from broch.tee.contract import Device, Identity
from broch.tee.roots import key_usage
from broch.wire import cmw

LIFETIME: Final = timedelta(hours=24)
_BACKDATED: Final = timedelta(minutes=5)  # clocks differ a little


class Attester(Protocol):
    """What can make evidence about the code that holds the key."""

    @property
    def tee(self) -> str: ...

    def evidence(self, report_data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DeviceAttester:
    """A loaded image on a device, as an attester."""

    device: Device
    identity: Identity

    @property
    def tee(self) -> str:
        """The device's."""
        return self.device.tee

    def evidence(self, report_data: bytes) -> bytes:
        """What the device says of the image."""
        return self.device.evidence(self.identity, report_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key, its certificate, and who attests to both. The key never leaves the process."""

    attester: Attester
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)  # DER

    @classmethod
    def create(cls, attester: Attester, *, now: datetime, lifetime: timedelta = LIFETIME) -> Self:
        """A new P-256 key and a self-signed certificate with evidence that binds it.

        Args:
            attester: makes the evidence, now and for each connection.
            now: when the certificate begins, but for clocks that differ a little.
            lifetime: how long it holds.

        Raises:
            BrochError: of the attester.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        size = binding.report_data_size(attester.tee)
        evidence = attester.evidence(binding.key_data(spki_of(key.public_key()), size))
        record = binding.wrap(attester.tee, evidence)
        certificate = _certificate(key, record, now.astimezone(UTC), lifetime)
        return cls(attester=attester, key=key, certificate=certificate)

    @property
    def spki(self) -> bytes:
        """The public key: SubjectPublicKeyInfo, DER."""
        return spki_of(self.key.public_key())

    def prove(self, role: Role, exporter: bytes, nonce: bytes) -> cmw.Record:
        """Fresh evidence for one connection."""
        size = binding.report_data_size(self.attester.tee)
        data = binding.channel_data(role, self.spki, exporter, nonce, size)
        return binding.wrap(self.attester.tee, self.attester.evidence(data))


class Renewing:
    """A credential that is made anew when half of its life is over; threads may share it.

    Args:
        attester: makes the evidence.
        now: the clock.
        lifetime: how long each certificate holds.
    """

    def __init__(
        self,
        attester: Attester,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        lifetime: timedelta = LIFETIME,
    ) -> None:
        self._attester = attester
        self._now = now
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._current: tuple[datetime, Credential] | None = None

    def __call__(self) -> Credential:
        """The one to use now.

        Raises:
            BrochError: of the attester.
        """
        with self._lock:
            now = self._now()
            if self._current is None or now - self._current[0] >= self._lifetime / 2:
                made = Credential.create(self._attester, now=now, lifetime=self._lifetime)
                self._current = (now, made)
            return self._current[1]


def spki_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(
    key: ec.EllipticCurvePrivateKey, record: cmw.Record, now: datetime, lifetime: timedelta
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Broch attested TLS")])
    evidence = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(cmw.DICE_OID), cmw.to_extension(cmw.DICE_OID, record)
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        # Not critical: OpenSSL refuses critical extensions that it does not know.
        .add_extension(evidence, critical=False)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)
