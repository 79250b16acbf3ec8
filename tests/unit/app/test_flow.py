"""Back-pressure: sources wait while any of their sinks is crowded, and only then."""

from broch.app.flow import Flow, Sink


class Pipe:
    def push(self, message: bytes) -> None:
        raise AssertionError("nothing is sent here")


class Tap:
    def __init__(self, *sinks: Sink) -> None:
        self.sinks = set(sinks)
        self.resumed = 0

    def resume(self) -> None:
        self.resumed += 1


def test_a_source_waits_until_all_its_sinks_are_relieved() -> None:
    flow, one, two, other = Flow(), Pipe(), Pipe(), Pipe()
    tap, free = Tap(one, two), Tap(other)
    assert not flow.must_wait(tap)
    flow.crowd(one)
    flow.crowd(two)
    assert flow.must_wait(tap)
    assert not flow.must_wait(free)
    flow.relieve(one)
    assert tap.resumed == 0
    flow.relieve(two)
    assert (tap.resumed, free.resumed) == (1, 0)
    assert not flow.must_wait(tap)


def test_relieving_what_is_not_crowded_does_nothing() -> None:
    flow, pipe = Flow(), Pipe()
    tap = Tap(pipe)
    flow.relieve(pipe)
    assert tap.resumed == 0


def test_a_source_that_is_gone_is_not_resumed() -> None:
    flow, pipe = Flow(), Pipe()
    tap = Tap(pipe)
    flow.crowd(pipe)
    assert flow.must_wait(tap)
    flow.forget(tap)
    flow.relieve(pipe)
    assert tap.resumed == 0
