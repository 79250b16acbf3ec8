"""DCAP quotes with ECDSA-P256: what versions 3 (SGX), 4 and 5 (SGX and TDX) share.

Sources: Intel's "SGX ECDSA QuoteGenReference", appendix A.4 (v3), and its TDX counterpart (v4, v5).

    0    48  header          version 2, att_key_type 2, tee_type 4, qe_svn 2, pce_svn 2,
                             qe_vendor_id 16, user_data 20
    48   n   body            what is attested: an SGX REPORT body or a TD report, see the TEE
             signature data  length 4, then
                 64  ECDSA signature (r, s big-endian) of header and body by the attestation key
                 64  attestation key (x, y big-endian)
                 certification data; versions 4 and 5 wrap it once more: type 2 = 6, size 4
                     384  QE report       64  its signature by the PCK key
                     2    size, n         QE authentication data
                     2    type, 4 size, n certification data: type 5 is the PCK chain as PEM
             padding         zeros only (configfs and cloud agents pad); anything else is refused

Integers are little-endian.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

from broch.errors import DecodeError
from broch.tee.dcap.report import BODY_SIZE

HEADER_SIZE: Final = 48
SIGNATURE_SIZE: Final = 64
KEY_SIZE: Final = 64
ECDSA_P256: Final = 2  # att_key_type
TEE_SGX: Final = 0x00
TEE_TDX: Final = 0x81
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERT_PCK_CHAIN: Final = 5
CERT_QE_REPORT: Final = 6
MAX_QUOTE: Final = 64 * 1024  # bytes; genuine ones have 4 to 8 KiB
_HEADER: Final = struct.Struct("<HHIHH16s20s")
_TYPED: Final = struct.Struct("<HI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first 48 bytes."""

    version: int
    att_key_type: int
    tee_type: int
    qe_svn: int  # versions 4 and 5: reserved
    pce_svn: int  # versions 4 and 5: reserved
    qe_vendor_id: bytes  # 16
    user_data: bytes  # 20

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 48 bytes.

        Raises:
            DecodeError: another length.
        """
        if len(data) != HEADER_SIZE:
            raise DecodeError(len(data), f"expected {HEADER_SIZE} bytes", what="quote header")
        return cls(**dict(zip(cls.__slots__, _HEADER.unpack(data), strict=True)))

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        return _HEADER.pack(*(getattr(self, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, kw_only=True)
class Certification:
    """Why to believe the attestation key: a report of the QE, signed by the platform's PCK key."""

    qe_report: bytes  # 384, a report body
    qe_report_signature: bytes  # 64
    qe_auth_data: bytes  # at most 65535
    cert_type: int
    cert_data: bytes

    @classmethod
    def read(cls, data: bytes, offset: int) -> tuple[Self, int]:
        """Decode from ``offset``; returns the rest's offset too.

        Raises:
            DecodeError: a length that goes beyond ``data``.
        """
        report, offset = _take(data, offset, BODY_SIZE, "QE report")
        signature, offset = _take(data, offset, SIGNATURE_SIZE, "QE report signature")
        size, offset = _take(data, offset, 2, "size of QE authentication data")
        auth, offset = _take(data, offset, int.from_bytes(size, "little"), "QE auth data")
        typed, offset = _take(data, offset, _TYPED.size, "certification data header")
        cert_type, cert_size = _TYPED.unpack(typed)
        cert_data, offset = _take(data, offset, cert_size, "certification data")
        certification = cls(
            qe_report=report,
            qe_report_signature=signature,
            qe_auth_data=auth,
            cert_type=cert_type,
            cert_data=cert_data,
        )
        return certification, offset

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`read`."""
        return b"".join(
            (
                self.qe_report,
                self.qe_report_signature,
                len(self.qe_auth_data).to_bytes(2, "little"),
                self.qe_auth_data,
                _TYPED.pack(self.cert_type, len(self.cert_data)),
                self.cert_data,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A quote taken apart. Nothing in it has been verified."""

    header: Header
    body: bytes  # with the body descriptor, in version 5
    signature: bytes  # 64
    attestation_key: bytes  # 64
    certification: Certification
    wrapped: bool  # certification data inside type 6: versions 4 and 5
    padding: int = 0  # zero bytes after the end

    @classmethod
    def from_bytes(cls, data: bytes, *, body_size: int, wrapped: bool) -> Self:
        """Decode one quote whose body has ``body_size`` bytes.

        Raises:
            DecodeError: not one quote, or bytes after it that are not zero.
        """
        if len(data) > MAX_QUOTE:
            raise DecodeError(MAX_QUOTE, f"longer than {MAX_QUOTE} bytes", what="quote")
        head, offset = _take(data, 0, HEADER_SIZE, "header")
        body, offset = _take(data, offset, body_size, "body")
        size, offset = _take(data, offset, 4, "signature length")
        start = offset
        _, end = _take(data, offset, int.from_bytes(size, "little"), "signature data")
        if any(data[end:]):
            raise DecodeError(end, "bytes after the quote that are not zero", what="quote")
        inner = data[:end]
        signature, offset = _take(inner, start, SIGNATURE_SIZE, "signature")
        key, offset = _take(inner, offset, KEY_SIZE, "attestation key")
        if wrapped:
            offset = _unwrap(inner, offset)
        certification, offset = Certification.read(inner, offset)
        if offset != end:
            raise DecodeError(offset, f"{end - offset} bytes too many", what="quote")
        return cls(
            header=Header.from_bytes(head),
            body=body,
            signature=signature,
            attestation_key=key,
            certification=certification,
            wrapped=wrapped,
            padding=len(data) - end,
        )

    def signed_bytes(self) -> bytes:
        """Header and body: what the attestation key signs."""
        return self.header.to_bytes() + self.body

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        certification = self.certification.to_bytes()
        if self.wrapped:
            certification = _TYPED.pack(CERT_QE_REPORT, len(certification)) + certification
        signature = self.signature + self.attestation_key + certification
        size = len(signature).to_bytes(4, "little")
        return self.signed_bytes() + size + signature + bytes(self.padding)


def _unwrap(data: bytes, offset: int) -> int:
    typed, offset = _take(data, offset, _TYPED.size, "certification data header")
    kind, size = _TYPED.unpack(typed)
    if kind != CERT_QE_REPORT:
        raise DecodeError(offset, f"certification data of type {kind}, expected 6", what="quote")
    if size != len(data) - offset:
        raise DecodeError(offset, f"certification data of {size} bytes", what="quote")
    return offset


def _take(data: bytes, offset: int, size: int, what: str) -> tuple[bytes, int]:
    end = offset + size
    if end > len(data):
        raise DecodeError(len(data), f"ends inside the {what} ({size} bytes)", what="quote")
    return data[offset:end], end
