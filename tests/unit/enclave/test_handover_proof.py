"""The proof that a successor took over: it fits one order, one join and one module."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broch.enclave.handover import check_imported, sign_imported
from broch.enclave.join import ModuleKeys
from broch.errors import UntrustedError

ORDER, NONCE = b"an order", os.urandom(32)


def module() -> tuple[ModuleKeys, Ed25519PrivateKey]:
    signing = Ed25519PrivateKey.generate()
    exchange = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return ModuleKeys(exchange, signing.public_key().public_bytes_raw()), signing


def test_a_proof_is_believed() -> None:
    keys, signing = module()
    check_imported(sign_imported(ORDER, NONCE, keys, signing), ORDER, NONCE, keys)


@pytest.mark.parametrize("change", ["order", "nonce", "enclave", "signer", "proof", "none"])
def test_a_proof_of_anything_else_is_not(change: str) -> None:
    keys, signing = module()
    proof = sign_imported(ORDER, NONCE, keys, signing)
    order, nonce = ORDER, NONCE
    if change == "order":
        order += b"!"
    elif change == "nonce":
        nonce = os.urandom(32)
    elif change == "enclave":  # the same code on the same device, in another enclave
        keys = ModuleKeys(module()[0].exchange, keys.signing)
    elif change == "signer":
        keys = ModuleKeys(keys.exchange, module()[0].signing)
    else:
        proof = bytes([proof[0] ^ 1]) + proof[1:] if change == "proof" else b""
    with pytest.raises(UntrustedError, match="successor"):
        check_imported(proof, order, nonce, keys)
