"""Conceptual message wrappers: the draft's examples, and each rule broken alone."""

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broch.errors import DecodeError
from broch.wire import cbor, cmw
from broch.wire.cmw import Collection, Indicator, Record

VALUE: Final = bytes.fromhex("2347da55")
MEDIA: Final = "application/vnd.example.rats-conceptual-msg"


@pytest.mark.parametrize(
    ("encoded", "wrapper"),
    [
        pytest.param("8219fde7442347da55", Record(type=64999, value=VALUE), id="CBOR record"),
        pytest.param(
            "da63740025442347da55".replace("63740025", f"{cmw.tag_number(64999):08x}"),
            Record(type=64999, value=VALUE, is_tag=True),
            id="CBOR tag",
        ),
        pytest.param(
            "83781d6170706c69636174696f6e2f7369676e65642d636f72696d2b63626f7247d28443a10126a103",
            Record(
                type="application/signed-corim+cbor",
                value=bytes.fromhex("d28443a10126a1"),
                indicator=Indicator.REFERENCE_VALUES | Indicator.ENDORSEMENTS,
            ),
            id="CBOR record with indicator",
        ),
    ],
)
def test_examples_of_the_draft(encoded: str, wrapper: Record) -> None:
    data = bytes.fromhex(encoded)
    assert cmw.decode(data) == wrapper
    assert wrapper.to_cbor() == data


def test_json_example_of_the_draft() -> None:
    record = Record(type=MEDIA, value=VALUE)
    assert cmw.decode(f'["{MEDIA}", "I0faVQ"]'.encode()) == record
    assert record.to_json() == f'["{MEDIA}","I0faVQ"]'


def test_collections() -> None:
    inner = Collection(members={1: Record(type=1, value=b"")})
    outer = Collection(
        type="tag:ietf.org,2024-02-29:rats/kat",
        members={"attester A": Record(type=MEDIA, value=VALUE), "inner": inner},
    )
    assert cmw.decode(outer.to_cbor()) == outer
    # The position of the type says nothing.
    swapped = cbor.encode({"a": [1, b""], cmw.COLLECTION_TYPE: "1.2.3"})
    assert cmw.decode(swapped) == Collection(type="1.2.3", members={"a": Record(type=1, value=b"")})
    flat = Collection(type=outer.type, members={"attester A": Record(type=MEDIA, value=VALUE)})
    assert cmw.decode(flat.to_json().encode()) == flat
    for numbered in (outer, inner, Record(type=1, value=b"")):
        with pytest.raises(DecodeError):
            numbered.to_json()


# RFC 9277, appendix B; the draft's own examples are 30001 and 64999.
@pytest.mark.parametrize(
    ("number", "tag"),
    [
        (0, 1668546817),
        (254, 1668547071),
        (255, 1668547073),
        (30001, 1668576935),
        (64999, 1668612070),
        (65024, 1668612095),
    ],
)
def test_tags_of_content_formats(number: int, tag: int) -> None:
    assert cmw.tag_number(number) == tag
    assert cmw.content_format(tag) == number


@pytest.mark.parametrize("tag", [0, 18, 1668546816, 1668547072, 1668612096, 2**40])
def test_other_tags_are_none(tag: int) -> None:
    assert cmw.content_format(tag) is None


def nested(depth: int) -> Any:
    return [1, b""] if depth == 0 else {"x": nested(depth - 1)}


CBOR: list[Any] = [
    None,
    1,
    "text",
    b"bytes",
    [],
    [1],
    [1, b"", 1, 1],
    [1, "text"],
    [1, b"", 0],
    [1, b"", 32],
    [1, b"", True],
    [1, b"", "evidence"],
    [-1, b""],
    [True, b""],
    [65536, b""],
    ["", b""],
    ["text", b""],
    ["a/b; ", b""],
    ["a/b\n", b""],
    ["a/ä", b""],
    ["a/" + "b" * 600, b""],
    ["#cmw-c2j-tunnel", b""],
    cbor.Tag(18, b""),
    cbor.Tag(1668546817, "text"),
    cbor.Tag(1668547072, b""),
    {},
    {"__cmwc_t": "1.2"},
    {"__cmwc_t": 1, "a": [1, b""]},
    {"__cmwc_t": "", "a": [1, b""]},
    {"__cmwc_t": "a\n", "a": [1, b""]},
    {"": [1, b""]},
    {b"a": [1, b""]},
    {"a": 1},
    nested(5),
]


