"""What one process tells another in plain data: errors that keep their class, and progress."""

from dataclasses import dataclass
from typing import Any, Final

from broch.enclave.ring import PoisonedError, RingClosedError
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

_CLASSES: Final[dict[str, type[BrochError]]] = {
    kind.code: kind
    for kind in (
        InternalError,
        UsageError,
        MalformedError,
        UntrustedError,
        PolicyError,
        UndecidedError,
        DeclarationError,
        PoisonedError,
        RingClosedError,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A step of something that takes a while."""

    name: str  # "build", "nodes", "load", "attest", "connect", "running"
    text: str  # for people
    done: int = 0
    total: int = 0


def error_to_data(error: BaseException) -> dict[str, Any]:
    """Plain data for JSON and msgpack; what is not ours becomes an internal error."""
    if not isinstance(error, BrochError):
        error = InternalError(f"{type(error).__name__}: {error}")
    return {
        "code": error.code if error.code in _CLASSES else _nearest_code(error),
        "message": error.message,
        "place": error.place,
        "hint": error.hint,
    }


def _nearest_code(error: BrochError) -> str:
    for base in type(error).__mro__:
        code = base.__dict__.get("code")
        if code in _CLASSES:
            return str(code)
    return InternalError.code


def error_from_data(data: object) -> BrochError:
    """The inverse of :func:`error_to_data`; what is not an error's data is an internal error."""
    if not isinstance(data, dict) or not isinstance(data.get("message"), str):
        return InternalError(f"not an error report: {data!r:.80}")
    kind = _CLASSES.get(str(data.get("code")), InternalError)
    place, hint = data.get("place"), data.get("hint")
    return kind(
        data["message"],
        place=place if isinstance(place, str) else None,
        hint=hint if isinstance(hint, str) else None,
    )
