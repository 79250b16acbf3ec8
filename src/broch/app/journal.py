"""What happens while an application runs, told to whoever listens; and what connections lost."""

import asyncio
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any, Final

_MAX_QUEUE: Final = 10_000  # events that a listener may be behind; then it loses the oldest
_MAX_PAST: Final = 1000  # events that are kept for who asks later


class Journal:
    """Tells events to subscribers, keeps the last, and counts gaps and refusals by connection."""

    def __init__(self) -> None:
        self._past: deque[dict[str, Any]] = deque(maxlen=_MAX_PAST)
        self._subscribers: set[asyncio.Queue[dict[str, Any]]] = set()
        self.gaps: Counter[int] = Counter()
        self.refusals: Counter[int] = Counter()

    @property
    def has_readers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._subscribers)

    def past(self) -> list[dict[str, Any]]:
        """The last 1,000 that happened, oldest first; of kind ``event`` those that had readers."""
        return list(self._past)

    def subscribe(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of all that happens from now on."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MAX_QUEUE)
        self._subscribers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        """Listen no more."""
        self._subscribers.discard(queue)

    def add(self, kind: str, module: str | None, text: str, **more: Any) -> None:
        """Something happened."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"time": time, "kind": kind, "module": module, "text": text, **more}
        self._past.append(event)
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def gap(self, module: str, connection: int, lost: int) -> None:
        """Events that never came."""
        self.gaps[connection] += lost
        self.add("gap", module, f"{lost} events never came", connection=connection, lost=lost)

    def refused(self, module: str, connection: int, why: str) -> None:
        """A message that was not believed."""
        self.refusals[connection] += 1
        self.add("refused", module, why, connection=connection)
