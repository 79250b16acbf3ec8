"""The gate: whatever an honest host cannot have sent ends the enclave before its code sees it."""

import os
import struct
from collections.abc import Callable

import msgspec
import pytest

from broch.enclave.gate import ANSWERS, MAX_BACKLOG, MAX_TEXT, encode_as
from broch.enclave.messages import CALL, OCALL, RESULT, RETURN, Kind, Status
from broch.enclave.ring import MAX_MESSAGE

from .harness import Enclave, Node

HOST_KINDS = [kind for kind in Kind if kind < 0x40]
PROBE = """
from broch import Module, OcallFailed, Refused, Struct

class Deep(Struct):
    inner: list[list[dict[str, int]]]

module = Module("probe")
ask = module.ocall("ask", str, int)
ask_deep = module.ocall("ask-deep", str, Deep)
tell = module.output("tell", str)
seen = []

@module.input
def hear(text: str) -> None:
    seen.append(text)

@module.entry
def echo(text: str) -> str:
    return text

@module.entry
def struct(deep: Deep, small: int) -> int:
    return small

@module.entry
def asks(text: str) -> int:
    seen.append(text)
    return ask(text)

@module.entry
def asks_deep(text: str) -> int:
    return len(ask_deep(text).inner)

@module.entry
def insists(text: str) -> str:
    # Whatever goes wrong, go on: poison must not reach this code.
    try:
        return str(ask(text))
    except OcallFailed as exc:
        return "no answer: " + str(exc)
    except BaseException as exc:
        tell.emit("caught")
        return "caught " + repr(exc)

@module.entry
def prints() -> None:
    for _ in range(1000):
        try:
            print("x")
        except BaseException:
            seen.append("caught")

@module.entry
def what_was_seen() -> list[str]:
    return list(seen)

@module.every(1.0)
def tick() -> None:
    seen.append("tick")

@module.export_state
def give() -> list[str]:
    return seen
"""


@pytest.fixture
def probe(node: Node) -> Enclave:
    return node.start(PROBE)


def port(number: int) -> bytes:
    return struct.pack(">H", number)


# Kinds and lengths.


@pytest.mark.parametrize("kind", [0x00, 0x10, 0x3F, *(k for k in Kind if k >= 0x40), 0x80, 0xFF])
def test_kinds_that_no_host_sends(probe: Enclave, kind: int) -> None:
    probe.ring.send(bytes([kind]) + bytes(40))
    assert probe.fault() == f"refused a poisoned message: unknown kind of message 0x{kind:02x}"


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [
        (Kind.CHALLENGE, (1, 32, 34)),
        (Kind.GRANT, (1, 112)),
        (Kind.EVENT, (1, 17, 32)),
        (Kind.REQUEST, (1, 17, 32)),
        (Kind.REPLY, (1, 25, 40)),
        (Kind.FAILED, (1, 12, 14 + MAX_TEXT)),
        (Kind.CALL, (1, 11)),
        (Kind.TICK, (1, 2, 4)),
        (Kind.RETURN, (1, 9)),
        (Kind.NORETURN, (1, 8, 10 + MAX_TEXT)),
        (Kind.SAVED, (2, 100)),
        (Kind.EXPORT, (1, 96, 98, MAX_MESSAGE)),
        (Kind.IMPORT, (1, 208)),
        (Kind.STOP, (2, MAX_MESSAGE)),
    ],
)
def test_heads_cut_off_and_messages_too_long(node: Node, kind: Kind, lengths: list[int]) -> None:
    for length in lengths:
        probe = node.start(PROBE)
        probe.ring.send(bytes([kind]) + bytes(length - 1))
        assert f"{kind.name} of {length} bytes, expected" in probe.fault()


@pytest.mark.parametrize("kind", sorted(ANSWERS))
def test_answers_to_nothing(probe: Enclave, kind: Kind) -> None:
    lengths = {Kind.REPLY: 41, Kind.FAILED: 13, Kind.RETURN: 10, Kind.NORETURN: 9}
    probe.ring.send(bytes([kind]) + bytes(lengths.get(kind, 1) - 1))
    assert probe.fault().endswith(f"{kind.name} answers nothing that was asked")


# Ports.


@pytest.mark.parametrize("number", [0, 1, 2, 3, 11, 12, 0xFFFF])
def test_calls_to_what_is_no_entry(node: Node, number: int) -> None:
    """By number: an ocall, an output, an input, an every, and ports that are not there."""
    probe = node.start(PROBE)
    probe.ring.send(CALL.pack(Kind.CALL, 1, number) + msgspec.msgpack.encode({"text": "x"}))
    assert probe.fault() == f"refused a poisoned message: port {number} is not an entry"


@pytest.mark.parametrize("number", [0, 2, 3, 4, 12, 0xFFFF])
def test_ticks_of_what_is_not_periodic(node: Node, number: int) -> None:
    probe = node.start(PROBE)
    probe.send(Kind.TICK, port(number))
    assert probe.fault() == f"refused a poisoned message: port {number} is not an every"


