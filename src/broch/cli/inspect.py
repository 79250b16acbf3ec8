"""``broch inspect``: what evidence of any kind says; first of all, that nothing was verified."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from broch.cli import binary, output
from broch.errors import DecodeError

WARNING: Final = "nothing was verified: this is what the bytes say, and anybody can write bytes"


def inspect(file: Path, *, as_json: bool) -> int:
    """Take ``file`` apart and print it."""
    from broch.attest import formats

    data = binary.read(file, formats.MAX_INPUT + 1)
    try:
        found = _inspect(data)
    except DecodeError as exc:
        raise DecodeError(exc.offset, exc.problem, what=f"{file}: {exc.place}") from None
    if as_json:
        output.print_json({"verified": False, "note": WARNING, **found})
        return 0
    output.say(WARNING)
    for line in _lines(found, 0):
        output.say(output.clean(line))
    return 0


def _inspect(data: bytes) -> dict[str, Any]:
    from broch.attest import formats
    from broch.attest.inspection import result_in, taken_apart

    token = result_in(data)
    if token is not None:
        return token
    inner, encoding = formats.unwrap(data)
    evidence = formats.open_wrapping(inner)
    return {
        "kind": evidence.tee,
        "encoding": encoding,
        "wrapped_in": evidence.wrapped or None,
        "size": len(evidence.data),
        "with_it": sorted(evidence.items),
        **taken_apart(evidence),
    }


def _lines(value: Mapping[str, Any], depth: int) -> list[str]:
    """Indented by two for each level."""
    lines: list[str] = []
    pad = "  " * depth
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += [f"{pad}{key}", *_lines(item, depth + 1)]
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            for index, entry in enumerate(item):
                lines += [f"{pad}{key} {index}", *_lines(entry, depth + 1)]
        else:
            lines.append(f"{pad}{key:<{max(1, 24 - len(pad))}} {_text(item)}")
    return lines


_SPELLED: Final[Mapping[type, Callable[[Any], str]]] = {
    bool: lambda value: "yes" if value else "no",
    type(None): lambda value: "none",
    list: lambda value: ", ".join(map(str, value)) or "none",
}


def _text(value: Any) -> str:
    return _SPELLED.get(type(value), str)(value)
