"""What ``broch endorsements fetch`` does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broch.cli import binary, output
from broch.cli.endorsing import COLUMNS, apart, folder_of, needed, read_anchors, row_of
from broch.cli.table import Table
from broch.cli.table import show as show_table
from broch.errors import BrochError, UsageError

if TYPE_CHECKING:
    from broch.attest.endorsements import Subject
    from broch.attest.fetch import Fetcher, IntelPcs, Outcome


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

    subjects = needed(files, product)
    roots = read_anchors(anchors)
    with Http(waiting=lambda text: output.note(f"waiting: {output.clean(text)}")) as http:
        intel = IntelPcs(http, pcs or INTEL_PCS)
        if early is not None:
            return _fetch_early(intel, subjects, early, roots, as_json=as_json)
        kept = Store.create(folder_of(store))
        fetcher = Fetcher(kept, [intel, AmdKds(http, kds or AMD_KDS)], anchors=roots)
        outcomes, errors = _fetch_all(fetcher, subjects, refresh=refresh)
    worst = max(errors, key=lambda error: error.exit_code, default=None)
    if as_json:
        data: dict[str, Any] = {
            "store": str(kept.folder),
            "subjects": [_outcome_data(item) for item in outcomes],
            "problems": [output.error_data(error) for error in errors],
        }
        if worst is not None:
            data["error"] = output.error_data(worst)
        output.print_json(data)
    else:
        rows = [row_of(item.entry, item.state.value) for item in outcomes]
        show_table(Table(columns=COLUMNS, rows=rows))
        output.say(f"in {kept.folder}")
    for item in outcomes:
        if item.problem is not None:
            output.note(f"warning: {item.entry.subject}: {output.clean(item.problem)}")
    for error in errors:
        output.note_error(error)
    return worst.exit_code if worst is not None else 0


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
        apart(out, lambda: output.print_json(result))
    else:
        apart(out, lambda: output.say(f"{out}: {wanted[0]}, issued {dates.issued.isoformat()}"))
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


def _outcome_data(outcome: "Outcome") -> dict[str, Any]:
    return {
        "subject": str(outcome.entry.subject),
        "state": outcome.state.value,
        "problem": outcome.problem,
        "until": outcome.entry.dates.until.isoformat(),
        "source": outcome.entry.source,
    }
