"""Properties of SGX: round trips, truncations, flipped bits. Only our errors, no false yes."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.emulated import Memory

from broch.errors import BrochError, DecodeError
from broch.image import Image, Interface
from broch.tee.contract import DeviceSettings, Packed, PackSettings
from broch.tee.dcap import tcb
from broch.tee.dcap.certs import read_chain, read_crl
from broch.tee.dcap.pckext import PckExtension
from broch.tee.sgx import TEE, layout, sgxs, sigstruct
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.sgxs import CHUNK, CHUNKS, PAGE, Create, Page, Sgxs
from broch.tee.sgx.sigstruct import Sigstruct
from broch.tee.sgx.structures import KeyRequest, Report, TargetInfo
from broch.tee.sgx.verify import parse

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
REPORT_DATA: Final = bytes(range(64))
QUICK: Final = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Case:
    """One image, loaded once."""

    def __init__(self) -> None:
        image = Image(
            app="demo",
            module="blink",
            files={"blink.py": b"x" * 300},
            main="blink.py",
            interface=Interface(),
            runtime=bytes(32),
            deployer=bytes(32),
        )
        self.packed: Packed = TEE.pack(image, PackSettings(), TEE.new_signing_key())
        self.device = SgxDevice(
            DeviceSettings(name="property", secret=bytes(32), nv=Memory(), now=NOW)
        )
        self.identity = self.device.load(self.packed).identity
        self.endorsements = self.device.endorsements()
        self.evidence = self.device.evidence(self.identity, REPORT_DATA)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


# Streams


@st.composite
def pages(draw: st.DrawFn) -> tuple[Page, ...]:
    numbers = draw(st.lists(st.integers(0, 60), max_size=4, unique=True))
    made = []
    for number in sorted(numbers):
        flags = draw(st.sampled_from([0x100, 0x201, 0x203, 0x205, 0x207, 0x200]))
        chosen = draw(
            st.one_of(
                st.just(list(range(CHUNKS))),
                st.just([]),
                st.lists(st.integers(0, CHUNKS - 1), unique=True),
            )
        )
        order = bytes(index | draw(st.sampled_from([0, 0, 0x80])) for index in chosen)
        data = bytearray(PAGE)
        for code in order:
            start = (code & 0x7F) * CHUNK
            data[start : start + CHUNK] = bytes([draw(st.integers(0, 255))]) * CHUNK
        made.append(Page(number * PAGE, flags, order, bytes(data)))
    return tuple(made)


@QUICK
@given(pages(), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_streams_round_trip(made: tuple[Page, ...], frame: int, size: int, sized: bool) -> None:
    stream = Sgxs(create=Create(ssaframesize=frame, size=size, sized=sized), pages=made)
    assert Sgxs.from_bytes(stream.to_bytes()) == stream


@QUICK
@given(pages())
def test_the_measurement_is_the_definition(made: tuple[Page, ...]) -> None:
    create = Create(ssaframesize=1, size=PAGE)
    digest = hashlib.sha256(sgxs.create_record(create))
    for page in made:
        digest.update(sgxs.add_record(page.offset, page.flags))
        for offset, data, is_measured in page.chunks():
            if is_measured:
                digest.update(sgxs.extend_record(offset) + data)
    assert sgxs.measure(Sgxs(create=create, pages=made).to_bytes()) == digest.digest()


@QUICK
@given(st.binary(max_size=9000))
@example(b"")
def test_images_round_trip(image: bytes) -> None:
    stream = layout.pack(image)
    assert layout.unpack(Sgxs.from_bytes(stream)) == image


def test_every_truncation_of_a_stream() -> None:
    stream = layout.pack(b"image" * 10)
    for size in range(0, len(stream), 7):
        try:
            cut = Sgxs.from_bytes(stream[:size])
        except DecodeError:
            continue
        # A stream may end after any record; what is left is then no image.
        assert cut.to_bytes() == stream[:size]
        with pytest.raises(DecodeError):
            layout.unpack(cut)


def test_every_flipped_byte_of_a_stream_is_refused_or_measured() -> None:
    stream = layout.pack(b"image" * 10)
    right = sgxs.measure(stream)
    for offset in range(0, len(stream), 5):
        bent = bytearray(stream)
        bent[offset] ^= 1 << offset % 8
        try:
            assert sgxs.measure(bytes(bent)) != right
        except DecodeError:
            continue


# Signatures


def test_every_truncation_of_a_sigstruct(case: Case) -> None:
    assert case.packed.signature is not None
    for size in range(1808):
        with pytest.raises(DecodeError):
            Sigstruct.from_bytes(case.packed.signature[:size])


def test_every_flipped_bit_of_a_sigstruct(case: Case) -> None:
    assert case.packed.signature is not None
    for offset in range(1808):
        bent = bytearray(case.packed.signature)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises(BrochError):
            sigstruct.verify(Sigstruct.from_bytes(bytes(bent)))


def test_a_bent_package_never_loads(case: Case) -> None:
    for offset in range(0, len(case.packed.data), 97):
        bent = bytearray(case.packed.data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises(BrochError):
            case.device.load(Packed(tee="sgx", data=bytes(bent), signature=case.packed.signature))


# Quotes


def test_the_quote_as_it_is(case: Case) -> None:
    claims = TEE.verify(case.evidence, case.endorsements, at=NOW)
    assert claims.report_data == REPORT_DATA
    assert parse(case.evidence).to_bytes() == case.evidence


def test_every_truncation_of_a_quote(case: Case) -> None:
    for size in range(len(case.evidence)):
        with pytest.raises(DecodeError):
            TEE.verify(case.evidence[:size], case.endorsements, at=NOW)


def test_every_flipped_byte_of_a_quote(case: Case) -> None:
    """What is signed, names who signs, or says how long something is cannot be changed."""
    believed = []
    for offset in range(len(case.evidence)):
        bent = bytearray(case.evidence)
        bent[offset] ^= 1 << offset % 8
        try:
            claims = TEE.verify(bytes(bent), case.endorsements, at=NOW)
        except BrochError:
            continue
        assert claims.report_data == REPORT_DATA
        believed.append(offset)
    # Only line ends of PEM may differ and be read as the same certificates.
    assert all(case.evidence[offset] in b"\n" for offset in believed)


@QUICK
@given(st.data())
def test_patched_quotes_raise_only_our_errors(case: Case, data: st.DataObject) -> None:
    bent = bytearray(case.evidence)
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, len(bent) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        bent[offset : offset + len(patch)] = patch
    try:
        TEE.verify(bytes(bent), case.endorsements, at=NOW)
    except BrochError:
        return


@pytest.mark.parametrize("name", ["root_ca_crl", "pck_crl", "tcb_info", "qe_identity"])
def test_flipped_bytes_of_collateral(case: Case, name: str) -> None:
    original = case.endorsements.items[name]
    for offset in range(0, len(original), 3):
        bent = bytearray(original)
        bent[offset] ^= 1 << offset % 8
        changed = type(case.endorsements)(
            anchors=case.endorsements.anchors,
            items={**case.endorsements.items, name: bytes(bent)},
        )
        with pytest.raises(BrochError):
            TEE.verify(case.evidence, changed, at=NOW)


@QUICK
@given(st.timedeltas(min_value=timedelta(days=-4000), max_value=timedelta(days=8000)))
def test_time_is_a_window(case: Case, shift: timedelta) -> None:
    inside = timedelta(hours=-1) <= shift < timedelta(days=3650, hours=-1)
    try:
        TEE.verify(case.evidence, case.endorsements, at=NOW + shift)
    except BrochError:
        assert not inside
    else:
        assert inside


# Readers that take bytes of strangers


@QUICK
@given(st.binary(max_size=600))
def test_readers_raise_only_decode_errors(data: bytes) -> None:
    for read in (
        Sgxs.from_bytes,
        Sigstruct.from_bytes,
        Report.from_bytes,
        TargetInfo.from_bytes,
        KeyRequest.from_bytes,
        PckExtension.from_bytes,
        tcb.TcbInfo.from_bytes,
        tcb.QeIdentity.from_bytes,
        parse,
        lambda data: read_chain(data, "x"),
        lambda data: read_crl(data, "x"),
    ):
        try:
            read(data)
        except DecodeError:
            continue


@QUICK
@given(st.binary(min_size=512, max_size=512))
def test_key_requests_round_trip(data: bytes) -> None:
    assert KeyRequest.from_bytes(data).to_bytes() == data


@QUICK
@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_documents_raise_only_decode_errors(document: object) -> None:
    data = json.dumps({"version": 3, "tcbLevels": document}).encode()
    with pytest.raises(DecodeError):
        tcb.TcbInfo.from_bytes(data)


def chain_bits(case: Case) -> bytes:
    return parse(case.evidence).certification.cert_data


@QUICK
@given(st.data())
def test_bent_certificates_raise_only_decode_errors(case: Case, data: st.DataObject) -> None:
    pem = chain_bits(case)
    first = pem.split(b"-----")[2]
    der = bytearray(base64.b64decode(first))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(der))
    try:
        read_chain(text + b"-----END CERTIFICATE-----\n", "x")
    except DecodeError:
        return
