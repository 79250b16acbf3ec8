"""``broch image build``: the image of one module, as ``up`` would build it, in its TEE's format."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.app.build import Sources, read_sources
from broch.app.descriptor import ModuleSpec
from broch.app.home import Home
from broch.cli import binary, output
from broch.enclave.launcher import Launcher
from broch.enclave.loader import NOT_INSIDE
from broch.errors import DecodeError, MalformedError, UsageError
from broch.image import NAME_RULE, Image, Interface, is_name
from broch.sdk import DeclarationError
from broch.tee import registry
from broch.tee.contract import Measurement, Packed, PackSettings, Tee


def build(
    source: Path,
    *,
    tee: str,
    app: str,
    name: str | None,
    files: Sequence[Path],
    version: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Build, sign, write, print; the exit code."""
    kind = registry.find(tee)
    name = name if name is not None else _name_of(source)
    for what, text in (("--app", app), ("--name", name)):
        if not is_name(text):
            raise UsageError(f"{text!r} is not a name", place=what, hint=NAME_RULE)
    sources = _sources(source, name, files, version)
    home = Home.find()
    launcher = Launcher.start(home.folder("pycache"))
    try:
        image = Image(
            app=app,
            module=name,
            files=sources.files,
            main=sources.main,
            interface=_declare(launcher, sources),
            runtime=launcher.runtime,
            deployer=_public_key(home),
            version=version,
        )
        packed = kind.pack(image, PackSettings(version=version), home.signing_key(kind))
        measurement = kind.measure(packed)
    except DecodeError as exc:
        raise MalformedError(exc.problem, place=str(source), hint=exc.hint) from None
    finally:
        launcher.close()
    written = _write(packed, out if out is not None else Path(f"{name}.{tee}"))
    written["sha256"] = hashlib.sha256(packed.data).hexdigest()
    _print(kind, image, measurement, written, as_json=as_json)
    return 0


def _name_of(source: Path) -> str:
    return source.resolve().name.removesuffix(".py")


def _sources(source: Path, name: str, files: Sequence[Path], version: int) -> Sources:
    path = Path(os.path.abspath(source))
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            raise UsageError("the folder has no __init__.py", place=str(source))
    elif not path.is_file():
        raise UsageError("there is no such file", place=str(source))
    elif path.suffix != ".py":
        raise UsageError("expected a .py file or a folder with __init__.py", place=str(source))
    folder = path.parent
    more = []
    for file in files:
        full = Path(os.path.abspath(file))
        if not full.is_relative_to(folder):
            raise UsageError(f"lies outside {folder}", place=str(file))
        if not full.is_file():
            raise UsageError("there is no such file", place=str(file))
        more.append(full.relative_to(folder).as_posix())
    spec = ModuleSpec(name=name, node="", source=path, files=tuple(more), version=version)
    return read_sources(spec, folder)


def _declare(launcher: Launcher, sources: Sources) -> Interface:
    """The interface; what is wrong with the code names the file as the user knows it."""
    try:
        return launcher.declare(sources.files, sources.main)
    except DeclarationError as exc:
        inner, _, line = (exc.place or "").partition(":")
        place = f"{sources.real.get(inner, inner)}:{line}" if line else exc.place
        hint = exc.hint
        if exc.message.endswith(NOT_INSIDE):
            more = "a module's further files are named with --file"
            hint = f"{more}; {hint}" if hint else more
        raise DeclarationError(exc.message, place=place, hint=hint) from None


def _public_key(home: Home) -> bytes:
    return home.deployer_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _write(packed: Packed, path: Path) -> dict[str, str]:
    """Write image and signature, each whole or not at all; what -> file."""
    parts = {"image": (path, packed.data)}
    if packed.signature is not None:
        parts["signature"] = (path.with_name(path.name + ".sig"), packed.signature)
    for file, data in parts.values():
        binary.write_file(file, [data])
    return {what: str(file) for what, (file, _) in parts.items()}


def _print(
    tee: Tee, image: Image, measurement: Measurement, written: dict[str, str], *, as_json: bool
) -> None:
    data: dict[str, Any] = {
        "app": image.app,
        "module": image.module,
        "tee": tee.name,
        "measurement": measurement.value.hex(),
        "signer": measurement.signer.hex() if measurement.signer else None,
        "seals_to": tee.seal_bindings[0].value,
        "image_digest": image.digest().hex(),
        **written,
        "ports": [f"{port.kind.value} {port.name}" for port in image.interface.ports],
    }
    if as_json:
        output.print_json(data)
        return
    width = max(map(len, data))
    for key, value in data.items():
        text = ", ".join(value) if isinstance(value, list) else value or "none"
        output.say(f"{key.replace('_', ' '):<{width}}  {output.clean(text)}")
