"""Events, requests and replies on lines that belong to the adversary.

Three lines carry the same kind of thing and see the same attacks: between two agents, from the
operator to an input, and from an output to the operator.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import pytest

from broch.app.agent_messages import FrameKind
from broch.enclave.messages import ANSWER, FAILED, SEALED, Kind

from .wire import Bend, Frame, flip
from .world import World


@dataclass(frozen=True, slots=True)
class Line:
    """A line that events take, and where its attacks show."""

    node: str
    role: str
    way: str
    connection: int
    other: int  # another connection whose events pass at the same place

    def is_mine(self, seen: Frame) -> bool:
        if (seen.node, seen.role, seen.way, seen.message[0]) != (
            self.node,
            self.role,
            self.way,
            Kind.EVENT,
        ):
            return False
        return bool(SEALED.unpack_from(seen.message)[1] == self.connection)


LINES = {
    "between agents": Line("b", "forward", "down", 1, 2),
    "from the operator": Line("a", "deployer", "down", 5, 6),
    "to the operator": Line("b", "deployer", "up", 4, 5),
}


class Once:
    """Bends the next events of a line; then the wire is straight again."""

    def __init__(self, line: Line, change: Callable[[list[bytes]], Iterable[bytes]], take: int):
        self._line, self._change, self._take = line, change, take
        self._held: list[bytes] = []

    def __call__(self, seen: Frame) -> Iterable[bytes]:
        if not self._line.is_mine(seen) or self._take == 0:
            return [seen.message]
        self._held.append(seen.message)
        if len(self._held) < self._take:
            return []
        self._take = 0
        return self._change(self._held)


def remade(
    message: bytes, *, connection: int = 0, epoch: int | None = None, counter: int | None = None
) -> bytes:
    """The same ciphertext under another head."""
    kind, old_connection, old_epoch, old_counter = SEALED.unpack_from(message)
    head = SEALED.pack(
        kind,
        connection or old_connection,
        old_epoch if epoch is None else epoch,
        old_counter if counter is None else counter,
    )
    return head + message[SEALED.size :]


def counter_of(message: bytes) -> int:
    return int(SEALED.unpack_from(message)[3])


def forged(message: bytes) -> bytes:
    """An event that nobody sealed, next in order, of a plausible size."""
    return remade(message, counter=counter_of(message) + 1)[: SEALED.size] + os.urandom(24)


@pytest.fixture(autouse=True)
def _straight_again(calm: World) -> None:
    calm.wire.bend = lambda seen: [seen.message]


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda held: [held[0], held[0]], id="twice"),
        pytest.param(lambda held: [held[0], *[held[0]] * 20], id="many times"),
    ],
)
def test_replayed_events_are_refused(
    calm: World, name: str, change: Callable[[list[bytes]], Iterable[bytes]]
) -> None:
    line = LINES[name]
    before = calm.connection(line.connection)["refused"]
    calm.wire.bend = Once(line, change, 1)

    async def work() -> None:
        await calm.feed()
        await calm.next(kind="refused", text="replayed or reordered")
        await calm.marker()

    calm.run(work())
    assert calm.connection(line.connection)["refused"] > before


@pytest.mark.parametrize("name", LINES)
def test_reordered_events_are_refused(calm: World, name: str) -> None:
    calm.wire.bend = Once(LINES[name], lambda held: reversed(held), 2)

    async def work() -> list[int]:
        numbers = await calm.feed(2)
        await calm.next(kind="refused", text="replayed or reordered")
        await calm.marker()
        return numbers

    first, second = calm.run(work())
    assert first not in calm.acted
    assert second in calm.acted


@pytest.mark.parametrize("name", LINES)
def test_dropped_events_are_counted(calm: World, name: str) -> None:
    line = LINES[name]
    before = calm.connection(line.connection)["gaps"]
    calm.wire.bend = Once(line, lambda held: [], 3)

    async def work() -> list[int]:
        numbers = await calm.feed(3)
        await calm.marker()
        return numbers

    numbers = calm.run(work())
    assert not set(numbers) & set(calm.acted)
    assert any(e["kind"] == "gap" and "3 events never came" in e["text"] for e in calm.events)
    assert calm.connection(line.connection)["gaps"] == before + 3


@pytest.mark.parametrize("name", LINES)
def test_delayed_events_are_late_and_no_worse(calm: World, name: str) -> None:
    """Held back until others overtook it, an event is refused: late is never again."""
    line, held = LINES[name], list[Frame]()

    def hold(seen: Frame) -> Iterable[bytes]:
        if line.is_mine(seen) and not held:
            held.append(seen)
            return []
        return [seen.message]

    calm.wire.bend = hold

    async def work() -> int:
        (n,) = await calm.feed()
        await calm.marker()
        calm.wire.inject(held[0], held[0].message)
        await calm.next(kind="refused", text="replayed or reordered")
        await calm.marker()
        return n

    assert calm.run(work()) not in calm.acted


ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "first bit of the ciphertext": lambda m: flip(m, SEALED.size),
    "last bit of the tag": lambda m: flip(m, -1),
    "a byte more": lambda m: m + b"\x00",
    "a byte less": lambda m: m[:-1],
    "a later counter": lambda m: remade(m, counter=counter_of(m) + 1),
    "a counter out of range": lambda m: remade(m, counter=2**64 - 1),
    "forged": forged,
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_and_forged_events_are_refused(calm: World, name: str, alteration: str) -> None:
    change = ALTERATIONS[alteration]
    calm.wire.bend = Once(LINES[name], lambda held: [change(held[0])], 1)

    async def work() -> int:
        (n,) = await calm.feed()
        await calm.next(kind="refused")
        await calm.marker()
        return n

    assert calm.run(work()) not in calm.acted


@pytest.mark.parametrize("name", LINES)
def test_redirected_events_are_refused(calm: World, name: str) -> None:
    """An event under the number of another connection opens under no key that is there."""
    line = LINES[name]
    calm.wire.bend = Once(line, lambda held: [remade(held[0], connection=line.other)], 1)

    async def work() -> int:
        (n,) = await calm.feed()
        await calm.next(kind="refused")
        await calm.marker()
        return n

    assert calm.run(work()) not in calm.acted
    assert not [e for e in calm.events if e["kind"] == "event" and e["value"]["by"] != "act"]


def test_an_event_under_another_epoch_is_refused(calm: World) -> None:
    async def work() -> None:
        await calm.marker()
        seen = calm.wire.last(Kind.EVENT, node="b", role="forward")
        for epoch in (0, 2, 2**32 - 1):
            late = remade(seen.message, epoch=epoch, counter=counter_of(seen.message) + 1)
            calm.wire.tell_enclave("b", calm.handle("actor"), late)
            await calm.next(kind="refused", text=f"no input under epoch {epoch}")
        await calm.marker()

    calm.run(work())


def test_events_do_not_fit_another_enclave(calm: World) -> None:
    """The deployer's line reaches any enclave: an event for one is nothing to another."""

    async def work() -> None:
        await calm.marker()
        seen = calm.wire.last(Kind.EVENT, node="b", role="forward")
        for module, node in (("source", "a"), ("twin", "a")):
            calm.wire.tell_enclave(node, calm.handle(module), seen.message)
            await calm.next(kind="refused", module=module, text="no input under epoch")
        own = calm.wire.last(Kind.EVENT, node="b", way="up")  # the actor's own word
        calm.wire.tell_enclave("b", calm.handle("actor"), own.message)
        await calm.next(kind="refused", module="actor", text="no input under epoch")
        await calm.marker()

    calm.run(work())


