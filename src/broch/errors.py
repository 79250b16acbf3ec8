"""Errors, by what the caller should do about them.

Every error carries ``code`` (part of the API), ``exit_code`` (what a command ends with), a message
that says what was expected and what came, and where there is one: ``place`` (``file:line`` or the
name of a module, node, key) and ``hint`` (what to do; never "weaken security"). Where a
verification failed, ``step`` is the step that did not hold and ``skipped`` has those before it that
were not made, and why (:mod:`broch.tee.steps`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class BrochError(Exception):
    """Base class of every error that Broch raises on purpose."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    step: str | None = None
    skipped: Mapping[str, str] = MappingProxyType({})

    def __init__(self, message: str, *, place: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class InternalError(BrochError):
    """Broch itself failed: a defect of ours, or a process of ours that died."""


class UsageError(BrochError):
    """The call is wrong: a missing file, an unknown name, a port in use."""

    code = "usage"
    exit_code = 2


class MalformedError(BrochError):
    """Something given to us cannot be understood; the base of :class:`DecodeError`."""

    code = "malformed"
    exit_code = 3


class DecodeError(MalformedError):
    """The bytes are not what they claim to be; ``offset`` is where decoding stopped (bytes)."""

    def __init__(self, offset: int, problem: str, *, what: str | None = None) -> None:
        super().__init__(f"offset 0x{offset:x}: {problem}", place=what)
        self.offset = offset
        self.problem = problem


class UntrustedError(BrochError):
    """Well formed, but there is no reason to believe it."""

    code = "untrusted"
    exit_code = 4


class PolicyError(BrochError):
    """Authentic, but not what this relying party accepts."""

    code = "refused"
    exit_code = 5


class UndecidedError(BrochError):
    """Could not be decided now (something is missing or out of reach): try again."""

    code = "undecided"
    exit_code = 6
