"""Azure's HCL report: a hardware report that binds the attestation key of a virtual TPM.

    offset size
    0      4     "HCLA"                1216   4    size of what follows: 20 + runtime data
    4      4     version: 1 or 2       1220   4    version: 1
    8      4     size                  1224   4    report type: 2 SNP, 4 TDX
    12     4     request type: 2       1228   4    hash of the runtime data: 1 SHA-256
    16     4     status: 0             1232   4    size of the runtime data
    20     12    reserved              1236        runtime data, JSON; then zeros
    32     1184  hardware report: SNP's report, or TDX's TDREPORT and zeros

Integers are little-endian. The first 32 bytes of the hardware report's REPORT_DATA are the SHA-256
of the runtime data, over its bytes as they are. It has the attestation key as a JWK, "HCLAkPub".

Verifying takes three steps, the first of which is another TEE's: verify the hardware evidence (for
TDX the quote, made from the TDREPORT); :meth:`HclReport.bound_key` with the REPORT_DATA that it
proved; verify the TPM's quote with that key as ``attestation_key``.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.errors import DecodeError, UntrustedError
from broch.wire import base64url, strict_json

MAX_SIZE: Final = 16 * 1024  # bytes
HARDWARE_SIZE: Final = 1184
SNP: Final = 2
TDX: Final = 4
AK: Final = "HCLAkPub"
_HEADER: Final = struct.Struct("<4sIIII12s")
_RUNTIME: Final = struct.Struct("<IIIII")
_SHA256: Final = 1
_START: Final = _HEADER.size + HARDWARE_SIZE + _RUNTIME.size
_W: Final = "HCL report"


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """An HCL report taken apart. Nothing in it has been verified."""

    version: int
    size: int
    reserved: bytes = field(repr=False)
    hardware: bytes = field(repr=False)  # 1184
    report_type: int  # SNP or TDX
    runtime_data: bytes = field(repr=False)  # JSON, as it came
    padding: int  # zero bytes after the end

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one report. Zeros may follow, as it is read from NV memory.

        Raises:
            DecodeError: not one.
        """
        if len(data) > MAX_SIZE:
            raise DecodeError(MAX_SIZE, f"longer than {MAX_SIZE} bytes", what=_W)
        if len(data) < _START:
            raise DecodeError(len(data), f"ends before offset {_START}", what=_W)
        magic, version, size, request, status, reserved = _HEADER.unpack_from(data)
        if magic != b"HCLA":
            raise DecodeError(0, f"bad magic {magic!r}", what=_W)
        if version not in (1, 2) or request != 2 or status != 0:
            raise DecodeError(4, f"version {version}, request {request}, status {status}", what=_W)
        place = _HEADER.size + HARDWARE_SIZE
        whole, inner, kind, digest, length = _RUNTIME.unpack_from(data, place)
        if inner != 1 or kind not in (SNP, TDX) or digest != _SHA256:
            problem = f"runtime data of version {inner}, type {kind}, hash {digest}"
            raise DecodeError(place, problem, what=_W)
        end = _START + length
        if whole != length + _RUNTIME.size or end > len(data):
            raise DecodeError(place, f"runtime data of {length} in {whole} bytes", what=_W)
        if any(data[end:]):
            raise DecodeError(end, "bytes after the runtime data that are not zero", what=_W)
        return cls(
            version=version,
            size=size,
            reserved=reserved,
            hardware=data[_HEADER.size : place],
            report_type=kind,
            runtime_data=data[_START:end],
            padding=len(data) - end,
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        length = len(self.runtime_data)
        return b"".join(
            (
                _HEADER.pack(b"HCLA", self.version, self.size, 2, 0, self.reserved),
                self.hardware,
                _RUNTIME.pack(length + _RUNTIME.size, 1, self.report_type, _SHA256, length),
                self.runtime_data,
                bytes(self.padding),
            )
        )

    def bound_key(self, report_data: bytes) -> bytes:
        """The attestation key (SubjectPublicKeyInfo) that verified hardware evidence binds.

        Args:
            report_data: REPORT_DATA of the hardware evidence, after it was verified.

        Raises:
            DecodeError: the runtime data has no such key.
            UntrustedError: it is not the runtime data that the hardware vouches for.
        """
        digest = hashlib.sha256(self.runtime_data).digest()
        if not hmac.compare_digest(report_data, digest.ljust(64, b"\0")):
            raise UntrustedError("the hardware report does not bind this runtime data")
        document = strict_json.document(self.runtime_data, _W)
        keys = [item for item in strict_json.objects(document, "keys", _W) if item.get("kid") == AK]
        if len(keys) != 1:
            raise DecodeError(0, f"{len(keys)} keys {AK}, expected 1", what=_W)
        return _jwk(dict(keys[0]))


def _jwk(key: dict[str, Any]) -> bytes:
    if key.get("kty") != "RSA" or key.get("key_ops") != ["sign"]:
        raise DecodeError(0, f"{AK} is not an RSA key to sign with", what=_W)
    modulus, exponent = (_number(key, name) for name in ("n", "e"))
    if not 2048 <= modulus.bit_length() <= 4096:
        raise DecodeError(0, f"{AK} has {modulus.bit_length()} bits", what=_W)
    try:
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as exc:
        raise DecodeError(0, f"{AK} is not an RSA key: {exc}", what=_W) from None
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _number(key: dict[str, Any], name: str) -> int:
    value = strict_json.text(key, name, _W)
    if len(value) > 1024:
        raise DecodeError(0, f"{name} of {AK} is too long", what=_W)
    return int.from_bytes(base64url.decode(value, what=f"{_W}: {name} of {AK}"), "big")
