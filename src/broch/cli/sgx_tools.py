"""``broch sgx convert, append, build, info, measure``: read, call the library, write, print."""

import difflib
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from broch.cli import binary, output
from broch.cli.progress import Counted, counted
from broch.errors import MalformedError, UsageError
from broch.tee.sgx import append as append_
from broch.tee.sgx import compose, measuring, sdk_image, sgxs
from broch.tee.sgx import convert as convert_
from broch.tee.sgx import info as info_
from broch.tee.sgx.signing import number

MODES: Final = ("summary", "info", "list-pages", "list-all", "dump-mem")


def convert(
    elf: Path,
    *,
    heap_size: str,
    stack_size: str,
    threads: str,
    ssaframesize: str,
    debug: bool,
    library: bool,
    sized: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    """Convert, write, print; the exit code."""
    options = convert_.Options(
        heap_size=named_number("--heap-size", heap_size),
        stack_size=named_number("--stack-size", stack_size),
        threads=named_number("--threads", threads),
        ssaframesize=named_number("--ssaframesize", ssaframesize),
        debug=debug,
        library=library,
        sized=sized,
    )
    data = binary.read_all(elf)
    with at(elf):
        stream = convert_.convert(data, options)
    if out is None:
        out = default_output(elf, ".sgxs")
    return _deliver(stream, out, as_json=as_json)


class _Place:
    """Errors of a file name the file: ``c.elf: there is no section .text``."""

    def __init__(self, path: Path) -> None:
        self._name = "stdin" if path == binary.STREAM else str(path)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, MalformedError):
            error.place = self._name


def at(path: Path) -> _Place:
    """Within this, malformed input is that file's."""
    return _Place(path)


def named_number(option: str, text: str) -> int:
    """A number that an option gives; raises :class:`UsageError`."""
    try:
        return number(text)
    except UsageError as exc:
        raise UsageError(exc.message, place=option) from None


def default_output(path: Path, suffix: str) -> Path:
    """The input's name with another suffix, or standard output for standard input.

    Raises:
        UsageError: that is the input itself.
    """
    if path == binary.STREAM:
        return path
    try:
        out = path.with_suffix(suffix)
    except ValueError:
        raise UsageError("not the name of a file", place=str(path)) from None
    if out == path:
        raise UsageError("the output would replace the input", place=str(path), hint="name another")
    return out


def _deliver(pieces: Iterable[bytes], out: Path, *, as_json: bool, in_place: bool = False) -> int:
    """Write a stream and say what was written; a stream to standard output speaks for itself."""
    if out == binary.STREAM or binary.is_special(out):
        if as_json:
            raise UsageError("--json and the stream cannot both go to stdout", hint="use -o FILE")
        binary.write(out, pieces)
        return 0
    digest = hashlib.sha256()
    seen: dict[str, Any] = {"first": b""}

    def observed() -> Iterator[bytes]:
        for piece in pieces:
            seen["first"] = seen["first"] or piece[: sgxs.RECORD]
            digest.update(piece)
            yield piece

    size = binary.write(out, counted(observed(), "write"))
    create = sgxs.read_create(seen["first"])
    with at(out):
        mrenclave = _measure_file(out).hex() if create.sized else None
    data = {
        "output": str(out),
        "bytes": size,
        "sized": create.sized,
        "size": create.size if create.sized else None,
        "mrenclave": mrenclave,
        "sha256": digest.hexdigest(),
    }
    if as_json:
        output.print_json(data)
        return 0
    shown = f"0x{create.size:x} bytes of enclave" if create.sized else "unsized"
    output.say(f"{output.clean(str(out))}: {shown}")
    if mrenclave is not None:
        output.say(f"mrenclave  {mrenclave}")
    return 0


def _measure_file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        with path.open("rb") as file, Counted(file, "measure", size) as counting:
            return measuring.measure_file(counting)
    except OSError as exc:
        raise binary.unreadable(path, exc) from None


def append(arguments: list[str]) -> int:
    """Parse upstream's arguments, append, write, print; the exit code."""
    words = list(arguments)
    path: Path | None = None
    out = binary.STREAM
    operations: list[append_.Part | append_.Align] = []
    in_place = as_upstream = as_json = False
    while words:
        word = words.pop(0)
        if word == "--as-upstream":
            as_upstream = True
        elif word == "--json":
            as_json = True
        elif word in ("-i", "--in-place"):
            in_place = True
        elif word in ("-o", "--output"):
            out = Path(_parameter(word, words))
        elif path is None:
            path = Path(_parameter(word, words) if word == "--" else word)
        else:
            operations.append(_operation(word, words))
    if path is None:
        raise UsageError("missing FILE", place="broch sgx append", hint="see its --help")
    if in_place:
        if path == binary.STREAM or out != binary.STREAM:
            raise UsageError("-i writes to FILE itself: give no -o, and a file that is not stdin")
        out = path
    stream = binary.read_all(path)
    with at(path):
        result = append_.append(stream, operations, as_upstream=as_upstream)
    return _deliver([result], out, as_json=as_json)


