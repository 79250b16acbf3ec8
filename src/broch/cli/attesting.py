"""``broch inspect``, ``broch verify``, ``broch serve verifier``: the commands and their options.

Those of ``broch endorsements`` are in :mod:`broch.cli.endorsements`, those of ``broch evidence`` in
:mod:`broch.cli.evidence`.
"""

from pathlib import Path
from typing import Annotated

import typer

from broch.cli.endorsements import app as endorsements_app
from broch.cli.evidence import app as evidence_app
from broch.cli.options import Json

serve = typer.Typer(help="Serve over HTTP.", rich_markup_mode=None)

File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Binary, base64, hex or PEM; - is standard input."),
]
Policy = Annotated[Path, typer.Option("--policy", metavar="POLICY.toml", help="What is accepted.")]
Endorsements = Annotated[
    Path | None,
    typer.Option(
        "--endorsements",
        metavar="DIR",
        help="Collateral, certificates, lists and enrolled keys; else the store of "
        "`broch endorsements`, if there is one.",
        show_default=False,
    ),
]
Anchor = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor",
        metavar="FILE",
        help="A root that you trust besides the pinned ones; may repeat.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``broch``."""
    app.add_typer(evidence_app, name="evidence")
    app.command()(inspect)
    app.command()(verify)
    app.add_typer(serve, name="serve")
    app.add_typer(endorsements_app, name="endorsements")


def inspect(file: File, json: Json = False) -> int:
    """Take evidence of any kind apart and show what it says. Nothing is verified."""
    from broch.cli.inspect import inspect as run

    return run(file, as_json=json)


def verify(
    file: File,
    policy: Policy,
    endorsements: Endorsements = None,
    nonce: Annotated[
        str | None,
        typer.Option(
            "--nonce", metavar="HEX", help="The challenge that was sent.", show_default=False
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="ISO 8601 with a zone; else now.", show_default=False
        ),
    ] = None,
    next_tcb_info: Annotated[
        Path | None,
        typer.Option(
            "--next-tcb-info",
            metavar="FILE",
            help="Say what would change under this TCB info.",
            show_default=False,
        ),
    ] = None,
    ear: Annotated[
        Path | None,
        typer.Option(
            "--ear",
            metavar="KEY.pem",
            help="Sign the result as an EAT Attestation Result; with --out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where the signed result goes.", show_default=False
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--form",
            metavar="FORM",
            help="With --ear: jwt or cwt. (jwt)",
            show_default=False,
        ),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect",
            metavar="NAME",
            help="With --ear: ear-04 or veraison. (ear-04)",
            show_default=False,
        ),
    ] = None,
    anchor: Anchor = None,
    json: Json = False,
) -> int:
    """Say whether evidence is authentic and acceptable, and why."""
    from broch.cli.verify import verify as run

    return run(
        file,
        policy=policy,
        endorsements=endorsements,
        nonce=nonce,
        at=at,
        next_tcb_info=next_tcb_info,
        ear=ear,
        out=out,
        form=form,
        dialect=dialect,
        anchors=anchor or [],
        as_json=json,
    )


@serve.command("verifier")
def verifier(
    policy: Policy,
    endorsements: Endorsements = None,
    ear: Annotated[
        Path | None,
        typer.Option(
            "--ear",
            metavar="KEY.pem",
            help="Sign results as EAT Attestation Results.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free."),
    ] = 8475,
    anchor: Anchor = None,
    json: Json = False,
) -> int:
    """Answer POST /verify as `broch verify` would, until ended."""
    from broch.cli.serve import serve_verifier

    return serve_verifier(
        policy=policy,
        endorsements=endorsements,
        anchors=anchor or [],
        ear=ear,
        host=host,
        port=port,
        as_json=json,
    )
