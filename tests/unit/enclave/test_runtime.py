"""The runtime: only its connections' events reach a module, and nothing leaves that should not."""

import struct
from collections.abc import Callable

import msgspec
import pytest

from broch.crypto.channel import Direction, Opener, Sealer
from broch.enclave.join import Terms, grant
from broch.enclave.messages import ANSWER, GAP, NOTICE, SEALED, Kind, Status

from .harness import Enclave, Joined, Node, Peer, connection

CANARY = "canary-7f3a"
MODULE = f"""
from broch import Module, Refused, RequestFailed, StoreError, Struct

class Color(Struct):
    name: str

module = Module("probe")
out = module.output("out", str)
question = module.request("question", int, int)
secret = "{CANARY}" + module.name
heard = []

@module.input
def hear(number: int) -> None:
    if number < 0:
        raise Refused("negative")
    heard.append(number)

@module.handler
def double(number: int) -> int:
    if number < 0:
        raise Refused("negative")
    return 2 * number

@module.entry
def what_was_heard() -> list[int]:
    return heard

@module.entry
def say(text: str) -> None:
    out.emit(text)

@module.entry
def asks(number: int) -> str:
    try:
        return str(question(number))
    except RequestFailed as exc:
        return "failed: " + str(exc)

@module.entry
def refuses(text: str) -> None:
    raise Refused(text)

@module.entry
def raises() -> None:
    raise ValueError(secret)

@module.entry
def lies() -> int:
    return secret

@module.entry
def too_much() -> bytes:
    return bytes(1 << 20)

@module.entry
def surrogate() -> None:
    raise Refused("\\ud800" + "x" * 1000)

class Closing:
    def __del__(self):
        raise ValueError(secret)

@module.entry
def finalizes() -> None:
    Closing()

@module.entry
def who() -> list[str]:
    me = module.identity
    return [me.app, me.module, me.tee, me.measurement.hex()]

@module.entry
def put(key: str, value: str) -> None:
    module.store[key] = value

@module.entry
def get(key: str) -> str:
    return module.store[key]

@module.entry
def get_whatever_happens(key: str) -> str:
    try:
        return module.store[key]
    except StoreError:
        raise
    except BaseException as exc:
        return repr(exc)

@module.entry
def keys() -> list[bytes]:
    return [module.derive_key("a"), module.derive_key("b"), module.sign(b"x")]
"""


@pytest.fixture
def probe(node: Node) -> Enclave:
    return node.start(MODULE)


def joined(probe: Enclave, *roles: tuple[int, str, str]) -> Joined:
    record = probe.attest()
    probe.grant(record, *(connection(number, role, port) for number, role, port in roles))
    return record


def refused(probe: Enclave) -> tuple[int, str]:
    message = probe.take(Kind.REFUSED)
    return NOTICE.unpack_from(message)[1], message[NOTICE.size :].decode()


# Events.


def test_events_reach_their_input(probe: Enclave) -> None:
    joined(probe, (1, "input", "hear"), (2, "output", "out"))
    peer = Peer(1)
    for number in range(3):
        probe.ring.send(peer.event(number))
    assert probe.call("what_was_heard") == [0, 1, 2]
    call = probe.begin_call("say", text="hello")
    assert Peer(2).open(probe.take(Kind.EVENT)) == "hello"
    assert probe.result(call)[0] is Status.OK


def test_events_that_are_not_believed_are_dropped_and_said_so(probe: Enclave) -> None:
    joined(probe, (1, "input", "hear"))
    peer = Peer(1)
    first, second = peer.event(1), peer.event(2)
    cases = [
        (Peer(2).event(9), 2, "no input under epoch 1"),
        (Peer(1, epoch=2).event(9), 1, "no input under epoch 2"),
        (first[:-1] + bytes([first[-1] ^ 1]), 1, "not authentic"),
        (first[:16] + b"\x07" + first[17:], 1, "not authentic"),
    ]
    for message, number, why in cases:
        probe.ring.send(message)
        said = refused(probe)
        assert said[0] == number
        assert why in said[1]
    probe.ring.send(second)
    assert GAP.unpack(probe.take(Kind.GAP)) == (Kind.GAP, 1, 1)
    for replay in (second, first):
        probe.ring.send(replay)
        assert refused(probe)[0] == 1
    assert probe.call("what_was_heard") == [2]


