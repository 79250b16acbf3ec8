"""Restart rules: which ends call for one, how long to wait, how many are too many."""

import pytest

from broch.app.descriptor import Restart
from broch.app.restarts import WINDOW, RestartRule


@pytest.mark.parametrize(
    ("restart", "orderly", "wanted"),
    [
        (Restart.NEVER, False, False),
        (Restart.NEVER, True, False),
        (Restart.ON_FAILURE, False, True),
        (Restart.ON_FAILURE, True, False),
        (Restart.ALWAYS, False, True),
        (Restart.ALWAYS, True, True),
    ],
)
def test_which_ends_call_for_a_restart(restart: Restart, orderly: bool, wanted: bool) -> None:
    assert RestartRule(restart, 5).wants(orderly=orderly) is wanted


def test_delays_grow_to_a_bound() -> None:
    rule = RestartRule(Restart.ALWAYS, 100)
    delays = [rule.delay(0.0) for _ in range(10)]
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-1] == 2.0


def test_too_many_within_a_minute() -> None:
    rule = RestartRule(Restart.ALWAYS, 2)
    assert rule.delay(0.0) is not None
    assert rule.delay(1.0) is not None
    assert rule.delay(2.0) is None
    assert rule.delay(0.0 + WINDOW) is not None, "the first is forgotten by then"
    assert rule.delay(0.5 + WINDOW) is None


def test_no_restarts_allowed() -> None:
    assert RestartRule(Restart.ALWAYS, 0).delay(0.0) is None
