"""Errors keep their class, place and hint on their way between processes."""

import pytest

from broch.app.reports import error_from_data, error_to_data
from broch.attest import AppraisalError
from broch.errors import (
    BrochError,
    InternalError,
    MalformedError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.sdk import DeclarationError

KINDS: list[type[BrochError]] = [
    InternalError,
    UsageError,
    MalformedError,
    DeclarationError,
    UntrustedError,
    PolicyError,
    UndecidedError,
]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_go_there_and_back(kind: type[BrochError]) -> None:
    found = error_from_data(error_to_data(kind("what", place="where", hint="how")))
    assert type(found) is kind
    assert (found.message, found.place, found.hint) == ("what", "where", "how")


def test_a_subclass_becomes_what_the_caller_should_do_about_it() -> None:
    error = AppraisalError("no", (), place="m", hint=None)
    assert type(error_from_data(error_to_data(error))) is PolicyError


def test_foreign_exceptions_are_internal() -> None:
    found = error_from_data(error_to_data(ZeroDivisionError("x")))
    assert type(found) is InternalError
    assert found.message == "ZeroDivisionError: x"


@pytest.mark.parametrize("data", [None, [], {"code": "usage"}, {"message": 5}])
def test_what_is_no_report_is_internal(data: object) -> None:
    assert type(error_from_data(data)) is InternalError
