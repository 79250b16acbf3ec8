"""An offline bundle: subjects and their items in one file, to be carried to where no service is.

Deterministic CBOR, one encoding for one content::

    ["broch endorsements bundle", 1,
     [[name, source, fetched, {item: index}], ...]    subjects by name; seconds since 1970
     [item, ...]]                                     byte strings, each once, by SHA-256

A bundle needs no protection on its way: whoever imports it checks every signature under the roots
that are pinned (:mod:`.checks`). What is not signed is only when things were fetched; that is shown
and decides nothing but when to fetch again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from broch.attest.endorsements.items import MAX_ITEM
from broch.attest.endorsements.subject import Subject
from broch.errors import DecodeError
from broch.wire import cbor

MAX_BUNDLE: Final = 64 * 1024 * 1024  # bytes
_MAX_SOURCE: Final = 2048  # characters
_MAX_TIME: Final = 253402300799  # the end of the year 9999
_FORMAT: Final = "broch endorsements bundle"
_VERSION: Final = 1
_W: Final = "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One subject in a bundle. Its items have not been checked."""

    subject: Subject
    source: str
    fetched: datetime
    items: Mapping[str, bytes]


def encode(content: Iterable[Packed]) -> bytes:
    """A bundle of these subjects; the order in which they come does not matter."""
    packed = sorted(content, key=lambda item: item.subject)
    objects = {
        hashlib.sha256(data).digest(): data for item in packed for data in item.items.values()
    }
    index = {digest: number for number, digest in enumerate(sorted(objects))}
    subjects = [
        [
            item.subject.name,
            item.source,
            int(item.fetched.timestamp()),
            {name: index[hashlib.sha256(item.items[name]).digest()] for name in sorted(item.items)},
        ]
        for item in packed
    ]
    return cbor.encode([_FORMAT, _VERSION, subjects, [objects[digest] for digest in sorted(index)]])


def decode(data: bytes) -> tuple[Packed, ...]:
    """The subjects of a bundle.

    Raises:
        DecodeError: not a bundle, or not in its one encoding.
    """
    value = cbor.decode(data, what=_W, max_size=MAX_BUNDLE)
    if not isinstance(value, list) or len(value) != 4 or value[:1] != [_FORMAT]:
        raise _bad("not a bundle of endorsements")
    if value[1] != _VERSION or isinstance(value[1], bool):
        raise _bad(f"version {value[1]!r:.20}, expected {_VERSION}")
    if not isinstance(value[2], list) or not isinstance(value[3], list):
        raise _bad("subjects and items are not lists")
    objects: list[bytes] = value[3]
    for item in objects:
        if not isinstance(item, bytes) or len(item) > MAX_ITEM:
            raise _bad(f"an item that is no byte string of at most {MAX_ITEM} bytes")
    packed = tuple(_subject(entry, objects) for entry in value[2])
    if encode(packed) != data:
        raise _bad("not the one encoding: something is out of order, twice or not used")
    return packed


def _subject(entry: Any, objects: list[bytes]) -> Packed:
    if not isinstance(entry, list) or [type(part) for part in entry] != [str, str, int, dict]:
        raise _bad("a subject that is not [name, source, time, items]")
    name, source, fetched, items = entry
    if len(source) > _MAX_SOURCE or not 0 <= fetched <= _MAX_TIME:
        raise _bad(f"source or time of {name!r:.80} is out of bounds")
    found: dict[str, bytes] = {}
    for item, number in items.items():
        if not isinstance(item, str) or type(number) is not int:
            raise _bad(f"an item of {name!r:.80} that is not a name and a number")
        if not 0 <= number < len(objects):
            raise _bad(f"item {item!r:.80} of {name!r:.80} is not there")
        found[item] = objects[number]
    return Packed(
        subject=Subject.of(name),
        source=source,
        fetched=datetime.fromtimestamp(fetched, UTC),
        items=found,
    )


def _bad(problem: str) -> DecodeError:
    return DecodeError(0, problem, what=_W)