def test_what_was_in_an_event_of_another_type_is_not_told(probe: Enclave) -> None:
    """Its text is a peer's secret: the host may know that it was refused, and no more."""
    joined(probe, (1, "input", "hear"))
    peer = Peer(1)
    for body in (CANARY.encode(), msgspec.msgpack.encode({CANARY: 1}), b"\xa2\xff\xfe"):
        probe.ring.send(peer.sealed(Kind.EVENT, body))
        assert refused(probe) == (1, "not of the declared type")
    probe.ring.send(peer.event(-1))
    assert refused(probe) == (1, "negative")


def test_an_event_before_the_join_is_refused(probe: Enclave) -> None:
    probe.ring.send(Peer(1).event(1))
    assert refused(probe) == (1, "no input under epoch 1")
    assert probe.call("what_was_heard") == []


# Requests.


def test_a_request_is_answered_once(probe: Enclave) -> None:
    joined(probe, (1, "handler", "double"))
    peer = Peer(1)
    back = Opener("aes-128-gcm", bytes(16), connection=1, direction=Direction.BACK, epoch=1)
    for number, wanted in ((21, b"\x00\x2a"), (-1, b"\x01negative")):
        message = peer.sealed(Kind.REQUEST, msgspec.msgpack.encode(number))
        probe.ring.send(message)
        reply = probe.take(Kind.REPLY)
        _, connected, epoch, counter, answers = ANSWER.unpack_from(reply)
        assert (connected, epoch, answers) == (1, 1, SEALED.unpack_from(message)[3])
        assert back.open(counter, reply[ANSWER.size :], answers) == wanted
        probe.ring.send(message)
        assert "replay" in refused(probe)[1]


def test_a_reply_must_be_to_the_request(probe: Enclave) -> None:
    joined(probe, (1, "request", "question"))
    call = probe.begin_call("asks", number=5)
    _, _, _, asked = SEALED.unpack_from(probe.take(Kind.REQUEST))
    back = Sealer("aes-128-gcm", bytes(16), connection=1, direction=Direction.BACK, epoch=1)

    def reply(answers: int, body: bytes, connected: int = 1, epoch: int = 1) -> bytes:
        counter, sealed = back.seal(body, answers)
        return ANSWER.pack(Kind.REPLY, connected, epoch, counter, answers) + sealed

    for wrong in (
        reply(asked + 1, b"\x00\x01"),
        reply(asked, b"\x00\x01", connected=2),
        reply(asked, b"\x00\x01", epoch=2),
        reply(asked, b"\x00\xa1x"),  # text for a number
        reply(asked, b"\x00\xa2\xff\xfe"),
        reply(asked, b"\x00\x01")[:-1] + b"\x00",
    ):
        probe.ring.send(wrong)
        assert CANARY not in refused(probe)[1]
    probe.ring.send(struct.pack(">BIQ", Kind.FAILED, 2, asked) + b"another connection")
    probe.ring.send(reply(asked, b"\x00\x0a"))
    assert probe.result(call) == (Status.OK, b"\xa210")


def test_a_request_can_fail(probe: Enclave) -> None:
    assert probe.call("asks", number=1) == "failed: the request is not connected"
    joined(probe, (1, "request", "question"))
    call = probe.begin_call("asks", number=5)
    _, _, _, asked = SEALED.unpack_from(probe.take(Kind.REQUEST))
    probe.ring.send(struct.pack(">BIQ", Kind.FAILED, 1, asked) + b"gone\xff")
    assert msgspec.msgpack.decode(probe.result(call)[1]) == "failed: gone\ufffd"


# Joins.


def test_a_grant_of_somebody_else_is_refused(probe: Enclave) -> None:
    record = probe.attest()
    terms = bytes(64 + 200)
    probe.send(Kind.GRANT, terms)
    assert refused(probe) == (0, "the grant is not signed by the deployer for this join")
    probe.grant(record)


def test_a_grant_serves_once(probe: Enclave) -> None:
    record = probe.attest()
    seen = len(probe.sent)
    sealed = grant(Terms(1, bytes(32), []), record.nonce, record.keys, probe.node.kit.deployer)
    probe.send(Kind.GRANT, sealed)
    probe.take(Kind.CONFIRM)
    probe.send(Kind.GRANT, sealed)
    assert "replayed" in refused(probe)[1]
    assert len(probe.sent) == seen + 2


def test_every_enclave_has_keys_of_its_own(node: Node) -> None:
    """They are forks of one process: their randomness must not be."""
    records = [node.start(MODULE).attest() for _ in range(3)]
    assert len({record.keys.exchange for record in records}) == 3
    assert len({record.keys.signing for record in records}) == 1, "bound to the measurement"


# What may leave.


