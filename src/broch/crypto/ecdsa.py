"""ECDSA verification by keys that come back: P-256 with SHA-256, P-384 with SHA-384.

A verifier of attestation evidence checks thousands of signatures with few keys. ``cryptography``
brings an OpenSSL without fast arithmetic for P-384: about a millisecond a signature, more than all
other work on an SNP report together. AWS-LC, in the package ``awscrt`` (extra ``fast``), takes a
quarter of that. Loading it takes as long as a hundred signatures, so it is loaded only once a
process has verified more than that, and only where it is installed.

Both libraries decide the same thing (FIPS 186-5, section 6.4.2): numbers that are out of range are
refused here, before either is asked, and both get the signature in the one DER form. Every key goes
through ``cryptography`` first, which refuses what is no point of its curve.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from broch.errors import UntrustedError

LOAD_AFTER: Final = 128  # signatures in one process


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    curve: type[ec.EllipticCurve]
    order: int
    hash: Callable[[], HashAlgorithm]
    hash_name: str


class Curve(Enum):
    """A curve, and the hash that goes with it."""

    P256 = _Parameters(
        curve=ec.SECP256R1,
        order=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        hash=SHA256,
        hash_name="sha256",
    )
    P384 = _Parameters(
        curve=ec.SECP384R1,
        order=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        hash=SHA384,
        hash_name="sha384",
    )


class VerifyingKey:
    """A public key that verifies; equal to another of the same bytes, and it can be pickled."""

    __slots__ = ("_algorithm", "_fast", "_key", "_order", "curve", "spki")

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        """Raises ValueError if the key is on neither curve."""
        curve = next((item for item in Curve if isinstance(key.curve, item.value.curve)), None)
        if curve is None:
            raise ValueError(f"the key is on {key.curve.name}, expected P-256 or P-384")
        self.curve = curve
        self.spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._key = key
        self._order = curve.value.order
        self._algorithm = ec.ECDSA(curve.value.hash())
        self._fast: Any = None

    def verify(self, r: int, s: int, data: bytes, what: str) -> None:
        """Check that the holder of the key signed ``data``.

        Raises:
            UntrustedError: he did not; ``what`` says of what.
        """
        if not (0 < r < self._order and 0 < s < self._order) or not self._holds(
            encode_dss_signature(r, s), data
        ):
            raise UntrustedError(
                f"{what}: the signature does not hold",
                hint="it was changed on its way, or another key signed it: get it again",
            )

    def _holds(self, signature: bytes, data: bytes) -> bool:
        if self._fast is not None or self._prepare():
            digest = hashlib.new(self.curve.value.hash_name, data).digest()
            try:
                return self._fast.verify(digest, signature) is True
            except (RuntimeError, ValueError):  # whatever it cannot do, it has not verified
                return False
        try:
            self._key.verify(signature, data, self._algorithm)
        except InvalidSignature:
            return False
        return True

    def _prepare(self) -> bool:
        """Hand the key over to AWS-LC if this process has verified enough to make it pay."""
        global _verified
        _verified += 1
        if _verified <= LOAD_AFTER:
            return False
        load = _aws_lc()
        if load is None:
            return False
        try:
            self._fast = load(self.spki)
        except (RuntimeError, ValueError):  # a key that it does not take stays with OpenSSL
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyingKey) and other.spki == self.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    def __repr__(self) -> str:
        return f"VerifyingKey({self.curve.name}, {hashlib.sha256(self.spki).hexdigest()[:16]})"

    def __reduce__(self) -> tuple[Callable[[bytes], "VerifyingKey"], tuple[bytes]]:
        return _from_spki, (self.spki,)


_verified = 0


@cache
def _aws_lc() -> Callable[[bytes], Any] | None:
    """What makes a key of AWS-LC out of SubjectPublicKeyInfo; None where it is not installed."""
    try:
        from awscrt.crypto import EC
    except (ImportError, OSError):
        return None
    made: Callable[[bytes], Any] = EC.new_key_from_der_data
    return made


@cache
def is_fast_installed() -> bool:
    """Whether the extra ``fast`` is here; loads it."""
    return _aws_lc() is not None


def _from_spki(spki: bytes) -> VerifyingKey:
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not an EC key")
    return VerifyingKey(key)
