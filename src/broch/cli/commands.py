"""The commands and their options. What they do is imported when they are called, so that
``--help`` and ``--version`` start at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from broch.cli import attesting
from broch.cli.device import app as device
from broch.cli.import_ import app as import_
from broch.cli.options import AppArgument, AppOption, Json
from broch.cli.sancus import app as sancus
from broch.cli.sgx import app as sgx
from broch.errors import UsageError

app = typer.Typer(
    name="broch",
    help="Write, build, sign, run, attest and connect applications in trusted execution "
    "environments.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
image = typer.Typer(help="Work with images.", rich_markup_mode=None)
app.add_typer(image, name="image")
app.add_typer(sgx, name="sgx")
app.add_typer(import_, name="import")
app.add_typer(sancus, name="sancus")
app.add_typer(device, name="device")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    json: Json = False,
) -> None:
    """Applications whose parts live in trusted execution environments."""
    if version:
        from broch.cli import output

        output.version(as_json=json)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UsageError("missing command", place="broch", hint="see broch --help")


@app.command()
def up(
    path: Annotated[Path, typer.Argument(metavar="APP.toml", help="The descriptor.")],
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it runs; `broch down` ends it.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=0, help="End after so long at the latest."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write a report of the run."),
    ] = None,
    json: Json = False,
) -> int:
    """Build, attest, connect and run an application. Says what happened."""
    from broch.cli.up import up as run

    return run(path, detach=detach, seconds=seconds, report=report, as_json=json)


@app.command()
def status(name: AppArgument = None, json: Json = False) -> int:
    """Show a running application: nodes, modules, connections."""
    from broch.cli import running

    return running.status(name, as_json=json)


@app.command()
def call(
    entry: Annotated[str, typer.Argument(metavar="MODULE.ENTRY", help="What to call.")],
    arguments: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARGS]", help="JSON: an object by name, or a list.", show_default=False
        ),
    ] = None,
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Call a module's entry and print what it returns, as JSON."""
    from broch.cli import running

    return running.call(entry, arguments, name, as_json=json)


@app.command()
def emit(
    target: Annotated[str, typer.Argument(metavar="MODULE.INPUT", help="Where to.")],
    value: Annotated[str, typer.Argument(metavar="JSON", help="What to send.")],
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Send an event over a connection of the operator's own."""
    from broch.cli import running

    return running.emit(target, value, name, as_json=json)


@app.command()
def events(
    name: AppArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the application ends.")
    ] = False,
    json: Json = False,
) -> int:
    """Show what happened: prints, events, faults, refusals."""
    from broch.cli import running

    return running.events(name, follow=follow, as_json=json)


@app.command()
def update(
    module: Annotated[str, typer.Argument(metavar="MODULE", help="What to replace.")],
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Replace a running module by what its source says now. The others go on."""
    from broch.cli import running

    return running.update(module, name, as_json=json)


@app.command()
def down(name: AppArgument = None, json: Json = False) -> int:
    """End a running application."""
    from broch.cli import running

    return running.down(name, as_json=json)


@app.command()
def doctor(json: Json = False) -> int:
    """Say what this machine has of what Broch needs."""
    from broch.cli import doctor as doctor_

    return doctor_.doctor(as_json=json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the application and its folder.")],
    json: Json = False,
) -> int:
    """Make a folder with a small application that works."""
    from broch.cli import new as new_

    return new_.new(name, as_json=json)


@app.command()
def run(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE.sgxs", help="The enclave; of FILE.c, it is built first."),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]", help="What the enclave is given.", show_default=False),
    ] = None,
    signature: Annotated[
        str | None,
        typer.Option(
            "--signature",
            "-s",
            metavar="coresident|dummy|file=PATH",
            help="Its SIGSTRUCT; else the .sig beside it, else a dummy (debug).",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="native|unicorn",
            help="What runs the code; else the quickest that there is.",
            show_default=False,
        ),
    ] = None,
    sgx2: Annotated[
        bool, typer.Option("--sgx2", help="Run on a CPU with SGX2, which allows RDTSC.")
    ] = False,
    quote: Annotated[
        Path | None,
        typer.Option(
            "--quote",
            metavar="FILE",
            help="Where the quote goes that the enclave asks for, and its endorsements.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Run an SGX enclave here, without SGX (emulated)."""
    from broch.cli import run as run_

    return run_.run(
        path,
        arguments or [],
        signature=signature,
        engine=engine,
        sgx2=sgx2,
        quote=quote,
        as_json=json,
    )


@image.command("build")
def image_build(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A .py file, a folder with __init__.py, or a .c file."
        ),
    ],
    tee: Annotated[
        str, typer.Option("--tee", metavar="TEE", help="sgx, trustzone, keystone or sancus.")
    ],
    app_name: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="NAME",
            help="Not of C: the application that it is for; else app.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The module's name; else the source's.",
            show_default=False,
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="A further file of the module; may repeat."),
    ] = None,
    version: Annotated[
        int, typer.Option("--version", metavar="N", min=0, help="The module's version.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; else NAME.TEE here, or NAME.elf, .sgxs, .sig for C.",
            show_default=False,
        ),
    ] = None,
    library: Annotated[
        bool, typer.Option("--library", help="Of C: the host calls it; it has no main.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Of C: the host may look in; it shows its panics.")
    ] = False,
    heap_size: Annotated[
        str | None,
        typer.Option("--heap-size", "-H", metavar="BYTES", help="Of C.", show_default=False),
    ] = None,
    stack_size: Annotated[
        str | None,
        typer.Option(
            "--stack-size", "-S", metavar="BYTES", help="Of C; of a thread.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option("--threads", "-t", metavar="N", help="Of C.", show_default=False),
    ] = None,
    json: Json = False,
) -> int:
    """Build and sign a module's image as `up` would. Prints its measurement."""
    from broch.cli import compiling

    options = compiling.Options(
        library=library,
        debug=debug,
        heap_size=heap_size,
        stack_size=stack_size,
        threads=threads,
    )
    if source.suffix == compiling.SUFFIX:
        if app_name is not None:
            raise UsageError("a module in C is of no application", place="--app")
        return compiling.build(
            source,
            tee=tee,
            name=name,
            files=files or [],
            version=version,
            out=out,
            options=options,
            as_json=json,
        )
    if given := options.given():
        raise UsageError("is for modules in C", place=given[0])
    from broch.cli.image import build

    return build(
        source,
        tee=tee,
        app="app" if app_name is None else app_name,
        name=name,
        files=files or [],
        version=version,
        out=out,
        as_json=json,
    )


attesting.add_to(app)  # last, for the order of --help
