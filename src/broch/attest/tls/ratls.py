"""Certificates of others: Gramine's RA-TLS and the CCC's interoperable RA-TLS. Read, never made.

    2.23.133.5.4.9           CBOR: 60000([quote, claims]), claims being the bytes of
                             {"pubkey-hash": bytes of [hash, digest], ...}; the quote's report data
                             is SHA-256(claims), then zeros
    1.2.840.113741.1337.6    older Gramine: the quote alone; its report data is SHA-256(SPKI), then
                             zeros. Looked at only where the other extension is not there.

The digest is over SubjectPublicKeyInfo in DER; its hash is 1, 7 or 8 (SHA-256, -384, -512) of
IANA's named information registry. The evidence binds the key and nothing else: :attr:`.Level.KEY`.

Sources: CCC Attestation SIG, "Interoperable RA-TLS X.509 Cert and Evidence Formats"; Gramine,
tools/sgx/ra-tls/ra_tls_attest.c. A certificate whose claims have no "pubkey-hash" binds no key:
Gramine's own verifier takes it, this one does not.
"""

import hashlib
import hmac
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.attest.tls.peer import Expected, Level, Peer, check_bound
from broch.errors import DecodeError, UntrustedError
from broch.wire import cbor, cmw
from broch.wire.x509 import Certificate, read_certificate

LEGACY_OID: Final = "1.2.840.113741.1337.6"
TEE_QUOTE: Final = 60000  # CBOR tag
PUBKEY_HASH: Final = "pubkey-hash"
_HASHES: Final = {1: "sha256", 7: "sha384", 8: "sha512"}
_W: Final = "RA-TLS certificate"


def check_ratls_certificate(der: bytes, expected: Expected) -> Peer:
    """A certificate of Gramine or of interoperable RA-TLS, with evidence that binds its key.

    Args:
        der: of a peer that has shown, in its handshake, to have the key.
        expected: who the peer must be.

    Raises:
        DecodeError: not such a certificate, or evidence that cannot be read.
        UntrustedError: no evidence, of another key, or a signature or date that does not hold.
        BrochError: of the judge, who refuses the evidence.
    """
    from broch.attest.formats import identify

    at = expected.now()
    # (1) The certificate: signed by its own key, valid now.
    cert = read_certificate(der, _W)
    _check_self_signed(der)
    cert.window.check(at)
    spki = cert.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # (2) Evidence, and what its report data has to be for this key.
    quote, bound = _evidence(cert, spki)
    # (3) Authentic and acceptable, which is the judge's to say.
    tee = identify(quote)
    claims = expected.judge(tee, quote, at)
    # (4) It binds this key. No image besides, so one that is expected refuses.
    check_bound(tee, claims, bound, expected)
    return Peer(level=Level.KEY, claims=claims, certificate=der, spki=spki)


def _check_self_signed(der: bytes) -> None:
    try:
        parsed = x509.load_der_x509_certificate(der)
        parsed.verify_directly_issued_by(parsed)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise UntrustedError(f"the {_W} is not signed by its own key") from None


def _evidence(cert: Certificate, spki: bytes) -> tuple[bytes, bytes]:
    """The quote, and the beginning of the report data that it must have."""
    value = cert.extensions.get(cmw.DICE_OID)
    if value is not None:
        return _tagged(value, spki)
    legacy = cert.extensions.get(LEGACY_OID)
    if legacy is not None:
        return legacy, hashlib.sha256(spki).digest()
    raise UntrustedError(f"the {_W} carries no evidence ({cmw.DICE_OID})")


def _tagged(value: bytes, spki: bytes) -> tuple[bytes, bytes]:
    tagged = cbor.decode(value, what=_W, max_size=cmw.MAX_SIZE)
    if not isinstance(tagged, cbor.Tag) or tagged.number != TEE_QUOTE:
        raise DecodeError(0, f"evidence that is not tagged {TEE_QUOTE}", what=_W)
    quote, claims = _pair(tagged.value, bytes)
    named = cbor.decode(claims, what=f"claims of the {_W}")
    entry = named.get(PUBKEY_HASH) if isinstance(named, dict) else None
    if not isinstance(entry, bytes):
        raise UntrustedError(f"the evidence has no claim {PUBKEY_HASH!r}: it binds no key")
    algorithm, digest = _pair(cbor.decode(entry, what=PUBKEY_HASH), int)
    if algorithm not in _HASHES:
        raise DecodeError(0, f"hash {algorithm}, expected 1, 7 or 8", what=PUBKEY_HASH)
    if not hmac.compare_digest(digest, hashlib.new(_HASHES[algorithm], spki).digest()):
        raise UntrustedError("the evidence is bound to another key")
    return quote, hashlib.sha256(claims).digest()


def _pair(value: Any, first: type) -> tuple[Any, bytes]:
    """Two members: something of this type, and bytes."""
    if not isinstance(value, list) or [type(item) for item in value] != [first, bytes]:
        raise DecodeError(0, f"not a list of {first.__name__} and bytes", what=_W)
    return value[0], value[1]
