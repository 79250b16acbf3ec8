"""What OP-TEE's attestation pseudo-TA says (core/pta/attestation.c), and how it travels.

The command HASH_TA_MEMORY tells a TA the hash of its own memory, signed:

    output   hash (32) || RSASSA-PSS-SHA256 (salt 32) over nonce || hash, by the attestation key

The pseudo-TA serves that command to the TA that calls, about itself alone, so nobody can ask in
another's name. It signs no UUID and no command number, and takes a nonce of any length. Hence the
rules of the envelope that Broch puts around an output, a map in deterministic encoding (RFC 8949,
section 4.2.1):

    "broch-optee-attestation"  1
    "command"                  2, HASH_TA_MEMORY; nothing else is accepted
    "nonce"                    64 bytes, the report data: of one length, so that a signed message
                               can be split in one way only
    "output"                   32 bytes and the signature (256 to 512 bytes)
    "uuid"                     16 bytes, big-endian: what the sender says of himself. Unsigned: the
                               hash covers the UUID in the TA's head, and that is what counts

The outputs of other commands are no danger: they sign the hash of a TA file's header and body, or
of OP-TEE's own memory, which are never the hash of pages that begin with a TA's head or an image.

The attestation key is an object in secure storage that belongs to the pseudo-TA: e, d, n, each as
16-bit big-endian length and big-endian number.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broch.errors import DecodeError, InternalError, UntrustedError

PTA_UUID: Final = UUID("39800861-182a-4720-9b67-2bcd622bc0b5")
HASH_TA_MEMORY: Final = 2
NONCE_SIZE: Final = 64  # bytes
KEY_BITS: Final = 3072  # CFG_ATTESTATION_PTA_KEY_SIZE
_HASH: Final = 32  # bytes
_MAX_ENVELOPE: Final = 2048  # bytes
_MAX_G: Final = 1024
_FORMAT: Final = "broch-optee-attestation"
_KINDS: Final = {_FORMAT: int, "command": int, "nonce": bytes, "output": bytes, "uuid": bytes}
_WHAT: Final = "OP-TEE evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A well-formed statement of a TA about itself. Nothing in it has been verified."""

    uuid: UUID
    nonce: bytes  # 64 bytes
    memory_hash: bytes  # 32 bytes
    signature: bytes  # 256 to 512 bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one envelope in its one encoding.

        Raises:
            DecodeError: not an envelope, or of another command.
        """
        fields = _load(data)
        if fields[_FORMAT] != 1:
            raise DecodeError(0, f"format {fields[_FORMAT]}, expected 1", what=_WHAT)
        if fields["command"] != HASH_TA_MEMORY:
            raise DecodeError(
                0,
                f"command {fields['command']}: only {HASH_TA_MEMORY} (HASH_TA_MEMORY) is about "
                "the TA that asks",
                what=_WHAT,
            )
        for name, least, most in (("nonce", 64, 64), ("output", 288, 544), ("uuid", 16, 16)):
            if not least <= len(fields[name]) <= most:
                raise DecodeError(0, f"{name} has {len(fields[name])} bytes", what=_WHAT)
        envelope = cls(
            uuid=UUID(bytes=fields["uuid"]),
            nonce=fields["nonce"],
            memory_hash=fields["output"][:_HASH],
            signature=fields["output"][_HASH:],
        )
        if envelope.to_bytes() != data:
            raise DecodeError(0, "not the deterministic encoding", what=_WHAT)
        return envelope

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return cbor2.dumps(
            {
                _FORMAT: 1,
                "command": HASH_TA_MEMORY,
                "nonce": self.nonce,
                "output": self.memory_hash + self.signature,
                "uuid": self.uuid.bytes,
            },
            canonical=True,
        )

    def verify(self, key: rsa.RSAPublicKey) -> None:
        """Check the pseudo-TA's signature.

        Raises:
            UntrustedError: it does not hold.
        """
        try:
            key.verify(self.signature, self.nonce + self.memory_hash, _PSS, hashes.SHA256())
        except InvalidSignature:
            raise UntrustedError("the attestation key did not sign this nonce and hash") from None


def attest(key: rsa.RSAPrivateKey, uuid: UUID, memory_hash: bytes, nonce: bytes) -> Envelope:
    """What HASH_TA_MEMORY answers to the TA of that UUID and memory, in its envelope."""
    signature = key.sign(nonce + memory_hash, _PSS, hashes.SHA256())
    return Envelope(uuid=uuid, nonce=nonce, memory_hash=memory_hash, signature=signature)


def key_to_object(key: rsa.RSAPrivateKey) -> bytes:
    """The attestation key as the pseudo-TA stores it."""
    private = key.private_numbers()
    public = private.public_numbers
    numbers = (public.e, private.d, public.n)
    sizes = [(number.bit_length() + 7) // 8 for number in numbers]
    return b"".join(
        size.to_bytes(2, "big") + number.to_bytes(size, "big")
        for number, size in zip(numbers, sizes, strict=True)
    )


def key_from_object(data: bytes) -> rsa.RSAPrivateKey:
    """The inverse of :func:`key_to_object`, for what the device itself stored.

    Raises:
        InternalError: the device's memory is damaged.
    """
    numbers = []
    rest = data
    for _ in range(3):
        size = int.from_bytes(rest[:2], "big")
        numbers.append(int.from_bytes(rest[2 : 2 + size], "big"))
        rest = rest[2 + size :]
    e, d, n = numbers
    try:
        p, q = _factor(n, e, d)
        return rsa.RSAPrivateNumbers(
            p=p,
            q=q,
            d=d,
            dmp1=rsa.rsa_crt_dmp1(d, p),
            dmq1=rsa.rsa_crt_dmq1(d, q),
            iqmp=rsa.rsa_crt_iqmp(p, q),
            public_numbers=rsa.RSAPublicNumbers(e, n),
        ).private_key(
            # The object was authenticated, and the check costs half a second of every start.
            unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, ZeroDivisionError) as exc:
        raise InternalError(f"the stored attestation key is damaged: {exc}") from None


def _factor(n: int, e: int, d: int) -> tuple[int, int]:
    """The primes of n. With a small e there is a short way; the general one is slow in Python.

    g * (e * d - 1) = k * phi(n), where k is far smaller than phi(n), which is just below n. g is 1
    or a divisor of gcd(p - 1, q - 1), depending on who computed d; it is small but by rare chance.
    """
    for g in range(1, _MAX_G):
        phi, rest = divmod(g * (e * d - 1), g * (e * d - 1) // n + 1)
        if rest:
            continue
        total = n - phi + 1  # p + q, if the guess is right
        root = math.isqrt(max(total * total - 4 * n, 0))
        p, q = (total + root) // 2, (total - root) // 2
        if p * q == n:
            return p, q
    return rsa.rsa_recover_prime_factors(n, e, d)


_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


def _load(data: bytes) -> dict[str, Any]:
    if len(data) > _MAX_ENVELOPE:
        raise DecodeError(_MAX_ENVELOPE, f"{len(data)} bytes; at most {_MAX_ENVELOPE}", what=_WHAT)
    try:
        value = cbor2.loads(data, max_depth=4, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise DecodeError(0, f"not CBOR: {exc}", what=_WHAT) from None
    if not isinstance(value, dict) or value.keys() != _KINDS.keys():
        raise DecodeError(0, f"expected a map with the keys {', '.join(_KINDS)}", what=_WHAT)
    for name, kind in _KINDS.items():
        if type(value[name]) is not kind:
            raise DecodeError(0, f"{name} is a {type(value[name]).__name__}", what=_WHAT)
    return value
