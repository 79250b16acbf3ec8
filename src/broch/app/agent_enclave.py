"""One enclave, as its agent sees it: a ring to feed and to drain, questions to answer, a watchdog.

The agent looks at the fixed heads of messages only. It must be careful in one respect: an enclave
ends itself when its host sends what no honest host can have sent, so an answer goes in only while
it is waited for, and no more messages than the enclave can keep while it waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from broch.app.agent_messages import Load
from broch.app.flow import Flow, Sink
from broch.app.ocalls import HostWork
from broch.enclave.gate import MAX_BACKLOG
from broch.enclave.messages import ANSWER, FAILED, OCALL, SEALED, TICK, Kind, head
from broch.enclave.ring import SLOT_SIZE, PoisonedError, Ring, RingClosedError
from broch.errors import BrochError

_BATCH: Final = 256  # messages taken out before others have their turn
_HOT: Final = 16  # messages in a batch from which on a ring is polled instead of watched
_PAUSE: Final = 0.001  # seconds until a polled ring is looked at again
_CREDIT: Final = 64  # messages given without looking for room again
_WINDOW: Final = MAX_BACKLOG // 2  # messages given and not worked off
_CROWDED: Final = 1024  # messages queued here at which those who feed it must wait
_POLL: Final = 0.002  # seconds until an enclave that is far behind is looked at again
_LONGEST_LOOK: Final = 0.5  # seconds counted between two looks, in case the agent itself is slow
_LOAD_SECONDS: Final = 10  # that an enclave may take to start, on top of its limit
_LAST_WORDS: Final = 100_000  # messages still taken from an enclave that ended


class Lane:
    """Where a connection's events go, and how many went there."""

    __slots__ = ("count", "push", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.push = sink.push
        self.count = 0


class Hub(Protocol):
    """What an enclave needs of its agent."""

    flow: Flow

    def hear(self, enclave: "EnclaveHost", message: bytes) -> None:
        """A message for the deployer."""
        ...

    def ask(self, enclave: "EnclaveHost", message: bytes) -> None:
        """A REQUEST of the enclave's."""
        ...

    def reply(self, connection: int, message: bytes) -> None:
        """A REPLY or FAILED to whoever asked over this connection."""
        ...

    def kill(self, enclave: "EnclaveHost") -> None: ...


@dataclass(slots=True)
class _Question:
    """What the enclave waits for."""

    kind: int
    connection: int = 0
    number: int = 0  # of the request on its connection, or of the ocall
    end: float = 0.0  # a request fails then


@dataclass(frozen=True, slots=True)
class _Owed:
    """A request that the enclave has to answer."""

    number: int  # of the message among those pushed
    connection: int
    counter: int


class EnclaveHost:
    """Feeds and drains one enclave.

    Args:
        hub: the agent.
        load: the order that it was loaded by.
        ring: the host's end.
        work: serves its ocalls and its store.
        loop: where the ring is watched.
        to_deployer: the sink of what the deployer is told.
    """

    def __init__(
        self,
        hub: Hub,
        load: Load,
        ring: Ring,
        work: HostWork,
        loop: asyncio.AbstractEventLoop,
        to_deployer: Sink,
    ) -> None:
        self.load = load
        self.events: dict[bytes, Lane] = {}  # ROUTE_KEY of EVENT -> where it goes
        self.sinks: set[Sink] = {to_deployer}
        self.why = ""  # what the agent has against it
        self.is_over = False
        self._hub = hub
        self._ring = ring
        self._work = work
        self._loop = loop
        self._queue: deque[bytes] = deque()
        self._answers: deque[bytes] = deque()
        self._pushed = self._given = self._credit = 0
        self._ready = False
        self._question: _Question | None = None
        self._owed: deque[_Owed] = deque()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._is_scheduled = self._is_polling = self._must_wait = False
        self._seen = 0  # progress, when last looked at
        self._looked = loop.time()
        self._spent = 0.0  # seconds on the message in work, waiting not counted
        loop.add_reader(ring.fileno(), self._wake)
        self._schedule()

    # Into the enclave.

    def push(self, message: bytes) -> None:
        """Give it a message that begins something, now or when it has room."""
        if self.is_over:
            return
        self._pushed += 1
        try:
            if self._credit and len(message) <= SLOT_SIZE:
                self._credit -= 1
                self._given += 1
                self._ring.send(message)
            else:
                self._push_slowly(message)
        except BrochError as exc:
            self.give_up(f"broke its ring: {exc}")

    def _push_slowly(self, message: bytes) -> None:
        if self._queue or not self._has_room(message):
            self._queue.append(message)
            if len(self._queue) == _CROWDED:
                self._hub.flow.crowd(self)
            self._poll_if_far_behind()
        else:
            self._given += 1
            self._ring.send(message)

    def _has_room(self, message: bytes) -> bool:
        behind = self._given - self._ring.progress
        if behind >= _WINDOW or self._answers:
            return False
        if self._ring.has_room(_CREDIT * SLOT_SIZE):
            if len(message) <= SLOT_SIZE:
                self._credit = min(_CREDIT, _WINDOW - behind) - 1
                return True
            self._credit = 0
        return self._ring.has_room(len(message))

    def _poll_if_far_behind(self) -> None:
        """Progress makes no sound: look again soon if that is what is waited for."""
        if not self._is_polling and self._given - self._ring.progress >= _WINDOW:
            self._is_polling = True
            self._loop.call_later(_POLL, self._poll)

    def _poll(self) -> None:
        self._is_polling = False
        if not self.is_over:
            self._flush()

    def _flush(self) -> None:
        """Give what waits here, answers first."""
        try:
            self._give_waiting()
        except BrochError as exc:
            self.give_up(f"broke its ring: {exc}")

    def _give_waiting(self) -> None:
        while self._answers and self._ring.has_room(len(self._answers[0])):
            self._ring.send(self._answers.popleft())
        if not self._queue or self._answers:
            return
        self._credit = 0
        while self._queue and self._has_room(self._queue[0]):
            self._given += 1
            self._ring.send(self._queue.popleft())
        if self._queue:
            self._credit = 0
            self._poll_if_far_behind()
        if len(self._queue) < _CROWDED // 2:
            self._hub.flow.relieve(self)

    def request(self, message: bytes) -> None:
        """Give it a REQUEST; sooner or later the hub hears a REPLY or FAILED."""
        connection, _, counter = head(SEALED, message)
        self.push(message)
        self._owed.append(_Owed(self._pushed, connection, counter))

    @property
    def asked(self) -> tuple[int, int]:
        """Connection and counter of the request that it waits for; zeros if there is none."""
        question = self._question
        if question is None or question.kind != Kind.REQUEST:
            return 0, 0
        return question.connection, question.number

    def answer_request(self, connection: int, counter: int, message: bytes) -> None:
        """Give it the REPLY or FAILED to its request, if it still waits for that."""
        asked = self._question
        if (
            asked is not None
            and asked.kind == Kind.REQUEST
            and (asked.connection, asked.number) == (connection, counter)
        ):
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        self._question = None
        self._credit = 0
        self._answers.append(message)
        self._flush()

    def answer_from_thread(self, kind: int, number: int, message: bytes) -> None:
        """An answer of the host's own work."""
        asked = self._question
        if not self.is_over and asked is not None and (asked.kind, asked.number) == (kind, number):
            self._answer(message)

    # Out of the enclave.

    def _wake(self) -> None:
        self._ring.wakened()
        if self._must_wait:
            self._flush()
        else:
            self._drain()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._drain_again)

    def _drain_again(self) -> None:
        self._is_scheduled = False
        if not self.is_over and not self._must_wait:
            self._drain()

    def _drain(self) -> None:
        """Take out a batch; then sleep, or come back, or wait for those it goes to."""
        receive, find = self._ring.receive, self.events.get
        try:
            for taken in range(_BATCH):  # noqa: B007 (looked at after the loop)
                message = receive(0)
                if message is None:
                    break
                lane = find(message[:9])
                if lane is not None:
                    lane.count += 1
                    lane.push(message)
                else:
                    self._hear(message)
            if self._queue or self._answers:
                self._flush()
            self._must_wait = self._hub.flow.must_wait(self)
            if self._must_wait:
                return
            if message is not None:
                self._schedule()
            elif taken >= _HOT:
                # More will come: to be woken for each message costs the enclave more than to send.
                self._is_scheduled = True
                self._loop.call_later(_PAUSE, self._drain_again)
            elif not self._ring.prepare_sleep():
                self._schedule()
        except RingClosedError:
            return
        except BrochError as exc:
            self.give_up(f"sent what it cannot have sent: {exc}")

    def resume(self) -> None:
        """Its sinks take messages again."""
        self._must_wait = False
        self._schedule()

    def _hear(self, message: bytes) -> None:
        kind = message[0]
        if kind == Kind.REQUEST:
            connection, _, counter = head(SEALED, message)
            end = self._loop.time() + 2 * self.load.seconds + 1
            self._ask(_Question(kind, connection, counter, end))
            self._hub.ask(self, message)
        elif kind == Kind.REPLY:
            connection, _, _, counter = head(ANSWER, message)
            self._owed = deque(
                o for o in self._owed if (o.connection, o.counter) != (connection, counter)
            )
            self._hub.reply(connection, message)
        elif kind == Kind.OCALL:
            number, port = head(OCALL, message)
            self._ask(_Question(kind, number=number))
            self._work.call(number, port, message[OCALL.size :], self._answerer(kind, number))
        elif kind == Kind.LOAD:
            self._ask(_Question(kind))
            self._work.load(self._answerer(kind, 0))
        elif kind == Kind.SAVE:
            self._ask(_Question(kind))
            self._work.save(message[1:], self._answerer(kind, 0), self._fail_from_thread)
        elif kind in _FOR_DEPLOYER:
            self._ready = self._ready or kind == Kind.READY
            self._hub.hear(self, message)
        elif kind != Kind.EVENT:  # an event without a route: nobody is connected any more
            raise PoisonedError(f"kind 0x{kind:02x}")

    def _ask(self, question: _Question) -> None:
        if self._question is not None:
            raise PoisonedError("asked twice at a time")
        self._question = question

    def _answerer(self, kind: int, number: int) -> Callable[[bytes], None]:
        def answer(message: bytes) -> None:
            self._loop.call_soon_threadsafe(self.answer_from_thread, kind, number, message)

        return answer

    def _fail_from_thread(self, why: str) -> None:
        self._loop.call_soon_threadsafe(self.give_up, why)

    # Time.

    def start_ticks(self) -> None:
        """Begin to call what the module declared as periodic."""
        for port, seconds in self.load.every.items():
            self._tick_at(port, seconds, self._loop.time() + seconds, 0)

    def _tick_at(self, port: int, seconds: float, when: float, last: int) -> None:
        def tick() -> None:
            number = last
            if self._ring.progress >= last and not self._queue:  # else the last is not done yet
                self.push(TICK.pack(Kind.TICK, port))
                number = self._pushed
            self._tick_at(port, seconds, max(when + seconds, self._loop.time()), number)

        if not self.is_over:
            self._timers[port] = self._loop.call_at(when, tick)

    def look(self, now: float) -> None:
        """The watchdog's look, every tenth of a second or so."""
        if self.is_over:
            return
        progress, elapsed = self._ring.progress, min(now - self._looked, _LONGEST_LOOK)
        self._looked = now
        if progress != self._seen:
            self._seen, self._spent = progress, 0.0
        asked = self._question
        if asked is not None:
            if asked.kind == Kind.REQUEST and now > asked.end:
                self._answer(failed(asked.connection, asked.number, "it took too long"))
        elif not self._ready or (self._given > progress and not self._must_wait):
            self._spent += elapsed
            limit = self.load.seconds + (0 if self._ready else _LOAD_SECONDS)
            if self._spent > limit:
                self.give_up(f"took longer than {limit:g} s")
        if self._owed and self._owed[0].number <= progress and not self._must_wait:
            self._settle(progress)

    def _settle(self, progress: int) -> None:
        """Requests that were worked off and not replied to never will be."""
        self._drain()
        while (
            not (self._must_wait or self._is_scheduled)
            and self._owed
            and self._owed[0].number <= progress
        ):
            self._tell_asker(self._owed.popleft(), "the handler did not take the request")

    def _tell_asker(self, owed: _Owed, why: str) -> None:
        self._hub.reply(owed.connection, failed(owed.connection, owed.counter, why))

    # The end.

    def give_up(self, why: str) -> None:
        """End it, and say why."""
        if not self.is_over and not self.why:
            self.why = why
            self._hub.kill(self)

    def ended(self) -> None:
        """Its process is gone: hear its last words, tell who waits for it, let go of all."""
        self._loop.remove_reader(self._ring.fileno())
        self._ring.shut()
        try:
            for _ in range(_LAST_WORDS):
                message = self._ring.receive(0)
                if message is None:
                    break
                self._last_word(message)
        except BrochError:
            pass  # cut off in the middle of a message
        self.is_over = True
        self._question = None
        for timer in self._timers.values():
            timer.cancel()
        for owed in self._owed:
            self._tell_asker(owed, "the module ended")
        self._owed.clear()
        self._queue.clear()
        self._answers.clear()
        self._credit = 0
        self._hub.flow.relieve(self)
        self._hub.flow.forget(self)
        self._work.close()
        self._ring.close()

    def _last_word(self, message: bytes) -> None:
        lane = self.events.get(message[:9])
        if lane is not None:
            lane.count += 1
            lane.push(message)
        elif message[0] in _FOR_DEPLOYER:
            self._hub.hear(self, message)
        elif message[0] == Kind.REPLY:
            self._hear(message)


_FOR_DEPLOYER: Final = frozenset(
    {
        Kind.READY,
        Kind.EVIDENCE,
        Kind.CONFIRM,
        Kind.RESULT,
        Kind.PRINT,
        Kind.FAULT,
        Kind.REFUSED,
        Kind.GAP,
        Kind.STATE,
        Kind.IMPORTED,
        Kind.BYE,
    }
)


def failed(connection: int, counter: int, why: str) -> bytes:
    """A FAILED message."""
    return FAILED.pack(Kind.FAILED, connection, counter) + why.encode()[:200]
