"""The report's layout: each rule alone, every byte, round trip."""

from dataclasses import replace
from typing import Any

import pytest

from broch.errors import DecodeError
from broch.tee.snp.product import Product, Tcb, by_cpuid
from broch.tee.snp.report import SIZE, Report, SigningKey

from .attester import REPORT


def test_round_trip() -> None:
    data = REPORT.to_bytes()
    assert len(data) == SIZE
    assert Report.from_bytes(data) == REPORT
    for version in (2, 5):
        changes: dict[str, Any] = {"version": version}
        if version == 2:
            changes |= {"cpuid_family": 0, "cpuid_model": 0, "cpuid_stepping": 0}
        else:
            changes |= {"launch_mit_vector": 11, "current_mit_vector": 11}
        other = replace(REPORT, **changes)
        assert Report.from_bytes(other.to_bytes()) == other


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 0}, "version 0"),
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"version": 6}, "version 6"),
        ({"signature_algo": 0}, "algorithm 0"),
        ({"signature_algo": 2}, "algorithm 2"),
        ({"policy": 0x1001F}, "bit 17"),
        ({"policy": 0x3001F | 1 << 26}, "reserved bits of policy"),
        ({"policy": 0x3001F | 1 << 63}, "reserved bits of policy"),
        ({"platform_info": 1 << 6}, "reserved bits of platform_info"),
        ({"platform_info": 1 << 8}, "reserved bits of platform_info"),
        ({"flags": 1 << 5}, "reserved bits of flags"),
        ({"flags": 2 << 2}, "signing key 2 is reserved"),
        ({"flags": 6 << 2}, "signing key 6 is reserved"),
        ({"vmpl": 4}, "VMPL 4"),
        ({"vmpl": 0xFFFFFFFF}, "VMPL 4294967295"),
        ({"version": 2}, "CPUID in a report of version 2"),
        ({"launch_mit_vector": 1}, "mitigations in a report of version 3"),
        ({"current_mit_vector": 1}, "mitigations in a report of version 3"),
    ],
)
def test_each_rule(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        Report.from_bytes(replace(REPORT, **changes).to_bytes())


@pytest.mark.parametrize(
    "offset", [76, 79, 395, 415, 491, 495, 520, 671, 816, 1183], ids=lambda at: f"at {at}"
)
def test_reserved_bytes(offset: int) -> None:
    data = bytearray(REPORT.to_bytes())
    assert data[offset] == 0
    data[offset] = 1
    with pytest.raises(DecodeError, match="reserved bytes are not zero"):
        Report.from_bytes(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 672, SIZE - 1, SIZE + 1, SIZE + 16])
def test_length(size: int) -> None:
    """Nothing may follow, zeros neither."""
    with pytest.raises(DecodeError, match=f"{size} bytes"):
        Report.from_bytes(REPORT.to_bytes().ljust(size, b"\0")[:size])


def test_every_byte_is_decoded_or_refused() -> None:
    sound = REPORT.to_bytes()
    accepted = 0
    for offset in range(SIZE):
        bent = bytearray(sound)
        bent[offset] ^= 0x80
        try:
            report = Report.from_bytes(bytes(bent))
        except DecodeError:
            continue
        assert report.to_bytes() == bytes(bent)
        assert report != REPORT
        accepted += 1
    assert accepted > 500


def test_flags() -> None:
    assert REPORT.signing_key is SigningKey.VCEK
    assert replace(REPORT, flags=4).signing_key is SigningKey.VLEK
    assert replace(REPORT, flags=28).signing_key is SigningKey.NONE
    assert replace(REPORT, flags=1).author_key_enabled
    assert replace(REPORT, flags=2).mask_chip_key
    assert not REPORT.debug
    assert replace(REPORT, policy=0xB0000).debug


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        ((0x19, 0x01), Product.MILAN),
        ((0x19, 0x11), Product.GENOA),
        ((0x19, 0xA0), Product.GENOA),
        ((0x1A, 0x02), Product.TURIN),
        ((0x1A, 0x11), Product.TURIN),
    ],
)
def test_products(cpuid: tuple[int, int], product: Product) -> None:
    assert by_cpuid(*cpuid) is product


def test_tcb_by_product() -> None:
    data = bytes((1, 2, 0, 0, 0, 0, 7, 8))
    milan = Tcb.from_bytes(data, Product.MILAN, "tcb")
    assert milan == Tcb(boot_loader=1, tee=2, snp=7, microcode=8)
    assert milan.to_bytes(Product.MILAN) == data
    turin = Tcb.from_bytes(bytes((1, 2, 3, 4, 0, 0, 0, 8)), Product.TURIN, "tcb")
    assert turin == Tcb(fmc=1, boot_loader=2, tee=3, snp=4, microcode=8)
    assert "fmc=1" in str(turin)
    assert "fmc" not in str(milan)
    with pytest.raises(DecodeError, match="reserved byte"):
        Tcb.from_bytes(bytes((1, 2, 3, 4, 0, 0, 0, 8)), Product.GENOA, "tcb")
    with pytest.raises(DecodeError, match="reserved byte"):
        Tcb.from_bytes(data, Product.TURIN, "tcb")
    with pytest.raises(DecodeError, match="8 bytes"):
        Tcb.from_bytes(data[1:], Product.MILAN, "tcb")


def test_tcbs_are_compared_one_by_one() -> None:
    low = Tcb(boot_loader=1, tee=0, snp=5, microcode=9)
    mixed = Tcb(boot_loader=2, tee=0, snp=4, microcode=9)
    assert low.reaches(low)
    assert not mixed.reaches(low)
    assert not low.reaches(mixed)