def _operation(word: str, words: list[str]) -> append_.Part | append_.Align:
    if word in ("-align", "--align"):
        return append_.Align(named_number(word, _parameter(word, words)))
    if word.startswith("--"):
        near = difflib.get_close_matches(word, ("--as-upstream", "--json", "--output"), 1)
        hint = f"did you mean {near[0]!r}?" if near else "see broch sgx append --help"
        raise UsageError(f"no such option: {word}", place="broch sgx append", hint=hint)
    flags, measured = append_.parse_mode(word)
    data = binary.read_all(Path(_parameter(word, words)))
    return append_.Part(flags=flags, measured=measured, data=data)


def _parameter(word: str, words: list[str]) -> str:
    if not words:
        raise UsageError(f"after {word!r} a parameter is missing", place="broch sgx append")
    return words.pop(0)


def build(arguments: list[str], out: Path, *, as_json: bool) -> int:
    """Compose, write, print; the exit code."""
    ssaframesize = 1
    parts: list[compose.Blob | compose.Thread] = []
    for index, argument in enumerate(arguments):
        kind, equals, value = argument.partition("=")
        if kind == "ssaframesize" and equals:
            if index:
                raise UsageError("ssaframesize=N must come first", place=argument)
            ssaframesize = named_number(argument, value)
        else:
            parts.append(_part(argument, kind, value if equals else None))
    return _deliver(compose.build(parts, ssaframesize=ssaframesize), out, as_json=as_json)


def _part(argument: str, kind: str, value: str | None) -> compose.Blob | compose.Thread:
    if value is not None and kind in compose.RIGHTS:
        data = binary.read_all(Path(value))
        return compose.Blob(flags=compose.RIGHTS[kind], data=data)
    if value is not None and kind == "tcs" and value.startswith("nssa:"):
        return compose.Thread(nssa=named_number(argument, value.removeprefix("nssa:")))
    near = difflib.get_close_matches(kind, [*compose.RIGHTS, "tcs", "ssaframesize"], 1)
    hint = "a part is r=FILE, rw=FILE, rx=FILE, rwx=FILE or tcs=nssa:N"
    if near and near[0] != kind:
        hint = f"did you mean {near[0] + '='!r}? {hint}"
    raise UsageError("not a part of an enclave", place=argument, hint=hint)


def info(mode: str, file: Path | None, *, as_json: bool) -> int:
    """Show a stream; the exit code."""
    if file is None:
        mode, file = "summary", Path(mode)
    if mode not in MODES:
        near = difflib.get_close_matches(mode, MODES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(MODES)}"
        raise UsageError(f"no such mode: {mode!r}", place="broch sgx info", hint=hint)
    stream = binary.read_all(file)
    with at(file):
        if mode == "dump-mem":
            if as_json:
                raise UsageError("dump-mem writes memory, not JSON", hint="leave --json out")
            binary.write(binary.STREAM, info_.dump_memory(stream))
        elif as_json:
            output.print_json(_info_data(mode, stream))
        else:
            shown = {"list-pages": info_.list_pages, "list-all": info_.list_all}
            for line in shown.get(mode, info_.summary)(stream):
                output.say(line)
    return 0


def _info_data(mode: str, stream: bytes) -> dict[str, Any]:
    if mode == "list-all":
        return {"records": list(info_.records(stream))}
    if mode == "list-pages":
        return {"pages": list(info_.pages(stream))}
    return info_.as_json(stream)


def measure(file: Path, out: Path | None, *, as_json: bool) -> int:
    """Print the measurement; the exit code, 4 if a .so is not what was signed."""
    if file != binary.STREAM and not _is_elf(file):
        _refuse_output(out)
        with at(file):
            return _say_measurement(_measure_file(file), as_json=as_json)
    if file == binary.STREAM and sys.stdin.isatty():
        raise UsageError("stdin is a terminal", hint="pipe a stream in, or name a file")
    data = binary.read_all(file)
    with at(file):
        if not sdk_image.is_elf(data):
            _refuse_output(out)
            return _say_measurement(sgxs.measure(data), as_json=as_json)
        blocks = sdk_image.read(data)
        if out is not None:
            binary.write(out, sdk_image.streams(data)[0])
    return _say_blocks(blocks, as_json=as_json)


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return sdk_image.is_elf(file.read(4))
    except OSError as exc:
        raise binary.unreadable(path, exc) from None


def _refuse_output(out: Path | None) -> None:
    if out is not None:
        raise UsageError("--output is for a .so: this is a stream already")


def _say_measurement(mrenclave: bytes, *, as_json: bool) -> int:
    if as_json:
        output.print_json({"format": "sgxs", "mrenclave": mrenclave.hex()})
    else:
        output.say(mrenclave.hex())
    return 0


def _say_blocks(blocks: list[sdk_image.Block], *, as_json: bool) -> int:
    matches = all(block.matches for block in blocks)
    if as_json:
        shown = [
            {
                "version": block.version,
                "mrenclave": block.mrenclave.hex(),
                "signed": block.sigstruct.enclavehash.hex(),
                "mrsigner": block.sigstruct.mrsigner().hex(),
                "matches": block.matches,
            }
            for block in blocks
        ]
        output.print_json({"format": "intel-sdk", "matches": matches, "metadata": shown})
    else:
        for block in blocks:
            verdict = "as signed" if block.matches else "NOT as signed"
            output.say(f"{block.mrenclave.hex()}  metadata {block.version}, {verdict}")
    if not matches:
        output.note("error: the enclave is not the one that its signature is for")
    return 0 if matches else 4
