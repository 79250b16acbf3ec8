"""The other end: what it must be, and how it is checked.

A certificate is checked here and not by the TLS library: nobody issued it but its own key, so all
that speaks for it is the evidence in it. The steps are numbered in :func:`check_certificate` and
:func:`check_channel`; whoever asks decides by :class:`Expected` what is acceptable.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from broch.attest.tls import binding
from broch.attest.tls.binding import Role
from broch.attest.tls.credential import spki_of
from broch.errors import InternalError, UntrustedError
from broch.tee.contract import Claims
from broch.tee.guest import bind
from broch.wire import cmw
from broch.wire.x509 import Certificate, read_certificate

if TYPE_CHECKING:
    from broch.attest.policy import Policy
    from broch.attest.result import Source

Judge = Callable[[str, bytes, datetime], Claims]  # (TEE, evidence, when) -> claims, or raises
_W: Final = "peer's certificate"


class Level(StrEnum):
    """What evidence was bound to."""

    KEY = "key"  # the certificate's key: whoever has that key can use the evidence
    CHANNEL = "channel"  # this key, this connection, this challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Who the peer must be."""

    judge: Judge  # verifies and appraises evidence; :func:`judge_by` makes one out of a policy
    image: bytes | None = None  # SHA-256 of its image, where evidence measures a whole system
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who the peer is. Only the functions below make one."""

    level: Level
    claims: Claims
    certificate: bytes = field(repr=False)  # DER
    spki: bytes = field(repr=False)


def judge_by(policy: "Policy", source: "Source") -> Judge:
    """A judge that goes by a policy.

    Args:
        policy: what is accepted.
        source: gives endorsements: the ``get`` of a :class:`broch.attest.endorsements.Shelf`, say.
    """
    from broch.attest.formats import Evidence
    from broch.attest.result import examine

    # The challenge is in what evidence binds, which is checked here for every piece of it.
    bound = replace(policy, allow_no_nonce=True)

    def judge(tee: str, evidence: bytes, at: datetime) -> Claims:
        result = examine(Evidence(tee=tee, data=evidence), source, bound, at=at, nonce=None)
        if result.error is not None:
            raise result.error
        claims = result.parts[0].claims
        if claims is None:
            raise InternalError("evidence was accepted and has no claims")
        return claims

    return judge


def check_certificate(der: bytes, expected: Expected) -> Peer:
    """A certificate with evidence that binds its key.

    Raises:
        DecodeError: not a certificate, or evidence that cannot be read.
        UntrustedError: no evidence, of another key, or a signature or date that does not hold.
        BrochError: of the judge, who refuses the evidence.
    """
    at = expected.now()
    # (1) The certificate, strictly: self-signed, for TLS, valid now.
    cert = read_certificate(der, _W)
    key = _check_self_signed(cert)
    cert.window.check(at)
    # (2) Its evidence, in the one extension for that.
    tee, evidence = binding.unwrap(_wrapper(cert))
    # (3) The evidence is authentic and acceptable, which is the judge's to say.
    claims = expected.judge(tee, evidence, at)
    # (4) It binds this key.
    spki = spki_of(key)
    check_bound(tee, claims, binding.key_data(spki, binding.report_data_size(tee)), expected)
    return Peer(level=Level.KEY, claims=claims, certificate=der, spki=spki)


def check_channel(
    peer: Peer,
    proof: tuple[str, bytes],
    *,
    role: Role,
    exporter: bytes,
    nonce: bytes,
    expected: Expected,
) -> Peer:
    """Fresh evidence that binds the key of ``peer`` to this connection.

    Args:
        peer: whose certificate was checked, and whose key TLS has shown to be there.
        proof: TEE and evidence.
        role: of the peer.
        exporter: this end's own.
        nonce: that this end sent.
        expected: as for the certificate.

    Raises:
        UntrustedError: it binds another key, connection or challenge, or is of other code.
        BrochError: of the judge, who refuses the evidence.
    """
    tee, evidence = proof
    # (5) Authentic and acceptable.
    claims = expected.judge(tee, evidence, expected.now())
    # (6) It binds key, connection and challenge: made for nobody else, and now.
    size = binding.report_data_size(tee)
    data = binding.channel_data(role, peer.spki, exporter, nonce, size)
    check_bound(tee, claims, data, expected)
    # (7) It is of the same code as the certificate.
    if _who(claims) != _who(peer.claims):
        raise UntrustedError("the evidence of certificate and connection are of different code")
    return replace(peer, level=Level.CHANNEL, claims=claims)


def _who(claims: Claims) -> tuple[str, bytes, bytes | None]:
    return claims.tee, claims.measurement, claims.signer


def _check_self_signed(cert: Certificate) -> ec.EllipticCurvePublicKey:
    """The key, on P-256, that signed its own certificate and may sign handshakes."""
    key = cert.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UntrustedError(f"the key of the {_W} is not on P-256", hint=_MAKE)
    if cert.is_ca or not cert.may_sign_data or cert.issuer != cert.subject:
        raise UntrustedError(f"the {_W} is not one of an end that made it itself", hint=_MAKE)
    try:
        key.verify(cert.signature, cert.tbs, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise UntrustedError(f"{_W}: the signature does not hold") from None
    return key


def _wrapper(cert: Certificate) -> cmw.Wrapper:
    value = cert.extensions.get(cmw.DICE_OID)
    if value is None:
        raise UntrustedError(f"the {_W} carries no evidence ({cmw.DICE_OID})", hint=_MAKE)
    return cmw.from_extension(cmw.DICE_OID, value)


_MAKE: Final = "the peer has to make its certificate as attested TLS does"


def check_bound(tee: str, claims: Claims, data: bytes, expected: Expected) -> None:
    """The report data of evidence is ``data``, in the name of the image that is expected.

    Raises:
        UntrustedError: it is not, or the evidence is of another TEE than was announced.
    """
    if claims.tee != tee:
        raise UntrustedError(f"evidence of {claims.tee}, announced as of {tee}")
    if expected.image is not None:
        data = bind(expected.image, data, len(data))
    found = claims.report_data
    # Fields of a fixed size are filled up with zeros.
    if not hmac.compare_digest(data.ljust(len(found), b"\0"), found):
        raise UntrustedError(
            "the evidence is bound to something else: another key, claims, connection or challenge",
            hint="somebody may be relaying evidence that was made for him; do not go on",
        )
