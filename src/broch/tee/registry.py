"""Find the TEEs that are installed: the entry points of group ``broch.tees``.

A package of someone else's adds a TEE by declaring an entry point there; nothing in Broch changes.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import Final, cast

from broch.errors import InternalError, UsageError
from broch.tee.contract import Tee

GROUP: Final = "broch.tees"


@cache
def names() -> tuple[str, ...]:
    """Names of all installed TEEs, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@cache
def find(name: str) -> Tee:
    """The TEE called ``name``.

    Raises:
        UsageError: none is installed under that name.
        InternalError: its package does not load, or answers to another name.
    """
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise UsageError(
            f"unknown TEE {name!r}", hint=f"installed TEEs: {', '.join(names()) or 'none'}"
        )
    try:
        tee = cast(Tee, points[0].load())
    except (ImportError, AttributeError) as exc:
        raise InternalError(f"TEE {name} does not load: {exc}") from exc
    if (held := getattr(tee, "name", None)) != name:
        raise InternalError(f"entry point {name} holds the TEE {held}")
    return tee
