"""What endorsements are called, TEE by TEE, and in which form a verifier wants them.

The names are those that each ``tee/*/verify.py`` documents. A name that no verifier reads is
refused with the nearest one that is read: a file that is silently not used is a check not made.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

from broch.errors import DecodeError, UsageError
from broch.wire.toml_places import near
from broch.wire.x509 import to_der

MAX_ITEM: Final = 1024 * 1024  # bytes; AMD's and Intel's largest have less than 64 KiB
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PUBLIC_KEY: Final = re.compile(
    rb"-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]+-----END PUBLIC KEY-----\s*"
)


class Form(Enum):
    """How a verifier wants an item."""

    X509 = "certificate or revocation list, DER"
    KEY = "SubjectPublicKeyInfo, DER"
    BYTES = "as it is"
    SECRET = "as it is, and nobody else may read it"  # noqa: S105 (says what it is)


_DCAP: Final = {
    "root_ca_crl": Form.X509,
    "pck_crl": Form.X509,
    "tcb_info": Form.BYTES,
    "tcb_info_signature": Form.BYTES,
    "tcb_info_issuer_chain": Form.BYTES,
    "qe_identity": Form.BYTES,
    "qe_identity_signature": Form.BYTES,
    "qe_identity_issuer_chain": Form.BYTES,
}
ITEMS: Final[Mapping[str, Mapping[str, Form]]] = {
    "sgx": _DCAP,
    "tdx": _DCAP,
    "snp": {"vek": Form.X509, "ask": Form.X509, "crl": Form.X509},
    "nitro": {},
    "psa": {
        "implementation_id": Form.BYTES,
        "instance_id": Form.BYTES,
        "attestation_key": Form.KEY,
        "mac_key": Form.SECRET,
    },
    "cca": {
        "implementation_id": Form.BYTES,
        "instance_id": Form.BYTES,
        "platform_key": Form.KEY,
    },
    "tpm": {
        "ak_public": Form.BYTES,
        "attestation_key": Form.KEY,
        "ak_certificate": Form.X509,
        "ak_issuer": Form.X509,
        "crl": Form.X509,
        "certified_public": Form.BYTES,
        "certify_info": Form.BYTES,
        "certify_signature": Form.BYTES,
        "certify_challenge": Form.BYTES,
    },
    "keystone": {
        "device_endorsement": Form.BYTES,
        "enrolled_device_key": Form.BYTES,
        "sm_hash": Form.BYTES,
    },
    "trustzone": {
        "attestation_key_certificate": Form.X509,
        "enrolled_attestation_key": Form.KEY,
    },
    "sancus": {"vendor_key": Form.SECRET, "emulated_vendor_key": Form.SECRET},
}


def form(tee: str, name: str, place: str) -> Form:
    """In which form ``tee`` wants the item ``name``. A TEE of someone else's takes bytes.

    Raises:
        UsageError: that TEE reads no such item.
    """
    known = ITEMS.get(tee)
    if known is None:
        if _NAME.fullmatch(name) is None or name.startswith("unsafe"):
            raise UsageError(f"{name!r:.80} cannot be the name of an endorsement", place=place)
        return Form.BYTES
    found = known.get(name)
    if found is None:
        hint = near(name, known) or f"{tee} reads none"
        raise UsageError(f"{tee} reads no endorsement named {name!r:.80}", place=place, hint=hint)
    return found


def normal(form: Form, data: bytes, what: str) -> bytes:
    """An item in its verifier's form: PEM becomes DER where DER is wanted, all else stays.

    Raises:
        DecodeError: PEM that is not exactly one block, or too long.
    """
    if len(data) > MAX_ITEM:
        raise DecodeError(MAX_ITEM, f"longer than {MAX_ITEM} bytes", what=what)
    if form is Form.X509:
        return to_der(data, what)
    if form is Form.KEY and data.startswith(b"-----"):
        return _key_to_der(data, what)
    return data


def _key_to_der(data: bytes, what: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    if _PUBLIC_KEY.fullmatch(data) is None:
        raise DecodeError(0, "not one PEM public key", what=what)
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise DecodeError(0, f"public key cannot be read: {exc}", what=what) from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
