"""TPMT_SIGNATURE (TPM 2.0, part 2, 11.3.4).

sigAlg 2: 0x14 RSASSA, 0x16 RSAPSS, 0x18 ECDSA;  hash 2;  then TPM2B, or TPM2B r and TPM2B s
"""

from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from broch.errors import UntrustedError
from broch.tee.tpm.public import PublicKey
from broch.tee.tpm.reader import SHA256, SHA384, SHA512, Reader, sized

RSASSA: Final = 0x0014
RSAPSS: Final = 0x0016
ECDSA: Final = 0x0018
_W: Final = "TPMT_SIGNATURE"
_HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    SHA256: hashes.SHA256(),
    SHA384: hashes.SHA384(),
    SHA512: hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature and its scheme."""

    scheme: int
    hash: int  # TPM_ALG_ID; SHA-1 is refused
    parts: tuple[bytes, ...]  # RSA: one; ECDSA: r, s

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one signature.

        Raises:
            DecodeError: not one, or of a scheme or hash that is not known.
        """
        reader = Reader(data, _W)
        scheme, digest = reader.number(2), reader.number(2)
        if scheme not in (RSASSA, RSAPSS, ECDSA):
            raise reader.fail(f"scheme 0x{scheme:04x} is not known")
        if digest not in _HASHES:
            raise reader.fail(f"hash 0x{digest:04x} is not known or not safe")
        parts = tuple(reader.sized(512) for _ in range(2 if scheme == ECDSA else 1))
        reader.end()
        return cls(scheme=scheme, hash=digest, parts=parts)

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        head = self.scheme.to_bytes(2, "big") + self.hash.to_bytes(2, "big")
        return head + b"".join(sized(part) for part in self.parts)

    def check(self, key: PublicKey, data: bytes, what: str) -> None:
        """``key`` signed ``data``.

        Raises:
            UntrustedError: it did not, or is not for this scheme.
        """
        digest = _HASHES[self.hash]
        try:
            if self.scheme == ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
                r, s = (int.from_bytes(part, "big") for part in self.parts)
                key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))
            elif self.scheme != ECDSA and isinstance(key, rsa.RSAPublicKey):
                scheme: padding.AsymmetricPadding = padding.PKCS1v15()
                if self.scheme == RSAPSS:
                    scheme = padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
                key.verify(self.parts[0], data, scheme, digest)
            else:
                raise InvalidSignature
        except InvalidSignature:
            raise UntrustedError(f"{what}: the signature does not hold") from None
