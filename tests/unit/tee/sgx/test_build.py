"""The rules of ECREATE, EADD, EEXTEND and EINIT: one test each, breaking only that rule."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, PolicyError, UntrustedError
from broch.tee.dcap.report import AEX_NOTIFY, CET, DEBUG, EINITTOKENKEY, INIT, KSS, MODE64BIT
from broch.tee.sgx import layout, sgxs, sigstruct
from broch.tee.sgx.build import Building, Model, xsave_size
from broch.tee.sgx.faults import SgxError, SgxFaultError
from broch.tee.sgx.sgxs import CHUNK, PAGE, Page
from broch.tee.sgx.structures import EXINFO

from .support import CODE_PAGE, SECS, TCS_PAGE, measured, mrenclave, signed

READ = sgxs.PT_REG | sgxs.R
ZEROS = bytes(PAGE)


# ECREATE


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"xfrm": 1}, "x87 and SSE", id="no SSE"),
        pytest.param({"xfrm": 2}, "x87 and SSE", id="no x87"),
        pytest.param({"xfrm": 3 | 1 << 40}, "illegal", id="unknown XFRM bit"),
        pytest.param({"xfrm": 3 | 8}, "illegal", id="half of MPX"),
        pytest.param({"xfrm": 7 | 0x20}, "illegal", id="part of AVX-512"),
        pytest.param({"xfrm": 3 | 0xE0}, "illegal", id="AVX-512 without AVX"),
        pytest.param({"xfrm": 3 | 1 << 17, "ssaframesize": 4}, "illegal", id="half of AMX"),
        pytest.param({"miscselect": 2}, "MISCSELECT", id="unknown MISCSELECT"),
        pytest.param({"ssaframesize": 0}, "SSAFRAMESIZE", id="no SSA frame"),
        pytest.param({"xfrm": 3 | 0x60000}, "SSAFRAMESIZE", id="AMX in one page"),
        pytest.param({"flags": 0, "base": 1 << 32}, "32-bit", id="32-bit base"),
        pytest.param({"flags": 0, "size": 1 << 32}, "32-bit", id="32-bit size"),
        pytest.param({"size": 1 << 46}, "beyond", id="too large"),
        pytest.param({"size": PAGE}, "power of two", id="one page"),
        pytest.param({"size": 0}, "power of two", id="no page"),
        pytest.param({"size": 3 * PAGE}, "power of two", id="three pages"),
        pytest.param({"base": PAGE}, "aligned", id="base not aligned"),
        pytest.param({"flags": MODE64BIT | INIT}, "ATTRIBUTES", id="INIT"),
        pytest.param({"flags": MODE64BIT | CET}, "ATTRIBUTES", id="CET"),
        pytest.param({"flags": MODE64BIT | 8}, "ATTRIBUTES", id="reserved attribute"),
        pytest.param({"configid": b"C" * 64}, "KSS", id="CONFIGID without KSS"),
        pytest.param({"configsvn": 1}, "KSS", id="CONFIGSVN without KSS"),
    ],
)
def test_ecreate_refuses(changes: dict[str, int], problem: str) -> None:
    with pytest.raises(SgxFaultError, match=problem) as caught:
        Building(replace(SECS, **changes))  # type: ignore[arg-type]  # CONFIGID is bytes
    assert (caught.value.number, caught.value.name) == (13, "#GP")
    assert isinstance(caught.value, PolicyError)


@pytest.mark.parametrize(
    "secs",
    [
        pytest.param(SECS, id="plain"),
        pytest.param(replace(SECS, flags=MODE64BIT | DEBUG), id="debug"),
        pytest.param(replace(SECS, flags=MODE64BIT | AEX_NOTIFY), id="AEX notify"),
        pytest.param(replace(SECS, flags=0), id="32 bits"),
        pytest.param(replace(SECS, xfrm=7), id="AVX"),
        pytest.param(replace(SECS, xfrm=0x21F | 0xE0), id="all of one page"),
        pytest.param(replace(SECS, xfrm=3 | 0x60000, ssaframesize=3), id="AMX"),
        pytest.param(replace(SECS, miscselect=EXINFO), id="EXINFO"),
        pytest.param(
            replace(SECS, flags=MODE64BIT | KSS, configid=b"C" * 64, configsvn=9), id="KSS"
        ),
        pytest.param(replace(SECS, base=4 * SECS.size), id="base"),
    ],
)
def test_ecreate_accepts(secs: object) -> None:
    Building(secs)  # type: ignore[arg-type]  # a Secs, through parametrize


def test_xsave_sizes_are_those_of_the_manual() -> None:
    sizes = {xfrm: xsave_size(xfrm) for xfrm in (3, 7, 0x1F, 0xE7, 0x2E7, 0x602E7)}
    assert sizes == {3: 576, 7: 832, 0x1F: 1088, 0xE7: 2688, 0x2E7: 2696, 0x602E7: 11008}


# EADD and EEXTEND


def tcs(**places: int) -> bytes:
    data = bytearray(layout.tcs(0))
    for place, value in places.items():
        data[int(place[1:])] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "flags", "data", "problem"),
    [
        pytest.param(0x800, READ, ZEROS, "page boundary", id="address not aligned"),
        pytest.param(0, 0x001, ZEROS, "SECINFO", id="type SECS"),
        pytest.param(0, 0x301, ZEROS, "SECINFO", id="type VA"),
        pytest.param(0, 0x401, ZEROS, "SECINFO", id="type TRIM"),
        pytest.param(0, READ | 8, ZEROS, "SECINFO", id="PENDING"),
        pytest.param(0, READ | 0x10, ZEROS, "SECINFO", id="MODIFIED"),
        pytest.param(0, READ | 1 << 63, ZEROS, "SECINFO", id="reserved flag"),
        pytest.param(0, sgxs.PT_REG | sgxs.W, ZEROS, "not read", id="W without R"),
        pytest.param(0, sgxs.PT_REG | sgxs.W | sgxs.X, ZEROS, "not read", id="WX without R"),
        pytest.param(4 * PAGE, READ, ZEROS, "outside", id="beyond the enclave"),
        pytest.param(0, READ, ZEROS[1:], "4095 bytes", id="not a page"),
        pytest.param(0, sgxs.PT_TCS, tcs(_8=4), "reserved", id="TCS flag"),
        pytest.param(0, sgxs.PT_TCS, tcs(_72=1), "reserved", id="TCS reserved, first"),
        pytest.param(0, sgxs.PT_TCS, tcs(_4095=1), "reserved", id="TCS reserved, last"),
    ],
)
def test_eadd_refuses(offset: int, flags: int, data: bytes, problem: str) -> None:
    with pytest.raises(SgxFaultError, match=problem) as caught:
        Building(SECS).eadd(offset, flags, data)
    assert caught.value.name == "#GP"


@pytest.mark.parametrize("place", ["_64", "_68"])
def test_limits_of_a_32_bit_tcs(place: str) -> None:
    data = tcs(**{place: 0xFE})
    Building(SECS).eadd(0, sgxs.PT_TCS, data)
    with pytest.raises(SgxFaultError, match="LIMIT"):
        Building(replace(SECS, flags=0)).eadd(0, sgxs.PT_TCS, data)


def test_a_page_cannot_be_added_twice() -> None:
    building = measured()
    with pytest.raises(SgxFaultError, match="already") as caught:
        building.eadd(0, READ, ZEROS)
    assert (caught.value.number, caught.value.name) == (14, "#PF")


@pytest.mark.parametrize(
    ("offset", "chunk", "name"),
    [
        pytest.param(0x80, bytes(CHUNK), "#GP", id="not aligned"),
        pytest.param(0, bytes(CHUNK - 1), "#GP", id="not a chunk"),
        pytest.param(2 * PAGE, bytes(CHUNK), "#PF", id="no page"),
    ],
)
def test_eextend_refuses(offset: int, chunk: bytes, name: str) -> None:
    with pytest.raises(SgxFaultError) as caught:
        measured().eextend(offset, chunk)
    assert caught.value.name == name


def test_permissions_of_a_tcs_are_forced_to_none_and_measured_so(key: RSAPrivateKey) -> None:
    building = Building(SECS)
    building.add(CODE_PAGE)
    building.eadd(PAGE, sgxs.PT_TCS | sgxs.R | sgxs.W, TCS_PAGE.data)
    for offset, chunk, _ in TCS_PAGE.chunks():
        building.eextend(offset, chunk)
    assert building.einit(signed(key)).mrenclave == mrenclave()


def test_pages_that_are_measured_in_part(key: RSAPrivateKey) -> None:
    page = Page(2 * PAGE, READ, bytes([3, 0x80 | 4, 1]), bytes(range(256)) * 16)
    building = measured()
    building.add(page)
    stream = sgxs.Sgxs(
        create=sgxs.Create(ssaframesize=1, size=SECS.size), pages=(CODE_PAGE, TCS_PAGE, page)
    )
    expected = sgxs.measure(stream.to_bytes())
    assert building.einit(signed(key, enclavehash=expected)).mrenclave == expected


def test_nothing_after_einit(key: RSAPrivateKey) -> None:
    building = measured()
    building.einit(signed(key))
    steps: list[Callable[[], object]] = [
        lambda: building.eadd(2 * PAGE, READ, ZEROS),
        lambda: building.eextend(0, bytes(CHUNK)),
        lambda: building.einit(signed(key)),
    ]
    for step in steps:
        with pytest.raises(SgxFaultError, match="initialised already"):
            step()


# EINIT


def test_einit_commits_what_is_signed(key: RSAPrivateKey) -> None:
    building = measured()
    secs = building.einit(signed(key, isvprodid=7, isvsvn=3))
    public = key.public_key().public_numbers().n.to_bytes(384, "little")
    assert secs.initialized
    assert secs.mrenclave == mrenclave()
    assert secs.mrsigner == hashlib.sha256(public).digest()
    assert (secs.isvprodid, secs.isvsvn) == (7, 3)
    assert building.secs == secs


@pytest.fixture
def breaks(key: RSAPrivateKey) -> Callable[..., SgxError]:
    """Run EINIT on a SIGSTRUCT and give back how it refuses."""

    def run(data: bytes, building: Building | None = None) -> SgxError:
        building = building or measured()
        before = building.secs
        with pytest.raises(SgxError) as caught:
            building.einit(data)
        assert building.secs == before, "a refused enclave must not become initialised"
        return caught.value

    return run


def test_1_format_comes_first(key: RSAPrivateKey, breaks: Callable[..., SgxError]) -> None:
    bad = bytearray(signed(key, enclavehash=bytes(32)))
    bad[0] ^= 1
    error = breaks(bytes(bad))
    assert (int(error.number), error.name) == (1, "SGX_INVALID_SIG_STRUCT")
    assert isinstance(error, DecodeError)


def test_2_signature_comes_before_the_measurement(
    key: RSAPrivateKey, breaks: Callable[..., SgxError]
) -> None:
    bad = bytearray(signed(key, enclavehash=bytes(32)))
    bad[516] ^= 1
    error = breaks(bytes(bad))
    assert int(error.number) == 8
    assert isinstance(error, UntrustedError)


@pytest.mark.parametrize("field", ["isvfamilyid", "isvextprodid"])
def test_3_family_and_extended_product_need_kss(
    key: RSAPrivateKey, breaks: Callable[..., SgxError], field: str
) -> None:
    extra: dict[str, int | bytes] = {field: b"F" * 16}
    error = breaks(signed(key, enclavehash=bytes(32), **extra))
    assert int(error.number) == 1
    with_kss = measured(replace(SECS, flags=MODE64BIT | KSS))
    secs = with_kss.einit(signed(key, flags=MODE64BIT | KSS, **extra))
    assert getattr(secs, field) == b"F" * 16


def test_4_measurement(key: RSAPrivateKey, breaks: Callable[..., SgxError]) -> None:
    error = breaks(signed(key, enclavehash=bytes(32), flags=0))
    assert int(error.number) == 4
    assert isinstance(error, UntrustedError)
    assert mrenclave().hex() in str(error)


def launch_authority(key: RSAPrivateKey, secs: object = SECS) -> Building:
    """A CPU that is locked to ``key``."""
    signer = sigstruct.Sigstruct.from_bytes(signed(key)).mrsigner()
    building = Building(secs, Model(lepubkeyhash=signer))  # type: ignore[arg-type]  # a Secs
    building.add(CODE_PAGE)
    building.add(TCS_PAGE)
    return building


def test_5_launch_key_is_for_the_launch_authority(
    key: RSAPrivateKey, other_key: RSAPrivateKey, breaks: Callable[..., SgxError]
) -> None:
    flags = MODE64BIT | EINITTOKENKEY
    secs = replace(SECS, flags=flags)
    assert int(breaks(signed(key, flags=flags), measured(secs)).number) == 2
    assert int(breaks(signed(other_key, flags=flags), launch_authority(key, secs)).number) == 2
    assert launch_authority(key, secs).einit(signed(key, flags=flags)).initialized


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"flags": MODE64BIT | DEBUG}, id="6 debug wanted"),
        pytest.param({"flags": 0}, id="6 32 bits wanted"),
        pytest.param({"xfrm": 7}, id="6 AVX wanted"),
        pytest.param({"miscselect": 1}, id="7 EXINFO wanted"),
    ],
)
def test_6_7_attributes_under_their_masks(
    key: RSAPrivateKey, breaks: Callable[..., SgxError], fields: dict[str, int]
) -> None:
    error = breaks(signed(key, **fields))
    assert int(error.number) == 2
    assert isinstance(error, PolicyError)
    mask = {"flags": "flags_mask", "xfrm": "xfrm_mask", "miscselect": "miscmask"}
    open_masks = {mask[name]: 0 for name in fields}
    assert measured().einit(signed(key, **fields, **open_masks)).initialized


def test_6_a_production_signature_never_starts_a_debug_enclave(
    key: RSAPrivateKey, breaks: Callable[..., SgxError]
) -> None:
    debug = measured(replace(SECS, flags=MODE64BIT | DEBUG))
    assert int(breaks(signed(key), debug).number) == 2


def test_8_launch_control(
    key: RSAPrivateKey, other_key: RSAPrivateKey, breaks: Callable[..., SgxError]
) -> None:
    error = breaks(signed(other_key), launch_authority(key))
    assert (int(error.number), error.name) == (16, "SGX_INVALID_EINITTOKEN")
    assert isinstance(error, PolicyError)
    assert launch_authority(key).einit(signed(key)).initialized
