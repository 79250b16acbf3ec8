"""What an agent says to the deployer: nonsense, lies and silence end in one clear error."""

import os
from collections.abc import Callable, Iterable

import msgspec
import pytest

from broch.app import agent_client, supervisor
from broch.app.agent_messages import (
    Done,
    Ended,
    FrameKind,
    Loaded,
    NotLoaded,
    addressed,
    decode_report,
    report,
)
from broch.app.node_run import NodeRun
from broch.enclave.messages import Kind
from broch.errors import InternalError, UndecidedError

from .wire import Frame, Wire
from .world import Plan, Stage, World

NONSENSE = {
    "no report": bytes([FrameKind.REPORT]) + b"\xc1",
    "a report of nothing": bytes([FrameKind.REPORT]),
    "text that is none": bytes([FrameKind.REPORT])
    + msgspec.msgpack.encode({"type": "Ended", "handle": 1, "status": 0, "why": "??"}).replace(
        b"??", b"\xff\xff"
    ),
    "nested without end": bytes([FrameKind.REPORT]) + b"\x91" * 100_000,
    "an unknown kind": b"\xf0" + bytes(40),
    "addressed to nobody": bytes([FrameKind.SAID, 0, 0]),
    "a command": bytes([FrameKind.COMMAND]) + bytes(8),
    "a greeting": bytes([FrameKind.HELLO]) + bytes(8),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_from_an_agent_ends_the_run_in_one_error(stage: Stage, what: str) -> None:
    def set_up(wire: Wire) -> None:
        wire.bend = lambda seen: (
            [NONSENSE[what]] if seen.message[0] == FrameKind.REPORT else [seen.message]
        )

    error = stage.refusal(Plan(name="nonsense"), set_up)
    assert isinstance(error, InternalError)
    assert "the agent of node" in error.message


INNER = {
    "a fault that is none": bytes([Kind.FAULT]) + b"\xc1",
    "a fault in no text": bytes([Kind.FAULT])
    + msgspec.msgpack.encode({"what": "??"}).replace(b"??", b"\xff\xff"),
    "a fault without end": bytes([Kind.FAULT]) + b"\x91" * 100_000,
    "a refusal cut off": bytes([Kind.REFUSED, 0]),
    "a gap cut off": bytes([Kind.GAP, 0, 0]),
    "a result cut off": bytes([Kind.RESULT, 1]),
    "a line of noise": bytes([Kind.PRINT]) + os.urandom(200),
    "a kind that there is not": b"\x99",
}


@pytest.fixture(scope="module")
def told(calm_stage: Stage) -> World:
    """An application whose agents tell stories."""
    return calm_stage.begin(Plan(name="told"))


@pytest.mark.parametrize("what", INNER)
def test_nonsense_in_an_enclaves_name_changes_nothing(
    told: World, calm_stage: Stage, what: str
) -> None:
    async def work() -> None:
        line = told.wire.last(Kind.READY, node="a")
        told.wire.inject(line, addressed(FrameKind.SAID, told.handle("source"), INNER[what]))
        await told.marker()

    told.run(work())
    assert not calm_stage.problems, calm_stage.problems
    told.check_promise()


def test_lies_about_counts_change_nothing_but_the_display(told: World) -> None:
    def lie(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] == FrameKind.REPORT:
            said = decode_report(seen.message)
            if isinstance(said, Done) and said.counts:
                return [report(Done(said.order, counts=dict.fromkeys(said.counts, 2**63)))]
        return [seen.message]

    async def work() -> None:
        told.wire.bend = lie
        await told.supervisor.refresh()
        await told.supervisor.refresh()
        told.wire.bend = lambda seen: [seen.message]
        await told.marker()

    told.run(work())
    told.check_promise()


def withheld(kind: type) -> Callable[[Wire], None]:
    """Reports of this kind never come."""

    def bend(seen: Frame) -> Iterable[bytes]:
        is_report = seen.message[0] == FrameKind.REPORT
        if is_report and isinstance(decode_report(seen.message), kind):
            return []
        return [seen.message]

    def set_up(wire: Wire) -> None:
        wire.bend = bend

    return set_up


@pytest.mark.parametrize("kind", [Loaded, Done])
def test_a_withheld_report_is_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    monkeypatch.setattr(agent_client, "_PATIENCE", 0.5)
    error = stage.refusal(Plan(name="silent"), withheld(kind))
    assert isinstance(error, UndecidedError)
    assert "the agent of node" in error.message
    assert "did not answer within 0.5 s" in error.message


def test_an_agent_that_falls_silent_does_not_hold_up_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither counts nor results come any more: the run ends in its time all the same."""
    monkeypatch.setattr(agent_client, "_PATIENCE", 0.5)
    monkeypatch.setattr(supervisor, "_SUMMARY_SECONDS", 0.5)
    policy = 'emulated = true\n[report]\nsummary = "actor.summary"'
    world = stage.begin(Plan(name="silence", policy=policy))
    world.wire.bend = lambda seen: [] if seen.way == "up" else [seen.message]
    stage.do(world.supervisor.run(0.1))
    stage.do(world.next(kind="fault", module="actor", text="no summary: it did not answer"))
    stage.end(world)


@pytest.mark.parametrize(
    "word",
    [
        pytest.param({}, id="empty"),
        pytest.param({"port": "x", "lacks": []}, id="port of letters"),
        pytest.param({"port": 99999, "lacks": []}, id="port out of range"),
        pytest.param({"port": 1, "lacks": 7}, id="lacks a number"),
        pytest.param({"error": 5}, id="no error"),
        pytest.param({"error": {"code": "??", "message": "m", "hint": 3}}, id="odd error"),
    ],
)
def test_a_first_word_that_makes_no_sense_is_one_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, word: dict[str, object]
) -> None:
    async def lie(run: NodeRun) -> bytes:
        return msgspec.json.encode(word)

    monkeypatch.setattr(NodeRun, "_first_line", lie)
    error = stage.refusal(Plan(name="word"), lambda wire: None)
    assert isinstance(error, InternalError)


def test_a_module_that_is_said_to_have_ended_joins_anew_and_none_acts_twice(
    stage: Stage,
) -> None:
    """The agent keeps the old enclave, too: it has keys that nobody uses any more."""
    world = stage.begin(Plan(name="undead"))

    async def work() -> None:
        await world.feed(5)
        await world.marker()
        line = world.wire.last(Kind.READY, node="b")
        old = world.handle("actor")
        event = world.wire.last(Kind.EVENT, node="b", role="forward")
        world.wire.inject(line, report(Ended(old, -9, "")))
        await world.next(kind="fault", module="actor", text="was killed")
        await world.next(kind="restart", module="actor")
        await world.feed(5)
        await world.marker()
        world.wire.tell_enclave("b", old, event.message)
        world.wire.tell_enclave("b", world.handle("actor"), event.message)
        await world.next(kind="refused", module="actor", text="no input under epoch 1")
        await world.marker()

    stage.do(work())
    world.check_promise()
    assert len(world.acted) == len(world.fed["source"])
    stage.end(world)


def test_a_refusal_that_an_agent_makes_up_stops_the_start_and_no_more(stage: Stage) -> None:
    def refuse(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] == FrameKind.REPORT:
            said = decode_report(seen.message)
            if isinstance(said, Loaded):
                lie = {"code": "untrusted", "message": "\x1b[2Jno", "place": "x", "hint": None}
                return [report(NotLoaded(said.handle, lie))]
        return [seen.message]

    def set_up(wire: Wire) -> None:
        wire.bend = refuse

    error = stage.refusal(Plan(name="made-up"), set_up)
    assert error.exit_code == 4
