"""Images: one encoding, reproducible, bounded; one test a rule."""

import doctest
import hashlib
import subprocess
import sys
from typing import Any, Final

import cbor2
import pytest

import broch.image
from broch.errors import DecodeError
from broch.image import Image, Interface, Port, PortKind, is_name
from broch.image.image import MAX_FILES, MAX_IMAGE

INT: Final = {"type": "int"}
INTERFACE: Final = Interface(
    (
        Port(kind=PortKind.OUTPUT, name="valve", argument=INT),
        Port(kind=PortKind.EVERY, name="tick", seconds=1.5),
    )
)
FIELDS: Final[dict[str, Any]] = {
    "app": "garden",
    "module": "valve",
    "files": {"main.py": b"x = 1\n", "lib/help.py": b""},
    "main": "main.py",
    "interface": INTERFACE,
    "runtime": b"r" * 32,
    "deployer": b"d" * 32,
    "version": 3,
    "debug": False,
}
IMAGE: Final = Image(**FIELDS)
DATA: Final[dict[str, Any]] = {"broch-image": 1, **FIELDS, "interface": INTERFACE.to_data()}


def encoded(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def assert_refused(data: bytes, match: str) -> None:
    with pytest.raises(DecodeError, match=match):
        Image.from_bytes(data)


def test_the_packages_example() -> None:
    assert doctest.testmod(broch.image) == (0, 3)


# One encoding


def test_the_encoding_is_the_one_in_the_docstring() -> None:
    assert IMAGE.to_bytes() == encoded(DATA)
    assert Image.from_bytes(encoded(DATA)) == IMAGE


def test_the_digest_is_sha256_of_the_encoding() -> None:
    assert IMAGE.digest() == hashlib.sha256(IMAGE.to_bytes()).digest()


def test_the_order_of_files_does_not_matter() -> None:
    files = dict(reversed(list(IMAGE.files.items())))
    assert list(files) != list(IMAGE.files)
    assert Image(**{**FIELDS, "files": files}).to_bytes() == IMAGE.to_bytes()


def test_two_processes_make_the_same_bytes() -> None:
    """Whatever order their sets have."""
    program = (
        "from broch.image import Image, Interface\n"
        "names = {f'f{n}.py' for n in range(50)}\n"
        "image = Image(app='a', module='m', files={n: n.encode() for n in names}, main='f1.py',\n"
        "              interface=Interface(), runtime=bytes(32), deployer=bytes(32))\n"
        "print(list(names)[:5], image.digest().hex())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("]")
        for seed in ("1", "2")
    ]
    assert outputs[0][0] != outputs[1][0], "the sets had one order: this proves nothing"
    assert outputs[0][1] == outputs[1][1]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_measured(field: str) -> None:
    other: dict[str, Any] = {
        "app": "gardens",
        "module": "pump",
        "files": {"main.py": b"x = 2\n", "lib/help.py": b""},
        "main": "lib/help.py",
        "interface": Interface(),
        "runtime": bytes(32),
        "deployer": bytes(32),
        "version": 4,
        "debug": True,
    }
    assert Image(**{**FIELDS, field: other[field]}).digest() != IMAGE.digest()


def test_a_repr_does_not_show_the_code() -> None:
    assert "x = 1" not in repr(IMAGE)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(cbor2.dumps(dict(reversed(DATA.items()))), "canonical", id="order of keys"),
        pytest.param(
            IMAGE.to_bytes().replace(b"gversion\x03", b"gversion\x18\x03"), "canonical", id="long 3"
        ),
        pytest.param(
            IMAGE.to_bytes().replace(b"\xf9\x3e\x00", b"\xfb\x3f\xf8" + bytes(6)),
            "canonical",
            id="long 1.5",
        ),
        pytest.param(
            IMAGE.to_bytes()
            .replace(b"\xa2gmain.py", b"\xbfgmain.py")
            .replace(b"klib/help.py@", b"klib/help.py@\xff"),
            "not CBOR",
            id="map of no length",
        ),
        pytest.param(encoded({**DATA, "version": 3.0}), "version is a float", id="3.0"),
        pytest.param(encoded({**DATA, "broch-image": True}), "canonical", id="True for 1"),
        pytest.param(IMAGE.to_bytes() + b"\0", "bytes after the image", id="trailing byte"),
        pytest.param(
            IMAGE.to_bytes().replace(b"\xaa", b"\xab", 1) + b"gversion\x03", "not CBOR", id="twice"
        ),
    ],
)
def test_another_encoding_of_the_same_image_is_refused(data: bytes, match: str) -> None:
    assert data != IMAGE.to_bytes()
    assert_refused(data, match)


# What is no image


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"", "not CBOR", id="nothing"),
        pytest.param(b"\xff", "not CBOR", id="break"),
        pytest.param(b"\x1c", "not CBOR", id="reserved"),
        pytest.param(b"\x80", "expected a map, got list", id="list"),
        pytest.param(b"\xa0", "not an image of format 1", id="empty map"),
        pytest.param(b"\x81" * 100, "not CBOR", id="nested"),
        pytest.param(b"\x5b\x7f" + b"\xff" * 7, "not CBOR", id="endless string"),
        pytest.param(b"\x9b\x7f" + b"\xff" * 7, "not CBOR", id="endless list"),
        pytest.param(b"\xa1\x80\x01", "not CBOR", id="key that is a list"),
        pytest.param(encoded({**DATA, "broch-image": 2}), "format 1", id="format 2"),
        pytest.param(encoded({**DATA, "colour": 1}), "format 1", id="unknown key"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, match: str) -> None:
    assert_refused(data, match)


