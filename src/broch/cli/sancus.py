"""`broch sancus`: the keys of Sancus nodes, vendors and modules, as its own tools compute them."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broch.cli.options import Json
from broch.errors import MalformedError, UsageError

app = typer.Typer(
    help="Keys of Sancus nodes, vendors and modules.", rich_markup_mode=None, no_args_is_help=False
)
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the key there, for you alone; else print it.",
        show_default=False,
    ),
]
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_MAX_ELF: Final = 1 << 23  # bytes
_MAX_KEY: Final = 128  # bytes of a key's file
_HINT: Final = "keys are secret: give a file with the key in hexadecimal, or - for standard input"


@app.command("keys")
def keys(
    node_key: Annotated[
        str,
        typer.Option(
            "--node-key", metavar="FILE", help="The node's key in hexadecimal; - is stdin."
        ),
    ],
    vendor: Annotated[
        str, typer.Option("--vendor", metavar="ID", help="The vendor's number: 1, 0x1234 ...")
    ],
    out: Out = None,
    json: Json = False,
) -> int:
    """Derive the key that a node shares with a vendor."""
    from broch.tee.sancus.keys import vendor_key

    number = _number(vendor)
    key = vendor_key(_read_key(node_key, "node key"), number)
    return _give(key, {"vendor_id": number}, out, json)


@app.command("module-key")
def module_key(
    elf: Annotated[Path, typer.Argument(metavar="ELF", help="A linked program for Sancus.")],
    vendor_key: Annotated[
        str,
        typer.Option(
            "--vendor-key", metavar="FILE", help="The vendor's key in hexadecimal; - is stdin."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Which module of it.", show_default=False),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> int:
    """Derive the key of a module from its text and its place."""
    from broch.cli import binary
    from broch.tee.sancus.keys import identity
    from broch.tee.sancus.keys import module_key as derive
    from broch.tee.sancus.module_file import parts

    key = _read_key(vendor_key, "vendor key")
    try:
        found = parts(binary.read_all(elf, _MAX_ELF))
    except MalformedError as exc:
        exc.place = str(elf)
        raise
    names = ", ".join(found)
    if name is None and len(found) > 1:
        raise UsageError(
            f"there are {len(found)} modules in it", place=str(elf), hint=f"--name: {names}"
        )
    if name is not None and name not in found:
        raise UsageError(f"there is no module {name!r}", place=str(elf), hint=f"modules: {names}")
    part = found[name or next(iter(found))]
    layout = part.layout
    facts = {
        "module": part.name,
        "text": f"0x{layout.public_start:04x}-0x{layout.public_end:04x}",
        "secret": f"0x{layout.secret_start:04x}-0x{layout.secret_end:04x}",
        "identity": identity(part.text, layout, len(key)).hex(),
    }
    return _give(derive(key, part.text, layout), facts, out, json)


def _give(key: bytes, facts: dict[str, Any], out: Path | None, as_json: bool) -> int:
    """Print the key, or write it where only its owner can read it."""
    from broch.cli import output

    shown = {**facts, "key": key.hex()} if out is None else {**facts, "written": str(out)}
    if out is not None:
        _write_private(out, key.hex() + "\n")
    if as_json:
        output.print_json(shown)
        return 0
    for what, value in facts.items():
        output.note(f"{what}: {value}")
    if out is None:
        output.say(key.hex())
    else:
        output.note(f"written to {out}")
    return 0


def _write_private(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise UsageError(f"cannot write: {exc.strerror}", place=str(path)) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(
            f"vendor id {text!r:.40} is no number", place="--vendor", hint="1, or 0x1234"
        ) from None


def _read_key(where: str, what: str) -> bytes:
    from broch.cli import binary
    from broch.tee.sancus.keys import check_size

    if _HEX.fullmatch(where) and len(where) in (16, 20, 32) and not Path(where).exists():
        raise UsageError(f"the {what} itself was given", place="command line", hint=_HINT)
    data = binary.read(Path(where), _MAX_KEY + 1)
    text = data.decode("latin-1").strip()
    if len(data) > _MAX_KEY or not _HEX.fullmatch(text):
        raise UsageError(f"no {what} in hexadecimal", place=where, hint=_HINT)
    key = bytes.fromhex(text)
    check_size(key, what)
    return key
