"""SPONGENT hashes and SpongeWrap, the one primitive that a Sancus microcontroller has in hardware.

SPONGENT (Bogdanov and others, CHES 2011; IEEE TC 62(10), 2013) is a sponge over a permutation of
``b`` bits: in each round a counter is added at both ends (at the high end with its bits
reversed), every nibble passes the S-box, and bit ``i`` moves to ``i * b / 4 mod (b - 1)``.

SpongeWrap (Bertoni and others, SAC 2011) is the AEAD that Sancus builds from it, with ``r = 16``:

    security   key, tag   state b   rounds   counter starts at
    64 bits     8 bytes   176       90       0x45
    80 bits    10 bytes   240       120      0x01
    128 bits   16 bytes   336       170      0x52

A block is up to 16 bits of key, associated data or body, then a frame bit, then the padding bit.
Frame bits: key 1 and its last block 0; associated data 0 and its last block 1; body 1 and its last
block 0. Each of the three has at least one block. The tag is what the state shows afterwards.

The microcontroller works on 16-bit words: associated data and body must have an even number of
bytes there (an odd one is silently lengthened). Here odd lengths follow Sancus' own software.
What speaks to a microcontroller keeps to even ones, as :class:`Spongent128` does for any message.

Tables and big integers take time that depends on secrets: use this where the machine that runs it
is not timed by others. Tags are compared in constant time.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from cryptography.exceptions import InvalidTag

from broch.errors import InternalError, UntrustedError

TAG_SIZE: Final = 16  # bytes, of Spongent128
NONCE_SIZE: Final = 12  # bytes, of Spongent128

_SBOX: Final = (0xE, 0xD, 0xB, 0x0, 0x2, 0x1, 0x4, 0xF, 0x7, 0xA, 0x8, 0x5, 0x9, 0xC, 0x3, 0x6)
_TAPS: Final = {6: (5, 4), 7: (6, 5), 8: (7, 3, 2, 1), 9: (8, 3)}  # of the round counter, by width
_Permutation = Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One SPONGENT: sizes in bits, and how its round counter (an LFSR) runs."""

    size: int  # of the digest
    rate: int
    width: int  # of the state
    rounds: int
    counter_bits: int
    counter_start: int


def _variant(size: int, capacity: int, rate: int, rounds: int, bits: int, start: int) -> Variant:
    return Variant(
        size=size,
        rate=rate,
        width=capacity + rate,
        rounds=rounds,
        counter_bits=bits,
        counter_start=start,
    )


#: The published hashes, by digest size / capacity / rate (bits).
HASHES: Final = {
    "88/80/8": _variant(88, 80, 8, 45, 6, 0x05),
    "88/176/88": _variant(88, 176, 88, 135, 8, 0xC6),
    "128/128/8": _variant(128, 128, 8, 70, 7, 0x7A),
    "128/256/128": _variant(128, 256, 128, 195, 8, 0xFB),
    "160/160/16": _variant(160, 160, 16, 90, 7, 0x45),
    "160/160/80": _variant(160, 160, 80, 120, 7, 0x01),
    "160/320/160": _variant(160, 320, 160, 240, 8, 0xA7),
    "224/224/16": _variant(224, 224, 16, 120, 7, 0x01),
    "224/224/112": _variant(224, 224, 112, 170, 8, 0x52),
    "224/448/224": _variant(224, 448, 224, 340, 9, 0x105),
    "256/256/16": _variant(256, 256, 16, 140, 8, 0x9E),
    "256/256/128": _variant(256, 256, 128, 195, 8, 0xFB),
    "256/512/256": _variant(256, 512, 256, 385, 9, 0x015),
}

#: SpongeWrap's permutation, by key size (bytes).
_WRAPS: Final = {8: HASHES["160/160/16"], 10: HASHES["160/160/80"], 16: HASHES["224/224/112"]}


def spongent(name: str, data: bytes) -> bytes:
    """Hash ``data`` with the SPONGENT called ``name`` in :data:`HASHES`.

    Raises:
        InternalError: there is no such variant.
    """
    if name not in HASHES:
        raise InternalError(f"no SPONGENT is called {name!r}; there are {', '.join(HASHES)}")
    variant = HASHES[name]
    permute = permutation(variant)
    step = variant.rate // 8
    padded = data + b"\x80" + bytes(-(len(data) + 1) % step)
    state = 0
    for at in range(0, len(padded), step):
        state = permute(state ^ int.from_bytes(padded[at : at + step], "little"))
    mask = (1 << variant.rate) - 1
    digest = (state & mask).to_bytes(step, "little")
    while len(digest) < variant.size // 8:
        state = permute(state)
        digest += (state & mask).to_bytes(step, "little")
    return digest


