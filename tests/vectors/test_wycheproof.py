"""AES-GCM as channels use it against the cases of Project Wycheproof (C2SP, Apache-2.0)."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.exceptions import InvalidTag

from broch.crypto.channel import CIPHERS, KEY_SIZE, TAG_SIZE

NONCE_SIZE: Final = 12  # bytes


def _cases(vectors: Path) -> list[dict[str, Any]]:
    """The cases with a key, a nonce and a tag of the sizes that channels use."""
    text = (vectors / "wycheproof" / "aes_gcm_test.json").read_text()
    return [
        {name: bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")}
        | {"id": case["tcId"], "is_valid": case["result"] == "valid"}
        for group in json.loads(text)["testGroups"]
        if (group["keySize"], group["ivSize"], group["tagSize"])
        == (KEY_SIZE * 8, NONCE_SIZE * 8, TAG_SIZE * 8)
        for case in group["tests"]
    ]


def test_valid_cases_seal_to_their_bytes_and_open(vectors: Path) -> None:
    valid = [case for case in _cases(vectors) if case["is_valid"]]
    assert len(valid) >= 20
    for case in valid:
        aead = CIPHERS["aes-128-gcm"](case["key"])
        sealed = case["ct"] + case["tag"]
        assert aead.encrypt(case["iv"], case["msg"], case["aad"]) == sealed, case["id"]
        assert aead.decrypt(case["iv"], sealed, case["aad"]) == case["msg"], case["id"]


def test_invalid_cases_do_not_open(vectors: Path) -> None:
    invalid = [case for case in _cases(vectors) if not case["is_valid"]]
    assert len(invalid) >= 15
    for case in invalid:
        aead = CIPHERS["aes-128-gcm"](case["key"])
        with pytest.raises(InvalidTag):
            aead.decrypt(case["iv"], case["ct"] + case["tag"], case["aad"])
