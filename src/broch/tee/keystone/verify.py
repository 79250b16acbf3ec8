"""Decide whether a Keystone report is authentic. No I/O, no clock.

Endorsement items:

    device_endorsement    a statement under one of the anchors (:mod:`.endorsement`), or
    enrolled_device_key   32 bytes, the key of a real device that the caller wrote down himself
    sm_hash               64 bytes, the hash of the security monitor that is believed to sign
                          truthfully; several of them one after the other where several are

The device key inside a report proves nothing and is only compared.
"""

from datetime import datetime
from typing import Final

from broch.crypto import ed25519_sha3
from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.keystone.keys import TEST_DEVICE_KEY
from broch.tee.keystone.measurement import HASH_SIZE
from broch.tee.keystone.report import Report
from broch.tee.steps import Steps

DEVICE_ENDORSEMENT: Final = "device_endorsement"
ENROLLED_DEVICE_KEY: Final = "enrolled_device_key"
SM_HASH: Final = "sm_hash"


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
    """Check a report against what the caller trusts.

    Raises:
        DecodeError: not a report, or not an endorsement.
        UndecidedError: an endorsement is missing.
        UntrustedError: a signature or an endorsement does not hold.
    """
    with Steps(at) as steps:
        # (1) Decode; data_len is bounded here.
        steps.current = "format"
        report = Report.decode(evidence)

        # (2) The published test key speaks for nobody, whoever endorses it.
        steps.current = "test_key"
        if report.dev_public_key == TEST_DEVICE_KEY:
            raise UntrustedError(
                "the device key is Keystone's published test key, whose secret is known to everyone"
            )

        # (3) The device key is one that the caller has reason to believe in.
        steps.current = "device"
        device, emulated = _check_device_key(report.dev_public_key, endorsements, at)

        # (4) The device vouches for the security monitor and its key.
        steps.current = "sm_signature"
        vouched = (report.sm_signature, report.signed_by_device(), report.dev_public_key)
        endorsements.cache.get(("keystone SM", *vouched), lambda: ed25519_sha3.verify(*vouched))

        # (5) That security monitor is a known one: any other would sign what its author likes.
        steps.current = "sm_hash"
        _check_sm_hash(report.sm_hash, endorsements)

        # (6) The security monitor vouches for the enclave and its data.
        steps.current = "signature"
        ed25519_sha3.verify(report.enclave_signature, report.signed_by_sm(), report.sm_public_key)

    return Claims(
        tee="keystone",
        measurement=report.enclave_hash,
        signer=None,
        report_data=report.data,
        debug=False,
        emulated=emulated,
        details={
            "device": device,
            "device_public_key": report.dev_public_key.hex(),
            "sm_hash": report.sm_hash.hex(),
        },
    )


def _check_device_key(key: bytes, endorsements: Endorsements, at: datetime) -> tuple[str, bool]:
    """The device's name and whether it is emulated. A statement, where given, is what counts."""
    statement = endorsements.items.get(DEVICE_ENDORSEMENT)
    enrolled = endorsements.items.get(ENROLLED_DEVICE_KEY)
    if statement is not None:
        from broch.tee.keystone.endorsement import check_endorsement

        anchors = tuple(endorsements.anchors)
        endorsed = endorsements.cache.get(
            ("keystone device", statement, anchors), lambda: check_endorsement(statement, anchors)
        )
        endorsed.check_time(at)
        if key != endorsed.statement.key:
            raise UntrustedError("the report's device key is not the endorsed one")
        return endorsed.statement.device, endorsed.emulated
    if enrolled is not None:
        if len(enrolled) != ed25519_sha3.PUBLIC_SIZE:
            raise DecodeError(
                0,
                f"{len(enrolled)} bytes, expected {ed25519_sha3.PUBLIC_SIZE}",
                what=ENROLLED_DEVICE_KEY,
            )
        if key != enrolled:
            raise UntrustedError("the report's device key is not the enrolled one")
        return "enrolled", False
    raise UndecidedError(
        f"no endorsement of the device key: neither {DEVICE_ENDORSEMENT} nor {ENROLLED_DEVICE_KEY}"
    )


def _check_sm_hash(found: bytes, endorsements: Endorsements) -> None:
    known = endorsements.items.get(SM_HASH)
    if known is None:
        raise UndecidedError(f"no endorsement of the security monitor: {SM_HASH}")
    if not known or len(known) % HASH_SIZE:
        raise DecodeError(
            len(known), f"{len(known)} bytes, not a multiple of {HASH_SIZE}", what=SM_HASH
        )
    if found not in {known[i : i + HASH_SIZE] for i in range(0, len(known), HASH_SIZE)}:
        raise UntrustedError(f"security monitor {found.hex()[:16]}… is not a known one")
