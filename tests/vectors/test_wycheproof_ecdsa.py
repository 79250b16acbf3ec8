"""ECDSA on P-256 in both libraries against the cases of Project Wycheproof (C2SP, Apache-2.0).

Signatures come as DER there and as two numbers here, so cases about other encodings are left out.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broch.crypto import ecdsa
from broch.crypto.ecdsa import LOAD_AFTER, VerifyingKey
from broch.errors import UntrustedError


def numbers(case: dict[str, Any]) -> tuple[int, int] | None:
    """r and s, if the encoding is the one of DER."""
    der = bytes.fromhex(case["sig"])
    try:
        r, s = decode_dss_signature(der)
        return (r, s) if encode_dss_signature(r, s) == der else None
    except ValueError:
        return None


@pytest.mark.parametrize("fast", [False, True], ids=["OpenSSL", "AWS-LC"])
def test_every_case(vectors: Path, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fast or ecdsa.is_fast_installed()
    monkeypatch.setattr(ecdsa, "_verified", LOAD_AFTER if fast else -(2**30))
    text = (vectors / "wycheproof" / "ecdsa_secp256r1_sha256_test.json").read_text()
    held = refused = 0
    for group in json.loads(text)["testGroups"]:
        loaded = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
        assert isinstance(loaded, ec.EllipticCurvePublicKey)
        key = VerifyingKey(loaded)
        for case in group["tests"]:
            if (found := numbers(case)) is None:
                assert case["result"] == "invalid", case["tcId"]
                continue
            if case["result"] == "valid":
                key.verify(*found, bytes.fromhex(case["msg"]), "case")
                held += 1
            else:
                with pytest.raises(UntrustedError):
                    key.verify(*found, bytes.fromhex(case["msg"]), "case")
                refused += 1
    assert held > 150
    assert refused > 50
