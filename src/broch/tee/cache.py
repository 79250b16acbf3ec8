"""What has been verified and need not be verified again: a cache that the caller owns.

Verification reads no clock and keeps no state of its own. What of it does not depend on the time
(a chain of certificates, the signatures over collateral, a quoting enclave's report) is the same
for every quote of a platform, so a caller may keep it: it is in ``Endorsements.cache``.
Endorsements that are used again bring it along; endorsements made anew start without, unless they
are given one::

    cache = VerificationCache()
    Endorsements(anchors=anchors, items=items, cache=cache)

Rules that make this safe:

1. A key holds *all* bytes that the result depends on, anchors too: it is their content, not a name.
2. Only success is kept. A failure is found anew each time.
3. Nothing that depends on the time is kept: a result carries its windows of validity, and every
   verification compares them with its own time.
4. It is bounded; the oldest entry goes first.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Final, TypeVar

MAX_ENTRIES: Final = 1024
_T = TypeVar("_T")


class VerificationCache:
    """Results of verification by content. Safe to share between threads; empty when copied."""

    __slots__ = ("_found", "_limit", "_lock")

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        """Keep at most ``limit`` results, each of some kilobytes."""
        self._limit = limit
        self._found: dict[Hashable, object] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The result for ``key``, or what ``make`` returns; what it raises is not kept."""
        try:
            # The kind of thing is part of each key, so a key has results of one type.
            return self._found[key]  # type: ignore[return-value]
        except KeyError:
            made = make()
        with self._lock:
            while len(self._found) >= self._limit:
                del self._found[next(iter(self._found))]
            self._found[key] = made
        return made

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"VerificationCache({len(self)} entries)"

    def __reduce__(self) -> tuple[type["VerificationCache"], tuple[int]]:
        # Trust does not travel: another process verifies for itself.
        return VerificationCache, (self._limit,)
