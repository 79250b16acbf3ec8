"""The key hierarchy, against what Sancus publishes (tests/vectors) and its own rules here."""

import pytest

from broch.errors import DecodeError, UsageError
from broch.tee.sancus import keys
from broch.tee.sancus.keys import identity, module_key, vendor_key
from broch.tee.sancus.layout import SIZE, Layout, overlap

from .nodes import Memory

NODE = bytes.fromhex("deadbeefcafebabec0defeeddefec8ed")
PLACE = Layout(public_start=0x6000, public_end=0x6010, secret_start=0x2000, secret_end=0x2010)
TEXT = bytes(range(16))


def test_keys_differ_by_everything_that_they_depend_on() -> None:
    vendors = {vendor_key(NODE, 1), vendor_key(NODE, 2), vendor_key(bytes(16), 1)}
    assert len(vendors) == 3
    vendor = vendor_key(NODE, 1)
    moved = Layout(public_start=0x6002, public_end=0x6012, secret_start=0x2000, secret_end=0x2010)
    grown = Layout(public_start=0x6000, public_end=0x6010, secret_start=0x2000, secret_end=0x2012)
    keys = {
        module_key(vendor, TEXT, PLACE),
        module_key(vendor, TEXT[::-1], PLACE),
        module_key(vendor, TEXT, moved),
        module_key(vendor, TEXT, grown),
        module_key(vendor_key(NODE, 2), TEXT, PLACE),
        identity(TEXT, PLACE),
    }
    assert len(keys) == 6
    assert identity(TEXT, PLACE) == module_key(bytes(16), TEXT, PLACE), "a hash: its key is zeros"


@pytest.mark.parametrize("size", [8, 10, 16])
def test_derived_keys_are_as_long(size: int) -> None:
    assert len(vendor_key(bytes(size), 1)) == size
    assert len(module_key(bytes(size), TEXT, PLACE)) == size
    assert len(identity(TEXT, PLACE, size)) == size


@pytest.mark.parametrize("vendor", [-1, 0x10000])
def test_a_vendor_id_has_16_bits(vendor: int) -> None:
    with pytest.raises(UsageError, match="does not fit 16 bits"):
        vendor_key(NODE, vendor)


@pytest.mark.parametrize("size", [0, 7, 9, 15, 17, 32])
def test_keys_have_sizes(size: int) -> None:
    with pytest.raises(UsageError, match=f"has {size} bytes, expected 8, 10 or 16"):
        vendor_key(bytes(size), 1)
    with pytest.raises(UsageError, match="vendor key has"):
        module_key(bytes(size), TEXT, PLACE)


def test_a_layout_is_eight_bytes() -> None:
    assert PLACE.to_bytes().hex() == "0060106000201020"
    assert Layout.from_bytes(PLACE.to_bytes()) == PLACE
    for size in (0, 7, 9):
        with pytest.raises(DecodeError, match=f"a layout has {SIZE} bytes"):
            Layout.from_bytes(bytes(size))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (range(4), range(4, 8), False),
        (range(5), range(4, 8), True),
        (range(4, 4), range(8), False),
        (range(5, 6), range(8), True),
    ],
)
def test_overlaps(one: range, other: range, shared: bool) -> None:
    assert overlap(one, other) is shared
    assert overlap(other, one) is shared


def test_a_key_is_computed_once_and_kept() -> None:
    store = Memory()
    vendor = b"v" * 16
    expected = module_key(vendor, TEXT, PLACE)
    keys._recalled.clear()
    assert keys.recalled_module_key(vendor, TEXT, PLACE, store) == expected
    ((name, kept),) = store.items()
    assert kept == expected
    assert name.startswith("module-key.")
    keys._recalled.clear()
    store[name] = b"k" * 16  # as it would be believed: the store is as secret as the vendor key
    assert keys.recalled_module_key(vendor, TEXT, PLACE, store) == b"k" * 16
    keys._recalled.clear()
    store[name] = b"short"
    assert keys.recalled_module_key(vendor, TEXT, PLACE, store) == expected
    keys._recalled.clear()
    others = [(b"w" * 16, TEXT), (vendor, TEXT[::-1])]
    for other, text in others:
        assert keys.recalled_module_key(other, text, PLACE, store) != expected
    assert len(store) == 3


def test_keys_that_are_asked_for_again_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counting(vendor: bytes, text: bytes, layout: Layout) -> bytes:
        computed.append(text)
        return module_key(vendor, text, layout)

    monkeypatch.setattr(keys, "module_key", counting)
    keys._recalled.clear()
    texts = [bytes([number]) * 16 for number in range(keys._MOST_RECALLED)]
    for _ in range(2):
        for text in texts:
            keys.recalled_module_key(b"v" * 16, text, PLACE)
    assert computed == texts
    keys.recalled_module_key(b"v" * 16, TEXT, PLACE)
    assert len(keys._recalled) <= keys._MOST_RECALLED
