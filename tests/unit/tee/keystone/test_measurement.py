"""The triple and its hash."""

import hashlib
import struct

import pytest

from broch.errors import DecodeError
from broch.tee.keystone.measurement import LOADER, Triple, runtime_text

from .conftest import make_image

SMALL = Triple(loader=b"l", runtime=b"rr", eapp=b"eee")


def page(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // 4096) * 4096, b"\0")


def test_the_hash_is_over_sizes_then_pages() -> None:
    expected = hashlib.sha3_512(
        struct.pack("<QQQ", 4096, 4096, 4096) + page(b"l") + page(b"rr") + page(b"eee")
    ).digest()
    assert SMALL.measure() == expected


def test_a_file_of_whole_pages_is_not_padded() -> None:
    triple = Triple(loader=bytes(4096), runtime=bytes(4097), eapp=bytes(8192))
    expected = hashlib.sha3_512(
        struct.pack("<QQQ", 4096, 8192, 8192) + bytes(4096 + 8192 + 8192)
    ).digest()
    assert triple.measure() == expected


def test_where_a_byte_belongs_is_measured() -> None:
    moved = Triple(loader=b"l" + bytes(4095) + b"rr", runtime=b"eee", eapp=b"\0")
    assert moved.measure() != SMALL.measure()


def test_the_triple_of_a_module() -> None:
    image = make_image(runtime=7)
    triple = Triple.of(image)
    assert triple.loader == LOADER
    assert triple.runtime == runtime_text(image.runtime)
    assert triple.eapp == image.to_bytes()


def test_the_runtime_names_the_closure() -> None:
    assert runtime_text(bytes(range(32))).decode() == (
        "broch keystone runtime 1\n"
        "closure sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
    )


def test_round_trip() -> None:
    assert Triple.from_bytes(SMALL.to_bytes()) == SMALL


@pytest.mark.parametrize(
    ("offset", "patch"),
    [
        pytest.param(0, b"BROCHKS2", id="magic"),
        pytest.param(8, bytes(8), id="no loader"),
        pytest.param(16, bytes(8), id="no runtime"),
        pytest.param(24, bytes(8), id="no eapp"),
        pytest.param(8, b"\xff" * 8, id="loader too large"),
        pytest.param(16, (4 * 1024 * 1024 + 1).to_bytes(8, "little"), id="runtime too large"),
        pytest.param(24, (16 * 1024 * 1024 + 1).to_bytes(8, "little"), id="eapp too large"),
    ],
)
def test_each_rule_is_enforced_at_its_offset(offset: int, patch: bytes) -> None:
    good = SMALL.to_bytes()
    with pytest.raises(DecodeError) as caught:
        Triple.from_bytes(good[:offset] + patch + good[offset + len(patch) :])
    assert caught.value.offset == offset


def test_the_length_is_exact() -> None:
    good = SMALL.to_bytes()
    for wrong in (good[:-1], good + b"\0", good[:31], b""):
        with pytest.raises(DecodeError):
            Triple.from_bytes(wrong)


def test_an_empty_part_cannot_be_made() -> None:
    with pytest.raises(DecodeError, match="runtime has 0 bytes"):
        Triple(loader=b"l", runtime=b"", eapp=b"e")
