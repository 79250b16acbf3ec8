"""``broch import``: applications that were written for other frameworks."""

from pathlib import Path
from typing import Annotated

import typer

from broch.cli.options import Json

app = typer.Typer(help="Import applications of other frameworks.", rich_markup_mode=None)


@app.command("reactive")
def reactive(
    path: Annotated[
        Path, typer.Argument(metavar="DESCRIPTOR.json", help="An Authentic Execution descriptor.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="The folder to make; else the application's name, here.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The application's name; else the descriptor's, or its folder's.",
            show_default=False,
        ),
    ] = None,
    native: Annotated[
        str, typer.Option("--native", metavar="TEE", help="The TEE for nodes that had none.")
    ] = "sgx",
    json: Json = False,
) -> int:
    """Import an application of Authentic Execution. Its sources are to be filled in."""
    from broch.cli.import_reactive import import_reactive

    return import_reactive(path, out=out, name=name, native=native, as_json=json)