def test_the_right_ports_work(probe: Enclave) -> None:
    probe.send(Kind.TICK, port(probe.number("tick")))
    assert probe.call("what_was_seen") == ["tick"]


# Arguments.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xc0", id="nil"),
        pytest.param(b"\x80", id="nothing given"),
        pytest.param(b"\x81\xa4text\x01", id="a number for text"),
        pytest.param(b"\x81\xa4text\xc4\x01x", id="bytes for text"),
        pytest.param(b"\x81\xa4text\xa2\xff\xfe", id="text that is not UTF-8"),
        pytest.param(b"\x81\xa4\xff\xfe\xfd\xfc\xa1x", id="a name that is not UTF-8"),
        pytest.param(b"\x82\xa4text\xa1x\xa4more\xa1x", id="one too many"),
        pytest.param(b"\x91\xa1x", id="a list"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of 2**32 - 1"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of 2**32 - 1"),
        pytest.param(b"\x81\xa4text\xdb\xff\xff\xff\xff", id="text of 2**32 - 1 bytes"),
        pytest.param(b"\x81\xa4text\xa1x\x00", id="bytes at the end"),
        pytest.param(b"\x81\xa4text", id="cut off"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(b"\x91" * 100_000, id="nested 100000 deep"),
        pytest.param(b"\x81\xda\xff\xff" + b"x" * 65535 + b"\x01", id="a name of 65535 bytes"),
        pytest.param(
            b"\x81\xdb" + struct.pack(">I", MAX_MESSAGE - 30) + b"x" * (MAX_MESSAGE - 30) + b"\x01",
            id="a name as long as a message",
        ),
    ],
)
def test_arguments_that_are_not_as_declared_are_refused_and_nothing_else(
    node: Node, body: bytes
) -> None:
    probe = node.start(PROBE)
    probe.ring.send(CALL.pack(Kind.CALL, 7, probe.number("echo")) + body)
    message = probe.take(Kind.RESULT)
    assert RESULT.unpack_from(message) == (Kind.RESULT, 7, Status.BAD_ARGUMENTS)
    assert len(message) <= RESULT.size + 200
    assert probe.call("echo", text="still here") == "still here"


def test_a_deep_type_takes_what_is_declared_and_no_more(probe: Enclave) -> None:
    deep = {"inner": [[{"a": 1}], []]}
    assert probe.call("struct", deep=deep, small=5) == 5
    wrongs: list[object] = [{"inner": [[{"a": "b"}]]}, {"inner": [[[]]]}, {"inner": [[{1: 1}]]}, {}]
    for wrong in wrongs:
        status, _ = probe.result(probe.begin_call("struct", deep=wrong, small=5))
        assert status is Status.BAD_ARGUMENTS


@pytest.mark.parametrize("kind", [Kind.GRANT, Kind.EXPORT])
def test_messages_of_a_join_before_its_challenge(probe: Enclave, kind: Kind) -> None:
    probe.send(kind, bytes(96 if kind is Kind.EXPORT else 200))
    assert probe.fault().endswith("a message of the join before its challenge")


def test_an_import_into_a_module_without_one(probe: Enclave) -> None:
    probe.send(Kind.IMPORT, bytes(300))
    assert probe.fault().endswith("this module imports no state")


def test_an_export_from_a_module_without_one(node: Node) -> None:
    module = node.start('from broch import Module\nmodule = Module("bare")\n')
    module.send(Kind.EXPORT, bytes(96))
    assert module.fault().endswith("this module exports no state")


# Answers to ocalls.


def ask(probe: Enclave, entry: str = "insists") -> tuple[int, int]:
    """Make the enclave ask: number of the call and of the ocall."""
    call = probe.begin_call(entry, text="please")
    message = probe.take(Kind.OCALL)
    _, number, _ = OCALL.unpack_from(message)
    assert msgspec.msgpack.decode(message[OCALL.size :]) == "please"
    return call, number


def test_an_ocall_is_answered(probe: Enclave) -> None:
    call, number = ask(probe)
    probe.ring.send(RETURN.pack(Kind.RETURN, number) + b"\x2a")
    assert probe.result(call) == (Status.OK, b"\xa242")
    call, number = ask(probe)
    probe.ring.send(RETURN.pack(Kind.NORETURN, number) + b"busy\xff" + b"!" * 4000)
    status, body = probe.result(call)
    assert status is Status.OK
    assert msgspec.msgpack.decode(body) == "no answer: busy\ufffd" + "!" * 195


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xa1x", id="text for a number"),
        pytest.param(b"\xcb" + bytes(7) + b"\x01", id="a float for a number"),
        pytest.param(b"\xa2\xff\xfe", id="not UTF-8"),
        pytest.param(b"\x01\x01", id="two answers in one"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of 2**32 - 1"),
        pytest.param(b"\x91" * 200_000, id="nested 200000 deep"),
        pytest.param(b"\xc1" * (MAX_MESSAGE - RETURN.size), id="as long as a message"),
    ],
)
@pytest.mark.parametrize("entry", ["insists", "asks_deep"])
def test_poisoned_answers_end_the_enclave_unseen_by_its_code(
    node: Node, entry: str, body: bytes
) -> None:
    probe = node.start(PROBE)
    _, number = ask(probe, entry)
    probe.ring.send(RETURN.pack(Kind.RETURN, number) + body)
    assert probe.fault().startswith("refused a poisoned message: answer to ocall ask")
    assert not any(b"caught" in message for message in probe.sent)


