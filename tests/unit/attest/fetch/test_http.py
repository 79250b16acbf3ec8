"""The HTTP client against services that misbehave. Clocks are ours: nothing here waits."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest
from tests.publishers import Answer, Publisher, serve

from broch.attest.fetch.http import MAX_HEADER, Http, Limits, retry_after
from broch.errors import BrochError, DecodeError, UndecidedError, UsageError

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
FINE: Final = Answer(body=b"fine", headers={"X-Chain": "abc"})


@dataclass
class Clock:
    """Time passes only when somebody sleeps."""

    at: float = 1000.0
    slept: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    clients: list[Http] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def client(self, **limits: float) -> Http:
        client = Http(
            Limits(**limits),  # type: ignore[arg-type]
            sleep=self.sleep,
            monotonic=lambda: self.at,
            now=lambda: NOW,
            waiting=self.said.append,
        )
        self.clients.append(client)
        return client


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    for client in clock.clients:
        client.close()


@pytest.fixture
def service() -> Iterator[Publisher]:
    with serve(lambda path, parameters: FINE) as publisher:
        yield publisher


def test_an_answer(service: Publisher, clock: Clock) -> None:
    response = clock.client().get(service.base + "/a?b=c", max_body=4)
    assert response.body == b"fine"
    assert response.header("x-CHAIN") == "abc"
    assert service.requests == ["/a?b=c"]
    assert clock.slept == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", ["7", "Sun, 01 Mar 2026 12:00:07 GMT"])
def test_a_service_is_left_alone_as_long_as_it_asks(
    service: Publisher, clock: Clock, status: int, asked: str
) -> None:
    service.faults.append(Answer(status=status, headers={"Retry-After": asked}))
    client = clock.client()
    assert client.get(service.base, max_body=4).body == b"fine"
    assert clock.slept == [7.0]
    assert str(status) in clock.said[0]


def test_a_rate_limit_that_says_nothing_is_given_ten_seconds(
    service: Publisher, clock: Clock
) -> None:
    service.faults.extend([Answer(status=429), Answer(status=429, headers={"Retry-After": "x"})])
    assert clock.client().get(service.base, max_body=4).body == b"fine"
    assert clock.slept == [10.0, 10.0]


def test_a_service_that_asks_for_too_much_is_not_waited_for(
    service: Publisher, clock: Clock
) -> None:
    service.faults.append(Answer(status=429, headers={"Retry-After": "3600"}))
    client = clock.client()
    for _ in range(2):  # the second time it is not even asked
        with pytest.raises(UndecidedError, match=r"429|left alone") as caught:
            client.get(service.base, max_body=4)
        assert caught.value.hint == "try again in 3600 s"
    assert len(service.requests) == 1
    assert clock.slept == []
    clock.at += 3600
    assert client.get(service.base, max_body=4).body == b"fine"


def test_other_threads_keep_away_too(service: Publisher, clock: Clock) -> None:
    client = clock.client(attempts=1)
    service.faults.append(Answer(status=429, headers={"Retry-After": "5"}))
    with pytest.raises(UndecidedError):
        client.get(service.base, max_body=4)
    thread = threading.Thread(target=client.get, args=(service.base,), kwargs={"max_body": 4})
    thread.start()
    thread.join()
    assert clock.slept == [5.0]


def test_failures_are_tried_again_each_time_later(service: Publisher, clock: Clock) -> None:
    service.faults.extend([Answer(status=500), Answer(status=502), Answer(status=504)])
    assert clock.client().get(service.base, max_body=4).body == b"fine"
    assert clock.slept == [1.0, 2.0, 4.0]


def test_a_service_that_stays_away_is_given_up(service: Publisher, clock: Clock) -> None:
    service.down = Answer(status=503)
    client = clock.client()
    with pytest.raises(UndecidedError, match="503") as caught:
        client.get(service.base, max_body=4)
    assert caught.value.exit_code == 6
    assert len(service.requests) == 4
    # And then not hoped for with every request, until it answers again.
    with pytest.raises(UndecidedError):
        client.get(service.base, max_body=4)
    assert len(service.requests) == 5
    service.down = None
    assert client.get(service.base, max_body=4).body == b"fine"
    service.faults.append(Answer(status=500))
    assert client.get(service.base, max_body=4).body == b"fine"


def test_nobody_listens(clock: Clock) -> None:
    with serve(lambda path, parameters: FINE) as publisher:
        url = publisher.base
    with pytest.raises(UndecidedError, match="no whole answer: ConnectError"):
        clock.client().get(url, max_body=4)
    assert clock.slept == [1.0, 2.0, 4.0]


def test_a_truncated_body_is_not_an_answer(service: Publisher, clock: Clock) -> None:
    service.faults.append(Answer(body=b"fin", promised=4))
    assert clock.client().get(service.base, max_body=4).body == b"fine"
    service.down = Answer(body=b"fin", promised=4)
    with pytest.raises(UndecidedError, match="no whole answer"):
        clock.client(attempts=1).get(service.base, max_body=4)


def test_a_silent_service_is_not_waited_for(service: Publisher, clock: Clock) -> None:
    given_up = threading.Event()
    service.faults.append(Answer(body=b"late", then=given_up.wait))
    with pytest.raises(UndecidedError, match="no answer in"):
        clock.client(attempts=1, silence=0.05).get(service.base, max_body=4)
    given_up.set()


def test_a_trickle_has_an_end(service: Publisher, clock: Clock) -> None:
    # The body comes after more time has passed than a request may take.
    def late() -> None:
        clock.at += 31

    service.faults.append(Answer(body=b"late", then=late))
    with pytest.raises(UndecidedError, match="no whole answer in 30 s"):
        clock.client(attempts=1).get(service.base, max_body=4)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        pytest.param(Answer(body=b"12345"), DecodeError, "more than 4 bytes", id="too long"),
        pytest.param(
            Answer(body=b"1", headers={"Content-Encoding": "gzip"}),
            DecodeError,
            "compressed",
            id="compressed",
        ),
        pytest.param(Answer(status=404), UndecidedError, "404", id="not there"),
        pytest.param(Answer(status=400), UndecidedError, "400", id="refused"),
        pytest.param(Answer(status=204), UndecidedError, "204", id="another success"),
        pytest.param(
            Answer(status=302, headers={"Location": "http://127.0.0.1/"}),
            UndecidedError,
            "points elsewhere",
            id="redirect",
        ),
    ],
)
def test_an_answer_that_is_none_is_not_asked_for_again(
    service: Publisher, clock: Clock, answer: Answer, error: type[BrochError], message: str
) -> None:
    service.down = answer
    with pytest.raises(error, match=message):
        clock.client().get(service.base, max_body=4)
    assert len(service.requests) == 1


def test_headers_are_bounded(service: Publisher, clock: Clock) -> None:
    service.faults.append(Answer(headers={"X-Chain": "a" * (MAX_HEADER + 1)}))
    response = clock.client().get(service.base, max_body=4)
    with pytest.raises(DecodeError, match="too long"):
        response.header("X-Chain")
    with pytest.raises(DecodeError, match="no header Other"):
        response.header("Other")
    service.faults.append(Answer(headers={"X-Chain": "a" * 200_000}))
    with pytest.raises(UndecidedError, match="no whole answer"):
        clock.client(attempts=1).get(service.base, max_body=4)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://user:secret@example.com/",
        "https://",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "",
    ],
)
def test_urls_that_are_not_used(clock: Clock, url: str) -> None:
    with pytest.raises(UsageError):
        clock.client().get(url, max_body=4)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("-1", None),
        ("1.5", None),
        ("9" * 30, None),
        ("soon", None),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("\u0661", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_without_httpx_there_is_a_hint(
    service: Publisher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UsageError) as caught:
        clock.client().get(service.base, max_body=4)
    assert caught.value.hint == "pip install 'broch[server]'"


def test_real_clocks_are_the_default(service: Publisher) -> None:
    with Http() as client:
        assert client.get(service.base, max_body=4).body == b"fine"
        client.close()
        assert client.get(service.base, max_body=4).body == b"fine"
