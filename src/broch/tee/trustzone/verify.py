"""Decide whether evidence of an OP-TEE attestation pseudo-TA is authentic. No I/O, no clock.

Endorsement items, one of:

    attestation_key_certificate  DER, under one of the anchors (:mod:`.endorsement`)
    enrolled_attestation_key     SubjectPublicKeyInfo in DER, the key of a real device that the
                                 caller wrote down himself when he provisioned it
"""

from datetime import datetime
from typing import TYPE_CHECKING, Final

from broch.errors import UndecidedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.steps import Steps
from broch.tee.trustzone.attestation import Envelope

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

CERTIFICATE: Final = "attestation_key_certificate"
ENROLLED: Final = "enrolled_attestation_key"


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
    """Check a TA's statement about its memory against what the caller trusts.

    Raises:
        DecodeError: not such a statement, or not an endorsement.
        UndecidedError: an endorsement is missing.
        UntrustedError: a signature or an endorsement does not hold.
    """
    with Steps(at) as steps:
        # (1) Decode; only HASH_TA_MEMORY with a nonce of 64 bytes gets past here.
        steps.current = "format"
        envelope = Envelope.from_bytes(evidence)

        # (2) The attestation key is one that the caller has reason to believe in.
        steps.current = "key"
        key, device, emulated = _check_key(endorsements, at)

        # (3) It signed this nonce together with this memory hash.
        steps.current = "signature"
        envelope.verify(key)

    return Claims(
        tee="trustzone",
        measurement=envelope.memory_hash,
        signer=None,
        report_data=envelope.nonce,
        debug=False,
        emulated=emulated,
        details={
            "device": device,
            "uuid": f"{envelope.uuid} (said by the sender; what is proved is the memory hash)",
        },
    )


def _check_key(endorsements: Endorsements, at: datetime) -> "tuple[RSAPublicKey, str, bool]":
    """Key, device's name, whether emulated. A certificate, where given, is what counts."""
    from broch.tee.trustzone.endorsement import check_certificate, check_enrolled

    certificate = endorsements.items.get(CERTIFICATE)
    enrolled = endorsements.items.get(ENROLLED)
    if certificate is not None:
        anchors = tuple(endorsements.anchors)
        endorsed = endorsements.cache.get(
            ("trustzone device", certificate, anchors),
            lambda: check_certificate(certificate, anchors),
        )
        endorsed.check_time(at)
        return endorsed.key, endorsed.device, endorsed.emulated
    if enrolled is not None:
        return check_enrolled(enrolled), "enrolled", False
    raise UndecidedError(
        f"no endorsement of the attestation key: neither {CERTIFICATE} nor {ENROLLED}"
    )
