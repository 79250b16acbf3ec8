"""What ``broch endorsements export``, ``import`` and ``show`` do, and what all share."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broch.cli import binary, output
from broch.cli.table import Table
from broch.cli.table import show as show_table
from broch.errors import MalformedError, UndecidedError, UsageError

if TYPE_CHECKING:
    from broch.attest.endorsements import Entry, Store, Subject

COLUMNS: Final = ["subject", "state", "issued", "until", "from"]
_MAX_SOURCE: Final = 500  # characters


def export(out: Path, *, wanted: Sequence[Path], store: Path | None, as_json: bool) -> int:
    """``broch endorsements export``."""
    import hashlib

    from broch.attest.endorsements import bundle

    kept = _existing(store)
    entries = list(kept.entries())
    if wanted:
        known = {entry.subject: entry for entry in entries}
        entries = [_present(known, subject) for subject in needed(wanted, None, kept)]
    packed = [
        bundle.Packed(
            subject=entry.subject,
            source=entry.source,
            fetched=entry.fetched,
            items=kept.items(entry),
        )
        for entry in entries
    ]
    data = bundle.encode(packed)
    if len(data) > bundle.MAX_BUNDLE:
        raise UsageError(
            f"the bundle would have {len(data)} bytes, more than {bundle.MAX_BUNDLE}",
            hint="export less with --for EVIDENCE",
        )
    binary.write(out, [data])
    digest = hashlib.sha256(data).hexdigest()
    text = f"{out}: {len(packed)} subjects, {len(data)} bytes, SHA-256 {digest}"
    if as_json:
        result = {"subjects": [str(item.subject) for item in packed], "sha256": digest}
        apart(out, lambda: output.print_json({"file": str(out), "size": len(data), **result}))
    else:
        apart(out, lambda: output.say(text))
    return 0


def apart(out: Path, say: Any) -> None:
    """Nothing but the bundle goes to a standard output that takes the bundle."""
    if out != binary.STREAM:
        say()


def import_(file: Path, *, store: Path | None, anchors: Sequence[Path], as_json: bool) -> int:
    """``broch endorsements import``."""
    from broch.attest.endorsements import Store, bundle
    from broch.attest.endorsements.checks import check

    roots = read_anchors(anchors)
    try:
        packed = bundle.decode(binary.read(file, bundle.MAX_BUNDLE + 1))
    except MalformedError as exc:
        exc.place = f"{file}: {exc.place}"
        raise
    for item in packed:  # all of it, before any of it is kept
        check(item.subject, item.items, roots)
    kept = Store.create(folder_of(store))
    now = datetime.now(UTC)
    rows: list[list[str]] = []
    for item in packed:
        is_newest = kept.put(
            item.subject,
            item.items,
            source=f"{file.name}: {item.source}"[:_MAX_SOURCE],
            # A bundle cannot make things look newer than now, which would keep them for ever.
            fetched=min(item.fetched, now),
            anchors=roots,
        )
        entry = kept.entry(item.subject)
        if entry is not None:
            rows.append(row_of(entry, "imported" if is_newest else "older"))
    if as_json:
        subjects = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        output.print_json({"store": str(kept.folder), "subjects": subjects})
    else:
        show_table(Table(columns=COLUMNS, rows=rows))
        output.say(f"in {kept.folder}")
    return 0


def show(file: Path | None, *, store: Path | None, at: str | None, as_json: bool) -> int:
    """``broch endorsements show``."""
    from broch.cli.verify import read_time

    when = read_time(at)
    kept = _existing(store)
    found: dict[Subject, Entry | None] = {entry.subject: entry for entry in kept.entries()}
    if file is not None:
        found = {subject: found.get(subject) for subject in needed([file], None, kept)}
    states = {subject: _state(entry, when) for subject, entry in found.items()}
    error = None
    if file is not None and not set(states.values()) <= {"current"}:
        error = UndecidedError(
            "the store does not hold all that this evidence needs",
            hint=f"broch endorsements fetch {file}",
        )
    if as_json:
        subjects = [
            {"subject": str(subject), "state": states[subject], **_entry_data(kept, entry)}
            for subject, entry in found.items()
        ]
        data: dict[str, Any] = {"store": str(kept.folder), "at": when.isoformat()}
        data["subjects"] = subjects
        if error is not None:
            data["error"] = output.error_data(error)
        output.print_json(data)
    else:
        rows = [
            row_of(entry, states[subject])
            if entry is not None
            else [str(subject), states[subject], "", "", ""]
            for subject, entry in found.items()
        ]
        show_table(Table(columns=COLUMNS, rows=rows))
        output.say(f"in {kept.folder}, at {when.isoformat()}")
    if error is None:
        return 0
    output.note_error(error)
    return error.exit_code


def _state(entry: "Entry | None", at: datetime) -> str:
    if entry is None:
        return "missing"
    if at < entry.dates.issued:
        return "not yet valid"
    return "current" if at < entry.dates.until else "expired"


def needed(
    files: Sequence[Path], product: str | None, store: "Store | None" = None
) -> "list[Subject]":
    """Subjects that the evidence in these files needs, each once.

    Raises:
        UsageError: nobody publishes what one of them needs, or no such product.
    """
    from broch.attest.endorsements import loading, wanted
    from broch.attest.endorsements.needs import SERVED
    from broch.cli.verify import read_evidence

    found: dict[Subject, None] = {}
    for file in files:
        evidence = read_evidence(file)
        if evidence.tee not in SERVED:
            raise UsageError(
                f"nobody publishes endorsements for {evidence.tee}",
                place=str(file),
                hint=_OTHERS.get(evidence.tee, "put what you enrolled into a folder of your own"),
            )
        if store is not None:
            subjects = loading.subjects(store, evidence.tee, evidence.data)
        else:
            subjects = wanted(evidence.tee, evidence.data, product=_product(product))
        found |= dict.fromkeys(subjects)
    return list(found)


_OTHERS: Final = {"nitro": "none are needed: the document brings its certificates along"}


def _product(name: str | None) -> str | None:
    """A product line under its own name.

    Raises:
        UsageError: no such line.
    """
    from broch.tee.snp.product import Product

    if name is None:
        return None
    for product in Product:
        if product.lower() == name.lower():
            return product
    raise UsageError(f"unknown product {name!r:.40}", hint=f"one of {', '.join(Product)}")


def _present(known: "dict[Subject, Entry]", subject: "Subject") -> "Entry":
    entry = known.get(subject)
    if entry is None:
        raise UndecidedError(
            f"{subject} is not in the store", hint="broch endorsements fetch EVIDENCE"
        )
    return entry


def folder_of(store: Path | None) -> Path:
    """Where the store is, or is to be."""
    from broch.app.home import Home

    return store if store is not None else Home.find().folder("endorsements")


def source(given: Path | None) -> Path | None:
    """The folder that a verifier reads: the one given, else the store if there is one."""
    from broch.app.home import Home
    from broch.attest.endorsements.store import is_store

    own = Home.find().root / "endorsements"
    return given if given is not None or not is_store(own) else own


def _existing(store: Path | None) -> "Store":
    """The store, which must be there.

    Raises:
        UsageError: it is not.
    """
    from broch.app.home import Home
    from broch.attest.endorsements import Store
    from broch.attest.endorsements.store import is_store

    folder = store if store is not None else Home.find().root / "endorsements"
    if not is_store(folder):
        raise UsageError(
            "there is no store of endorsements",
            place=str(folder),
            hint="broch endorsements fetch EVIDENCE makes one",
        )
    return Store(folder)


def read_anchors(files: Sequence[Path]) -> tuple[bytes, ...]:
    """Roots (DER) that the user trusts.

    Raises:
        UsageError: a file cannot be read.
        DecodeError: it is no certificate.
    """
    from broch.wire.x509 import MAX_CERTIFICATE, read_certificate, to_der

    roots = []
    for file in files:
        der = to_der(binary.read(file, 2 * MAX_CERTIFICATE), str(file))
        read_certificate(der, str(file))
        roots.append(der)
    return tuple(roots)


def row_of(entry: "Entry", state: str) -> list[str]:
    """A line of a table, under :data:`COLUMNS`."""
    issued, until = (f"{at:%Y-%m-%d %H:%M}" for at in (entry.dates.issued, entry.dates.until))
    return [str(entry.subject), state, issued, until, output.clean(entry.source)]


def _entry_data(store: "Store", entry: "Entry | None") -> dict[str, Any]:
    if entry is None:
        return {}
    return {
        "issued": entry.dates.issued.isoformat(),
        "until": entry.dates.until.isoformat(),
        "fetched": entry.fetched.isoformat(),
        "source": entry.source,
        "items": dict(entry.digests),
    }
