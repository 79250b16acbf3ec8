"""Is this Nitro attestation document authentic? No I/O, no clock.

Nothing but the root is needed besides the document: it goes into the anchors (AWS's own is
:data:`.root.ROOT_G1`). A root is believed if it is an anchor *and* either pinned here or emulated.

Leaf certificates live for three hours, so ``at`` must be near the time at which the document was
made; for an archived one it is the time at which it was received, and not the time that the
document itself states. Source: AWS, attestation_process.md, "Validating".
"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from broch.errors import UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.contract import Claims, Endorsements
from broch.tee.nitro.document import Document
from broch.tee.nitro.root import ROOT_G1_SHA256
from broch.tee.steps import Steps
from broch.wire import cose
from broch.wire.x509 import (
    Algorithm,
    Certificate,
    Window,
    check_issued,
    check_path_lengths,
    read_certificate,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIGNER_PCR: Final = 8  # SHA-384 over the certificate that signed the image; zeros if none did


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroClaims(Claims):
    """Claims of a verified document, with what only Nitro has."""

    document: Document
    nonce: bytes | None
    public_key: bytes | None
    timestamp: datetime  # what the hypervisor's clock said


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A leaf certificate whose chain holds."""

    key: EllipticCurvePublicKey = field(repr=False)
    leaf: Window
    root_name: str
    emulated: bool
    windows: tuple[Window, ...] = field(repr=False)


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> NitroClaims:
    """Decide whether ``evidence`` is authentic ``at`` that time.

    Raises:
        DecodeError: not a document, or a certificate that cannot be read.
        UntrustedError: a certificate or the signature does not hold.
        UndecidedError: there is no anchor.
    """
    with Steps(at) as steps:
        # (1) Parse strictly, within the limits of every field.
        steps.current = "format"
        document = Document.from_bytes(evidence)
        # (2) The chain ends in the pinned root, whatever the document says the root is.
        steps.current = "chain"
        if not endorsements.anchors:
            raise UndecidedError(
                "the endorsements name no root to trust",
                hint="name AWS's root G1 as an anchor (broch.tee.nitro.root)",
            )
        ends = (document.certificate, document.cabundle, tuple(endorsements.anchors))
        trusted = endorsements.cache.get(("nitro chain", *ends), lambda: _chain(*ends))
        # (3) Every certificate is valid now; the time in the document decides nothing.
        steps.check_times(*trusted.windows)
        # (4) The signature of the leaf: ES384, whatever the header says. Now claims are believed.
        steps.current = "signature"
        cose.verify1(document.message, trusted.key, cose.Alg.ES384, "Nitro document")
        # (5) The hypervisor made the document while its certificate was valid.
        steps.current = "timestamp"
        timestamp = _EPOCH + timedelta(milliseconds=document.timestamp)
        if not trusted.leaf.begin <= timestamp < trusted.leaf.end:
            raise UntrustedError(
                f"the document is of {timestamp}, when its certificate was not valid"
            )
    # (6) An enclave in debug mode has zeros for its measurements: a claim, as is the rest.
    pcrs = document.pcrs
    signer = pcrs.get(_SIGNER_PCR, b"")
    return NitroClaims(
        tee="nitro",
        measurement=pcrs[0],
        signer=signer if any(signer) else None,
        report_data=document.user_data or b"",
        debug=not all(any(pcrs[index]) for index in range(3)),
        emulated=trusted.emulated,
        details={
            "module_id": document.module_id,
            "timestamp": timestamp.isoformat(),
            "root": trusted.root_name,
            "nonce": document.nonce.hex() if document.nonce is not None else "absent",
            **{f"pcr{index}": pcr.hex() for index, pcr in pcrs.items() if any(pcr)},
        },
        document=document,
        nonce=document.nonce,
        public_key=document.public_key,
        timestamp=timestamp,
    )


def _chain(leaf_der: bytes, cabundle: tuple[bytes, ...], anchors: tuple[bytes, ...]) -> Trusted:
    """What of step 2 does not depend on the time."""
    # The root comes from the anchors; the one in the document only says which.
    if cabundle[0] not in anchors:
        digest = hashlib.sha256(cabundle[0]).hexdigest()
        raise UntrustedError(f"the document's root ({digest}) is not among the anchors")
    root = read_certificate(cabundle[0], "root")
    digest_of_root = hashlib.sha256(root.der).digest()
    emulated = roots.is_emulated(root.name)
    if digest_of_root != ROOT_G1_SHA256 and not emulated:
        raise UntrustedError(
            f"root {root.name!r} ({digest_of_root.hex()}) is neither AWS's nor emulated"
        )
    below = [read_certificate(der, f"cabundle[{i}]") for i, der in enumerate(cabundle[1:], start=1)]
    leaf = read_certificate(leaf_der, "certificate")
    chain: list[Certificate] = [leaf, *reversed(below), root]
    for cert, issuer in zip(chain, [*chain[1:], root], strict=True):
        check_issued(cert, issuer, Algorithm.ECDSA_SHA384)
    check_path_lengths(chain)
    if len({cert.subject for cert in chain}) != len(chain):
        raise UntrustedError("a name comes twice in the chain")
    if leaf.is_ca or not leaf.may_sign_data:
        raise UntrustedError("the document's certificate is a CA or may not sign data")
    if not isinstance(leaf.key, EllipticCurvePublicKey):
        raise UntrustedError("the document's certificate has no EC key")
    return Trusted(
        key=leaf.key,
        leaf=leaf.window,
        root_name=root.name,
        emulated=emulated,
        windows=tuple(cert.window for cert in chain),
    )
