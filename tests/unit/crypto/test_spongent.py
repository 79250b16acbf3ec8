"""SPONGENT and SpongeWrap: against the definition bit by bit, and each rule broken alone."""

import pytest
from cryptography.exceptions import InvalidTag

from broch.crypto.spongent import (
    HASHES,
    TAG_SIZE,
    Spongent128,
    SpongeWrap,
    Variant,
    permutation,
    spongent,
)
from broch.errors import InternalError, UntrustedError

# The designers' example, as their site and four independent implementations give it.
EXAMPLE = b"Sponge + Present = Spongent"
DIGESTS = {
    "88/80/8": "69971bf96def95bfc46822",
    "128/128/8": "6b7ba35eb09de0f8def06ae555694c53",
    "160/160/16": "13188a4917ea29e258362c047b9bf00c22b5fe91",
    "224/224/16": "8443b12d2eee4e09969a183205f5f7f684a711a5be079a15f4ccdc30",
    "256/256/16": "67dc8fc8b2edba6e55f4e68ec4f2b2196fe38df9b1a760f4d43b4669160bf5a8",
}
NONCE = bytes(range(12))


def slow_permutation(variant: Variant, state: int) -> int:
    """The definition, one bit after the other."""
    taps = {6: (5, 4), 7: (6, 5), 8: (7, 3, 2, 1), 9: (8, 3)}[variant.counter_bits]
    sbox = (0xE, 0xD, 0xB, 0, 2, 1, 4, 0xF, 7, 0xA, 8, 5, 9, 0xC, 3, 6)
    counter, width = variant.counter_start, variant.width
    for _ in range(variant.rounds):
        for bit in range(variant.counter_bits):
            if counter >> bit & 1:
                state ^= 1 << bit ^ 1 << width - 1 - bit
        counter = counter << 1 | sum(counter >> tap for tap in taps) & 1
        counter &= (1 << variant.counter_bits) - 1
        moved = 0
        for nibble in range(width // 4):
            value = sbox[state >> 4 * nibble & 15]
            for bit in range(4):
                at = 4 * nibble + bit
                to = at * width // 4 % (width - 1) if at < width - 1 else at
                moved |= (value >> bit & 1) << to
        state = moved
    return state


@pytest.mark.parametrize("name", HASHES)
def test_permutations_are_those_of_the_definition(name: str) -> None:
    variant = HASHES[name]
    for state in (0, 1, 1 << variant.width - 1, int.from_bytes(EXAMPLE, "big") * 7**60):
        state &= (1 << variant.width) - 1
        assert permutation(variant)(state) == slow_permutation(variant, state)


@pytest.mark.parametrize(("name", "digest"), DIGESTS.items())
def test_hash_of_the_designers_example(name: str, digest: str) -> None:
    assert spongent(name, EXAMPLE).hex() == digest


def test_an_unknown_hash_is_refused() -> None:
    with pytest.raises(InternalError, match="88/80/8"):
        spongent("64/64/8", b"")


@pytest.mark.parametrize("size", [8, 10, 16])
def test_tag_and_key_have_the_same_size(size: int) -> None:
    cipher, tag = SpongeWrap(bytes(size)).wrap(b"ad", b"body")
    assert (len(cipher), len(tag)) == (4, size)
    assert SpongeWrap(bytes(size)).unwrap(b"ad", cipher, tag) == b"body"


@pytest.mark.parametrize("size", [0, 7, 9, 15, 17, 32])
def test_other_key_sizes_are_refused(size: int) -> None:
    with pytest.raises(InternalError, match=f"this one {size}"):
        SpongeWrap(bytes(size))


def test_mac_is_the_tag_of_an_empty_body() -> None:
    wrap = SpongeWrap(bytes(16))
    assert wrap.mac(b"text") == wrap.wrap(b"text", b"")[1]


def test_odd_lengths_follow_the_software() -> None:
    wrap = SpongeWrap(bytes(16))
    cipher, tag = wrap.wrap(b"odd", b"odd")
    assert len(cipher) == 3
    assert wrap.unwrap(b"odd", cipher, tag) == b"odd"
    assert wrap.wrap(b"odd\x00", b"odd")[1] != tag, "a missing byte is no zero"


@pytest.mark.parametrize("at", range(4 + 8))
def test_every_changed_byte_is_noticed(at: int) -> None:
    wrap = SpongeWrap(bytes(8))
    cipher, tag = wrap.wrap(b"ad", b"body")
    bent = bytearray(cipher + tag)
    bent[at] ^= 0x10
    with pytest.raises(UntrustedError):
        wrap.unwrap(b"ad", bytes(bent[:4]), bytes(bent[4:]))
    with pytest.raises(UntrustedError):
        wrap.unwrap(b"AD", cipher, tag)


@pytest.mark.parametrize("tag", [b"", bytes(7), bytes(9)])
def test_a_tag_of_another_size_is_refused(tag: bytes) -> None:
    with pytest.raises(UntrustedError):
        SpongeWrap(bytes(8)).unwrap(b"", b"", tag)


def test_unverified_plaintext_is_what_the_rtl_leaves_behind() -> None:
    wrap = SpongeWrap(bytes(8))
    cipher, tag = wrap.wrap(b"ad", b"body")
    assert wrap.decrypt_unverified(b"ad", cipher) == (b"body", tag)


@pytest.mark.parametrize("data", [b"", b"1", b"12", b"\x80", b"\x80\x00", bytes(63), bytes(64)])
@pytest.mark.parametrize("ad", [None, b"", b"\x80", bytes(5), bytes(13)])
def test_aead_round_trip(data: bytes, ad: bytes | None) -> None:
    aead = Spongent128(bytes(16))
    sealed = aead.encrypt(NONCE, data, ad)
    assert len(sealed) == len(data) + 2 - len(data) % 2 + TAG_SIZE
    assert aead.decrypt(NONCE, sealed, ad) == data


def test_aead_is_spongewrap_over_what_the_documentation_says() -> None:
    cipher, tag = SpongeWrap(bytes(16)).wrap(NONCE + b"ad123\x80", b"body\x80\x00")
    assert Spongent128(bytes(16)).encrypt(NONCE, b"body", b"ad123") == cipher + tag


def test_aead_binds_nonce_and_associated_data() -> None:
    aead = Spongent128(bytes(16))
    sealed = aead.encrypt(NONCE, b"body", b"ad")
    for nonce, ad in ((bytes(12), b"ad"), (NONCE, b"da"), (NONCE, b"ad\x80"), (NONCE, None)):
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, sealed, ad)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 19])
def test_aead_refuses_what_is_too_short_or_odd(size: int) -> None:
    with pytest.raises(InvalidTag):
        Spongent128(bytes(16)).decrypt(NONCE, bytes(size), None)


@pytest.mark.parametrize("body", [b"12", b"12\x80\x80", b"1\x81", b"\x00\x00", b"12\x00\x00"])
def test_aead_refuses_other_padding(body: bytes) -> None:
    cipher, tag = SpongeWrap(bytes(16)).wrap(NONCE + b"\x80\x00", body)
    aead = Spongent128(bytes(16))
    if body == b"12\x80\x80":
        assert aead.decrypt(NONCE, cipher + tag, None) == b"12\x80", "the one that is right"
        return
    with pytest.raises(InvalidTag):
        aead.decrypt(NONCE, cipher + tag, None)


def test_aead_refuses_other_nonces_and_keys() -> None:
    with pytest.raises(InternalError, match="nonce"):
        Spongent128(bytes(16)).encrypt(bytes(11), b"", None)
    with pytest.raises(InternalError, match="nonce"):
        Spongent128(bytes(16)).decrypt(bytes(13), bytes(18), None)
    with pytest.raises(InternalError, match="key"):
        Spongent128(bytes(8))
