"""``broch endorsements``: the commands and their options; :mod:`broch.cli.endorsing` does them."""

from pathlib import Path
from typing import Annotated

import typer

from broch.cli.options import Json

app = typer.Typer(
    help="Fetch, carry and show what makers publish of their hardware.",
    rich_markup_mode=None,
)

Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The store; else endorsements in BROCH_HOME.",
        show_default=False,
    ),
]
Anchors = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchor",
        metavar="FILE",
        help="The root of an emulated device that you trust besides the pinned ones.",
        show_default=False,
    ),
]
Product = Annotated[
    str | None,
    typer.Option(
        "--product",
        metavar="NAME",
        help="Of an SNP report of version 2: Milan, Genoa or Turin.",
        show_default=False,
    ),
]


@app.command()
def fetch(
    files: Annotated[
        list[Path], typer.Argument(metavar="EVIDENCE...", help="What it is wanted for.")
    ],
    store: Store = None,
    pcs: Annotated[
        str | None,
        typer.Option(
            "--pcs", metavar="URL", help="A PCCS instead of Intel's PCS.", show_default=False
        ),
    ] = None,
    kds: Annotated[
        str | None,
        typer.Option(
            "--kds", metavar="URL", help="A mirror instead of AMD's KDS.", show_default=False
        ),
    ] = None,
    product: Product = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Also what is there and new enough.")
    ] = False,
    early: Annotated[
        Path | None,
        typer.Option(
            "--early",
            metavar="FILE",
            help="SGX, TDX: write the coming TCB info there, for broch verify --next-tcb-info.",
            show_default=False,
        ),
    ] = None,
    anchor: Anchors = None,
    json: Json = False,
) -> int:
    """Fetch what the evidence needs from Intel and AMD into the store."""
    from broch.cli import endorsing_fetch

    return endorsing_fetch.fetch(
        files,
        store=store,
        pcs=pcs,
        kds=kds,
        product=product,
        refresh=refresh,
        early=early,
        anchors=anchor or [],
        as_json=json,
    )


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file; - is stdout.")],
    wanted: Annotated[
        list[Path] | None,
        typer.Option(
            "--for",
            metavar="EVIDENCE",
            help="Only what this needs; else everything.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    json: Json = False,
) -> int:
    """Put what the store holds into one file. It can go where no service is."""
    from broch.cli import endorsing

    return endorsing.export(out, wanted=wanted or [], store=store, as_json=json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file; - is stdin.")],
    store: Store = None,
    anchor: Anchors = None,
    json: Json = False,
) -> int:
    """Take a bundle into the store. Every signature in it is checked before."""
    from broch.cli import endorsing

    return endorsing.import_(file, store=store, anchors=anchor or [], as_json=json)


@app.command()
def show(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EVIDENCE]",
            help="Only what this needs, and what of it is missing.",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="ISO 8601 with a zone; else now.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Show what the store holds, how long, and where it came from."""
    from broch.cli import endorsing

    return endorsing.show(file, store=store, at=at, as_json=json)
