"""Monotonic counters in a device's durable memory."""

from typing import Final

from broch.errors import InternalError, PolicyError
from broch.tee.contract import NonVolatile

LIMIT: Final = 2**64 - 1
_SIZE: Final = 8  # bytes


class Counter:
    """One counter (:class:`broch.tee.contract.MonotonicCounter`); begins at 0."""

    def __init__(self, nv: NonVolatile, name: str) -> None:
        self._nv = nv
        self._name = name

    def read(self) -> int:
        """The value now.

        Raises:
            InternalError: durable memory holds something else than a counter.
        """
        stored = self._nv.get(self._name)
        if stored is None:
            return 0
        if len(stored) != _SIZE:
            # Beginning at 0 again would be the very rollback that a counter is there to prevent.
            raise InternalError(f"durable memory has {len(stored)} bytes in {self._name}")
        return int.from_bytes(stored, "little")

    def increment(self) -> int:
        """Add one, make it durable, return the new value.

        Raises:
            PolicyError: the counter is at its end, 2**64 - 1.
        """
        value = self.read()
        if value == LIMIT:
            raise PolicyError("a monotonic counter has reached its end")
        self._nv.put(self._name, (value + 1).to_bytes(_SIZE, "little"))
        return value + 1
