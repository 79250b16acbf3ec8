"""Is this CCA token authentic? No I/O, no clock.

There is no certificate: who verifies has enrolled the platform. Endorsement items:

    implementation_id    32 bytes, the kind of platform that the key was enrolled for
    instance_id          33 bytes, the platform
    platform_key         SubjectPublicKeyInfo in DER of its attestation key (CPAK); its curve fixes
                         the algorithm

Source: RMM specification, section A7.2; draft-ffm-rats-cca-token. The order is what makes it sound:
the realm's key is believed because a platform that is believed has hashed it into its nonce.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broch.errors import UntrustedError
from broch.tee.cca.token import HASHES, Collection, Platform, Realm
from broch.tee.contract import Claims, Endorsements
from broch.tee.steps import Steps
from broch.wire import arm_claims, cose

IMPLEMENTATION_ID: Final = "implementation_id"
INSTANCE_ID: Final = "instance_id"
PLATFORM_KEY: Final = "platform_key"
_ENROL: Final = "enrol the platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class CcaClaims(Claims):
    """Claims of a verified token, with what only CCA has."""

    realm: Realm
    platform: Platform


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> CcaClaims:
    """Decide whether ``evidence`` is authentic.

    Raises:
        DecodeError: not a token, or an endorsement that cannot be read.
        UntrustedError: a signature, the binding, the device or the lifecycle do not hold.
        UndecidedError: an endorsement is missing.
    """
    with Steps(at) as steps:
        # (1) Parse both envelopes strictly.
        steps.current = "format"
        collection = Collection.from_bytes(evidence)
        # (2) The platform's signature, by the enrolled key and its algorithm.
        steps.current = "signature"
        key, alg = arm_claims.enrolled_key(endorsements.item(PLATFORM_KEY, _ENROL), PLATFORM_KEY)
        cose.verify1(collection.platform, key, alg, "CCA platform token")
        # (3) The platform's claims: enrolled kind and instance, in a state in which it can attest.
        steps.current = "device"
        platform = Platform.from_bytes(collection.platform.payload)
        for name, found in (
            (IMPLEMENTATION_ID, platform.implementation_id),
            (INSTANCE_ID, platform.instance_id),
        ):
            if not hmac.compare_digest(found, endorsements.item(name, _ENROL)):
                raise UntrustedError(f"the token's {name} is not the enrolled one")
        if not platform.lifecycle.attestable:
            raise UntrustedError(f"a platform in the state {platform.lifecycle.name} cannot attest")
        # (4) The platform vouches for the realm's key: over its bytes, before it is used.
        steps.current = "realm_key"
        realm = Realm.from_bytes(collection.realm.payload)
        digest = hashlib.new(HASHES[realm.key_hash_algorithm], realm.key).digest()
        if not hmac.compare_digest(platform.nonce, digest):
            raise UntrustedError("the platform's nonce does not bind the realm's key")
        # (5) The realm's signature: ES384, always. Only now are the realm's claims believed.
        steps.current = "realm_signature"
        cose.verify1(collection.realm, realm.public_key(), cose.Alg.ES384, "CCA realm token")
    return CcaClaims(
        tee="cca",
        measurement=realm.rim,
        signer=None,
        report_data=realm.challenge,
        debug=platform.lifecycle.debug,
        emulated=False,
        details={
            "platform_profile": platform.profile,
            "realm_profile": realm.profile or "",
            "lifecycle": platform.lifecycle.name,
            "implementation_id": platform.implementation_id.hex(),
            "instance_id": platform.instance_id.hex(),
            "configuration": platform.configuration.hex(),
            "personalization": realm.personalization.hex(),
            "hash_algorithm": realm.hash_algorithm,
            **{f"rem{index}": rem.hex() for index, rem in enumerate(realm.rems)},
            **{
                f"component_{index}": f"{item.type} {item.version} {item.measurement.hex()}"
                for index, item in enumerate(platform.components)
            },
        },
        realm=realm,
        platform=platform,
    )
