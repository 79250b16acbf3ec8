"""Channels against a network that does as it likes with what travels."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from broch.crypto.channel import Direction, Opener, Sealer
from broch.errors import UntrustedError

CIPHER: Final = "aes-128-gcm"
KEY: Final = bytes(range(16))
SMALL: Final = st.integers(0, 3)


def sealer(direction: Direction = Direction.FORWARD, epoch: int = 1) -> Sealer:
    return Sealer(CIPHER, KEY, connection=1, direction=direction, epoch=epoch)


def opener(direction: Direction = Direction.FORWARD, epoch: int = 1) -> Opener:
    return Opener(CIPHER, KEY, connection=1, direction=direction, epoch=epoch)


@settings(derandomize=True)
@given(
    data=st.binary(max_size=300),
    connection=st.integers(1, 2**32 - 1),
    epoch=st.integers(1, 2**32 - 1),
    direction=st.sampled_from(Direction),
    answers=st.none() | st.integers(0, 2**64 - 1),
)
def test_round_trip(
    data: bytes, connection: int, epoch: int, direction: Direction, answers: int | None
) -> None:
    out = Sealer(CIPHER, KEY, connection=connection, direction=direction, epoch=epoch)
    end = Opener(CIPHER, KEY, connection=connection, direction=direction, epoch=epoch)
    counter, sealed = out.seal(data, answers)
    assert end.open(counter, sealed, answers) == data


def test_every_bit_of_a_message_counts() -> None:
    counter, sealed = sealer().seal(b"set the valve to 30 %")
    end = opener()
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UntrustedError, match="not authentic"):
            end.open(counter, bytes(altered))
    assert end.open(counter, sealed) == b"set the valve to 30 %"


def test_every_truncation_and_extension_is_refused() -> None:
    counter, sealed = sealer().seal(b"set the valve to 30 %")
    end = opener()
    for altered in [sealed[:size] for size in range(len(sealed))] + [sealed + b"\0"]:
        with pytest.raises(UntrustedError, match="not authentic"):
            end.open(counter, altered)
    assert end.open(counter, sealed) == b"set the valve to 30 %"


@settings(derandomize=True)
@given(counter=st.integers(-(2**70), 2**70), sealed=st.binary(max_size=80))
def test_anything_at_all_is_refused(counter: int, sealed: bytes) -> None:
    end = opener()
    with pytest.raises(UntrustedError):
        end.open(counter, sealed)
    assert (end.counter, end.gaps) == (0, 0)


class Network(RuleBasedStateMachine):
    """Two modules that ask and answer under one key, and a network that has every message.

    A receiver takes exactly what its peer sent to it, at most once, in the order of sending.
    """

    requests: Bundle[tuple[int, bytes]] = Bundle("requests")
    replies: Bundle[tuple[int, bytes]] = Bundle("replies")

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.rekey()

    @rule()
    def rekey(self) -> None:
        self.epoch += 1
        self.ask, self.answer = (
            sealer(Direction.FORWARD, self.epoch),
            sealer(Direction.BACK, self.epoch),
        )
        self.at_handler = opener(Direction.FORWARD, self.epoch)
        self.at_asker = opener(Direction.BACK, self.epoch)
        self.asked: dict[int, tuple[bytes, bytes]] = {}  # counter -> ciphertext, plaintext
        self.answered: dict[int, tuple[bytes, bytes, int]] = {}
        self.taken: list[int] = []
        self.heard: list[int] = []

    @rule(target=requests, data=st.binary(max_size=4))
    def send_request(self, data: bytes) -> tuple[int, bytes]:
        counter, sealed = self.ask.seal(data)
        self.asked[counter] = sealed, data
        return counter, sealed

    @rule(target=replies, data=st.binary(max_size=4), to=SMALL)
    def send_reply(self, data: bytes, to: int) -> tuple[int, bytes]:
        counter, sealed = self.answer.seal(data, to)
        self.answered[counter] = sealed, data, to
        return counter, sealed

    @rule(message=requests | replies, shift=st.sampled_from([0, 0, 0, 1, -1]))
    def deliver_to_handler(self, message: tuple[int, bytes], shift: int) -> None:
        counter, sealed = message[0] + shift, message[1]
        sent, data = self.asked.get(counter, (None, b""))
        if sent == sealed and counter > max(self.taken, default=0):
            assert self.at_handler.open(counter, sealed) == data
            self.taken.append(counter)
        else:
            with pytest.raises(UntrustedError):
                self.at_handler.open(counter, sealed)

    @rule(message=requests | replies, to=SMALL)
    def deliver_to_asker(self, message: tuple[int, bytes], to: int) -> None:
        counter, sealed = message
        sent, data, answers = self.answered.get(counter, (None, b"", -1))
        if (sent, answers) == (sealed, to) and counter > max(self.heard, default=0):
            assert self.at_asker.open(counter, sealed, to) == data
            self.heard.append(counter)
        else:
            with pytest.raises(UntrustedError):
                self.at_asker.open(counter, sealed, to)

    @invariant()
    def gaps_are_what_never_came(self) -> None:
        for end, counters in ((self.at_handler, self.taken), (self.at_asker, self.heard)):
            assert end.counter == max(counters, default=0)
            assert end.gaps == end.counter - len(counters)


TestNetwork = Network.TestCase
TestNetwork.settings = settings(
    derandomize=True, max_examples=60, stateful_step_count=40, deadline=None
)
