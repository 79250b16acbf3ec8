"""What a mutation is: sound evidence with one thing changed, and how it must be judged."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from broch.errors import BrochError, DecodeError
from broch.tee.contract import Claims, Endorsements
from broch.tee.verifier import Verifier

Errors = type[BrochError] | tuple[type[BrochError], ...]
NO_SIGNATURE: Final = "signature does not hold"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One thing broken, and the verdict: an error and the check that fails, or a claim."""

    name: str
    verifier: Verifier = field(repr=False)
    evidence: bytes = field(repr=False)
    endorsements: Endorsements = field(repr=False)
    at: datetime
    # None: it is believed, and ``shows`` says what the claims then show.
    error: Errors | None
    step: str = ""  # that fails, as ``broch.attest.steps`` names it; any of a|b for single bytes
    check: str = ""  # of the message
    shows: Callable[[Any], bool] = field(default=lambda claims: True, repr=False)

    def run(self) -> Claims:
        return self.verifier.verify(self.evidence, self.endorsements, at=self.at)


def at_step(step: str, mutations: Iterable[Mutation]) -> Iterator[Mutation]:
    """Those that fail and do not say at which step, fail at this one."""
    for mutation in mutations:
        said = mutation.error is None or mutation.step
        yield mutation if said else replace(mutation, step=step)


def flip(value: Any) -> Any:
    """The same value with one bit changed."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1, *value[1:]])
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1)
    raise TypeError(f"{value!r} cannot be bent")


def each_field(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field of a frozen dataclass by name, and a copy of it in which that one is bent."""
    for name in value.__slots__:
        yield name, replace(value, **{name: flip(getattr(value, name))})


def leaves(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths to every number and text of a JSON document."""
    if isinstance(document, dict):
        for key, item in document.items():
            yield from leaves(item, (*path, key))
    elif isinstance(document, list):
        for index, item in enumerate(document):
            yield from leaves(item, (*path, index))
    else:
        yield path


def at_path(document: Any, path: tuple[str | int, ...]) -> Any:
    """What is at the end of a path."""
    for step in path:
        document = document[step]
    return document


def put(document: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Put a value at the end of a path, in place."""
    at_path(document, path[:-1])[path[-1]] = value


def with_items(endorsements: Endorsements, changes: Mapping[str, bytes | None]) -> Endorsements:
    """Endorsements with some items changed, or without them; nothing cached."""
    items = {**endorsements.items, **changes}
    return Endorsements(
        anchors=endorsements.anchors,
        items={name: value for name, value in items.items() if value is not None},
    )


def ends_of(sound: Mutation, name: str) -> Iterator[Mutation]:
    """CBOR that ends a byte early, and a byte late."""
    for title, data, check in (
        ("cut off", sound.evidence[:-1], "CBOR|end"),
        ("a byte after it", sound.evidence + b"\0", "after the item"),
    ):
        changed = replace(sound, name=f"{name} {title}", evidence=data)
        yield replace(changed, error=DecodeError, step="format", check=check)


def bent_bytes(data: bytes, step: int) -> Iterator[tuple[int, bytes]]:
    """Copies with one bit changed, at every ``step``-th byte."""
    for offset in range(0, len(data), step):
        yield offset, data[:offset] + flip(data[offset:])
