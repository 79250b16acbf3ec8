"""Derivations, against definitions written out here."""

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broch.crypto.ed25519_sha3 import KeyPair, verify
from broch.tee.keystone.keys import derive_sealing_key, derive_sm_key, hkdf_sha3_512

DEVICE = KeyPair.from_seed(b"d" * 32)
SM_HASH = hashlib.sha3_512(b"monitor").digest()


def test_the_sm_key_is_derived_as_documented() -> None:
    seed = hashlib.sha3_512(DEVICE.secret + SM_HASH).digest()[:32]
    assert derive_sm_key(DEVICE, SM_HASH) == KeyPair.from_seed(seed)


def test_the_sm_key_as_built_depends_on_two_bytes() -> None:
    built = derive_sm_key(DEVICE, SM_HASH, as_built=True)
    seed = hashlib.sha3_512(DEVICE.secret[:1] + SM_HASH[:1]).digest()[:32]
    assert built == KeyPair.from_seed(seed)
    assert built == derive_sm_key(DEVICE, SM_HASH[:1] + bytes(63), as_built=True)
    assert built != derive_sm_key(DEVICE, SM_HASH)


def test_hkdf_is_rfc_5869() -> None:
    for size in (1, 63, 64, 65, 128, 200):
        expected = HKDF(hashes.SHA3_512(), size, salt=None, info=b"info").derive(b"ikm")
        assert hkdf_sha3_512(b"ikm", b"info", size) == expected


def test_the_sealing_key_is_signed_by_the_sm() -> None:
    sm = derive_sm_key(DEVICE, SM_HASH)
    made = derive_sealing_key(sm, b"h" * 64, b"ident")
    assert made.key == hkdf_sha3_512(sm.secret, b"h" * 64 + b"ident", 128)
    verify(made.signature, made.key, sm.public)
    assert len(made.to_bytes()) == 192
    assert made.key.hex()[:16] not in repr(made)
