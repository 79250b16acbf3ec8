"""Is this PSA token authentic? No I/O, no clock.

There is no certificate: who verifies has enrolled the device. Endorsement items:

    implementation_id    32 bytes, the kind of device that the key was enrolled for
    attestation_key      SubjectPublicKeyInfo in DER: for COSE_Sign1; its curve fixes the algorithm
    mac_key              16 bytes or more: for COSE_Mac0, where the verifier holds the device's key
    instance_id          33 bytes, optional: the device; without it the instance id must be
                         0x01 || SHA-256(public key), as TF-M makes it

Source: RFC 9783, sections 4 and 6.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.errors import DecodeError, UntrustedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.psa.token import MAX_SIZE, Token
from broch.tee.steps import Steps
from broch.wire import arm_claims, cose
from broch.wire.cose import MAC0_TAG, SIGN1_TAG, Message, Tagging

IMPLEMENTATION_ID: Final = "implementation_id"
INSTANCE_ID: Final = "instance_id"
ATTESTATION_KEY: Final = "attestation_key"
MAC_KEY: Final = "mac_key"
_ENROL: Final = "enrol the device"
_W: Final = "PSA token"
_MAC0_HEAD: Final = 0xC0 | MAC0_TAG


@dataclass(frozen=True, slots=True, kw_only=True)
class PsaClaims(Claims):
    """Claims of a verified token, with what only PSA has.

    ``measurement`` is the SHA-256 of the software components as they were encoded: to compare
    firmware piece by piece, use ``token.components``.
    """

    token: Token
    symmetric: bool  # a MAC: whoever can verify can also make such evidence


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> PsaClaims:
    """Decide whether ``evidence`` is authentic.

    Raises:
        DecodeError: not a token, or an endorsement that cannot be read.
        UntrustedError: signature, device or lifecycle do not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse the envelope strictly; which one it is decides only which key is asked for.
        steps.current = "format"
        if len(evidence) > MAX_SIZE:
            raise DecodeError(MAX_SIZE, f"longer than {MAX_SIZE} bytes", what=_W)
        symmetric = evidence[:1] == bytes((_MAC0_HEAD,))
        tag = MAC0_TAG if symmetric else SIGN1_TAG
        message = Message.from_bytes(evidence, tag=tag, tagging=Tagging.TAGGED, what=_W)
        # (2) The signature, by the enrolled key and its algorithm. Only then are claims read.
        steps.current = "signature"
        instance = _check_key(message, endorsements, symmetric=symmetric)
        # (3) The claims, exactly those of the profile.
        steps.current = "claims"
        token = Token.from_bytes(message.payload)
        # (4) The key is the one of this kind of device, and of this device.
        steps.current = "device"
        implementation = endorsements.item(IMPLEMENTATION_ID, _ENROL)
        if not hmac.compare_digest(token.implementation_id, implementation):
            raise UntrustedError("the token's implementation id is not the enrolled one")
        if not hmac.compare_digest(token.instance_id, instance):
            raise UntrustedError("the token's instance id is not that of the enrolled key")
        # (5) In other states the key may be anybody's (section 4.3.1).
        steps.current = "lifecycle"
        if not token.lifecycle.attestable:
            raise UntrustedError(f"a platform in the state {token.lifecycle.name} cannot attest")
    return PsaClaims(
        tee="psa",
        measurement=hashlib.sha256(token.components_raw).digest(),
        signer=None,
        report_data=token.nonce,
        debug=token.lifecycle.debug,
        emulated=False,
        details={
            "profile": token.profile,
            "lifecycle": token.lifecycle.name,
            "implementation_id": token.implementation_id.hex(),
            "instance_id": token.instance_id.hex(),
            "client_id": str(token.client_id),
            "caller": "non-secure" if token.client_id < 0 else "secure",
            "certification": token.certification or "",
            "authentication": "MAC" if symmetric else "signature",
            **{
                f"component_{index}": f"{item.type} {item.version} {item.measurement.hex()}"
                for index, item in enumerate(token.components)
            },
        },
        token=token,
        symmetric=symmetric,
    )


def _check_key(message: Message, endorsements: Endorsements, *, symmetric: bool) -> bytes:
    """Check the signature; return the instance id that goes with the key."""
    if symmetric:
        cose.verify_mac0(message, endorsements.item(MAC_KEY, _ENROL), _W)
        return endorsements.item(INSTANCE_ID, _ENROL)
    key, alg = arm_claims.enrolled_key(endorsements.item(ATTESTATION_KEY, _ENROL), ATTESTATION_KEY)
    cose.verify1(message, key, alg, _W)
    enrolled = endorsements.items.get(INSTANCE_ID)
    if enrolled is not None:
        return bytes(enrolled)
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return b"\x01" + hashlib.sha256(point).digest()
