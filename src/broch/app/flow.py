"""Back-pressure inside an agent: who feeds whom, and who must wait.

A *sink* takes messages and queues what it cannot pass on at once. When its queue is long, it is
crowded: every source that feeds it stops taking messages in, until none of its sinks is crowded.
"""

from typing import Protocol


class Sink(Protocol):
    """What takes messages: an enclave, a line to a peer or to the deployer."""

    def push(self, message: bytes) -> None: ...


class Source(Protocol):
    """What messages come from."""

    @property
    def sinks(self) -> set[Sink]:
        """All that it feeds."""
        ...

    def resume(self) -> None:
        """Go on taking messages in."""
        ...


class Flow:
    """All crowded sinks and waiting sources of an agent."""

    def __init__(self) -> None:
        self._crowded: set[Sink] = set()
        self._waiting: dict[Source, None] = {}

    def crowd(self, sink: Sink) -> None:
        """``sink`` has too much already."""
        self._crowded.add(sink)

    def relieve(self, sink: Sink) -> None:
        """``sink`` can take more, or is gone."""
        if sink in self._crowded:
            self._crowded.remove(sink)
            for source in list(self._waiting):
                if source.sinks.isdisjoint(self._crowded):
                    del self._waiting[source]
                    source.resume()

    def must_wait(self, source: Source) -> bool:
        """Whether ``source`` must stop until :meth:`Source.resume` is called."""
        if not self._crowded or source.sinks.isdisjoint(self._crowded):
            return False
        self._waiting[source] = None
        return True

    def forget(self, source: Source) -> None:
        """``source`` is gone."""
        self._waiting.pop(source, None)
