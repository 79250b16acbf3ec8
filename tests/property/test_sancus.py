"""Parsers of what others write for Sancus: one encoding each, and only our errors."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.tee.sancus.test_module_file import File

from broch.errors import BrochError, DecodeError
from broch.tee.sancus.evidence import Evidence
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.module_file import parts, read_module
from broch.tee.sancus.ports import read_table

LAYOUTS = st.builds(
    lambda start, size, secret, more: Layout(
        public_start=start,
        public_end=start + size,
        secret_start=secret,
        secret_end=secret + more,
    ),
    st.integers(0, 0x8000),
    st.integers(1, 300),
    st.integers(0, 0x8000),
    st.integers(0, 300),
)
SOUND = File().build()


@given(LAYOUTS, st.integers(0, 0xFFFF), st.data())
def test_evidence_round_trips(layout: Layout, vendor: int, data: st.DataObject) -> None:
    blob = data.draw(st.binary(min_size=len(layout.text), max_size=len(layout.text)))
    found = Evidence(
        vendor_id=vendor,
        layout=layout,
        challenge=b"c" * 32,
        nonce=b"n" * 16,
        tag=b"t" * 16,
        text=blob,
    )
    assert Evidence.from_bytes(found.to_bytes()) == found


@given(st.binary(max_size=200))
@example(b"SNC1" + bytes(76))
def test_any_bytes_as_evidence(data: bytes) -> None:
    try:
        found = Evidence.from_bytes(data)
    except DecodeError:
        return
    assert found.to_bytes() == data


@given(st.binary(max_size=300), st.integers(0, 300))
@example(b"input a u8\0\0", 0)
def test_any_bytes_as_a_port_table(text: bytes, offset: int) -> None:
    try:
        found = read_table(text, offset)
    except DecodeError:
        return
    assert len(found.numbers) == len(found.interface.ports) + len(
        set(found.numbers) - {port.name for port in found.interface.ports}
    )


@settings(max_examples=100)
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255), st.booleans())
def test_an_altered_module_file_is_another_module_or_none(at: int, change: int, cut: bool) -> None:
    data = SOUND[:at] if cut else SOUND[:at] + bytes([SOUND[at] ^ change]) + SOUND[at + 1 :]
    for read in (read_module, parts):
        try:
            read(data)
        except BrochError:
            continue
