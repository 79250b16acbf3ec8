"""SpongeWrap: what is wrapped comes back, and nothing else does."""

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.crypto.spongent import Spongent128, SpongeWrap
from broch.errors import UntrustedError

KEYS = st.sampled_from([8, 10, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
SHORT = st.binary(max_size=12)
NONCES = st.binary(min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(KEYS, SHORT, SHORT)
def test_round_trip(key: bytes, ad: bytes, body: bytes) -> None:
    wrap = SpongeWrap(key)
    cipher, tag = wrap.wrap(ad, body)
    assert len(cipher) == len(body)
    assert wrap.unwrap(ad, cipher, tag) == body


@settings(max_examples=60, deadline=None)
@given(KEYS, SHORT, SHORT, st.data())
def test_every_bit_counts(key: bytes, ad: bytes, body: bytes, data: st.DataObject) -> None:
    cipher, tag = SpongeWrap(key).wrap(ad, body)
    whole = bytearray(key + ad + cipher + tag)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    parts = []
    for part in (key, ad, cipher, tag):
        parts.append(bytes(whole[: len(part)]))
        del whole[: len(part)]
    with pytest.raises(UntrustedError):
        SpongeWrap(parts[0]).unwrap(*parts[1:])


@settings(max_examples=40, deadline=None)
@given(SHORT, SHORT, SHORT, SHORT)
def test_different_inputs_give_different_tags(a: bytes, b: bytes, c: bytes, d: bytes) -> None:
    aead = Spongent128(bytes(16))
    if (a, b) != (c, d):
        assert aead.encrypt(bytes(12), a, b) != aead.encrypt(bytes(12), c, d)


@settings(max_examples=40, deadline=None)
@given(NONCES, SHORT, SHORT, st.data())
def test_a_sealed_message_cannot_be_cut_or_bent(
    nonce: bytes, body: bytes, ad: bytes, data: st.DataObject
) -> None:
    aead = Spongent128(bytes(range(16)))
    sealed = aead.encrypt(nonce, body, ad)
    assert aead.decrypt(nonce, sealed, ad) == body
    cut = data.draw(st.integers(0, len(sealed) - 1))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    bent = bytearray(sealed)
    bent[bit // 8] ^= 1 << bit % 8
    for wrong in (sealed[:cut], bytes(bent), sealed + b"\x00\x00"):
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, wrong, ad)
