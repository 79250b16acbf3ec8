"""The signed TA file, rule by rule."""

import hashlib
import struct
from dataclasses import replace
from typing import Final
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from broch.errors import DecodeError, UntrustedError
from broch.tee.trustzone.ta_file import Algorithm, ImageType, TaFile

from .conftest import signing_key

TA: Final = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51b")


@pytest.fixture(scope="module")
def signed() -> TaFile:
    return TaFile.sign(b"program", TA, 7, signing_key())


@pytest.fixture(scope="module")
def legacy() -> bytes:
    """A TA of the old kind, put together by hand: no UUID, no version."""
    head = struct.pack("<IIIIHH", 0x4F545348, 0, 7, 0x70004830, 32, 256)
    digest = hashlib.sha256(head + b"program").digest()
    signature = signing_key().sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    return head + digest + signature + b"program"


def test_fields_are_where_the_header_file_says(signed: TaFile) -> None:
    data = signed.to_bytes()
    assert data[:4] == b"HSTO"
    assert struct.unpack_from("<IIIIHH", data) == (0x4F545348, 1, 7, 0x70414930, 32, 256)
    uuid_and_version = bytes.fromhex("8aaaf200245011e4abe20002a5d5c51b") + struct.pack("<I", 7)
    assert data[308:] == uuid_and_version + b"program"
    assert data[20:52] == hashlib.sha256(data[:20] + uuid_and_version + b"program").digest()
    signing_key().public_key().verify(
        data[52:308],
        data[20:52],
        padding.PSS(padding.MGF1(hashes.SHA256()), 32),
        Prehashed(hashes.SHA256()),
    )


def test_round_trip(signed: TaFile) -> None:
    again = TaFile.from_bytes(signed.to_bytes())
    assert again == signed
    again.verify(signing_key().public_key())


def test_pkcs1_v1_5_is_read_when_the_header_says_so() -> None:
    file = TaFile.sign(b"program", TA, 0, signing_key(), Algorithm.PKCS1_V1_5_SHA256)
    TaFile.from_bytes(file.to_bytes()).verify(signing_key().public_key())


def test_the_algorithm_in_the_header_is_the_one_that_counts(signed: TaFile) -> None:
    """A PSS signature under a header that says PKCS#1 v1.5, hash adjusted: refused."""
    other = replace(signed, algo=Algorithm.PKCS1_V1_5_SHA256)
    digest = hashlib.sha256(other._shdr() + other._extra() + other.program).digest()
    with pytest.raises(UntrustedError, match="not signed"):
        replace(other, hash=digest).verify(signing_key().public_key())


def test_a_legacy_ta_is_read(legacy: bytes) -> None:
    file = TaFile.from_bytes(legacy)
    file.verify(signing_key().public_key())
    assert file.img_type is ImageType.TA
    assert file.uuid is None
    assert file.ta_version == 0
    assert file.to_bytes() == legacy


@pytest.mark.parametrize(
    ("offset", "patch", "problem"),
    [
        pytest.param(0x00, b"HSTX", "magic", id="magic"),
        pytest.param(0x04, b"\x02\0\0\0", "encrypted TA", id="encrypted"),
        pytest.param(0x04, b"\x03\0\0\0", "subkey", id="subkey"),
        pytest.param(0x04, b"\x04\0\0\0", "unknown img_type 4", id="unknown type"),
        pytest.param(0x08, b"\0\0\0\0", "program of 0 bytes", id="no program"),
        pytest.param(0x08, b"\0\0\0\xff", "program of", id="huge program"),
        pytest.param(0x0C, b"\x30\x48\x00\x71", "algorithm", id="algorithm"),
        pytest.param(0x10, b"\x14\0", "hash of 20 bytes", id="SHA-1"),
        pytest.param(0x12, b"\x80\0", "signature of 128 bytes", id="RSA-1024"),
        pytest.param(0x12, b"\xff\xff", "signature of 65535 bytes", id="huge signature"),
    ],
)
def test_each_rule_is_enforced_at_its_offset(
    signed: TaFile, offset: int, patch: bytes, problem: str
) -> None:
    good = signed.to_bytes()
    with pytest.raises(DecodeError, match=problem) as caught:
        TaFile.from_bytes(good[:offset] + patch + good[offset + len(patch) :])
    assert caught.value.offset == offset


def test_the_length_is_exact(signed: TaFile) -> None:
    good = signed.to_bytes()
    for wrong in (good[:-1], good + b"\0", good[:19], b""):
        with pytest.raises(DecodeError):
            TaFile.from_bytes(wrong)


@pytest.mark.parametrize("offset", [52, 308, 324, 328], ids=["sig", "uuid", "version", "program"])
def test_everything_is_signed(signed: TaFile, offset: int) -> None:
    data = bytearray(signed.to_bytes())
    data[offset] ^= 1
    with pytest.raises(UntrustedError):
        TaFile.from_bytes(bytes(data)).verify(signing_key().public_key())


def test_another_signer_is_refused(signed: TaFile) -> None:
    with pytest.raises(UntrustedError, match="not signed"):
        signed.verify(signing_key(1).public_key())


@pytest.mark.parametrize("version", [-1, 2**32])
def test_a_version_has_32_bits(version: int) -> None:
    with pytest.raises(DecodeError, match="ta_version"):
        TaFile.sign(b"program", TA, version, signing_key())


def test_there_is_no_empty_program() -> None:
    with pytest.raises(DecodeError, match="0 bytes"):
        TaFile.sign(b"", TA, 0, signing_key())
