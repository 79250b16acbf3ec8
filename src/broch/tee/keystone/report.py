"""Keystone's attestation report (``struct report``, sm/src/sm.h), in its three forms.

    offset  size  field
    0x000   64    enclave.hash
    0x040   8     enclave.data_len   LE64, at most 1024
    0x048   1024  enclave.data       bytes past data_len say nothing and are not signed
    0x448   64    enclave.signature  SM key, over enclave.hash || data_len || data[:data_len]
    0x488   64    sm.hash
    0x4c8   32    sm.public_key
    0x4e8   64    sm.signature       device key, over sm.hash || sm.public_key
    0x528   32    dev_public_key     a hint: a verifier must know the key by other means
    0x548   (1352 bytes)

Compressed, the data ends at data_len: 328 + data_len bytes. As JSON, it is what Keystone's verifier
library prints (``Report::stringfy``).

The firmware copies a report from an uncleared stack, so past data_len a genuine report holds
whatever was there. Broch writes zeros; :meth:`Report.from_bytes` insists on them, and only
:meth:`Report.from_device` lets such bytes go by, dropping them.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any, Final, Self

from broch.errors import DecodeError
from broch.wire import strict_json

SIZE: Final = 1352  # bytes
MAX_DATA: Final = 1024  # bytes
COMPRESSED_OVERHEAD: Final = 328  # bytes of a compressed report besides its data

_HEAD: Final = struct.Struct("<64sQ")
_TAIL: Final = struct.Struct("<64s64s32s64s32s")
_JSON_START: Final = b'{"device_pubkey"'
_MAX_JSON: Final = 8192  # bytes
_WHAT: Final = "Keystone report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A well-formed report. Nothing in it has been verified."""

    enclave_hash: bytes  # 64 bytes
    data: bytes  # 0 to 1024 bytes
    enclave_signature: bytes  # 64 bytes
    sm_hash: bytes  # 64 bytes
    sm_public_key: bytes  # 32 bytes
    sm_signature: bytes  # 64 bytes
    dev_public_key: bytes  # 32 bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly 1352 bytes whose padding is zero.

        Raises:
            DecodeError: a rule of the layout does not hold.
        """
        report = cls.from_device(data)
        padding = data[_HEAD.size + len(report.data) : _HEAD.size + MAX_DATA]
        if padding.strip(b"\0"):
            raise DecodeError(
                _HEAD.size + len(report.data), "the bytes after the data are not zero", what=_WHAT
            )
        return report

    @classmethod
    def from_device(cls, data: bytes) -> Self:
        """Decode exactly 1352 bytes, and drop what the firmware left in the padding.

        Raises:
            DecodeError: a rule of the layout does not hold.
        """
        if len(data) != SIZE:
            raise DecodeError(
                min(len(data), SIZE), f"expected {SIZE} bytes, got {len(data)}", what=_WHAT
            )
        used = _data_len(data)
        return cls._from_parts(data[: _HEAD.size + used], data[_HEAD.size + MAX_DATA :])

    @classmethod
    def from_compressed(cls, data: bytes) -> Self:
        """Decode the form without padding: exactly 328 + data_len bytes.

        Raises:
            DecodeError: a rule of the layout does not hold.
        """
        if len(data) < COMPRESSED_OVERHEAD:
            raise DecodeError(
                len(data), f"expected at least {COMPRESSED_OVERHEAD} bytes", what=_WHAT
            )
        used = _data_len(data)
        if len(data) != COMPRESSED_OVERHEAD + used:
            raise DecodeError(
                min(len(data), COMPRESSED_OVERHEAD + used),
                f"expected {COMPRESSED_OVERHEAD + used} bytes, got {len(data)}",
                what=_WHAT,
            )
        return cls._from_parts(data[: _HEAD.size + used], data[_HEAD.size + used :])

    @classmethod
    def _from_parts(cls, head: bytes, tail: bytes) -> Self:
        signature, sm_hash, sm_public_key, sm_signature, dev_public_key = _TAIL.unpack(tail)
        return cls(
            enclave_hash=head[:64],
            data=head[_HEAD.size :],
            enclave_signature=signature,
            sm_hash=sm_hash,
            sm_public_key=sm_public_key,
            sm_signature=sm_signature,
            dev_public_key=dev_public_key,
        )

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Decode the JSON form: these keys and no others, lower-case hexadecimal.

        Raises:
            DecodeError: not that.
        """
        top = _load_json(text)
        _expect_keys(top, "device_pubkey", "enclave", "security_monitor")
        enclave, monitor = top["enclave"], top["security_monitor"]
        _expect_keys(enclave, "data", "datalen", "hash", "signature")
        _expect_keys(monitor, "hash", "pubkey", "signature")
        data_len = enclave["datalen"]
        if type(data_len) is not int or not 0 <= data_len <= MAX_DATA:
            raise DecodeError(0, "datalen is not a number from 0 to 1024", what=_WHAT)
        return cls(
            enclave_hash=_unhex(enclave["hash"], 64),
            data=_unhex(enclave["data"], data_len),
            enclave_signature=_unhex(enclave["signature"], 64),
            sm_hash=_unhex(monitor["hash"], 64),
            sm_public_key=_unhex(monitor["pubkey"], 32),
            sm_signature=_unhex(monitor["signature"], 64),
            dev_public_key=_unhex(top["device_pubkey"], 32),
        )

    @classmethod
    def decode(cls, evidence: bytes) -> Self:
        """Decode a report in any of its forms.

        Raises:
            DecodeError: it is none of them.
        """
        # A hash cannot be told from text by chance: the prefix has 16 bytes.
        if evidence.startswith(_JSON_START):
            return cls.from_json(evidence)
        if len(evidence) == SIZE:
            return cls.from_device(evidence)
        return cls.from_compressed(evidence)

    def to_bytes(self) -> bytes:
        """Encode as 1352 bytes with zeros for padding."""
        return self.signed_by_sm() + bytes(MAX_DATA - len(self.data)) + self._tail()

    def to_compressed(self) -> bytes:
        """Encode without padding."""
        return self.signed_by_sm() + self._tail()

    def to_json(self) -> bytes:
        """Encode as the upstream verifier library prints it."""
        value = {
            "device_pubkey": self.dev_public_key.hex(),
            "enclave": {
                "data": self.data.hex(),
                "datalen": len(self.data),
                "hash": self.enclave_hash.hex(),
                "signature": self.enclave_signature.hex(),
            },
            "security_monitor": {
                "hash": self.sm_hash.hex(),
                "pubkey": self.sm_public_key.hex(),
                "signature": self.sm_signature.hex(),
            },
        }
        return json.dumps(value).encode("ascii")

    def signed_by_sm(self) -> bytes:
        """What ``enclave_signature`` signs: never the padding."""
        return message_of_sm(self.enclave_hash, self.data)

    def signed_by_device(self) -> bytes:
        """What ``sm_signature`` signs (96 bytes)."""
        return self.sm_hash + self.sm_public_key

    def _tail(self) -> bytes:
        return _TAIL.pack(
            self.enclave_signature,
            self.sm_hash,
            self.sm_public_key,
            self.sm_signature,
            self.dev_public_key,
        )


