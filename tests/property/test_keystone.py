"""Keystone's formats under every truncation, every bit flip, and anything at all."""

from datetime import UTC, datetime
from functools import cache
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.emulated import IMAGE, Memory

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.tee.contract import DeviceSettings, Endorsements, Packed, PackSettings
from broch.tee.keystone import TEE
from broch.tee.keystone.endorsement import check_endorsement
from broch.tee.keystone.measurement import Triple
from broch.tee.keystone.report import Report

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
PADDING: Final = range(72 + 64, 72 + 1024)  # bytes of a report after 64 bytes of data


@cache
def attested() -> tuple[bytes, Endorsements]:
    device = TEE.device(DeviceSettings(name="field", secret=bytes(32), nv=Memory(), now=NOW))
    identity = device.load(TEE.pack(IMAGE, PackSettings(), None)).identity
    return device.evidence(identity, bytes(range(64))), device.endorsements()


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_every_altered_byte_of_a_report_is_noticed_or_means_nothing() -> None:
    """One bit of every byte, a different one each time: a verification takes milliseconds."""
    evidence, endorsements = attested()
    good = TEE.verify(evidence, endorsements, at=NOW)
    for index in range(len(evidence)):
        if index in PADDING and index % 100:
            continue  # checked without signatures below
        altered = flip(evidence, index * 8 + index % 8)
        if index in PADDING:
            assert TEE.verify(altered, endorsements, at=NOW) == good
            continue
        with pytest.raises((DecodeError, UntrustedError)):
            TEE.verify(altered, endorsements, at=NOW)


def test_every_bit_of_a_report_is_part_of_its_meaning_or_of_the_padding() -> None:
    evidence, _ = attested()
    good = Report.from_bytes(evidence)
    for bit in range(len(evidence) * 8):
        altered = flip(evidence, bit)
        if bit // 8 in PADDING:
            assert Report.from_device(altered) == good
            with pytest.raises(DecodeError):
                Report.from_bytes(altered)
            continue
        try:
            assert Report.from_bytes(altered) != good
        except DecodeError:
            continue  # a data_len out of range, or one that uncovers data as padding


def test_every_truncation_is_refused() -> None:
    """Cut to 392 bytes, the report has the length of a compressed one, whose signatures fail."""
    evidence, endorsements = attested()
    report = Report.from_bytes(evidence)
    for form in (evidence, report.to_compressed(), report.to_json()):
        for size in range(len(form)):
            expected = UntrustedError if size == 392 and form is evidence else DecodeError
            with pytest.raises(expected):
                TEE.verify(form[:size], endorsements, at=NOW)


def test_every_truncation_and_bit_flip_of_a_statement() -> None:
    _, endorsements = attested()
    data = endorsements.items["device_endorsement"]
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            check_endorsement(data[:size], endorsements.anchors)
    for bit in range(len(data) * 8):
        with pytest.raises((DecodeError, UntrustedError)):
            check_endorsement(flip(data, bit), endorsements.anchors)


def test_every_truncation_and_bit_flip_of_a_packed_image() -> None:
    packed = TEE.pack(IMAGE, PackSettings(), None)
    device = TEE.device(DeviceSettings(name="n", secret=bytes(32), nv=Memory(), now=NOW))
    measured = TEE.measure(packed)
    for size in range(len(packed.data)):
        with pytest.raises(DecodeError):
            TEE.measure(Packed(tee="keystone", data=packed.data[:size]))
    for bit in range(len(packed.data) * 8):
        altered = Packed(tee="keystone", data=flip(packed.data, bit))
        try:
            assert device.load(altered).identity.measurement != measured
        except BrochError:
            continue


@given(data=st.binary(max_size=1024), rest=st.binary(min_size=320, max_size=320))
def test_reports_round_trip(data: bytes, rest: bytes) -> None:
    report = Report(
        enclave_hash=rest[:64],
        data=data,
        enclave_signature=rest[64:128],
        sm_hash=rest[128:192],
        sm_public_key=rest[192:224],
        sm_signature=rest[224:288],
        dev_public_key=rest[288:],
    )
    assert Report.from_bytes(report.to_bytes()) == report
    assert Report.from_compressed(report.to_compressed()) == report
    assert Report.from_json(report.to_json()) == report


PART: Final = st.binary(min_size=1, max_size=9000)


@given(loader=PART, runtime=PART, eapp=PART)
def test_triples_round_trip_and_measure_alike(loader: bytes, runtime: bytes, eapp: bytes) -> None:
    triple = Triple(loader=loader, runtime=runtime, eapp=eapp)
    again = Triple.from_bytes(triple.to_bytes())
    assert again == triple
    assert again.measure() == triple.measure()


@given(data=st.one_of(st.binary(max_size=2000), st.binary(min_size=1352, max_size=1352)))
def test_anything_at_all_raises_only_our_errors(data: bytes) -> None:
    _, endorsements = attested()
    for parse in (
        lambda: TEE.verify(data, endorsements, at=NOW),
        lambda: TEE.measure(Packed(tee="keystone", data=data)),
        lambda: check_endorsement(data, endorsements.anchors),
        lambda: Report.from_json(data),
    ):
        with pytest.raises(BrochError):
            parse()
