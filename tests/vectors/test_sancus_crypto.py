"""Sancus' published keys, hashes and payloads, and what its RTL computed."""

import json
from pathlib import Path
from typing import Any

import pytest

from broch.crypto.spongent import HASHES, SpongeWrap, spongent
from broch.errors import UntrustedError


@pytest.fixture(scope="module")
def published(vectors: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((vectors / "sancus/published_vectors.json").read_text())
    return data


def test_every_published_hash(published: dict[str, Any]) -> None:
    hashes = published["spongent_hash"]
    message = bytes.fromhex(hashes["message_hex"])
    assert hashes["digests"].keys() == HASHES.keys()
    for name, digest in hashes["digests"].items():
        assert spongent(name, message).hex().upper() == digest, name


def test_every_vendor_key(published: dict[str, Any]) -> None:
    cases = published["vendor_key"]
    assert {case["security"] for case in cases} == {64, 128}
    for case in cases:
        node_key = bytes.fromhex(case["node_key"])
        vendor = case["vendor_id"].to_bytes(2, "little")
        assert SpongeWrap(node_key).mac(vendor).hex() == case["vendor_key"]


def test_module_key_from_its_text(published: dict[str, Any]) -> None:
    case = published["module_key_small"]
    names = ("public_start", "public_end", "secret_start", "secret_end")
    layout = b"".join(int(case[name], 16).to_bytes(2, "little") for name in names)
    wrap = SpongeWrap(bytes.fromhex(case["vendor_key"]))
    assert wrap.mac(bytes.fromhex(case["text_hex"]) + layout).hex() == case["module_key"]


def test_event_payload(published: dict[str, Any]) -> None:
    case = published["event_payload"]
    cipher, tag = SpongeWrap(bytes.fromhex(case["connection_key"])).wrap(
        bytes.fromhex(case["nonce_ad"]), bytes.fromhex(case["plaintext"])
    )
    assert (cipher + tag).hex() == case["payload_cipher_then_tag"]


def test_every_wrap_of_the_rtl(vectors: Path) -> None:
    cases = json.loads((vectors / "sancus/sancus_rtl_wrap_vectors.json").read_text())["vectors"]
    assert len(cases) == 30
    assert {case["security"] for case in cases} == {64, 128}
    for case in cases:
        key, ad, body, cipher, tag = (
            bytes.fromhex(case[name]) for name in ("key", "ad", "body", "cipher", "tag")
        )
        wrap = SpongeWrap(key)
        assert wrap.wrap(ad, body) == (cipher, tag)
        assert wrap.unwrap(ad, cipher, tag) == body
        with pytest.raises(UntrustedError):
            wrap.unwrap(ad, cipher, bytes([tag[0] ^ 1]) + tag[1:])
