"""Whose attestation key it is. Three ways; the caller takes exactly one.

    ak_public         TPMT_PUBLIC that the caller enrolled, after credential activation with the
                      endorsement key, say; its attributes are checked
    attestation_key   SubjectPublicKeyInfo in DER: the same without the attributes, for which the
                      caller answers; also the key that a hardware report binds (:mod:`.hcl`)
    ak_certificate    DER, under an anchor, or under ``ak_issuer`` (DER) that is under an anchor;
                      with ``crl``, its issuer's revocation list, or ``unsafe_no_crl``. Extended key
                      usage tcg-kp-AIKCertificate (2.23.133.8.3)

The key that is endorsed so signs the quotes itself, or it vouches for another key of its TPM that
does (:mod:`.certify`).

Makers of TPMs have many roots, and none is pinned here: for certificates the anchors decide.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots as root_names
from broch.tee.contract import Endorsements
from broch.tee.tpm.certify import certified_key
from broch.tee.tpm.public import Public, PublicKey
from broch.wire.x509 import (
    Algorithm,
    Certificate,
    check_crl,
    check_issued,
    check_not_revoked,
    check_path_lengths,
    read_certificate,
    read_crl,
)

AK_PUBLIC: Final = "ak_public"
ATTESTATION_KEY: Final = "attestation_key"
AK_CERTIFICATE: Final = "ak_certificate"
AK_ISSUER: Final = "ak_issuer"
CRL: Final = "crl"
UNSAFE_NO_CRL: Final = "unsafe_no_crl"
AIK_USAGE: Final = "2.23.133.8.3"
_WAYS: Final = (AK_PUBLIC, ATTESTATION_KEY, AK_CERTIFICATE)
_ALGORITHMS: Final = (
    Algorithm.RSA_SHA256,
    Algorithm.RSA_SHA384,
    Algorithm.ECDSA_SHA256,
    Algorithm.ECDSA_SHA384,
)
_MIN_RSA: Final = 2048  # bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An attestation key that there is a reason to believe in."""

    key: PublicKey = field(repr=False)
    way: str  # which item
    root_name: str = ""
    emulated: bool = False
    revocation_checked: bool = False
    attributes_checked: bool = False
    certified: bool = False  # ``way`` is that of another key, which vouches for this one

    def __reduce__(self) -> tuple[Callable[..., "Trusted"], tuple[object, ...]]:
        spki = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        rest = [getattr(self, name) for name in self.__slots__ if name != "key"]
        return _restore, (spki, *rest)


def _restore(
    spki: bytes,
    way: str,
    root_name: str,
    emulated: bool,
    revocation_checked: bool,
    attributes_checked: bool,
    certified: bool,
) -> Trusted:
    return Trusted(
        key=_enrolled(spki),
        way=way,
        root_name=root_name,
        emulated=emulated,
        revocation_checked=revocation_checked,
        attributes_checked=attributes_checked,
        certified=certified,
    )


def establish(endorsements: Endorsements, at: datetime) -> Trusted:
    """The key that must have signed.

    Raises:
        DecodeError: an item cannot be read.
        UntrustedError: attributes, certificate or list do not hold.
        UndecidedError: no way is given, or more than one, or an item of it is missing.
    """
    items = endorsements.items
    ways = [name for name in _WAYS if name in items]
    if len(ways) != 1:
        raise UndecidedError(f"the endorsements have {len(ways)} of {', '.join(_WAYS)}, expected 1")
    endorsed = _endorsed(ways[0], items, endorsements.anchors, at)
    other = certified_key(items, endorsed.key)
    # What nobody has shown of the key that vouches, nobody has shown of the other either.
    return endorsed if other is None else replace(endorsed, key=other.key, certified=True)


def _endorsed(
    way: str, items: Mapping[str, bytes], anchors: tuple[bytes, ...], at: datetime
) -> Trusted:
    if way == AK_PUBLIC:
        public = Public.from_bytes(items[AK_PUBLIC])
        public.check_attestation()
        return Trusted(key=public.key, way=AK_PUBLIC, attributes_checked=True)
    if way == ATTESTATION_KEY:
        return Trusted(key=_enrolled(items[ATTESTATION_KEY]), way=ATTESTATION_KEY)
    return _certified(items, anchors, at)


def _enrolled(der: bytes) -> PublicKey:
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise DecodeError(0, f"not a public key: {exc}", what=ATTESTATION_KEY) from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA:
        raise DecodeError(0, "neither EC nor RSA of 2048 bits or more", what=ATTESTATION_KEY)
    return key


def _certified(items: Mapping[str, bytes], anchors: tuple[bytes, ...], at: datetime) -> Trusted:
    if not anchors:
        raise UndecidedError("the endorsements name no root to trust")
    if CRL not in items and UNSAFE_NO_CRL not in items:
        raise UndecidedError(f"the endorsements lack {CRL}")
    chain = [read_certificate(items[AK_CERTIFICATE], AK_CERTIFICATE)]
    if AK_ISSUER in items:
        chain.append(read_certificate(items[AK_ISSUER], AK_ISSUER))
    roots = [read_certificate(der, "anchor") for der in anchors]
    root = next((item for item in roots if item.subject == chain[-1].issuer), None)
    if root is None:
        raise UntrustedError(f"the issuer of {chain[-1].name!r} is not among the anchors")
    chain.append(root)
    for cert, issuer in zip(chain, [*chain[1:], root], strict=True):
        check_issued(cert, issuer, *_ALGORITHMS)
        cert.window.check(at)
    check_path_lengths(chain)
    _check_role(chain[0])
    if CRL in items:
        listed = read_crl(items[CRL], CRL)
        check_crl(listed, chain[1], CRL, *_ALGORITHMS)
        listed.window.check(at)
        check_not_revoked(chain[0], listed)
    return Trusted(
        key=chain[0].key,
        way=AK_CERTIFICATE,
        root_name=root.name,
        emulated=root_names.is_emulated(root.name),
        revocation_checked=CRL in items,
    )


def _check_role(leaf: Certificate) -> None:
    if leaf.is_ca or not leaf.may_sign_data:
        raise UntrustedError(f"certificate {leaf.name!r} is a CA or may not sign data")
    if AIK_USAGE not in leaf.usages:
        raise UntrustedError(f"certificate {leaf.name!r} is not of an attestation key")