def test_the_actor_acts_only_upon_what_was_fed_in(calm: World) -> None:
    """A storm of all of that at once, and then silence: the promise holds over everything."""

    bent = Counter[str]()

    def storm(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] != Kind.EVENT or bent[seen.node + seen.way] == 60:
            return [seen.message]
        bent[seen.node + seen.way] += 1
        counter = counter_of(seen.message)
        changes = list(ALTERATIONS.values())
        out = [changes[counter % len(changes)](seen.message)]
        if counter % 3:
            out.append(seen.message)
        if counter % 4 == 0:
            out += [seen.message, flip(seen.message, 20)]
        return out

    calm.wire.bend = storm

    async def work() -> None:
        await calm.feed(150)
        await calm.feed(150, module="twin")
        await calm.marker()
        await calm.marker("twin")

    calm.run(work())
    calm.check_promise()
    assert calm.connection(1)["refused"] > 20


# Requests and replies.


def on(kind: int, change: Callable[[bytes], Iterable[bytes]]) -> Bend:
    """Bend every frame of this kind between agents."""

    def bend(seen: Frame) -> Iterable[bytes]:
        mine = seen.message[0] == kind and seen.role in ("forward", "back")
        return change(seen.message) if mine else [seen.message]

    return bend


REQUESTS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "altered": lambda m: [flip(m, -1)],
    "redirected": lambda m: [remade(m, connection=1)],
    "made an event": lambda m: [bytes([Kind.EVENT]) + m[1:]],
    "under another counter": lambda m: [remade(m, counter=counter_of(m) + 7)],
}