@pytest.mark.parametrize("key", DATA)
def test_every_key_is_required(key: str) -> None:
    assert_refused(encoded({k: v for k, v in DATA.items() if k != key}), "not an image of format 1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("app", b"garden"),
        ("module", 1),
        ("files", []),
        ("main", b"main.py"),
        ("runtime", "r" * 32),
        ("deployer", None),
        ("version", True),
        ("version", "3"),
        ("debug", 0),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object) -> None:
    assert_refused(encoded({**DATA, key: value}), f"{key} is a {type(value).__name__}")


@pytest.mark.parametrize("files", [{"main.py": "x"}, {b"main.py": b"x"}, {"main.py": None}])
def test_files_map_text_to_bytes(files: object) -> None:
    assert_refused(encoded({**DATA, "files": files}), "files maps text to bytes")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**64, id="big number"),
        pytest.param(cbor2.CBORTag(28, []), id="shared value"),
        pytest.param(cbor2.CBORTag(29, 0), id="reference"),
        pytest.param(cbor2.CBORTag(35, "(a+)+$"), id="regular expression"),
        pytest.param(cbor2.CBORTag(258, [1]), id="set"),
        pytest.param(cbor2.CBORTag(999, 1), id="unknown"),
        pytest.param(cbor2.CBORTag(55799, 3), id="self-described"),
    ],
)
@pytest.mark.parametrize("key", ["version", "interface"])
def test_tags_are_refused(key: str, value: object) -> None:
    assert_refused(encoded({**DATA, key: value}), "not CBOR")


def test_an_image_cannot_make_much_of_little() -> None:
    """Sixteen lists, each a hundred times in the next: 200 bytes that say 10**32 shapes."""
    shape: object = INT
    for _ in range(14):
        inner = cbor2.CBORTag(28, {"type": "list", "items": shape})
        shape = {"type": "tuple", "items": [inner, *[cbor2.CBORTag(29, 0)] * 100]}
    port = {"kind": "output", "name": "valve", "argument": shape}
    assert_refused(encoded({**DATA, "interface": [port]}), "not CBOR")


# Rules of its fields


@pytest.mark.parametrize("field", ["app", "module"])
@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a.b", "a b", "a/b", "ä", "a\n", "a" * 65, "_a"]
)
def test_app_and_module_have_names(field: str, name: str) -> None:
    with pytest.raises(DecodeError, match=rf"{field} is .*: not a name"):
        Image(**{**FIELDS, field: name})
    assert not is_name(name)


@pytest.mark.parametrize("name", ["a", "a1", "a-b_c", "a" * 64])
def test_names(name: str) -> None:
    assert is_name(name)
    assert Image(**{**FIELDS, "app": name}).app == name


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "//etc/passwd",
        "../up.py",
        "..",
        ".",
        "a/../b.py",
        "./a.py",
        "a//b.py",
        "a/",
        "a\\b.py",
        "a\0.py",
        "a\n.py",
        "\udc80.py",
        "a" * 253 + ".py",
    ],
)
def test_paths_are_plain_and_inside(path: str) -> None:
    with pytest.raises(DecodeError, match="not a plain relative path"):
        Image(**{**FIELDS, "files": {"main.py": b"", path: b""}})


@pytest.mark.parametrize("path", ["a.py", "a/b/c.py", ".hidden", "..a", "ü.py", "a b.py"])
def test_plain_paths(path: str) -> None:
    image = Image(**{**FIELDS, "files": {"main.py": b"", path: b""}})
    assert Image.from_bytes(image.to_bytes()) == image


@pytest.mark.parametrize("count", [0, MAX_FILES + 1])
def test_an_image_has_files_and_not_too_many(count: int) -> None:
    with pytest.raises(DecodeError, match=f"{count} files; an image has 1 to {MAX_FILES}"):
        Image(**{**FIELDS, "files": {f"{n}.py": b"" for n in range(count)}})


def test_the_main_file_is_there() -> None:
    with pytest.raises(DecodeError, match=r"main file 'other.py' is not among the files"):
        Image(**{**FIELDS, "main": "other.py"})


@pytest.mark.parametrize("field", ["runtime", "deployer"])
@pytest.mark.parametrize("size", [0, 31, 33])
def test_digest_and_key_have_their_size(field: str, size: int) -> None:
    with pytest.raises(DecodeError, match=f"{field} has {size} bytes, expected 32"):
        Image(**{**FIELDS, field: bytes(size)})


@pytest.mark.parametrize("version", [-1, 2**32, pytest.param(10**5000, id="huge")])
def test_a_version_has_32_bits(version: int) -> None:
    with pytest.raises(DecodeError, match="version does not fit 32 bits"):
        Image(**{**FIELDS, "version": version})


@pytest.mark.parametrize("version", [0, 2**32 - 1])
def test_versions(version: int) -> None:
    image = Image(**{**FIELDS, "version": version})
    assert Image.from_bytes(image.to_bytes()).version == version


def test_an_image_that_is_too_large_is_not_made() -> None:
    image = Image(**{**FIELDS, "files": {"main.py": bytes(MAX_IMAGE)}})
    with pytest.raises(DecodeError, match=f"the limit is {MAX_IMAGE}") as caught:
        image.to_bytes()
    assert caught.value.offset == MAX_IMAGE


def test_an_image_that_is_too_large_is_not_read() -> None:
    assert_refused(bytes(MAX_IMAGE + 1), f"{MAX_IMAGE + 1} bytes; the limit is {MAX_IMAGE}")