LIES = f"main.py:{MODULE.split('def lies')[0].count(chr(10))}: returned another type than declared"


@pytest.mark.parametrize(
    ("entry", "what"),
    [("raises", "main.py:46: raised ValueError"), ("lies", LIES)],
)
def test_the_text_of_exceptions_stays_inside(probe: Enclave, entry: str, what: str) -> None:
    probe.begin_call(entry)
    assert probe.fault() == what
    assert not any(CANARY.encode() in message for message in probe.sent)


def test_a_handler_that_answers_another_type_is_named(node: Node) -> None:
    wrong = MODULE.replace("return 2 * number", "return secret")
    probe = node.start(wrong)
    joined(probe, (1, "handler", "double"))
    probe.ring.send(Peer(1).sealed(Kind.REQUEST, msgspec.msgpack.encode(1)))
    place = f"main.py:{wrong.split('def double')[0].count(chr(10))}"
    assert probe.fault() == f"{place}: returned another type than declared"
    assert not any(CANARY.encode() in message for message in probe.sent)


def test_the_text_of_exceptions_in_finalizers_stays_inside(probe: Enclave) -> None:
    assert probe.call("finalizes") is None
    assert not any(CANARY.encode() in message for message in probe.sent)


def test_a_debug_image_tells_its_exceptions(node: Node) -> None:
    probe = node.start(MODULE, debug=True)
    probe.begin_call("raises")
    assert probe.fault() == f"main.py:46: raised ValueError: {CANARY}probe"
    probe = node.start(MODULE, debug=True)
    probe.call("finalizes")
    assert any(CANARY in line for line in probe.printed)


def test_refusals_are_told_and_bounded(probe: Enclave) -> None:
    assert probe.result(probe.begin_call("refuses", text="no")) == (Status.REFUSED, b"no")
    status, body = probe.result(probe.begin_call("refuses", text="x" * 5000))
    assert (status, body) == (Status.REFUSED, b"x" * 200)
    status, body = probe.result(probe.begin_call("surrogate"))
    assert (status, body) == (Status.REFUSED, b"?" + b"x" * 199)


def test_a_result_too_long_to_be_sent_ends_the_enclave(probe: Enclave) -> None:
    probe.begin_call("too_much")
    assert "a message has 1 to" in probe.fault()


# The store.


def serve_store(probe: Enclave, call: int, blob: bytes) -> tuple[bytes, object]:
    """Answer LOAD and SAVE until the call's result; the blob then, and the result."""
    while True:
        message = probe.receive()
        if message[0] == Kind.LOAD:
            probe.send(Kind.LOADED, blob)
        elif message[0] == Kind.SAVE:
            blob = message[1:]
            probe.send(Kind.SAVED)
        else:
            assert message[:10] == struct.pack(">BQB", Kind.RESULT, call, Status.OK)
            return blob, msgspec.msgpack.decode(message[10:])


def test_the_store_is_sealed_and_survives(node: Node) -> None:
    probe = node.start(MODULE)
    blob, _ = serve_store(probe, probe.begin_call("put", key="a", value=CANARY), b"")
    assert CANARY.encode() not in blob
    probe = node.start(MODULE)
    blob, value = serve_store(probe, probe.begin_call("get", key="a"), blob)
    assert value == CANARY
    for wrong in (b"", blob[:-1] + bytes([blob[-1] ^ 1]), blob[:20]):
        probe = node.start(MODULE)
        probe.begin_call("get", key="a")
        probe.take(Kind.LOAD)
        probe.send(Kind.LOADED, wrong)
        assert "cannot use its sealed store" in probe.fault()


def test_poison_while_the_store_is_read_is_not_seen_by_the_module(probe: Enclave) -> None:
    probe.begin_call("get_whatever_happens", key="a")
    probe.take(Kind.LOAD)
    probe.send(Kind.SAVED)
    assert probe.fault().endswith("SAVED answers nothing that was asked")


@pytest.mark.parametrize("tee", ["keystone", "trustzone", "sgx"])
def test_a_module_knows_who_it_is(make_node: Callable[..., Node], tee: str) -> None:
    node = make_node(tee)
    first, second = node.start(MODULE, "first"), node.start(MODULE, "second", version=2)
    assert first.call("who") == ["tests", "probe", tee, first.measurement.hex()]
    assert second.call("who") == ["tests", "probe", tee, second.measurement.hex()]
    assert first.measurement != second.measurement
    keys = first.call("keys")
    assert len(set(map(bytes, keys))) == 3
    again = node.start(MODULE, "again")
    assert again.call("keys") == keys
