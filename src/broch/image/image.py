"""The image of a Python module: everything that decides what it does, as one canonical blob.

A deterministic CBOR map (RFC 8949, section 4.2.1), so that one image has one encoding and two
builds are equal byte for byte:

    "broch-image"  1
    "app"          text, the application's name
    "module"       text, the module's name in it
    "files"        map from relative path to bytes
    "main"         text, the path whose code declares the module
    "interface"    list of ports (:mod:`broch.image.interface`)
    "runtime"      32 bytes, SHA-256 of the runtime closure's manifest
    "deployer"     32 bytes, Ed25519 public key of the deployer that may hand out connections
    "version"      unsigned, the author's version of the module
    "debug"        bool, whether faults may show messages of exceptions
"""

import hashlib
import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self

import cbor2

from broch.errors import DecodeError
from broch.image.interface import Interface, is_name

FORMAT: Final = 1
MAX_IMAGE: Final = 16 * 1024 * 1024  # bytes
MAX_FILES: Final = 1024
_KEYS: Final = frozenset(
    [
        "broch-image",
        "app",
        "module",
        "files",
        "main",
        "interface",
        "runtime",
        "deployer",
        "version",
        "debug",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A Python module, packed. Immutable; equal images have equal bytes."""

    app: str
    module: str
    files: Mapping[str, bytes] = field(repr=False)
    main: str
    interface: Interface = field(repr=False)
    runtime: bytes = field(repr=False)  # 32 bytes
    deployer: bytes = field(repr=False)  # 32 bytes
    version: int = 0
    debug: bool = False

    def __post_init__(self) -> None:
        for what, name in (("app", self.app), ("module", self.module)):
            if not is_name(name):
                raise DecodeError(
                    0, f"{what} is {name!r:.80}: not a name (lower case, digits, - _)"
                )
        if not 1 <= len(self.files) <= MAX_FILES:
            raise DecodeError(0, f"{len(self.files)} files; an image has 1 to {MAX_FILES}")
        for path in self.files:
            if not _is_inner_path(path):
                raise DecodeError(0, f"file path {path!r:.80} is not a plain relative path")
        if self.main not in self.files:
            raise DecodeError(0, f"main file {self.main!r:.80} is not among the files")
        for what, value in (("runtime", self.runtime), ("deployer", self.deployer)):
            if len(value) != 32:
                raise DecodeError(0, f"{what} has {len(value)} bytes, expected 32")
        if not 0 <= self.version < 2**32:
            raise DecodeError(0, "version does not fit 32 bits")

    def to_bytes(self) -> bytes:
        """The canonical encoding."""
        data = cbor2.dumps(
            {
                "broch-image": FORMAT,
                "app": self.app,
                "module": self.module,
                "files": dict(self.files),
                "main": self.main,
                "interface": self.interface.to_data(),
                "runtime": self.runtime,
                "deployer": self.deployer,
                "version": self.version,
                "debug": self.debug,
            },
            canonical=True,
        )
        if len(data) > MAX_IMAGE:
            raise DecodeError(MAX_IMAGE, f"image of {len(data)} bytes; the limit is {MAX_IMAGE}")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one image in its one encoding.

        Raises:
            DecodeError: not a canonical image, or one of its rules does not hold.
        """
        fields = _decode_map(data)
        if fields.keys() != _KEYS or fields["broch-image"] != FORMAT:
            raise DecodeError(0, f"not an image of format {FORMAT}")
        for key, kind in _TYPES.items():
            if type(fields[key]) is not kind:
                raise DecodeError(0, f"{key} is a {type(fields[key]).__name__}")
        if not all(type(k) is str and type(v) is bytes for k, v in fields["files"].items()):
            raise DecodeError(0, "files maps text to bytes")
        image = cls(
            **{key: fields[key] for key in _KEYS - {"broch-image", "interface"}},
            interface=Interface.from_data(fields["interface"]),
        )
        if image.to_bytes() != data:
            raise DecodeError(0, "not the canonical encoding of this image")
        return image

    def digest(self) -> bytes:
        """SHA-256 of the encoding (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()


_TYPES: Final[Mapping[str, type]] = {
    "app": str,
    "module": str,
    "files": dict,
    "main": str,
    "runtime": bytes,
    "deployer": bytes,
    "version": int,
    "debug": bool,
}


def _decode_map(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_IMAGE:
        raise DecodeError(MAX_IMAGE, f"{len(data)} bytes; the limit is {MAX_IMAGE}")
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(
            stream,
            max_depth=64,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            tag_hook=_no_tag,
            semantic_decoders=_NO_TAGS,
        ).decode()
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise DecodeError(stream.tell(), f"not CBOR: {exc}") from None
    if stream.tell() != len(data):
        raise DecodeError(stream.tell(), "bytes after the image")
    if not isinstance(value, dict):
        raise DecodeError(0, f"expected a map, got {type(value).__name__}")
    return value


def _no_tag(*_: object) -> NoReturn:
    raise ValueError("a tag")


#: The tags that cbor2 knows, and others: among them are references, which can make much of little.
_NO_TAGS: Final = dict.fromkeys((*range(300), 1004, 43000, 55799), _no_tag)


def _is_inner_path(path: str) -> bool:
    return (
        0 < len(path) <= 255
        and path.isprintable()
        and posixpath.normpath(path) == path
        and not path.startswith(("/", "../"))
        and path not in (".", "..")
        and "\\" not in path
    )