@pytest.mark.parametrize("delta", [-1, 1, 2**32])
@pytest.mark.parametrize("kind", [Kind.RETURN, Kind.NORETURN])
def test_answers_to_another_ocall(probe: Enclave, kind: Kind, delta: int) -> None:
    _, number = ask(probe)
    probe.ring.send(RETURN.pack(kind, number + delta) + b"\x01")
    assert probe.fault().endswith(f"answer to ocall {number + delta}, asked was {number}")


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.FAILED, Kind.LOADED, Kind.SAVED])
def test_answers_of_another_kind(probe: Enclave, kind: Kind) -> None:
    ask(probe)
    probe.ring.send(bytes([kind]) + bytes({Kind.REPLY: 40, Kind.FAILED: 12}.get(kind, 0)))
    assert probe.fault().endswith(f"{kind.name} answers nothing that was asked")


def test_unknown_kinds_while_it_asks(probe: Enclave) -> None:
    ask(probe)
    probe.ring.send(b"\xff")
    assert probe.fault().endswith("unknown kind of message 0xff")


def test_a_reader_that_lies_to_a_module_that_prints(node: Node) -> None:
    """Poison can also be in the ring's own words, which the enclave reads when it needs room."""
    probe = node.start(PROBE)
    probe.ring._in[0] = 2**63  # what the host says that it has read
    probe.begin_call("prints")
    assert probe.ended() == 1
    probe.ring.shut()
    while (message := probe.ring.receive(0)) is not None:
        assert message == bytes([Kind.PRINT]) + b"x"


# Order, nesting, floods.


def test_what_comes_while_it_asks_waits_and_is_not_nested(probe: Enclave) -> None:
    first = probe.begin_call("asks", text="first")
    _, number, _ = OCALL.unpack_from(probe.take(Kind.OCALL))
    second = probe.begin_call("asks", text="second")
    look = probe.begin_call("what_was_seen")
    probe.send(Kind.TICK, port(probe.number("tick")))
    probe.ring.send(RETURN.pack(Kind.RETURN, number) + b"\x01")
    assert probe.result(first) == (Status.OK, b"\x01")
    _, number, _ = OCALL.unpack_from(probe.take(Kind.OCALL))
    probe.ring.send(RETURN.pack(Kind.RETURN, number) + b"\x02")
    assert probe.result(second) == (Status.OK, b"\x02")
    assert probe.result(look) == (Status.OK, msgspec.msgpack.encode(["first", "second"]))
    assert probe.call("what_was_seen") == ["first", "second", "tick"]
    probe.call("what_was_seen")  # progress is told after the answer
    assert probe.ring.progress in (5, 6)


def test_an_end_that_is_asked_for_while_it_asks(probe: Enclave) -> None:
    call, number = ask(probe)
    probe.send(Kind.STOP)
    probe.ring.send(RETURN.pack(Kind.RETURN, number) + b"\x01")
    assert probe.result(call)[0] is Status.OK
    probe.take(Kind.BYE)
    assert probe.ended() == 0


def test_a_flood_while_it_asks(probe: Enclave) -> None:
    ask(probe)
    tick = bytes([Kind.TICK]) + port(probe.number("tick"))
    for _ in range(MAX_BACKLOG + 1):
        probe.ring.send(tick)
    assert probe.fault().endswith(f"more than {MAX_BACKLOG} messages while waiting for an answer")


def test_a_flood_of_large_messages_while_it_asks(probe: Enclave) -> None:
    """More than its memory holds: it ends, and says why."""
    ask(probe, "asks")
    call = CALL.pack(Kind.CALL, 1, probe.number("echo")) + bytes(MAX_MESSAGE - CALL.size)
    while not probe.over():
        if probe.ring.has_room(MAX_MESSAGE):
            probe.ring.send(call)
        else:
            os.sched_yield()
    assert probe.fault() == "main.py:28: ran out of memory"


# The codec.


@pytest.mark.parametrize("value", [None, 1.5, [1], {"a": 1}, 2**64, -(2**63) - 1, "text"])
def test_encode_as_gives_only_what_can_be_decoded(value: object) -> None:
    with pytest.raises(TypeError, match="not the declared type"):
        encode_as(value, msgspec.msgpack.Decoder(int))


def test_encode_as_gives_what_was_declared() -> None:
    make: Callable[[type], msgspec.msgpack.Decoder[object]] = msgspec.msgpack.Decoder
    assert encode_as(5, make(int)) == b"\x05"
    with pytest.raises(TypeError, match="not the declared type"):
        encode_as("\ud800", make(str))
