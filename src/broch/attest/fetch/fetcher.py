"""From a service into the store: once for all who ask, and never for the worse.

Whoever needs a subject holds its lock while he fetches it, so others, threads and processes, wait
and then find it there: many requests for one key cost one. What a service gives replaces what is
there only if it is signed and not older; and while the service is out of reach, what is there
serves as long as its publisher said that it would.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from broch.attest.endorsements.store import Entry, Store
from broch.attest.endorsements.subject import Kind, Subject
from broch.errors import InternalError, UndecidedError, UsageError

MAX_AGE: Final = timedelta(days=1)  # lists and TCB info: publishers add to them at any time
_FOR_GOOD: Final = frozenset({Kind.SNP_VEK})  # certificates of one key: they do not change


class State(StrEnum):
    """How a subject came to be in the store."""

    CURRENT = "current"  # it was there, and new enough
    FETCHED = "fetched"
    UNCHANGED = "unchanged"  # fetched, and the same as before
    OLDER = "older"  # what the service gave was older; what was there was kept
    KEPT = "kept"  # the service is out of reach; what was there is still valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one subject."""

    state: State
    entry: Entry
    problem: str | None = None  # of KEPT and OLDER


class Service(Protocol):
    """Somebody who publishes endorsements."""

    kinds: tuple[Kind, ...]

    def get(self, subject: Subject) -> tuple[str, dict[str, bytes]]: ...


class Fetcher:
    """Fills a store.

    Args:
        store: where to.
        services: who publishes what.
        anchors: roots (DER) besides those that are pinned; for emulated services.
        max_age: after what time things are fetched again though they have not expired.
        now: the clock.
    """

    def __init__(
        self,
        store: Store,
        services: Sequence[Service],
        *,
        anchors: Sequence[bytes] = (),
        max_age: timedelta = MAX_AGE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._services = {kind: service for service in services for kind in service.kinds}
        self._anchors = tuple(anchors)
        self._max_age = max_age
        self._now = now

    def fetch(self, subject: Subject, *, refresh: bool = False) -> Outcome:
        """Have ``subject`` in the store.

        Args:
            subject: what.
            refresh: also if what is there would do.

        Raises:
            UndecidedError: it is not there, and the service does not give it.
            DecodeError, UntrustedError: the service gave something else; nothing was changed.
        """
        began = self._now()
        known = self._store.entry(subject)
        if known is not None and not refresh and self._is_fresh(known, began):
            return Outcome(state=State.CURRENT, entry=known)
        with self._store.lock(subject):
            known = self._store.entry(subject)
            # Somebody may have fetched it while we waited for the lock.
            if known is not None and (
                known.fetched >= began or (not refresh and self._is_fresh(known, began))
            ):
                return Outcome(state=State.CURRENT, entry=known)
            return self._fetch(subject, known)

    def fetch_all(self, subjects: Iterable[Subject], *, refresh: bool = False) -> list[Outcome]:
        """Have all of them in the store; see :meth:`fetch`."""
        return [self.fetch(subject, refresh=refresh) for subject in subjects]

    def _fetch(self, subject: Subject, known: Entry | None) -> Outcome:
        service = self._services.get(subject.kind)
        if service is None:
            raise UsageError(f"no service is named that publishes {subject}")
        try:
            source, items = service.get(subject)
        except UndecidedError as exc:
            if known is not None and known.is_current(self._now()):
                return Outcome(state=State.KEPT, entry=known, problem=str(exc))
            raise
        is_newest = self._store.put(
            subject, items, source=source, fetched=self._now(), anchors=self._anchors
        )
        entry = self._store.entry(subject)
        if entry is None:
            raise InternalError(f"{subject} is not in the store after it was put there")
        if not is_newest:
            problem = "what the service gave was issued before what is there"
            return Outcome(state=State.OLDER, entry=entry, problem=problem)
        same = known is not None and known.digests == entry.digests
        return Outcome(state=State.UNCHANGED if same else State.FETCHED, entry=entry)

    def _is_fresh(self, entry: Entry, at: datetime) -> bool:
        if not entry.is_current(at):
            return False
        return entry.subject.kind in _FOR_GOOD or at - entry.fetched < self._max_age
