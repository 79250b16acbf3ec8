"""``broch evidence get``: evidence of the machine that this command runs on."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broch.cli.options import Json
from broch.errors import UsageError

if TYPE_CHECKING:
    from broch.attest.collect import Asked, Collected

app = typer.Typer(help="Ask this machine's hardware for evidence.", rich_markup_mode=None)


@app.command()
def get(
    tee: Annotated[
        str | None,
        typer.Option(
            "--tee",
            metavar="TEE",
            help="sgx (under Gramine), nitro, tdx, snp, cca or tpm; else what is here.",
            show_default=False,
        ),
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option(
            "--nonce",
            metavar="HEX",
            help="The challenge that the verifier sent.",
            show_default=False,
        ),
    ] = None,
    report_data: Annotated[
        str | None,
        typer.Option(
            "--report-data",
            metavar="HEX",
            help="What the evidence is to bind instead: the hash of a key, say.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where it goes; - is stdout.")
    ] = Path("-"),
    ak: Annotated[
        str | None,
        typer.Option(
            "--ak",
            metavar="HANDLE",
            help="TPM: a persistent attestation key, 0x81000003 on Azure; else one of Broch's own.",
            show_default=False,
        ),
    ] = None,
    ak_public: Annotated[
        Path | None,
        typer.Option(
            "--ak-public",
            metavar="FILE",
            help="TPM: write the public attestation key there, for a verifier to enrol.",
            show_default=False,
        ),
    ] = None,
    event_log: Annotated[
        bool,
        typer.Option("--event-log", help="TPM: with the firmware's log of what it measured."),
    ] = False,
    root: Annotated[
        Path,
        typer.Option("--root", metavar="DIR", help="Where the device tree is; to try it out."),
    ] = Path("/"),
    json: Json = False,
) -> int:
    """Get evidence that `broch verify` takes, of the hardware here."""
    from broch.attest.collect import Asked, collect, detect
    from broch.attest.collect import ak_public as read_ak
    from broch.cli import binary, output
    from broch.cli.verify import read_hex
    from broch.tee.kernel import Linux

    asked = Asked(
        nonce=read_hex(nonce, "--nonce"),
        report_data=read_hex(report_data, "--report-data"),
        key=_handle(ak),
        event_log=event_log,
    )
    if not root.is_dir():
        raise UsageError("no such folder", place=str(root))
    kernel = Linux(root)
    kind = tee if tee is not None else detect(kernel)
    if ak_public is not None and kind != "tpm":
        raise UsageError(
            f"--ak-public: evidence of {kind} is signed by no attestation key of a TPM"
        )
    with _waiting(kind):
        found = collect(kind, kernel, asked)
        public = read_ak(kernel, asked.key) if ak_public is not None else b""
    if ak_public is not None:
        binary.write(ak_public, [public])
    if not json or out != binary.STREAM:
        binary.write(out, [found.data])
    if json:
        data = _data(found, asked, out)
        output.print_json(data | ({} if ak_public is None else {"ak_public": str(ak_public)}))
    else:
        _say(found, out)
    return 0


def _handle(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        handle = int(text, 0)
    except ValueError:
        handle = -1
    if handle >> 24 != 0x81:  # TPM 2.0 Library, part 2, 7.2: persistent objects
        raise UsageError(f"--ak {text!r:.40} is no handle of a persistent key, 0x81......")
    return handle


@contextmanager
def _waiting(kind: str) -> Iterator[None]:
    """Quotes can take seconds, and are then said to."""
    from broch.app.reports import Stage
    from broch.cli.progress import QUIET_SECONDS, Progress

    progress = Progress()
    progress(Stage(name="evidence", text=f"asking {kind}"))
    timer = threading.Timer(QUIET_SECONDS, progress.overdue)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        progress.close()


def _data(found: "Collected", asked: "Asked", out: Path) -> dict[str, Any]:
    from broch.cli import binary

    data: dict[str, Any] = {
        "tee": found.tee,
        "wrapped_in": found.wrapped or None,
        "nonce": None if asked.nonce is None else asked.nonce.hex(),
        "report_data": None if asked.report_data is None else asked.report_data.hex(),
        "size": len(found.data),
        "sha256": hashlib.sha256(found.data).hexdigest(),
    }
    if out == binary.STREAM:
        return data | {"evidence": base64.b64encode(found.data).decode()}
    return data | {"written": str(out)}


def _say(found: "Collected", out: Path) -> None:
    from broch.cli import binary, output

    wrapped = f", in a bundle of {found.wrapped}" if found.wrapped else ""
    place = "" if out == binary.STREAM else f" in {output.clean(str(out))}"
    output.note(f"evidence of {found.tee}{place}: {len(found.data)} bytes{wrapped}, not verified")
