"""The cache of verified things: each of its rules."""

import pickle
import threading

import pytest

from broch.errors import UntrustedError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements


def test_success_is_made_once() -> None:
    cache = VerificationCache()
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "value"

    for _ in range(3):
        assert cache.get(("kind", b"content"), make) == "value"
    assert made == [1]


def test_other_content_is_another_result() -> None:
    cache = VerificationCache()
    assert cache.get((b"a", b"bc"), lambda: 1) == 1
    assert cache.get((b"ab", b"c"), lambda: 2) == 2


def test_failure_is_found_anew() -> None:
    cache = VerificationCache()
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise UntrustedError("no")

    for _ in range(2):
        with pytest.raises(UntrustedError):
            cache.get("key", fail)
    assert len(tries) == 2
    assert len(cache) == 0


def test_none_is_a_result() -> None:
    cache = VerificationCache()
    made: list[int] = []
    for _ in range(2):
        cache.get("key", lambda: made.append(1))
    assert made == [1]


def test_it_is_bounded_and_the_oldest_goes() -> None:
    cache = VerificationCache(limit=3)
    for number in range(10):
        cache.get(number, lambda: number)  # noqa: B023  (called at once)
    assert len(cache) == 3
    assert cache.get(9, lambda: -1) == 9
    assert cache.get(0, lambda: "new") == "new"


def test_threads_may_share_it() -> None:
    cache = VerificationCache(limit=8)
    wrong: list[tuple[int, int]] = []

    def work() -> None:
        for number in range(2000):
            if (found := cache.get(number % 16, lambda: number % 16)) != number % 16:  # noqa: B023
                wrong.append((number, found))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) <= 8


def test_trust_does_not_travel() -> None:
    cache = VerificationCache(limit=7)
    cache.get("key", lambda: 1)
    copy = pickle.loads(pickle.dumps(cache))
    assert len(copy) == 0
    assert "1 entries" in repr(cache)


def test_endorsements_bring_one_of_their_own() -> None:
    first, second = Endorsements(anchors=(b"a",)), Endorsements(anchors=(b"a",))
    assert first.cache is not second.cache
    assert first == second
    shared = VerificationCache()
    assert Endorsements(anchors=(), cache=shared).cache is shared
