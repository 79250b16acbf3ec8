"""Options and arguments that several groups of commands have."""

from typing import Annotated, Final

import typer

_APP: Final = "Name or descriptor; else the app.toml here, else the only running app."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]
AppArgument = Annotated[str | None, typer.Argument(metavar="APP", help=_APP, show_default=False)]
AppOption = Annotated[
    str | None, typer.Option("--app", metavar="APP", help=_APP, show_default=False)
]
