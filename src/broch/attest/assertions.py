"""Assertions of a policy: CEL expressions over the claims, each with a name, each to be true.

``claims`` is what :func:`.view.claims_view` makes; ``at`` is the time of appraisal. An expression
that is false, gives anything but a boolean, or cannot be evaluated, refuses. CEL's own rules hold:
an error on one side of ``||`` is absorbed if the other is true.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from broch.attest.checks import Check, failed, passed
from broch.attest.view import claims_view
from broch.errors import UsageError
from broch.tee.contract import Claims

MAX_EXPRESSION = 4096  # characters


def library() -> Any:
    """The evaluator, which is an extra.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import cel
    except ImportError:
        raise UsageError(
            "the policy has assertions, and no CEL evaluator is installed",
            hint="pip install 'broch[policy]'",
        ) from None
    return cel


def problem_with(expression: str) -> str | None:
    """What is wrong with the syntax of an expression, in one line; None if nothing is."""
    if len(expression) > MAX_EXPRESSION:
        return f"longer than {MAX_EXPRESSION} characters"
    error, _ = _attempt(lambda: library().compile(expression))
    return error


def evaluate(claims: Claims, assertions: Mapping[str, str], at: datetime) -> Iterator[Check]:
    """One check for each assertion.

    Raises:
        UsageError: the evaluator is not installed.
    """
    context = library().Context({"claims": claims_view(claims), "at": at})
    for name, expression in assertions.items():
        yield _evaluate(name, expression, context)


def _evaluate(name: str, expression: str, context: Any) -> Check:
    rule = f"assertion {name}"
    cel = library()
    error, value = _attempt(lambda: cel.compile(expression).execute(context))
    if error is not None:
        why = f"assertion {name!r} cannot be evaluated: {error}"
        return failed(rule, why, "mend the expression; broch verify --json shows the claims")
    if value is True:
        return passed(rule, expression)
    if value is False:
        hint = "broch verify --json shows the claims that the expression is about"
        return failed(rule, f"assertion {name!r} does not hold: {expression}", hint)
    why = f"assertion {name!r} gives {type(value).__name__}, expected true or false"
    return failed(rule, why, "write an expression that is true or false")


def _attempt(action: Callable[[], Any]) -> tuple[str | None, Any]:
    """What ``action`` gives, or its error: any at all, a panic of the evaluator too, refuses."""
    try:
        return None, action()
    except (KeyboardInterrupt, SystemExit, UsageError):
        raise
    except BaseException as exc:  # noqa: BLE001 (a panic of a native library is no Exception)
        text = " ".join(str(exc).split())[:200]
        return f"{type(exc).__name__}: {text}", None
