"""Channels: one test a rule, with a peer that breaks only that rule."""

from dataclasses import dataclass, field
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broch.crypto import channel
from broch.crypto.channel import (
    CIPHERS,
    MAX_COUNTER,
    REKEY_AT,
    TAG_SIZE,
    Direction,
    Opener,
    Sealer,
)
from broch.errors import InternalError, UntrustedError

CIPHER: Final = "aes-128-gcm"
KEY: Final = bytes(range(16))
CONNECTION: Final = 7
EPOCH: Final = 3


def sealer(
    *,
    key: bytes = KEY,
    connection: int = CONNECTION,
    direction: Direction = Direction.FORWARD,
    epoch: int = EPOCH,
) -> Sealer:
    return Sealer(CIPHER, key, connection=connection, direction=direction, epoch=epoch)


def opener(
    *, connection: int = CONNECTION, direction: Direction = Direction.FORWARD, epoch: int = EPOCH
) -> Opener:
    return Opener(CIPHER, KEY, connection=connection, direction=direction, epoch=epoch)


def assert_refused(end: Opener, counter: int, sealed: bytes, answers: int | None = None) -> None:
    """Refused with our error, and nothing changed: what comes next still opens."""
    before = (end.counter, end.gaps)
    with pytest.raises(UntrustedError, match=f"message {counter} "):
        end.open(counter, sealed, answers)
    assert (end.counter, end.gaps) == before


# What travels


def test_the_format_is_the_one_in_the_docstring() -> None:
    counter, sealed = sealer().seal(b"open")
    nonce = bytes.fromhex("00000003 0000000000000001")
    ad = bytes.fromhex("00000007 00")
    assert counter == 1
    assert sealed == AESGCM(KEY).encrypt(nonce, b"open", ad)
    assert len(sealed) == len(b"open") + TAG_SIZE


def test_the_format_of_a_reply_has_its_direction_and_what_it_answers() -> None:
    _, sealed = sealer(direction=Direction.BACK).seal(b"yes", 9)
    nonce = bytes.fromhex("00000003 8000000000000001")
    ad = bytes.fromhex("00000007 01 0000000000000009")
    assert sealed == AESGCM(KEY).encrypt(nonce, b"yes", ad)


@pytest.mark.parametrize("data", [b"", b"x", bytes(100_000)], ids=["empty", "one", "long"])
def test_what_was_sealed_opens(data: bytes) -> None:
    assert opener().open(*sealer().seal(data)) == data


def test_the_first_message_is_number_one_and_the_next_ones_count_up() -> None:
    out = sealer()
    assert [out.seal(b"")[0] for _ in range(3)] == [1, 2, 3]


# Nonces


@dataclass
class Recorder:
    """A cipher of the sender's that remembers under which nonces it encrypted."""

    inner: AESGCM
    nonces: list[bytes] = field(default_factory=list)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        self.nonces.append(nonce)
        return self.inner.encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        return self.inner.decrypt(nonce, data, associated_data)


def test_no_nonce_comes_twice_under_a_key_in_both_directions_and_all_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Request and reply share their connection's key: the same counter must not be one nonce."""
    recorder = Recorder(AESGCM(KEY))
    monkeypatch.setitem(CIPHERS, "recorded", lambda key: recorder)
    for epoch in (1, 2, 2**32 - 1):
        for direction in Direction:
            end = Sealer("recorded", KEY, connection=1, direction=direction, epoch=epoch)
            for number in range(20):
                end.seal(b"", number if direction is Direction.BACK else None)
    assert len(recorder.nonces) == 120
    assert len(set(recorder.nonces)) == 120
    assert {len(nonce) for nonce in recorder.nonces} == {12}


def test_a_used_up_key_seals_no_more_and_its_counter_stays() -> None:
    out = sealer()
    out.counter = REKEY_AT - 2
    assert out.seal(b"last")[0] == REKEY_AT - 1
    for _ in range(2):
        with pytest.raises(InternalError, match="used up: it must be rekeyed"):
            out.seal(b"one too many")
    assert out.counter == REKEY_AT - 1


