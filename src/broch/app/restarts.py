"""When a module that ended is started again."""

from collections import deque
from typing import Final

from broch.app.descriptor import Restart

WINDOW: Final = 60.0  # seconds in which ``max_restarts`` restarts are too many
_FIRST: Final = 0.05  # seconds
_LONGEST: Final = 2.0  # seconds


class RestartRule:
    """One module's rule, and how often it was used lately. Reads no clock."""

    def __init__(self, restart: Restart, max_restarts: int) -> None:
        self._restart = restart
        self._max = max_restarts
        self._times: deque[float] = deque()

    def wants(self, *, orderly: bool) -> bool:
        """Whether such an end calls for a restart at all."""
        return self._restart is Restart.ALWAYS or (
            self._restart is Restart.ON_FAILURE and not orderly
        )

    @property
    def exhausted(self) -> str:
        """What to say when :meth:`delay` gives None."""
        return f"its max_restarts = {self._max} within {WINDOW:g} s are used up"

    def delay(self, now: float) -> float | None:
        """Seconds to wait before the next restart; None if there were too many.

        Args:
            now: a monotonic time; the restart counts as made then.
        """
        while self._times and self._times[0] <= now - WINDOW:
            self._times.popleft()
        if len(self._times) >= self._max:
            return None
        self._times.append(now)
        return float(min(_FIRST * 2 ** (len(self._times) - 1), _LONGEST))
