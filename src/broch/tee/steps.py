"""Which step a verification is at, so that an error says where it failed.

A verifier goes through numbered steps in order and raises at the first that fails::

    with Steps(at) as steps:
        steps.current = "format"
        report = Report.from_bytes(evidence)
        steps.current = "signature"
        ...

An error that leaves the block carries the step in ``error.step`` and what this evidence did without
in ``error.skipped``. So every step before that one holds, and none after it was reached. For that
to be true a step looks at the time before the next begins, though nothing that depends on the time
is cached (:mod:`broch.tee.cache`).

Names of steps are each verifier's own; :mod:`broch.attest.steps` says what they stand for.
"""

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from broch.errors import BrochError, UsageError

if TYPE_CHECKING:
    from broch.wire.x509 import Window


class Steps:
    """One verification's, and the time that it is about.

    Raises:
        UsageError: the time has no time zone.
    """

    __slots__ = ("at", "current", "skipped")

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise UsageError("the time of verification has no time zone")
        self.at = at
        self.current = ""
        self.skipped: dict[str, str] = {}  # step -> why it is not made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, BrochError) and error.step is None and self.current:
            error.step = self.current
            error.skipped = self.skipped

    def check_times(self, *windows: "Window") -> "list[tuple[str, Window]]":
        """What this step looks at is valid now; returned for :meth:`check_again`.

        Raises:
            UntrustedError: something is not; the message names it.
        """
        for window in windows:
            window.check(self.at)
        return [(self.current, window) for window in windows]

    def check_again(self, windows: "Iterable[tuple[str, Window]]") -> None:
        """What steps looked at that need not be gone through again is valid now.

        Raises:
            UntrustedError: something is not; the message names it.
        """
        for step, window in windows:
            self.current = step
            window.check(self.at)
