"""What is installed: entry points ``broch.tees``, ``broch.verifiers`` and ``broch.native``.

A package of someone else's adds one by declaring an entry point there; nothing in Broch changes.
Every TEE is a verifier too; the second group is for hardware that is verified here and not run.
The third is for hardware that can be under us, and is found by the name of the TEE that it is.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, cast

from broch.errors import InternalError, UsageError
from broch.tee.contract import Tee
from broch.tee.verifier import Verifier

if TYPE_CHECKING:
    from broch.tee.guest import GuestTee

GROUP: Final = "broch.tees"
VERIFIERS: Final = "broch.verifiers"
NATIVE: Final = "broch.native"


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
    return cast(Tee, _load(GROUP, "TEE", name, names()))


@cache
def native_names() -> tuple[str, ...]:
    """Names of all TEEs whose real hardware can be used, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=NATIVE)}))


@cache
def find_native(name: str) -> "GuestTee":
    """The real hardware of the TEE called ``name``.

    Raises:
        UsageError: none is installed under that name.
        InternalError: its package does not load, or answers to another name.
    """
    return cast("GuestTee", _load(NATIVE, "native TEE", name, native_names()))


@cache
def verifier_names() -> tuple[str, ...]:
    """Names of all hardware whose evidence can be verified here, sorted."""
    return tuple(sorted({*names(), *(point.name for point in entry_points(group=VERIFIERS))}))


@cache
def find_verifier(name: str) -> Verifier:
    """What verifies evidence of ``name``: the TEE of that name, or else a verifier alone.

    Raises:
        UsageError: none is installed under that name.
        InternalError: its package does not load, or answers to another name.
    """
    if name in names():
        return find(name)
    return cast(Verifier, _load(VERIFIERS, "verifier", name, verifier_names()))


def _load(group: str, what: str, name: str, known: tuple[str, ...]) -> object:
    points = [point for point in entry_points(group=group) if point.name == name]
    if not points:
        raise UsageError(
            f"unknown {what} {name!r}", hint=f"installed {what}s: {', '.join(known) or 'none'}"
        )
    try:
        loaded: object = points[0].load()
    except (ImportError, AttributeError) as exc:
        raise InternalError(f"{what} {name} does not load: {exc}") from exc
    if (held := getattr(loaded, "name", None)) != name:
        raise InternalError(f"entry point {name} holds the {what} {held}")
    return loaded