def message_of_sm(enclave_hash: bytes, data: bytes) -> bytes:
    """What the security monitor signs about an enclave: hash, length of the data, data."""
    return _HEAD.pack(enclave_hash, len(data)) + data


def _data_len(data: bytes) -> int:
    used: int = _HEAD.unpack_from(data)[1]
    # Upstream's checkSignaturesOnly does not bound this and reads out of bounds.
    if used > MAX_DATA:
        raise DecodeError(0x40, f"data_len {used} exceeds {MAX_DATA}", what=_WHAT)
    return used


def _load_json(text: bytes) -> Any:
    if len(text) > _MAX_JSON:
        raise DecodeError(_MAX_JSON, f"{len(text)} bytes of JSON; at most {_MAX_JSON}", what=_WHAT)
    if not text.isascii():
        raise DecodeError(0, "not JSON in ASCII", what=_WHAT)
    return strict_json.decode(text, what=_WHAT)


def _expect_keys(value: object, *keys: str) -> None:
    if not isinstance(value, dict) or value.keys() != set(keys):
        raise DecodeError(0, f"expected an object with the keys {', '.join(keys)}", what=_WHAT)


def _unhex(value: object, size: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size:
        raise DecodeError(0, f"expected {2 * size} hexadecimal digits", what=_WHAT)
    try:
        data = bytes.fromhex(value)
    except ValueError:
        data = b""
    if data.hex() != value:
        raise DecodeError(0, "not lower-case hexadecimal", what=_WHAT)
    return data
