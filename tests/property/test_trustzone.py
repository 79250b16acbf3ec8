"""TrustZone's formats under every truncation, every bit flip, and anything at all."""

from datetime import UTC, datetime
from functools import cache
from typing import Final
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.emulated import IMAGE, Memory

from broch.errors import BrochError, DecodeError, PolicyError, UntrustedError
from broch.tee.contract import DeviceSettings, Endorsements, Packed, PackSettings
from broch.tee.trustzone import TEE
from broch.tee.trustzone.attestation import Envelope
from broch.tee.trustzone.endorsement import check_certificate
from broch.tee.trustzone.htree import SecureObject
from broch.tee.trustzone.ta_elf import TaElf
from broch.tee.trustzone.ta_file import TaFile

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
TSK: Final = bytes(range(32))


@cache
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def packed() -> Packed:
    return TEE.pack(IMAGE, PackSettings(), signing_key())


@cache
def attested() -> tuple[bytes, Endorsements]:
    device = TEE.device(DeviceSettings(name="field", secret=bytes(32), nv=Memory(), now=NOW))
    identity = device.load(packed()).identity
    return device.evidence(identity, bytes(range(64))), device.endorsements()


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_every_truncation_and_bit_flip_of_evidence() -> None:
    """Only the UUID, which says so itself, can change unnoticed."""
    evidence, endorsements = attested()
    good = TEE.verify(evidence, endorsements, at=NOW)
    uuid_at = evidence.index(Envelope.from_bytes(evidence).uuid.bytes)
    for size in range(len(evidence)):
        with pytest.raises(DecodeError):
            TEE.verify(evidence[:size], endorsements, at=NOW)
    for bit in range(len(evidence) * 8):
        altered = flip(evidence, bit)
        if bit // 8 in range(uuid_at, uuid_at + 16):
            claims = TEE.verify(altered, endorsements, at=NOW)
            assert claims.measurement == good.measurement
            assert claims.report_data == good.report_data
            continue
        with pytest.raises((DecodeError, UntrustedError)):
            TEE.verify(altered, endorsements, at=NOW)


def test_every_truncation_and_altered_byte_of_a_certificate() -> None:
    _, endorsements = attested()
    data = endorsements.items["attestation_key_certificate"]
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            check_certificate(data[:size], endorsements.anchors)
    for index in range(len(data)):
        with pytest.raises((DecodeError, UntrustedError)):
            check_certificate(flip(data, index * 8 + index % 8), endorsements.anchors)


def test_every_truncation_and_altered_byte_of_a_ta_file() -> None:
    data, public = packed().data, signing_key().public_key()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            TaFile.from_bytes(data[:size])
    for index in range(len(data)):
        with pytest.raises((DecodeError, UntrustedError)):
            TaFile.from_bytes(flip(data, index * 8 + index % 8)).verify(public)


def test_every_altered_byte_of_a_secure_object_is_noticed_or_means_nothing() -> None:
    content = b"c" * 5000
    data = bytes(SecureObject.create(TSK, content).data)
    noticed = 0
    for index in range(len(data)):
        if index > 4096 + 3 * 132 and index % 16:
            continue  # in the blocks, one byte of sixteen
        try:
            altered = flip(data, index * 8 + index % 8)
            assert SecureObject.open(TSK, altered, min_counter=2).read() == content
        except (DecodeError, UntrustedError, PolicyError):
            noticed += 1
    # Both blocks that count, one in sixteen; the header; two nodes. The rest is what was before.
    assert noticed >= 2 * 4096 // 16 + 68 + 2 * 66


def test_every_truncation_of_a_secure_object_is_noticed() -> None:
    data = bytes(SecureObject.create(TSK, b"c" * 5000).data)
    for size in [*range(5000), *range(5000, len(data), 16), len(data) - 1]:
        with pytest.raises((DecodeError, UntrustedError)):
            SecureObject.open(TSK, data[:size]).read()


@given(st.lists(st.binary(max_size=20000), min_size=1, max_size=4))
def test_secure_objects_hold_what_was_written_last(contents: list[bytes]) -> None:
    made = SecureObject.create(TSK, b"")
    for content in contents:
        made.write(content)
        made = SecureObject.open(TSK, bytes(made.data))
        assert made.read() == content


@given(image=st.binary(min_size=1, max_size=9000), uuid=st.uuids())
def test_elfs_round_trip(image: bytes, uuid: UUID) -> None:
    elf = TaElf(uuid=uuid, image=image)
    assert TaElf.from_bytes(elf.to_bytes()) == elf


@given(program=st.binary(min_size=1, max_size=500), version=st.integers(0, 2**32 - 1))
def test_ta_files_round_trip(program: bytes, version: int) -> None:
    file = TaFile.from_bytes(packed().data)
    made = TaFile.from_bytes(
        TaFile(
            img_type=file.img_type,
            algo=file.algo,
            hash=file.hash,
            signature=file.signature,
            uuid=file.uuid,
            ta_version=version,
            program=program,
        ).to_bytes()
    )
    assert (made.ta_version, made.program) == (version, program)


@given(data=st.binary(max_size=2000))
def test_anything_at_all_raises_only_our_errors(data: bytes) -> None:
    _, endorsements = attested()
    for parse in (
        lambda: TEE.verify(data, endorsements, at=NOW),
        lambda: TEE.measure(Packed(tee="trustzone", data=data)),
        lambda: check_certificate(data, endorsements.anchors),
        lambda: TaElf.from_bytes(data),
        lambda: SecureObject.open(TSK, data),
    ):
        with pytest.raises(BrochError):
            parse()
