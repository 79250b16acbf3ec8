"""``broch image build`` of a module in C: compile, sign, write, print."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from broch.app.home import Home
from broch.cli import binary, output
from broch.cli.sgx_tools import named_number
from broch.errors import UsageError
from broch.image import NAME_RULE, is_name
from broch.tee import registry
from broch.tee.contract import Compiled, Compiler, CompileSettings, Tee

SUFFIX: Final = ".c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What only native code has; numbers as they were typed."""

    library: bool = False
    debug: bool = False
    heap_size: str | None = None
    stack_size: str | None = None
    threads: str | None = None

    def given(self) -> tuple[str, ...]:
        """The options that were given, as they are typed."""
        return tuple(
            f"--{name.replace('_', '-')}" for name in self.__slots__ if getattr(self, name)
        )


def build(
    source: Path,
    *,
    tee: str,
    name: str | None,
    files: Sequence[Path],
    version: int,
    out: Path | None,
    options: Options,
    as_json: bool,
) -> int:
    """Build, sign, write, print; the exit code."""
    kind, compiler = find_compiler(tee)
    name = source.resolve().name.removesuffix(SUFFIX) if name is None else name
    if not is_name(name):
        raise UsageError(f"{name!r} is not a name", place="--name", hint=NAME_RULE)
    settings = CompileSettings(
        name=name,
        files=tuple(files),
        version=version,
        debug=options.debug,
        library=options.library,
        heap_size=_number("--heap-size", options.heap_size),
        stack_size=_number("--stack-size", options.stack_size),
        threads=_number("--threads", options.threads),
    )
    key = Home.find().signing_key(kind) if kind.needs_signing_key else None
    built = compiler.compile(source, settings, key)
    stem = Path(name) if out is None else out
    if stem.suffix in built.files:
        stem = stem.with_suffix("")
    written = _write(built, stem)
    _print(kind, name, built, written, as_json=as_json)
    return 0


@contextmanager
def built_to_run(source: Path, tee: str) -> Iterator[Path]:
    """A module in C, built for debugging, in a folder that is gone afterwards: its image."""
    kind, compiler = find_compiler(tee)
    settings = CompileSettings(name="module", debug=True)
    built = compiler.compile(source, settings, Home.find().signing_key(kind))
    with TemporaryDirectory(prefix="broch-run-") as folder:
        written = _write(built, Path(folder) / source.stem)
        yield Path(written["sgxs"])


def find_compiler(tee: str) -> tuple[Tee, Compiler]:
    """A TEE that has modules in C.

    Raises:
        UsageError: it has none, or there is no such TEE.
    """
    kind = registry.find(tee)
    if isinstance(kind, Compiler):
        return kind, kind
    names = (name for name in registry.names() if isinstance(registry.find(name), Compiler))
    hint = f"native code is built for: {', '.join(names)}"
    raise UsageError(f"modules for {kind.title} are not written in C", hint=hint)


def _write(built: Compiled, stem: Path) -> dict[str, str]:
    """Write what was built; kind -> file."""
    written = {}
    for suffix, data in built.files.items():
        path = stem.with_name(stem.name + suffix)
        binary.write_file(path, [data])
        written[suffix.removeprefix(".")] = str(path)
    return written


def _number(option: str, text: str | None) -> int | None:
    return None if text is None else named_number(option, text)


def _print(tee: Tee, name: str, built: Compiled, written: dict[str, str], *, as_json: bool) -> None:
    measurement = tee.measure(built.packed)
    data: dict[str, Any] = {
        "module": name,
        "tee": tee.name,
        "measurement": measurement.value.hex(),
        "signer": measurement.signer.hex() if measurement.signer else None,
        **written,
    }
    if as_json:
        output.print_json(data)
        return
    width = max(map(len, data))
    for key, value in data.items():
        output.say(f"{key:<{width}}  {output.clean(value or 'none')}")
