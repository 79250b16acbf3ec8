"""``broch sgx``: the commands and their options; :mod:`broch.cli.sgx_tools` does them."""

from pathlib import Path
from typing import Annotated

import typer

from broch.cli.options import Json

app = typer.Typer(
    help="Convert, measure, inspect and sign SGX enclaves (SGXS).",
    rich_markup_mode=None,
)

Stream = Annotated[Path, typer.Argument(metavar="FILE", help="An SGXS stream; - is stdin.")]


@app.command()
def convert(
    elf: Annotated[Path, typer.Argument(metavar="ELF", help="For x86_64-fortanix-unknown-sgx.")],
    heap_size: Annotated[
        str, typer.Option("--heap-size", "-H", metavar="BYTES", help="Decimal or 0x.")
    ],
    stack_size: Annotated[
        str, typer.Option("--stack-size", "-S", metavar="BYTES", help="Of each thread.")
    ],
    threads: Annotated[
        str, typer.Option("--threads", "-t", metavar="N", help="How many at most.")
    ] = "1",
    ssaframesize: Annotated[
        str, typer.Option("--ssaframesize", metavar="PAGES", help="Of an SSA frame.")
    ] = "1",
    debug: Annotated[
        bool, typer.Option("--debug", "-d", help="Let the enclave show its panics.")
    ] = False,
    library: Annotated[
        bool, typer.Option("--library", help="An enclave that its host calls.")
    ] = False,
    unsized: Annotated[
        bool, typer.Option("--unsized", help="Leave the size open, for broch sgx append.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; else the ELF's name with .sgxs; - is stdout.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Convert an ELF file into an SGXS stream, like ftxsgx-elf2sgxs."""
    from broch.cli import sgx_tools

    return sgx_tools.convert(
        elf,
        heap_size=heap_size,
        stack_size=stack_size,
        threads=threads,
        ssaframesize=ssaframesize,
        debug=debug,
        library=library,
        sized=not unsized,
        out=output,
        as_json=json,
    )


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
def append(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[-i] FILE [-MODE FILE | -align N]...",
            help="MODE is any of m (measured), r, w, x. Without -i the result goes to stdout. "
            "Also: -o FILE, --json, --as-upstream (repeats upstream's defects: pages with the "
            "rights of the next file, data that lands too high).",
        ),
    ],
) -> int:
    """Append files to an unsized stream. It then has a size, as of sgxs-append."""
    from broch.cli import sgx_tools

    return sgx_tools.append(arguments)


@app.command()
def build(
    parts: Annotated[
        list[str],
        typer.Argument(
            metavar="[ssaframesize=N] PART...",
            help="r=FILE, rw=FILE, rx=FILE, rwx=FILE, or tcs=nssa:N.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout.")
    ] = Path("-"),
    json: Json = False,
) -> int:
    """Compose an enclave of raw files, as sgxs-build does."""
    from broch.cli import sgx_tools

    return sgx_tools.build(parts, output, as_json=json)


@app.command()
def info(
    mode: Annotated[
        str,
        typer.Argument(
            metavar="[MODE]", help="summary, list-pages, list-all (of any records), dump-mem."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="An SGXS stream; - is stdin.", show_default=False),
    ] = None,
    json: Json = False,
) -> int:
    """Show what is in a stream, as sgxs-info does."""
    from broch.cli import sgx_tools

    return sgx_tools.info(mode, file, as_json=json)


@app.command()
def measure(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="An SGXS stream, or a .so signed by Intel's SDK; - is stdin."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Of a .so: write the stream that it is loaded as.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Print MRENCLAVE. Of a .so, it is compared with the signature inside."""
    from broch.cli import sgx_tools

    return sgx_tools.measure(file, output, as_json=json)


@app.command()
def sign(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="An SGXS stream; with --in-hash, a MRENCLAVE.")
    ],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="The SIGSTRUCT; else the input's name with .sig; - is stdout.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", "-k", metavar="PEM", help="RSA-3072, exponent 3.", show_default=False
        ),
    ] = None,
    dummy: Annotated[
        bool,
        typer.Option("--dummy", help="For a debug enclave, with a key of this installation."),
    ] = False,
    tbs: Annotated[
        Path | None,
        typer.Option(
            "--tbs", metavar="FILE", help="Write the 256 bytes to be signed.", show_default=False
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature", metavar="FILE", help="What signed them (384 bytes).", show_default=False
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="PEM", help="Of whom.", show_default=False),
    ] = None,
    verify_existing: Annotated[
        Path | None,
        typer.Option(
            "--verify-existing",
            "--resign-verify",
            "-V",
            metavar="PEM",
            help="Replace the output only if it is signed by this key, for the same enclave.",
            show_default=False,
        ),
    ] = None,
    in_hash: Annotated[
        bool, typer.Option("--in-hash", help="INPUT is a MRENCLAVE, 64 hexadecimal digits.")
    ] = False,
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYYMMDD", help="Else today.", show_default=False),
    ] = None,
    attributes: Annotated[
        str, typer.Option("--attributes", "-a", metavar="A[/B]", help="B: bits left open.")
    ] = "0x4/0x2",
    xfrm: Annotated[
        str, typer.Option("--xfrm", "-x", metavar="A[/B]", help="B: bits left open.")
    ] = "0x3/0x3",
    miscselect: Annotated[
        str, typer.Option("--miscselect", "-m", metavar="A[/B]", help="B: bits left open.")
    ] = "0/0",
    mode32: Annotated[bool, typer.Option("--32", help="A 32-bit enclave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", "-d", help="Ask for DEBUG.")] = False,
    isvprodid: Annotated[
        str, typer.Option("--isvprodid", "-p", metavar="N", help="The product, 16 bits.")
    ] = "0",
    isvsvn: Annotated[
        str, typer.Option("--isvsvn", "-v", metavar="N", help="The security version, 16 bits.")
    ] = "0",
    isvextprodid: Annotated[
        str | None,
        typer.Option(
            "--isvextprodid", metavar="N", help="128 bits; asks for KSS.", show_default=False
        ),
    ] = None,
    swdefined: Annotated[
        str, typer.Option("--swdefined", "-s", metavar="N", help="32 bits.")
    ] = "0",
    json: Json = False,
) -> int:
    """Sign an enclave, like sgxs-sign. In two steps if the key is elsewhere."""
    from broch.cli import sgx_sign

    return sgx_sign.sign(
        source,
        target,
        keys=sgx_sign.Keys(
            key=key, dummy=dummy, tbs=tbs, signature=signature, public_key=public_key
        ),
        numbers={
            "swdefined": swdefined,
            "isvprodid": isvprodid,
            "isvsvn": isvsvn,
            "isvextprodid": isvextprodid,
        },
        masked={"attributes": attributes, "xfrm": xfrm, "miscselect": miscselect},
        switches={"mode32": mode32, "debug": debug},
        in_hash=in_hash,
        date=date,
        verify_existing=verify_existing,
        as_json=json,
    )


@app.command()
def sigstruct(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A SIGSTRUCT; - is stdin.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, json or toml.")
    ] = "text",
    json: Json = False,
) -> int:
    """Show a SIGSTRUCT, and whether its signature, q1 and q2 hold."""
    from broch.cli import sgx_sign

    return sgx_sign.view(file, "json" if json else format_)
