"""What ``broch endorsements fetch``, ``export``, ``import`` and ``show`` do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broch.cli import binary, output
from broch.cli.table import Table
from broch.cli.table import show as show_table
from broch.errors import BrochError, UndecidedError, UsageError

if TYPE_CHECKING:
    from broch.attest.endorsements import Entry, Store, Subject
    from broch.attest.fetch import Fetcher, IntelPcs, Outcome

_COLUMNS: Final = ["subject", "state", "issued", "until", "from"]
_MAX_SOURCE: Final = 500  # characters
_INCOMPLETE: Final = UndecidedError.exit_code


def fetch(
    files: Sequence[Path],
    *,
    store: Path | None,
    pcs: str | None,
    kds: str | None,
    product: str | None,
    refresh: bool,
    early: Path | None,
    anchors: Sequence[Path],
    as_json: bool,
) -> int:
    """``broch endorsements fetch``."""
    from broch.attest.endorsements import Store
    from broch.attest.fetch import AMD_KDS, INTEL_PCS, AmdKds, Fetcher, Http, IntelPcs

    subjects = _needed(files, product)
    roots = _read_anchors(anchors)
    with Http(waiting=lambda text: output.note(f"waiting: {output.clean(text)}")) as http:
        intel = IntelPcs(http, pcs or INTEL_PCS)
        if early is not None:
            return _fetch_early(intel, subjects, early, roots, as_json=as_json)
        kept = Store.create(_folder(store))
        fetcher = Fetcher(kept, [intel, AmdKds(http, kds or AMD_KDS)], anchors=roots)
        outcomes, errors = _fetch_all(fetcher, subjects, refresh=refresh)
    if as_json:
        data: dict[str, Any] = {
            "store": str(kept.folder),
            "subjects": [_outcome_data(item) for item in outcomes],
            "problems": [output.error_data(error) for error in errors],
        }
        output.print_json(data)
    else:
        rows = [_row(item.entry, item.state.value) for item in outcomes]
        show_table(Table(columns=_COLUMNS, rows=rows))
        output.say(f"in {kept.folder}")
    for item in outcomes:
        if item.problem is not None:
            output.note(f"warning: {item.entry.subject}: {output.clean(item.problem)}")
    for error in errors:
        output.note(f"error: {output.clean(str(error))}")
        if error.hint:
            output.note(f"hint: {output.clean(error.hint)}")
    return max((error.exit_code for error in errors), default=0)


def _fetch_early(
    intel: "IntelPcs",
    subjects: "Sequence[Subject]",
    out: Path,
    roots: Sequence[bytes],
    *,
    as_json: bool,
) -> int:
    """TCB info that does not apply yet: signed as any, and not for the store."""
    from broch.attest.endorsements.checks import check
    from broch.attest.endorsements.subject import Kind

    wanted = [subject for subject in subjects if subject.kind is Kind.DCAP_TCB]
    if len(wanted) != 1:
        raise UsageError(
            f"--early is for evidence of one SGX or TDX platform, not of {len(wanted)}",
            hint="name one quote",
        )
    reply, items = intel.early_tcb_info(wanted[0])
    dates = check(wanted[0], items, roots)
    binary.write(out, [reply])
    result = {"subject": str(wanted[0]), "file": str(out), "issued": dates.issued.isoformat()}
    if as_json:
        _apart(out, lambda: output.print_json(result))
    else:
        _apart(out, lambda: output.say(f"{out}: {wanted[0]}, issued {dates.issued.isoformat()}"))
    return 0


def _fetch_all(
    fetcher: "Fetcher", subjects: "Sequence[Subject]", *, refresh: bool
) -> "tuple[list[Outcome], list[BrochError]]":
    """Each subject, whatever becomes of the others."""
    outcomes: list[Outcome] = []
    errors: list[BrochError] = []
    with _progress() as say:
        for done, subject in enumerate(subjects):
            say(str(subject), done, len(subjects))
            try:
                outcomes.append(fetcher.fetch(subject, refresh=refresh))
            except UsageError:
                raise
            except BrochError as exc:
                errors.append(exc)
    return outcomes, errors


@contextmanager
def _progress() -> Iterator[Any]:
    from broch.app.reports import Stage
    from broch.cli.progress import Progress

    progress = Progress()
    try:
        yield lambda text, done, total: progress(
            Stage(name="fetch", text=text, done=done, total=total)
        )
    finally:
        progress.close()


def export(out: Path, *, wanted: Sequence[Path], store: Path | None, as_json: bool) -> int:
    """``broch endorsements export``."""
    import hashlib

    from broch.attest.endorsements import bundle

    kept = _existing(store)
    entries = list(kept.entries())
    if wanted:
        known = {entry.subject: entry for entry in entries}
        entries = [_present(known, subject) for subject in _needed(wanted, None, kept)]
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
        _apart(out, lambda: output.print_json({"file": str(out), "size": len(data), **result}))
    else:
        _apart(out, lambda: output.say(text))
    return 0


def _apart(out: Path, say: Any) -> None:
    """Nothing but the bundle goes to a standard output that takes the bundle."""
    if out != binary.STREAM:
        say()


def import_(file: Path, *, store: Path | None, anchors: Sequence[Path], as_json: bool) -> int:
    """``broch endorsements import``."""
    from broch.attest.endorsements import Store, bundle
    from broch.attest.endorsements.checks import check

    roots = _read_anchors(anchors)
    packed = bundle.decode(binary.read(file, bundle.MAX_BUNDLE + 1))
    for item in packed:  # all of it, before any of it is kept
        check(item.subject, item.items, roots)
    kept = Store.create(_folder(store))
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
            rows.append(_row(entry, "imported" if is_newest else "older"))
    if as_json:
        subjects = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        output.print_json({"store": str(kept.folder), "subjects": subjects})
    else:
        show_table(Table(columns=_COLUMNS, rows=rows))
        output.say(f"in {kept.folder}")
    return 0


def show(file: Path | None, *, store: Path | None, at: str | None, as_json: bool) -> int:
    """``broch endorsements show``."""
    from broch.cli.verify import read_time

    when = read_time(at)
    kept = _existing(store)
    found: dict[Subject, Entry | None] = {entry.subject: entry for entry in kept.entries()}
    if file is not None:
        found = {subject: found.get(subject) for subject in _needed([file], None, kept)}
    states = {subject: _state(entry, when) for subject, entry in found.items()}
    if as_json:
        subjects = [
            {"subject": str(subject), "state": states[subject], **_entry_data(kept, entry)}
            for subject, entry in found.items()
        ]
        output.print_json({"store": str(kept.folder), "at": when.isoformat(), "subjects": subjects})
    else:
        rows = [
            _row(entry, states[subject])
            if entry is not None
            else [str(subject), states[subject], "", "", ""]
            for subject, entry in found.items()
        ]
        show_table(Table(columns=_COLUMNS, rows=rows))
        output.say(f"in {kept.folder}, at {when.isoformat()}")
    if file is None or set(states.values()) <= {"current"}:
        return 0
    output.note("error: the store does not hold all that this evidence needs")
    output.note(f"hint: broch endorsements fetch {output.clean(str(file))}")
    return _INCOMPLETE


def _state(entry: "Entry | None", at: datetime) -> str:
    if entry is None:
        return "missing"
    if at < entry.dates.issued:
        return "not yet valid"
    return "current" if at < entry.dates.until else "expired"


def _needed(
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


def _folder(store: Path | None) -> Path:
    from broch.app.home import Home

    return store if store is not None else Home.find().folder("endorsements")


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


def _read_anchors(files: Sequence[Path]) -> tuple[bytes, ...]:
    from broch.wire.x509 import MAX_CERTIFICATE, read_certificate, to_der

    roots = []
    for file in files:
        der = to_der(binary.read(file, 2 * MAX_CERTIFICATE), str(file))
        read_certificate(der, str(file))
        roots.append(der)
    return tuple(roots)


def _row(entry: "Entry", state: str) -> list[str]:
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


def _outcome_data(outcome: "Outcome") -> dict[str, Any]:
    return {
        "subject": str(outcome.entry.subject),
        "state": outcome.state.value,
        "problem": outcome.problem,
        "until": outcome.entry.dates.until.isoformat(),
        "source": outcome.entry.source,
    }
