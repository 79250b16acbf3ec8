"""From a folder to what a verifier takes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broch.attest.endorsements import roots
from broch.attest.endorsements.folder import read_folder
from broch.attest.endorsements.items import ITEMS
from broch.attest.endorsements.needs import wanted
from broch.attest.endorsements.store import Store, is_store
from broch.attest.endorsements.subject import Subject
from broch.errors import BrochError, MalformedError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements

#: The step at which a verification ends that has no endorsements to begin with.
STEP: Final = "endorsements"
_AT_FAULT: Final = {
    MalformedError: "the fault is in the endorsements, not in the evidence: fetch that one anew",
    UntrustedError: "the endorsements were changed since they were stored: fetch them anew",
}


@contextmanager
def _reading() -> Iterator[None]:
    """What is wrong in here is wrong with endorsements, and its errors say so."""
    try:
        yield
    except BrochError as exc:
        exc.step = STEP
        hints = (hint for kind, hint in _AT_FAULT.items() if isinstance(exc, kind))
        exc.hint = exc.hint or next(hints, None)
        raise


def load(
    folder: Path | None, tee: str, evidence: bytes, *, anchors: Sequence[bytes] = ()
) -> Endorsements:
    """The endorsements for ``evidence`` of the kind ``tee``, as far as they are there.

    Args:
        folder: a plain folder (:mod:`.folder`) or a store (:mod:`.store`); None: only the roots
            in this package.
        tee: name of the TEE: "sgx", "snp" and so on.
        evidence: decides which of several devices' endorsements are taken; it is not believed.
        anchors: roots (DER) that you trust besides those that are pinned.

    What is missing is for the verifier to say.

    Raises:
        UsageError: the folder cannot be read, or a name in it means nothing.
        DecodeError: a file in it, or the evidence, is not what it claims to be.
        UntrustedError: a secret that others may read, or an item that was changed.
        UndecidedError: the evidence does not say what it needs.
    """
    if folder is None:
        found = Endorsements(anchors=roots.built_in(tee))
    elif is_store(folder):
        found = from_store(Store(folder), tee, evidence)
    else:
        with _reading():
            found = read_folder(folder, tee)
    if not anchors:
        return found
    return Endorsements(anchors=tuple(dict.fromkeys((*found.anchors, *anchors))), items=found.items)


def from_store(store: Store, tee: str, evidence: bytes) -> Endorsements:
    """What a store has for ``evidence``; see :func:`load`."""
    found: dict[str, bytes] = {}
    for subject in subjects(store, tee, evidence):
        with _reading():
            entry = store.entry(subject)
            if entry is not None:
                found |= store.items(entry)
    items = {name: data for name, data in found.items() if name in ITEMS.get(tee, {})}
    arks = [found["ark"]] if "ark" in found else []
    anchors = (*roots.built_in(tee), *roots.pinned(tee, arks), *roots.in_items(tee, items))
    return Endorsements(anchors=tuple(dict.fromkeys(anchors)), items=items)


def subjects(store: Store, tee: str, evidence: bytes) -> tuple[Subject, ...]:
    """What ``evidence`` needs; where it does not say of which product it is, the store may know.

    Raises:
        DecodeError: not evidence of ``tee``.
        UndecidedError: neither says.
    """
    try:
        return wanted(tee, evidence)
    except UndecidedError:
        if tee != "snp":
            raise
        from broch.tee.snp.product import Product

        for product in Product:
            candidate = wanted(tee, evidence, product=product)
            if store.entry(candidate[-1]) is not None:
                return candidate
        raise