@pytest.mark.parametrize("how", REQUESTS)
def test_a_bent_request_is_answered_by_nobody(calm: World, how: str) -> None:
    async def work() -> None:
        calm.wire.bend = on(Kind.REQUEST, REQUESTS[how])
        pending = calm.supervisor.call("source", "double", {"n": 21})
        assert str(await pending).startswith("failed: ")
        calm.wire.bend = lambda seen: [seen.message]
        assert await calm.call("source", "double", 21) == "42"

    calm.run(work())


def test_a_replayed_request_is_not_handled_twice(calm: World) -> None:
    async def work() -> None:
        calm.wire.bend = on(Kind.REQUEST, lambda m: [m, m])
        assert await calm.call("source", "double", 4) == "8"
        await calm.next(kind="refused", module="actor", text="replayed or reordered")

    calm.run(work())


REPLIES: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "altered": lambda m: [flip(m, -1)],
    "forged": lambda m: [m[: ANSWER.size] + os.urandom(24)],
    "the request itself": lambda m: [m[: ANSWER.size] + m[ANSWER.size :][::-1]],
}


@pytest.mark.parametrize("how", REPLIES)
def test_a_bent_reply_is_refused_and_the_true_one_taken(calm: World, how: str) -> None:
    async def work() -> None:
        calm.wire.bend = on(Kind.REPLY, lambda m: [*REPLIES[how](m)])
        pending = calm.begin_call("source", "double", 5)
        await calm.next(kind="refused", module="source", text="not authentic")
        true = calm.wire.last(Kind.REPLY, role="back")
        calm.wire.tell_enclave("a", calm.handle("source"), true.message)
        assert await pending == "10"

    calm.run(work())


def test_an_old_reply_answers_no_new_request(calm: World) -> None:
    async def work() -> None:
        assert await calm.call("source", "double", 6) == "12"
        old = calm.wire.last(Kind.REPLY, role="back").message

        def swap(message: bytes) -> Iterable[bytes]:
            """The old one as the answer to the new question; then the true one."""
            asked = ANSWER.unpack_from(message)[4]
            kind, connection, epoch, counter, _ = ANSWER.unpack_from(old)
            lie = ANSWER.pack(kind, connection, epoch, counter, asked) + old[ANSWER.size :]
            return [lie]

        calm.wire.bend = on(Kind.REPLY, swap)
        pending = calm.begin_call("source", "double", 7)
        await calm.next(kind="refused", module="source", text="replayed or reordered")
        true = calm.wire.last(Kind.REPLY, role="back")
        calm.wire.tell_enclave("a", calm.handle("source"), true.message)
        assert await pending == "14"

    calm.run(work())


def test_a_forged_failure_only_fails_the_request(calm: World) -> None:
    async def work() -> None:
        def fail(message: bytes) -> Iterable[bytes]:
            _, connection, _, _, asked = ANSWER.unpack_from(message)
            return [FAILED.pack(Kind.FAILED, connection, asked) + b"\xff so says the wire", message]

        calm.wire.bend = on(Kind.REPLY, fail)
        assert await calm.call("source", "double", 8) == "failed: \ufffd so says the wire"
        calm.wire.bend = lambda seen: [seen.message]
        assert await calm.call("source", "double", 8) == "16"

    calm.run(work())


def test_what_an_entry_answers_is_the_hosts_word(calm: World) -> None:
    """Entries are open to the host, both ways: nothing seals a call, and the manual says so."""

    def lie(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] == FrameKind.SAID and seen.kind == Kind.RESULT:
            return [seen.with_inner(seen.inner[:10] + msgspec.msgpack.encode("gnop"))]
        return [seen.message]

    async def work() -> None:
        calm.wire.bend = lie
        assert await calm.call("actor", "ping") == "gnop"

    calm.run(work())


def test_the_promise_held_over_all_of_the_above(calm: World) -> None:
    calm.run(calm.marker())
    calm.check_promise()
