"""``broch verify``: is this evidence authentic, and is it acceptable? Both, and why."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broch.cli import binary, output
from broch.cli.endorsing import read_anchors, source
from broch.cli.table import Table, show
from broch.errors import MalformedError, UndecidedError, UsageError

if TYPE_CHECKING:
    from broch.attest.formats import Evidence
    from broch.attest.result import Result

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")


def verify(
    file: Path,
    *,
    policy: Path,
    endorsements: Path | None,
    nonce: str | None,
    at: str | None,
    next_tcb_info: Path | None,
    ear: Path | None,
    out: Path | None,
    form: str | None,
    dialect: str | None,
    anchors: list[Path],
    as_json: bool,
) -> int:
    """Verify and appraise ``file``; see docs/verify.md."""
    if (ear is None) is not (out is None):
        raise UsageError("--ear KEY and --out FILE go together")
    if ear is None:
        _only_with_ear({"--form": form, "--dialect": dialect})
    from broch.attest import policy_file
    from broch.attest.endorsements import load
    from broch.attest.result import examine

    accepted = policy_file.load(policy)
    when = read_time(at)
    challenge = read_hex(nonce, "--nonce")
    evidence = read_evidence(file)
    roots = read_anchors(anchors)
    folder = source(endorsements)
    result = examine(
        evidence,
        lambda tee, data: load(folder, tee, data, anchors=roots),
        accepted,
        at=when,
        nonce=challenge,
    )
    if ear is not None and out is not None:
        _write_ear(result, ear, out, form, dialect)
    _show(result, next_tcb_info, as_json)
    if folder is None and isinstance(result.error, UndecidedError):
        output.note("hint: no endorsements: broch endorsements fetch FILE, or --endorsements DIR")
    return result.exit_code


def read_evidence(file: Path) -> "Evidence":
    """Evidence in a file or from standard input, however it is written down.

    Raises:
        UsageError: it cannot be read.
        DecodeError: not evidence.
    """
    from broch.attest import formats

    try:
        return formats.read(binary.read(file, formats.MAX_INPUT + 1))
    except MalformedError as exc:
        raise _placed(exc, file) from None


def _placed(error: MalformedError, file: Path) -> MalformedError:
    return MalformedError(
        str(error), place=str(file), hint=error.hint or "broch inspect takes it apart"
    )


def read_time(text: str | None) -> datetime:
    """A time with a zone, ISO 8601; now if there is none.

    Raises:
        UsageError: not that.
    """
    if text is None:
        return datetime.now(UTC)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--at {text!r:.60} is no time", hint="write it like 2026-03-01T12:00:00Z"
        ) from None
    if when.tzinfo is None:
        raise UsageError(f"--at {text!r:.60} has no time zone", hint=f"write {text:.40}Z for UTC")
    return when


def read_hex(text: str | None, option: str) -> bytes | None:
    """What an option gives in hex: a nonce, say.

    Raises:
        UsageError: not that.
    """
    if text is None:
        return None
    if not _HEX.fullmatch(text):
        raise UsageError(f"{option} is not hexadecimal digits")
    return bytes.fromhex(text)


def _only_with_ear(options: dict[str, str | None]) -> None:
    """An option that does nothing would be taken for a result that was written."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise UsageError(
            f"{given} says how the signed result is written, and none is asked for",
            hint="add --ear KEY.pem --out FILE",
        )


def _write_ear(
    result: "Result", key: Path, out: Path, form: str | None, dialect: str | None
) -> None:
    from broch.attest import ear

    signer = ear.read_key(binary.read_all(key, binary.MAX_SMALL), str(key))
    token = ear.sign(
        result,
        signer,
        form=ear.Form.JWT if form is None else form,
        dialect=ear.Dialect.EAR_04 if dialect is None else dialect,
        issued=datetime.now(UTC),
    )
    binary.write(out, [token])


def _show(result: "Result", next_tcb_info: Path | None, as_json: bool) -> None:
    from broch.attest import formats
    from broch.attest.explain import explain, read_next

    coming = None
    if next_tcb_info is not None:
        coming = read_next(binary.read_all(next_tcb_info, formats.MAX_INPUT))
    sentences = list(explain(result, coming))
    if as_json:
        output.print_json({**result.to_dict(), "explanation": sentences})
    else:
        _say(result, sentences)
    if result.error is not None:
        output.note(f"error: {output.clean(str(result.error))}")
        if result.hint:
            output.note(f"hint: {output.clean(result.hint)}")


def _say(result: "Result", sentences: list[str]) -> None:
    kinds = " and ".join(part.tee for part in result.parts)
    emulated = " (emulated)" if result.emulated else ""
    output.say(f"{result.status.value}: evidence of {kinds}{emulated}, at {result.at.isoformat()}")
    for name in result.policy.relaxations():
        output.say(f"  the policy relaxes: {output.clean(name)}")
    for part in result.parts:
        if part.claims is not None:
            output.say(f"  measurement {part.claims.measurement.hex()}")
        rows = [[item.rule, item.outcome.value, item.why] for item in part.checks]
        show(Table(columns=["check", "outcome", "why"], rows=rows))
    for sentence in sentences:
        output.say(output.clean(sentence))