def test_a_counter_cannot_reach_the_direction_bit() -> None:
    assert REKEY_AT < MAX_COUNTER < 1 << 63


# Refusals


def test_a_replay_is_refused() -> None:
    out, end = sealer(), opener()
    first = out.seal(b"1")
    end.open(*first)
    assert_refused(end, *first)
    assert end.open(*out.seal(b"2")) == b"2"


def test_a_message_out_of_order_is_refused() -> None:
    out, end = sealer(), opener()
    first, second = out.seal(b"1"), out.seal(b"2")
    end.open(*second)
    assert_refused(end, *first)


@pytest.mark.parametrize("counter", [-1, 0, MAX_COUNTER + 1, 2**64])
def test_a_counter_out_of_range_is_refused(counter: int) -> None:
    _, sealed = sealer().seal(b"1")
    assert_refused(opener(), counter, sealed)


def test_a_forged_counter_does_not_move_the_receiver() -> None:
    """Or one forged message with a high counter would lock all later ones out."""
    out, end = sealer(), opener()
    counter, sealed = out.seal(b"1")
    assert_refused(end, MAX_COUNTER, sealed)
    assert end.open(counter, sealed) == b"1"


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        pytest.param(sealer(key=bytes(16)), opener(), id="another key"),
        pytest.param(sealer(), opener(connection=8), id="another connection"),
        pytest.param(sealer(), opener(direction=Direction.BACK), id="forward as back"),
        pytest.param(sealer(direction=Direction.BACK), opener(), id="back as forward"),
        pytest.param(sealer(), opener(epoch=4), id="the next epoch"),
        pytest.param(sealer(epoch=4), opener(), id="an old epoch"),
    ],
)
def test_what_is_not_for_this_end_is_refused(sender: Sealer, receiver: Opener) -> None:
    assert_refused(receiver, *sender.seal(b"open the valve"))


@pytest.mark.parametrize(
    ("sealed_for", "opened_for"), [(5, 6), (5, None), (None, 5), (0, None), (None, 0)]
)
def test_a_reply_answers_its_request_only(sealed_for: int | None, opened_for: int | None) -> None:
    sealed = sealer(direction=Direction.BACK).seal(b"yes", sealed_for)
    assert_refused(opener(direction=Direction.BACK), *sealed, answers=opened_for)


@pytest.mark.parametrize("size", [0, 1, TAG_SIZE - 1, TAG_SIZE])
def test_a_message_that_is_too_short_is_refused(size: int) -> None:
    assert_refused(opener(), 1, bytes(size))


# Gaps


def test_what_never_came_is_counted() -> None:
    out, end = sealer(), opener()
    messages = [out.seal(bytes([n])) for n in range(10)]
    for index in (0, 3, 4, 9):
        assert end.open(*messages[index]) == bytes([index])
    assert end.gaps == 2 + 4
    assert end.counter == 10


# Construction


@pytest.mark.parametrize("end", [Sealer, Opener])
def test_an_unknown_cipher_is_an_error(end: type[Sealer | Opener]) -> None:
    with pytest.raises(InternalError, match="unknown cipher 'rot13'"):
        end("rot13", KEY, connection=1, direction=Direction.FORWARD, epoch=1)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
@pytest.mark.parametrize("end", [Sealer, Opener])
def test_a_key_of_another_size_is_an_error(end: type[Sealer | Opener], size: int) -> None:
    with pytest.raises(InternalError, match=f"has 16 bytes, this one {size}"):
        end(CIPHER, bytes(size), connection=1, direction=Direction.FORWARD, epoch=1)


def test_ends_do_not_show_their_key() -> None:
    for end in (sealer(), opener()):
        assert KEY.hex() not in repr(end)
        assert not hasattr(end, "__dict__")


def test_the_default_cipher_is_what_its_name_says() -> None:
    assert channel.CIPHERS["aes-128-gcm"] is AESGCM
