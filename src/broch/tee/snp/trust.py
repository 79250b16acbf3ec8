"""From a pinned root to a versioned endorsement key: ARK, ASK or ASVK, VCEK or VLEK, and the CRL.

    ARK-<product>                       self-signed, pinned by digest (:data:`.product.ARKS`)
      SEV-<product>, SEV-VLEK-<product> ASK issues VCEKs, ASVK issues VLEKs
        SEV-VCEK, SEV-VLEK              P-384; has no key usage and is not a CA

All are signed by RSASSA-PSS with SHA-384. The revocation list is the ARK's and lists ASKs and
ASVKs; it is required. AMD gives every VCEK the serial number 0, so none could be listed.

A root is believed if the caller names it as an anchor *and* it is either pinned for its product or
says in its own name that it is emulated.

What does not depend on the time is done once per content and kept in the caller's cache
(:mod:`broch.tee.cache`).
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.contract import Endorsements
from broch.tee.snp.product import ARKS, Product
from broch.tee.snp.report import SigningKey
from broch.tee.snp.vek import Vek
from broch.tee.steps import Steps
from broch.wire.x509 import (
    Algorithm,
    Certificate,
    Window,
    check_crl,
    check_issued,
    check_not_revoked,
    check_path_lengths,
    read_certificate,
    read_crl,
)

VEK: Final = "vek"
ASK: Final = "ask"
CRL: Final = "crl"
UNSAFE_NO_CRL: Final = "unsafe_no_crl"
_FETCH: Final = "fetch it from AMD's key distribution service"
_PSS: Final = Algorithm.RSA_PSS_SHA384
_INTERMEDIATES: Final = {SigningKey.VCEK: "SEV-{}", SigningKey.VLEK: "SEV-VLEK-{}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """An endorsement key whose certificates hold."""

    vek: Vek
    key: VerifyingKey = field(repr=False)
    root_name: str
    emulated: bool
    revocation_checked: bool
    windows: tuple[tuple[str, Window], ...] = field(repr=False)  # each after its step


def establish(endorsements: Endorsements, steps: Steps) -> Trusted:
    """Trust in the key whose certificates are among the endorsements.

    Raises:
        DecodeError: a certificate or list cannot be read.
        UntrustedError: unknown root, wrong role, bad signature, revoked, not valid at this time.
        UndecidedError: no anchor, or an item is missing.
    """
    steps.current = "chain"
    if not endorsements.anchors:
        raise UndecidedError(
            "the endorsements name no root to trust",
            hint="name AMD's ARK of the product line as an anchor",
        )
    vek, ask = (endorsements.item(name, _FETCH) for name in (VEK, ASK))
    crl = endorsements.items.get(CRL)
    ends = (vek, ask, crl, tuple(endorsements.anchors))
    trusted = endorsements.cache.get(("snp chain", *ends), lambda: _chain(*ends, steps))
    steps.check_again(trusted.windows)
    if crl is None:
        steps.current = "crl"
        if UNSAFE_NO_CRL not in endorsements.items:
            endorsements.item(CRL, _FETCH)  # which says that it is missing
        steps.skipped[CRL] = "no list was given"
    return trusted


def _chain(
    vek_der: bytes,
    ask_der: bytes,
    crl: bytes | None,
    anchors: tuple[bytes, ...],
    steps: Steps,
) -> Trusted:
    """Of the time depends only where this fails, and nothing of what it returns."""
    cert, ask = read_certificate(vek_der, VEK), read_certificate(ask_der, ASK)
    ark, pinned = _root(ask, anchors)
    vek = Vek.from_certificate(cert)
    if pinned is not None and pinned is not vek.product:
        raise UntrustedError(f"a key for {vek.product} under the root of {pinned}")
    # Each in its role: an ASVK issues no VCEKs, and neither issues for another product.
    role = _INTERMEDIATES[vek.kind].format(vek.product)
    if ask.name != role:
        raise UntrustedError(f"certificate {ask.name!r} is not {role!r}, which {cert.name!r} needs")
    check_issued(ark, ark, _PSS)
    check_issued(ask, ark, _PSS)
    check_issued(cert, ask, _PSS)
    check_path_lengths((cert, ask, ark))
    if cert.is_ca:
        raise UntrustedError(f"certificate {cert.name!r} is a CA")
    if not isinstance(cert.key, EllipticCurvePublicKey) or not isinstance(
        cert.key.curve, SECP384R1
    ):
        raise DecodeError(0, "the key is not on P-384", what=VEK)
    windows = steps.check_times(cert.window, ask.window, ark.window)
    if crl is not None:
        steps.current = "crl"
        listed = read_crl(crl, CRL)
        check_crl(listed, ark, CRL, _PSS)
        check_not_revoked(ask, listed)
        windows += steps.check_times(listed.window)
    return Trusted(
        vek=vek,
        key=VerifyingKey(cert.key),
        root_name=ark.name,
        emulated=pinned is None,
        revocation_checked=crl is not None,
        windows=tuple(windows),
    )


def _root(ask: Certificate, anchors: tuple[bytes, ...]) -> tuple[Certificate, Product | None]:
    """The anchor that ``ask`` names as its issuer, and the product that it is pinned for."""
    refused: list[str] = []
    for der in anchors:
        ark = read_certificate(der, "anchor")
        if ark.subject != ask.issuer:
            continue
        digest = hashlib.sha256(ark.der).digest()
        if digest in ARKS or roots.is_emulated(ark.name):
            return ark, ARKS.get(digest)
        refused.append(digest.hex())
    if refused:
        raise UntrustedError(f"root {', '.join(refused)} is neither AMD's nor emulated")
    raise UntrustedError(f"the root of {ask.name!r} is not among the anchors")
