"""Evidence of Sancus modules: its one encoding, and each thing that must hold."""

import os
from dataclasses import replace
from datetime import datetime

import pytest

from broch.crypto.spongent import SpongeWrap
from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.sancus import TEE
from broch.tee.sancus.evidence import Evidence
from broch.tee.sancus.keys import module_key
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import measure
from broch.tee.sancus.verify import verify

from .nodes import NOW

VENDOR = bytes(range(16))
PLACE = Layout(public_start=0x6000, public_end=0x6020, secret_start=0x2000, secret_end=0x2010)
TEXT = bytes(range(32))
EMULATED = Endorsements(anchors=(), items={"emulated_vendor_key": VENDOR})
REAL = Endorsements(anchors=(), items={"vendor_key": VENDOR})


def evidence(**changes: object) -> Evidence:
    """What a sound module answers; changed afterwards."""
    found = Evidence(
        vendor_id=1, layout=PLACE, challenge=b"c" * 32, nonce=b"n" * 16, tag=b"", text=TEXT
    )
    tag = SpongeWrap(module_key(VENDOR, TEXT, PLACE)).mac(found.signed())
    return replace(replace(found, tag=tag), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("endorsed", "emulated"), [(EMULATED, True), (REAL, False)])
def test_sound_evidence(endorsed: Endorsements, emulated: bool) -> None:
    claims = verify(evidence().to_bytes(), endorsed, at=NOW)
    assert claims.tee == "sancus"
    assert claims.measurement == measure(TEXT, PLACE)
    assert claims.report_data == b"c" * 32
    assert len(claims.report_data) == TEE.report_data_size
    assert claims.emulated is emulated
    assert claims.signer is None
    assert not claims.debug
    assert claims.details["text"] == "0x6000-0x601f"
    assert VENDOR.hex() not in str(claims)
    assert TEE.module_nonce(evidence().to_bytes()) == b"n" * 16


@pytest.mark.parametrize(
    "changed",
    [
        {"challenge": b"d" * 32},
        {"nonce": b"m" * 16},
        {"tag": bytes(16)},
        {"text": TEXT[::-1]},
        {"layout": replace(PLACE, secret_end=0x2012)},
        {"layout": replace(PLACE, public_start=0x6100, public_end=0x6120)},
    ],
)
def test_each_part_is_proved(changed: dict[str, object]) -> None:
    with pytest.raises(UntrustedError, match="tag is not that of this text"):
        verify(evidence(**changed).to_bytes(), EMULATED, at=NOW)


def test_another_vendors_key() -> None:
    other = Endorsements(anchors=(), items={"emulated_vendor_key": bytes(16)})
    with pytest.raises(UntrustedError):
        verify(evidence().to_bytes(), other, at=NOW)


def test_endorsements() -> None:
    data = evidence().to_bytes()
    with pytest.raises(UndecidedError, match="neither vendor_key nor emulated_vendor_key"):
        verify(data, Endorsements(anchors=()), at=NOW)
    both = Endorsements(anchors=(), items={"emulated_vendor_key": VENDOR, "vendor_key": VENDOR})
    with pytest.raises(UntrustedError, match="which is it"):
        verify(data, both, at=NOW)
    for size in (0, 8, 15, 17):
        short = Endorsements(anchors=(), items={"vendor_key": bytes(size)})
        with pytest.raises(DecodeError, match=f"{size} bytes, expected 16"):
            verify(data, short, at=NOW)
    with pytest.raises(UsageError, match="time zone"):
        verify(data, EMULATED, at=datetime(2026, 1, 1))
    assert VENDOR.hex() not in repr(EMULATED)
    assert repr(VENDOR) not in repr(EMULATED)


def test_round_trip_and_bounds() -> None:
    data = evidence().to_bytes()
    assert Evidence.from_bytes(data) == evidence()
    for cut in range(len(data)):
        with pytest.raises(DecodeError):
            Evidence.from_bytes(data[:cut])
    with pytest.raises(DecodeError):
        Evidence.from_bytes(data + b"\0")
    with pytest.raises(DecodeError, match="begins with"):
        Evidence.from_bytes(b"SNC2" + data[4:])


@pytest.mark.parametrize("at", range(112))
def test_every_changed_byte_is_refused_or_of_no_meaning(at: int) -> None:
    data = bytearray(evidence().to_bytes())
    data[at] ^= 1
    if at in (4, 5):  # the vendor's number is for people: the vendor's key is what counts
        verify(bytes(data), EMULATED, at=NOW)
        return
    with pytest.raises((UntrustedError, DecodeError)):
        verify(bytes(data), EMULATED, at=NOW)


def test_garbage_gives_our_errors_only() -> None:
    for size in (0, 1, 79, 80, 200):
        with pytest.raises(BrochError):
            verify(os.urandom(size), EMULATED, at=NOW)
