"""Roots: pinned, emulated, or not at all. The rest of trust is tested with whole quotes."""

import hashlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broch.errors import UntrustedError
from broch.tee.dcap import certs, emulated, trust
from broch.tee.dcap.ecdsa import derive_key
from broch.wire.x509 import Certificate

KEY = derive_key(b"trust", "root")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def root(name: str) -> Certificate:
    made = emulated.certificate(name, KEY.public_key(), None, KEY, BEGIN, path_length=1)
    return certs.read_certificate(made.public_bytes(Encoding.DER), "root")


def test_the_pin_is_the_digest_that_intel_publishes() -> None:
    published = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    assert published == trust.INTEL_SGX_ROOT.hex()


def test_an_emulated_root_is_believed_where_it_is_named() -> None:
    made = root("Broch Emulated SGX Root")
    trust.check_root(made, (made.der,))
    with pytest.raises(UntrustedError, match="not among the anchors"):
        trust.check_root(made, ())


@pytest.mark.parametrize(
    "name", ["Intel SGX Root CA", "Root", "broch emulated SGX Root", " Broch Emulated Root"]
)
def test_no_other_root_is_believed_even_where_it_is_named(name: str) -> None:
    made = root(name)
    with pytest.raises(UntrustedError, match="neither Intel's nor emulated"):
        trust.check_root(made, (made.der,))


def test_a_pinned_root_is_believed_and_not_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    made = root("Intel SGX Root CA")
    monkeypatch.setattr(trust, "INTEL_SGX_ROOT", hashlib.sha256(made.der).digest())
    trust.check_root(made, (made.der,))
    assert not trust.is_emulated_root(made)
    with pytest.raises(UntrustedError, match="not among the anchors"):
        trust.check_root(made, ())
