"""Steps: an error says at which one it was raised, also where times are looked at again."""

from datetime import UTC, datetime, timedelta

import pytest

from broch.errors import BrochError, UndecidedError, UntrustedError, UsageError
from broch.tee.steps import Steps
from broch.wire.x509 import Window

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VALID = Window(what="it", begin=NOW - DAY, end=NOW + DAY)
OLD = Window(what="the list", begin=NOW - 2 * DAY, end=NOW - DAY)


def failing(steps: Steps, error: Exception) -> None:
    with steps:
        steps.current = "first"
        steps.skipped["first"] = "not needed"
        steps.current = "second"
        raise error


def test_an_error_says_where_and_what_was_left_out() -> None:
    error = UndecidedError("missing")
    assert (error.step, error.skipped) == (None, {})
    with pytest.raises(UndecidedError):
        failing(Steps(NOW), error)
    assert (error.step, error.skipped) == ("second", {"first": "not needed"})
    assert BrochError("another").skipped == {}


def test_the_innermost_step_counts() -> None:
    error = UntrustedError("wrong")
    outer = Steps(NOW)
    outer.current = "outer"
    with pytest.raises(UntrustedError), outer:
        failing(Steps(NOW), error)
    assert error.step == "second"


def test_errors_of_others_and_before_the_first_step_are_left_alone() -> None:
    with pytest.raises(ValueError, match="theirs"):
        failing(Steps(NOW), ValueError("theirs"))
    with pytest.raises(UntrustedError) as caught, Steps(NOW):
        raise UntrustedError("at once")
    assert caught.value.step is None


def test_the_time_has_a_zone() -> None:
    with pytest.raises(UsageError, match="no time zone"):
        Steps(NOW.replace(tzinfo=None))


def test_times_belong_to_the_step_that_looked() -> None:
    steps = Steps(NOW)
    steps.current = "chain"
    found = steps.check_times(VALID)
    steps.current = "crl"
    with pytest.raises(UntrustedError, match="the list has expired"):
        steps.check_times(OLD)
    found += [(steps.current, OLD)]
    steps.current = "later"
    with pytest.raises(UntrustedError, match="the list has expired"), steps:
        steps.check_again(found)
    assert steps.current == "crl"
