"""Images under every truncation, every bit flip, and anything at all."""

from typing import Any, Final

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import DecodeError
from broch.image import Image, Interface, Port, PortKind, Shape, fits, spell
from broch.image.interface import check_shape

NAMES: Final = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
PLAIN: Final = st.sampled_from([{"type": name} for name in ("none", "bool", "int", "float", "str")])
ENUMS: Final = st.builds(
    lambda name, values: {"type": "enum", "name": name, "values": values},
    TEXT,
    st.lists(TEXT | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4, unique=True),
)


def structs(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return st.builds(
        lambda name, fields: {
            "type": "struct",
            "name": name,
            "fields": fields,
            "required": list(fields)[::2],
        },
        TEXT,
        st.dictionaries(TEXT, inner, max_size=3),
    )


SHAPES: Final[st.SearchStrategy[Shape]] = st.recursive(
    PLAIN | ENUMS,
    lambda inner: (
        inner.map(lambda shape: {"type": "list", "items": shape})
        | inner.map(lambda shape: {"type": "dict", "values": shape})
        | inner.map(lambda shape: {"type": "optional", "item": shape})
        | st.lists(inner, max_size=3).map(lambda items: {"type": "tuple", "items": items})
        | structs(inner)
    ),
    max_leaves=6,
)


def port(kind: PortKind, name: str, argument: Shape, result: Shape, seconds: float) -> Port:
    if kind is PortKind.EVERY:
        return Port(kind=kind, name=name, seconds=seconds)
    if kind in (PortKind.INPUT, PortKind.OUTPUT):
        return Port(kind=kind, name=name, argument=argument)
    if kind is PortKind.ENTRY:
        argument = {"type": "struct", "name": name, "fields": {"x": argument}, "required": ["x"]}
    return Port(kind=kind, name=name, argument=argument, result=result)


PORTS: Final = st.builds(
    port, st.sampled_from(PortKind), NAMES, SHAPES, SHAPES, st.floats(0.001, 86400.0)
)
IMAGES: Final = st.builds(
    lambda app, module, files, ports, version, debug: Image(
        app=app,
        module=module,
        files=files,
        main=next(iter(files)),
        interface=Interface(tuple(ports)),
        runtime=bytes(range(32)),
        deployer=bytes(32),
        version=version,
        debug=debug,
    ),
    NAMES,
    NAMES,
    st.dictionaries(NAMES, st.binary(max_size=20), min_size=1, max_size=4),
    st.lists(PORTS, max_size=4, unique_by=lambda port: port.name),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
IMAGE: Final = Image(
    app="garden",
    module="valve",
    files={"main.py": b"x = 1\n", "b.py": b""},
    main="main.py",
    interface=Interface(
        (
            Port(
                kind=PortKind.OUTPUT, name="a", argument={"type": "list", "items": {"type": "int"}}
            ),
            Port(kind=PortKind.EVERY, name="t", seconds=1.5),
        )
    ),
    runtime=bytes(range(32)),
    deployer=bytes(range(32, 64)),
)


def assert_canonical_or_refused(data: bytes) -> bool:
    """Whether it is an image; then it has this encoding and no other."""
    try:
        image = Image.from_bytes(data)
    except DecodeError:
        return False  # the only error that may leave the parser
    assert image.to_bytes() == data
    return True


@settings(derandomize=True, max_examples=80, deadline=None)
@given(image=IMAGES)
def test_round_trip(image: Image) -> None:
    data = image.to_bytes()
    assert Image.from_bytes(data) == image
    assert Image.from_bytes(data).to_bytes() == data


@settings(derandomize=True, deadline=None)
@given(image=IMAGES, seed=st.randoms(use_true_random=False))
def test_no_order_of_files_shows(image: Image, seed: Any) -> None:
    files = list(image.files.items())
    seed.shuffle(files)
    other = Image(
        app=image.app,
        module=image.module,
        files=dict(files),
        main=image.main,
        interface=image.interface,
        runtime=image.runtime,
        deployer=image.deployer,
        version=image.version,
        debug=image.debug,
    )
    assert other.digest() == image.digest()


def test_every_bit_flip_is_another_image_or_none() -> None:
    data = IMAGE.to_bytes()
    accepted = 0
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        accepted += assert_canonical_or_refused(bytes(altered))
    assert accepted > 64 * 8, "keys and code are in it, so many flips give an image"


def test_every_truncation_is_refused() -> None:
    data = IMAGE.to_bytes()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            Image.from_bytes(data[:size])


@settings(derandomize=True)
@given(data=st.binary(max_size=100))
def test_anything_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Image.from_bytes(data)


ANYTHING: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=33)
    | st.sampled_from(["type", "list", "items", "struct", "enum", "kind", "entry", "main.py"])
    | st.builds(cbor2.CBORTag, st.integers(0, 300), st.integers(0, 3) | st.text(max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "items", "values", "fields", "kind", "name", "argument"])
            | st.integers(0, 2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
KEYS: Final = "app module files main interface runtime deployer version debug broch-image".split()


@settings(derandomize=True, max_examples=300, deadline=None)
@given(key=st.sampled_from(KEYS), value=ANYTHING)
def test_anything_in_a_field_is_canonical_or_refused(key: str, value: object) -> None:
    fields = cbor2.loads(IMAGE.to_bytes())
    fields[key] = value
    assert_canonical_or_refused(cbor2.dumps(fields, canonical=True))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(shape=ANYTHING)
def test_anything_is_a_shape_or_refused(shape: object) -> None:
    try:
        check_shape(shape)
    except DecodeError:
        return
    assert isinstance(shape, dict)
    assert fits(shape, shape)
    assert spell(shape)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(given=SHAPES, wanted=SHAPES)
def test_fitting_is_mutual(given: Shape, wanted: Shape) -> None:
    assert fits(given, given)
    assert fits(given, wanted) == fits(wanted, given)