class SpongeWrap:
    """SpongeWrap under one key, bit for bit what Sancus' instructions and its tools compute."""

    __slots__ = ("_keyed", "_permute", "tag_size")

    def __init__(self, key: bytes) -> None:
        """Absorb the key, which chooses the security: 8, 10 or 16 bytes.

        Raises:
            InternalError: the key has another size.
        """
        if len(key) not in _WRAPS:
            raise InternalError(f"a SpongeWrap key has 8, 10 or 16 bytes, this one {len(key)}")
        self.tag_size = len(key)
        self._permute = permutation(_WRAPS[len(key)])
        state = 0
        for block in _framed(key, more=1):
            state = self._permute(state ^ block)
        self._keyed = state

    def wrap(self, associated_data: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Encrypt ``body``: ciphertext of the same length, and the tag over both."""
        permute = self._permute
        state = self._begin(associated_data)
        cipher = bytearray()
        for block in _framed(body, more=1):
            state ^= block
            cipher += (state & 0xFFFF).to_bytes(2, "little")
            state = permute(state)
        return bytes(cipher[: len(body)]), self._tag(state)

    def decrypt_unverified(self, associated_data: bytes, cipher: bytes) -> tuple[bytes, bytes]:
        """Decrypt without a check: what would be the body, and the tag that it would need.

        Nothing of the body may be used before the tag has been compared.
        """
        permute = self._permute
        state = self._begin(associated_data)
        body = bytearray()
        last = (len(cipher) - 1) // 2 * 2
        for at in range(0, len(cipher), 2):
            part = cipher[at : at + 2]
            bits = 8 * len(part)
            plain = (state ^ int.from_bytes(part, "little")) & (1 << bits) - 1
            body += plain.to_bytes(len(part), "little")
            state = permute(state ^ plain ^ (0b10 | (at != last)) << bits)
        if not cipher:
            state = permute(state ^ 0b10)
        return bytes(body), self._tag(state)

    def unwrap(self, associated_data: bytes, cipher: bytes, tag: bytes) -> bytes:
        """Decrypt and check; compares tags in constant time.

        Raises:
            UntrustedError: the tag is not that of this associated data and ciphertext.
        """
        body, expected = self.decrypt_unverified(associated_data, cipher)
        if not hmac.compare_digest(expected, tag):
            raise UntrustedError("SpongeWrap: the tag does not match")
        return body

    def mac(self, message: bytes) -> bytes:
        """Authenticate ``message``: the tag of an empty body. Sancus derives keys with it."""
        return self._tag(self._permute(self._begin(message) ^ 0b10))

    def _begin(self, associated_data: bytes) -> int:
        permute = self._permute
        state = self._keyed
        for block in _framed(associated_data, more=0):
            state = permute(state ^ block)
        return state

    def _tag(self, state: int) -> bytes:
        permute = self._permute
        tag = (state & 0xFFFF).to_bytes(2, "little")
        while len(tag) < self.tag_size:
            state = permute(state ^ 1)  # an empty block: the padding bit alone
            tag += (state & 0xFFFF).to_bytes(2, "little")
        return tag


class Spongent128:
    """SpongeWrap with 128-bit keys as an AEAD with a nonce: cipher ``spongent-128`` of connections.

    A microcontroller must be able to speak it, so what SpongeWrap gets is always even:

        associated data   even(nonce (12 bytes) || associated data)
        body              even(data)
        even(x)           x || 0x80 if x is odd, x || 0x80 0x00 if it is even

    No two inputs become one, as the nonce has a fixed length and ``even`` can be undone. A sealed
    message is ciphertext || tag, and 17 or 18 bytes longer than the data.
    """

    __slots__ = ("_wrap",)

    def __init__(self, key: bytes) -> None:
        """Absorb a key of 16 bytes.

        Raises:
            InternalError: the key has another size.
        """
        if len(key) != TAG_SIZE:
            raise InternalError(f"a SPONGENT-128 key has {TAG_SIZE} bytes, this one {len(key)}")
        self._wrap = SpongeWrap(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Seal ``data``.

        Raises:
            InternalError: the nonce has not 12 bytes.
        """
        cipher, tag = self._wrap.wrap(_bound(nonce, associated_data), _even(data))
        return cipher + tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Open what :meth:`encrypt` sealed.

        Raises:
            InvalidTag: it is not authentic.
            InternalError: the nonce has not 12 bytes.
        """
        bound = _bound(nonce, associated_data)
        cipher, tag = data[:-TAG_SIZE], data[-TAG_SIZE:]
        if len(tag) != TAG_SIZE or not cipher or len(cipher) % 2:
            raise InvalidTag
        try:
            padded = self._wrap.unwrap(bound, cipher, tag)
        except UntrustedError:
            raise InvalidTag from None
        body = padded[:-1] if padded[-1] == 0x80 else padded[:-2]
        if _even(body) != padded:
            raise InvalidTag  # sealed by someone with the key who does not keep to the padding
        return body


def _bound(nonce: bytes, associated_data: bytes | None) -> bytes:
    if len(nonce) != NONCE_SIZE:
        raise InternalError(f"a SPONGENT-128 nonce has {NONCE_SIZE} bytes, this one {len(nonce)}")
    return _even(nonce + (associated_data or b""))


def _even(data: bytes) -> bytes:
    return data + (b"\x80" if len(data) % 2 else b"\x80\x00")


def _framed(data: bytes, *, more: int) -> list[int]:
    """Blocks of 16 bits with frame bit (``more``, in the last its opposite) and padding bit."""
    count = max(1, (len(data) + 1) // 2)
    blocks = [int.from_bytes(data[2 * i : 2 * i + 2], "little") for i in range(count)]
    last = 8 * (len(data) - 2 * (count - 1))
    framed = [block | (0b10 | more) << 16 for block in blocks[:-1]]
    return [*framed, blocks[-1] | (0b10 | more ^ 1) << last]


@cache
def permutation(variant: Variant) -> _Permutation:
    """The permutation of a variant, on the state as a little-endian integer."""
    constants = _round_constants(variant)
    if variant.width % 16:
        return _by_bytes(variant.width, constants)
    return _by_swaps(variant.width // 16, constants)


def _round_constants(variant: Variant) -> list[int]:
    """What each round adds to the state: the counter below, its mirror image above."""
    bits, counter = variant.counter_bits, variant.counter_start
    field = max(bits, 8)  # the mirror image is that of 8 bits, even where the counter has 6 or 7
    constants = []
    for _ in range(variant.rounds):
        mirrored = int(f"{counter:0{field}b}"[::-1], 2)
        constants.append(counter ^ mirrored << variant.width - field)
        feedback = 0
        for tap in _TAPS[bits]:
            feedback ^= counter >> tap & 1
        counter = (counter << 1 | feedback) & (1 << bits) - 1
    return constants


def _by_bytes(width: int, constants: list[int]) -> _Permutation:
    """Any width: a table for each byte of the state, of where its bits go after the S-box."""
    size = width // 8

    def moved(at: int, value: int) -> int:
        swapped = _SBOX[value & 15] | _SBOX[value >> 4] << 4
        bits = [at * 8 + bit for bit in range(8) if swapped >> bit & 1]
        return sum(
            1 << (bit * width // 4 % (width - 1) if bit < width - 1 else bit) for bit in bits
        )

    tables = [[moved(at, value) for value in range(256)] for at in range(size)]

    def permute(state: int) -> int:
        for constant in constants:
            data = (state ^ constant).to_bytes(size, "little")
            state = 0
            for table, value in zip(tables, data, strict=True):
                state |= table[value]
        return state

    return permute


def _by_swaps(groups: int, constants: list[int]) -> _Permutation:
    """A width that is a multiple of 16: about ten operations on whole integers a round.

    The bit permutation turns each group of four nibbles, a 4x4 matrix of bits, about its diagonal,
    and puts row ``j`` of group ``m`` at nibble ``groups * j + m``. In a round:

    1. The bytes of the state are parted: nibbles 0 and 1 of every group, then 2 and 3 (slices).
    2. ``bytes.translate`` passes both nibbles through the S-box and turns the two 2x2 quarters.
    3. The first swap of bits, between the two halves, turns the rest. A byte now holds two
       finished nibbles, ``n`` and ``n + 2 * groups``.
    4. The second swap makes them neighbours ``n`` and ``n + 1``. The bytes of the state have the
       order 0, 2g, 1, 2g + 1, ... (g: ``groups`` / 2), and the slices of the next round undo it.
    """
    size = 2 * groups
    table = bytes(map(_substitute_and_turn, range(256)))
    far = 8 * groups - 2  # distance of the first swap
    far_mask = int.from_bytes(b"\xcc" * groups, "little")
    near_mask = int.from_bytes(b"\xf0\x00" * groups, "little")
    parts = [slice(at, None, 4) for at in ((0, 3, 2, 1) if groups % 2 else (0, 1, 2, 3))]
    order = [byte for pair in zip(range(groups), range(groups, size), strict=True) for byte in pair]

    def shuffle(state: int) -> int:
        data = state.to_bytes(size, "little")
        return int.from_bytes(bytes(data[at] for at in order), "little")

    shuffled = [shuffle(constant) for constant in constants]

    def permute(state: int) -> int:
        from_bytes = int.from_bytes
        first, second, third, fourth = parts
        x = shuffle(state)
        for constant in shuffled:
            b = (x ^ constant).to_bytes(size, "little")
            b = b[first] + b[second] + b[third] + b[fourth]
            x = from_bytes(b.translate(table), "little")
            t = (x ^ x >> far) & far_mask
            x ^= t ^ t << far
            x ^= ((x ^ x >> 4) & near_mask) * 17  # t ^ t << 4
        data = x.to_bytes(size, "little")
        return from_bytes(data[0::2] + data[1::2], "little")

    return permute


def _substitute_and_turn(value: int) -> int:
    """S-box both nibbles; put bit ``j`` of the low one at ``2j``, of the high one at ``2j + 1``."""
    low, high = _SBOX[value & 15], _SBOX[value >> 4]
    return sum((low >> j & 1) << 2 * j | (high >> j & 1) << 2 * j + 1 for j in range(4))
