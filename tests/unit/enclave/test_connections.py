"""A module's ends of its connections: what a grant may change, and what opens at which end."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from broch import Module, Struct
from broch.enclave.connections import Connections, Incoming, Outgoing
from broch.enclave.join import Connection
from broch.enclave.messages import ANSWER, SEALED, Kind, head
from broch.enclave.ring import PoisonedError
from broch.errors import DecodeError, UntrustedError


class Reading(Struct):
    percent: float


def declare() -> Module:
    """A module with a port of each kind that can be connected, and some that cannot."""
    module = Module("controller")
    module.output("valve", Reading)
    module.output("pump", Reading)
    module.request("ask", Reading, int)
    module.ocall("host", int, int)

    @module.input
    def moisture(reading: Reading) -> None: ...

    @module.input
    def rain(reading: Reading) -> None: ...

    @module.handler
    def level(reading: Reading) -> int:
        return int(reading.percent)

    @module.entry
    def status() -> int:
        return 1

    return module


VALVE, PUMP, ASK, MOISTURE, RAIN, LEVEL = 0, 1, 2, 4, 5, 6


def granted(role: Any, port: str, *, number: int = 1, epoch: int = 1, **changed: Any) -> Connection:
    fields: dict[str, Any] = {"peer": "x.y", "cipher": "aes-128-gcm", "key": bytes([epoch]) * 16}
    return Connection(id=number, role=role, port=port, epoch=epoch, **{**fields, **changed})


OUTPUT: Final = granted("output", "valve")
INPUT: Final = granted("input", "moisture")
REQUEST: Final = granted("request", "ask")
HANDLER: Final = granted("handler", "level")


@pytest.fixture
def ends() -> Connections:
    return Connections(declare()._declared)


def counts(ends: Connections) -> tuple[int, int, int, int]:
    outputs = sum(len(group) for group in ends.outputs.values())
    return outputs, len(ends.requests), len(ends.inputs), len(ends.handlers)


# What a grant puts where


def test_each_role_has_its_place(ends: Connections) -> None:
    ends.take([OUTPUT, granted("request", "ask", number=2)])
    ends.take([granted("input", "moisture", number=3), granted("handler", "level", number=4)])
    assert [end.connection for end in ends.outputs[VALVE]] == [1]
    assert ends.requests[ASK].connection == 2
    assert ends.inputs[3].port == MOISTURE
    assert ends.handlers[4].port == LEVEL


def test_an_output_may_have_several_connections(ends: Connections) -> None:
    ends.take([OUTPUT, granted("output", "valve", number=2)])
    assert [end.connection for end in ends.outputs[VALVE]] == [1, 2]


def test_a_grant_leaves_what_it_does_not_name(ends: Connections) -> None:
    ends.take([OUTPUT, granted("output", "valve", number=2)])
    before = ends.outputs[VALVE][1]
    ends.take([granted("output", "valve", epoch=2)])
    assert {end.connection: end.epoch for end in ends.outputs[VALVE]} == {1: 2, 2: 1}
    assert before in ends.outputs[VALVE]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(OUTPUT, granted("output", "pump", epoch=2), id="another output"),
        pytest.param(OUTPUT, granted("request", "ask", epoch=2), id="output to request"),
        pytest.param(REQUEST, granted("output", "valve", epoch=2), id="request to output"),
        pytest.param(INPUT, granted("input", "rain", epoch=2), id="another input"),
        pytest.param(INPUT, granted("handler", "level", epoch=2), id="input to handler"),
        pytest.param(HANDLER, granted("input", "rain", epoch=2), id="handler to input"),
    ],
)
def test_a_connection_that_moves_leaves_nothing_behind(
    ends: Connections, first: Connection, second: Connection
) -> None:
    ends.take([first])
    ends.take([second])
    assert sum(counts(ends)) == 1


def test_both_ends_of_one_connection_may_be_in_one_module(ends: Connections) -> None:
    """They come in two grants, with one key and one epoch: receiver first, then sender."""
    ends.take([INPUT])
    ends.take([OUTPUT])
    message = ends.outputs[VALVE][0].event(b"\x81\xa7percent\x01")
    _, _, counter = head(SEALED, message)
    assert ends.inputs[1].opener.open(counter, message[SEALED.size :]) == b"\x81\xa7percent\x01"


def test_dropped_connections_are_gone(ends: Connections) -> None:
    ends.take([OUTPUT, granted("request", "ask", number=2)])
    ends.take([granted("input", "moisture", number=3), granted("handler", "level", number=4)])
    ends.drop()
    assert counts(ends) == (0, 0, 0, 0)
    ends.take([granted("output", "valve", epoch=2), granted("input", "rain", number=3, epoch=2)])
    assert counts(ends) == (1, 0, 1, 0)


# Refusals: none of a grant is taken


@pytest.mark.parametrize("epoch", [4, 5])
@pytest.mark.parametrize("end", [OUTPUT, INPUT, REQUEST, HANDLER], ids=lambda end: end.role)
def test_an_epoch_must_rise(ends: Connections, end: Connection, epoch: int) -> None:
    """Or counters would begin anew under a key that was used."""
    ends.take([msgspec.structs.replace(end, epoch=5)])
    before = counts(ends)
    other = granted("output", "pump", number=9)
    with pytest.raises(UntrustedError, match=f"connection 1: epoch {epoch} after epoch 5"):
        ends.take([other, msgspec.structs.replace(end, epoch=epoch)])
    assert counts(ends) == before


@pytest.mark.parametrize("end", [OUTPUT, INPUT, REQUEST, HANDLER], ids=lambda end: end.role)
def test_an_epoch_is_over_for_good_when_its_connection_is_dropped(
    ends: Connections, end: Connection
) -> None:
    """After a handover nothing resumes, whichever old grant the host brings again."""
    ends.take([end])
    ends.drop()
    with pytest.raises(UntrustedError, match="epoch 1 after epoch 1"):
        ends.take([end])
    assert counts(ends) == (0, 0, 0, 0)


def test_an_epoch_is_over_for_good_when_another_connection_took_its_port(ends: Connections) -> None:
    ends.take([REQUEST])
    ends.take([granted("request", "ask", number=2)])
    with pytest.raises(UntrustedError, match="epoch 1 after epoch 1"):
        ends.take([REQUEST])
    assert ends.requests[ASK].connection == 2


def test_one_end_twice_in_a_grant_is_refused(ends: Connections) -> None:
    with pytest.raises(DecodeError, match="one end of a connection twice"):
        ends.take([INPUT, granted("input", "rain", epoch=2)])
    assert counts(ends) == (0, 0, 0, 0)


def test_an_unknown_cipher_is_refused(ends: Connections) -> None:
    with pytest.raises(DecodeError, match="unknown cipher 'rot13'"):
        ends.take([INPUT, granted("output", "valve", number=2, cipher="rot13")])
    assert counts(ends) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("role", "port"),
    [
        ("output", "nowhere"),
        ("output", "ask"),
        ("output", "moisture"),
        ("input", "valve"),
        ("input", "level"),
        ("input", "status"),
        ("request", "valve"),
        ("request", "host"),
        ("handler", "moisture"),
        ("handler", "status"),
    ],
)
def test_a_port_of_another_kind_or_none_is_refused(ends: Connections, role: str, port: str) -> None:
    with pytest.raises(DecodeError, match=f"this module has no {role} '{port}'"):
        ends.take([granted("output", "pump", number=9), granted(role, port)])
    assert counts(ends) == (0, 0, 0, 0)


# Messages


def pair() -> tuple[Outgoing, Incoming]:
    """The two ends of one connection between two modules, at request and handler."""
    here, there = Connections(declare()._declared), Connections(declare()._declared)
    here.take([REQUEST])
    there.take([HANDLER])
    return here.requests[ASK], there.handlers[1]


def test_an_event_says_its_connection_epoch_and_counter(ends: Connections) -> None:
    ends.take([granted("output", "valve", number=7, epoch=9)])
    (end,) = ends.outputs[VALVE]
    messages = [end.event(b"x") for _ in range(2)]
    assert [SEALED.unpack_from(m) for m in messages] == [(3, 7, 9, 1), (Kind.EVENT, 7, 9, 2)]


def test_a_request_is_answered() -> None:
    out, end = pair()
    message, counter = out.request(b"how much?")
    assert end.opener.open(head(SEALED, message)[2], message[SEALED.size :]) == b"how much?"
    assert out.open_reply(end.reply(b"12", counter), counter) == b"12"


def test_request_and_reply_of_one_number_share_no_key_stream() -> None:
    """Both are message 1 under one key and epoch: with one nonce, one would open the other."""
    out, end = pair()
    message, counter = out.request(bytes(64))
    reply = end.reply(bytes(64), counter)
    assert message[SEALED.size :][:64] != reply[ANSWER.size :][:64]


def test_a_reply_is_taken_once() -> None:
    out, end = pair()
    _, counter = out.request(b"")
    reply = end.reply(b"12", counter)
    out.open_reply(reply, counter)
    with pytest.raises(UntrustedError, match="replayed or reordered"):
        out.open_reply(reply, counter)


def test_a_reply_to_an_earlier_request_is_refused() -> None:
    out, end = pair()
    _, first = out.request(b"")
    _, second = out.request(b"")
    with pytest.raises(UntrustedError, match="reply to request 1 of connection 1"):
        out.open_reply(end.reply(b"12", first), second)


def altered(field: int) -> Callable[[bytes], bytes]:
    """A reply whose head has another number in this place."""

    def alter(reply: bytes) -> bytes:
        head = list(ANSWER.unpack_from(reply))
        head[field] += 1
        return ANSWER.pack(*head) + reply[ANSWER.size :]

    return alter


@pytest.mark.parametrize("field", [1, 2, 3, 4], ids=["connection", "epoch", "counter", "answers"])
def test_every_field_of_a_replys_head_counts(field: int) -> None:
    out, end = pair()
    _, counter = out.request(b"")
    reply = end.reply(b"12", counter)
    with pytest.raises(UntrustedError):
        out.open_reply(altered(field)(reply), counter)
    assert out.open_reply(reply, counter) == b"12"


def test_a_reply_readdressed_to_the_next_request_is_refused() -> None:
    """Also when the host changes the head to say what is expected."""
    out, end = pair()
    _, first = out.request(b"")
    old = end.reply(b"12", first)
    _, second = out.request(b"")
    with pytest.raises(UntrustedError, match="not authentic"):
        out.open_reply(altered(4)(old), second)


def test_an_event_is_no_reply() -> None:
    out, _ = pair()
    message, counter = out.request(b"to myself")
    kind, connection, epoch, number = SEALED.unpack_from(message)
    reflected = ANSWER.pack(kind, connection, epoch, number, counter) + message[SEALED.size :]
    with pytest.raises(UntrustedError, match="not authentic"):
        out.open_reply(reflected, counter)


def test_a_reply_shorter_than_its_head_is_poison() -> None:
    out, _ = pair()
    with pytest.raises(PoisonedError, match="its head alone has 25"):
        out.open_reply(bytes(24), 1)


def test_an_incoming_end_decodes_its_declared_type_only(ends: Connections) -> None:
    ends.take([INPUT])
    assert ends.inputs[1].decode(b"\x81\xa7percent\x01") == Reading(percent=1.0)
    for data in (b"\x81\xa7percent\xa1x", b"\x80", b"\x01", b"\x82\xa7percent\x01\xa1x\x01"):
        with pytest.raises(msgspec.ValidationError):
            ends.inputs[1].decode(data)