@pytest.mark.parametrize("value", CBOR, ids=lambda value: repr(value)[:30])
def test_what_is_no_wrapper_in_cbor(value: Any) -> None:
    with pytest.raises(DecodeError):
        cmw.decode(cbor.encode(value))


def test_collections_nest_four_deep() -> None:
    assert isinstance(cmw.decode(cbor.encode(nested(4))), Collection)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "{}",
        "[]",
        '["a/b"]',
        '["a/b","I0faVQ="]',
        '["a/b","I0faV"]',
        '["a/b","I0faVR"]',
        '["a/b","+/+/"]',
        '["a/b",1]',
        '["a/b","",0]',
        '["a/b","",true]',
        '["a/b","",1.0]',
        '[1,""]',
        '{"a":["a/b",""],"a":["a/b",""]}',
        '{"a":["a/b",""]}x',
        "[" * 100_000,
        '["\\ud800/b",""]',
    ],
    ids=lambda text: text[:30],
)
def test_what_is_no_wrapper_in_json(text: str) -> None:
    with pytest.raises(DecodeError):
        cmw.decode(text.encode())


def test_it_is_bounded() -> None:
    with pytest.raises(DecodeError, match="longer"):
        cmw.decode(bytes(cmw.MAX_SIZE + 1))


@pytest.mark.parametrize("size", [0, 100, 200, 70_000])
def test_extensions(size: int) -> None:
    record = Record(type=MEDIA, value=bytes(size), indicator=Indicator.EVIDENCE)
    for oid in (cmw.DICE_OID, cmw.PKIX_OID):
        assert cmw.from_extension(oid, cmw.to_extension(oid, record)) == record
    assert cmw.to_extension(cmw.DICE_OID, record) == record.to_cbor()


def test_extensions_may_hold_json_and_collections() -> None:
    record = Record(type="a/b", value=b"x")
    text = record.to_json().encode()
    assert cmw.from_extension(cmw.PKIX_OID, bytes((0x0C, len(text))) + text) == record
    collection = Collection(members={"a": record})
    value = cmw.to_extension(cmw.PKIX_OID, collection)
    assert cmw.from_extension(cmw.PKIX_OID, value) == collection
    with pytest.raises(DecodeError, match="collection"):
        cmw.to_extension(cmw.DICE_OID, collection)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "04",
        "0403820140ff",
        "040482014000",
        "040282",
        "048103820140",
        "04820003820140",
        "0480820140",
        "04840000000382014000",
        "0c03820140",
        "0303820140",
        "04055b5d5b5d5b",
    ],
)
def test_what_is_no_extension(value: str) -> None:
    with pytest.raises(DecodeError):
        cmw.from_extension(cmw.PKIX_OID, bytes.fromhex(value))
    assert cmw.from_extension(cmw.PKIX_OID, bytes.fromhex("0403820140"))
    with pytest.raises(DecodeError):
        cmw.from_extension("1.2.3", bytes.fromhex("0403820140"))
    with pytest.raises(DecodeError):
        cmw.to_extension("1.2.3", Record(type=1, value=b""))


records = st.builds(
    Record,
    type=st.one_of(st.integers(0, 0xFFFF), st.sampled_from([MEDIA, 'a/b;c="d e"', "a/b; c=d"])),
    value=st.binary(max_size=300),
    indicator=st.one_of(st.none(), st.integers(1, 31).map(Indicator)),
)


@settings(deadline=None)
@given(records)
def test_records_round_trip(record: Record) -> None:
    assert cmw.decode(record.to_cbor()) == record
    if isinstance(record.type, str):
        assert cmw.decode(record.to_json().encode()) == record
        assert json.loads(record.to_json())[0] == record.type


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_whatever_is_read_has_one_encoding(data: bytes) -> None:
    try:
        found = cmw.decode(data)
    except DecodeError:
        return
    assert data[:1] in (b"[", b"{") or found.to_cbor() == data or isinstance(found, Collection)


@settings(deadline=None)
@given(records, st.data())
def test_every_truncation_and_flip_is_refused_or_canonical(
    record: Record, data: st.DataObject
) -> None:
    encoded = record.to_cbor()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        cmw.decode(encoded[:cut])
    bent = bytearray(encoded)
    bent[cut] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = cmw.decode(bytes(bent))
    except DecodeError:
        return
    if isinstance(found, Record) and bent[0] not in b"[{":
        assert found.to_cbor() == bytes(bent)
