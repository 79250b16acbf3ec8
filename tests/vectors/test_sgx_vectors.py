"""SGX against cases made by others: signatures and streams of Fortanix's tools, Intel's quotes."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.dcap import trust
from broch.tee.dcap.collateral import NAMES, items_from_json
from broch.tee.sgx import TEE, sgxs, sigstruct
from broch.tee.sgx.sgxs import Sgxs
from broch.tee.sgx.sigstruct import ALL_BITS, Sigstruct
from broch.tee.sgx.verify import parse

# ``sgxs-append`` with nothing to append: what upstream measures for c.sgxs.
C_SGXS: Final = "7271586c29324b5cbaa18e3f5790c9b6e518d0eee755f0f1428ca940e910a3f8"
STREAMS: Final = ("min.sgxs", "c.sgxs", "app_partial.sgxs", "c.unsized.sgxs")

# Streams


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_upstream_are_canonical_here(vectors: Path, name: str) -> None:
    stream = (vectors / "sgx" / name).read_bytes()
    parsed = Sgxs.from_bytes(stream)
    assert parsed.to_bytes() == stream
    assert parsed.create.sized == ("unsized" not in name)


def test_the_measurement_is_upstreams(vectors: Path) -> None:
    stream = (vectors / "sgx" / "c.sgxs").read_bytes()
    assert sgxs.measure(stream).hex() == C_SGXS
    recorded = (vectors / "sgx" / "sgxs-append_expected.txt").read_text().splitlines()[0]
    assert C_SGXS in recorded


def test_an_unsized_stream_is_not_measured(vectors: Path) -> None:
    with pytest.raises(DecodeError, match="UNSIZED"):
        sgxs.measure((vectors / "sgx" / "c.unsized.sgxs").read_bytes())


def test_pages_are_those_that_upstream_lists(vectors: Path) -> None:
    parsed = Sgxs.from_bytes((vectors / "sgx" / "app_partial.sgxs").read_bytes())
    listed = (vectors / "sgx" / "info" / "app_partial.list-pages.txt").read_text()
    assert len(parsed.pages) == sum(line.startswith("EADD") for line in listed.splitlines())


# Signatures


@pytest.fixture(scope="module")
def sig1(vectors: Path) -> Path:
    return vectors / "sgx" / "sig1"


@pytest.fixture(scope="module")
def key(sig1: Path) -> RSAPrivateKey:
    loaded = load_pem_private_key((sig1 / "sig1.key.pem").read_bytes(), None)
    assert isinstance(loaded, RSAPrivateKey)
    return loaded


def little(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little")


def test_q1_and_q2_are_upstreams(sig1: Path) -> None:
    signature, modulus = little(sig1 / "sig1.sig.bin"), little(sig1 / "sig1.key_n.bin")
    expected = (little(sig1 / "sig1.q1.bin"), little(sig1 / "sig1.q2.bin"))
    assert sigstruct.quotients(signature, modulus) == expected


def test_a_sigstruct_of_upstream_round_trips_and_verifies(sig1: Path) -> None:
    data = (sig1 / "sig1.sigstruct.bin").read_bytes()
    parsed = Sigstruct.from_bytes(data)
    assert parsed.to_bytes() == data
    sigstruct.verify(parsed)


def test_its_signature_is_remade_byte_for_byte(sig1: Path, key: RSAPrivateKey) -> None:
    parsed = Sigstruct.from_bytes((sig1 / "sig1.sigstruct.bin").read_bytes())
    assert sigstruct.sign(parsed, key) == parsed


# What ``sgxs-sign`` makes of its options, in fields (reference: its source, not its help text).
SIGN_OPTIONS: Final[dict[str, dict[str, int]]] = {
    "default": {},
    "xfrm7_0": {"xfrm": 7, "xfrm_mask": ALL_BITS},
    "xfrm7": {"xfrm": 7, "xfrm_mask": ALL_BITS - 7},
    "xfrm3_e4": {"xfrm": 3, "xfrm_mask": ALL_BITS - 0xE4},
    "debug": {"flags": 6},
    "ids": {"isvprodid": 16, "isvsvn": 3},
    "misc": {"miscselect": 1},
    "attrs": {"flags": 0x14},
    "bits32": {"flags": 0},
    "sw": {"swdefined": 0x20},
    "attrbad": {"flags": 4, "flags_mask": ALL_BITS - 0x104},
    "attr_debug": {"flags": 6},
}


@pytest.mark.parametrize("name", sorted(SIGN_OPTIONS))
def test_signing_gives_upstreams_bytes(vectors: Path, key: RSAPrivateKey, name: str) -> None:
    lines = (vectors / "sgx" / "sgxs-sign_expected.txt").read_text().splitlines()
    expected = {line.split()[0]: line.split()[-1] for line in lines}
    fields = {
        "date": 0x20160109,
        "xfrm": 3,
        "xfrm_mask": ALL_BITS - 3,
        "flags": 4,
        "flags_mask": ALL_BITS - 2,
        **SIGN_OPTIONS[name],
    }
    template = sigstruct.template(bytes.fromhex(C_SGXS))
    values = {field: getattr(template, field) for field in template.__slots__}
    signed = sigstruct.sign(Sigstruct(**{**values, **fields}), key)
    assert hashlib.sha256(signed.to_bytes()).hexdigest() == expected[name]


# Evidence


def endorsements(vectors: Path, collateral: str) -> Endorsements:
    folder = vectors / "evidence"
    return Endorsements(
        anchors=((folder / "sgx" / "intel_sgx_root_ca.der").read_bytes(),),
        items=items_from_json((folder / collateral).read_bytes()),
    )


PHALA: Final = "sgx/phala_sgx_quote.bin"
DEBUG: Final = "sgx/automata/quote_sgx.bin"
COLLATERAL: Final = "composite/sgx_2025-06_00A067110000.json"
AT: Final = datetime(2025, 6, 25, tzinfo=UTC)


def quote(vectors: Path, name: str = PHALA) -> bytes:
    return (vectors / "evidence" / name).read_bytes()


def test_the_pin_is_intels_root(vectors: Path) -> None:
    root = (vectors / "evidence" / "sgx" / "intel_sgx_root_ca.der").read_bytes()
    assert hashlib.sha256(root).digest() == trust.INTEL_SGX_ROOT


def rows(vectors: Path) -> list[dict[str, Any]]:
    path = vectors / "evidence" / "composite" / "EXPECTED.json"
    every: list[dict[str, Any]] = json.loads(path.read_text())
    return [row for row in every if row["quote"].startswith("sgx/")]


def test_every_row_of_sgx(vectors: Path) -> None:
    checked = 0
    for row in rows(vectors):
        claims = TEE.verify(
            quote(vectors, row["quote"]),
            endorsements(vectors, row["collateral"]),
            at=datetime.fromisoformat(row["at"]),
        )
        assert claims.details["tcb_status"] == row["sgx_level"]
        assert claims.debug is row["debug"]
        assert not claims.emulated
        checked += 1
    assert checked >= 2


def test_claims_of_a_genuine_quote(vectors: Path) -> None:
    for collateral in (COLLATERAL, "sgx/phala_sgx_quote_collateral.json"):
        claims = TEE.verify(quote(vectors), endorsements(vectors, collateral), at=AT)
        assert claims.report_data == b"Hello, world!".ljust(64, b"\0")
        assert not claims.emulated
        assert claims.details["fmspc"] == "00a067110000"
        assert claims.details["pck_ca"] == "Intel SGX PCK Processor CA"
        assert claims.details["advisory_ids"] == "INTEL-SA-00289,INTEL-SA-00615"
        assert claims.details["root"] == "Intel SGX Root CA"


@pytest.mark.parametrize("name", [PHALA, DEBUG])
def test_genuine_quotes_round_trip(vectors: Path, name: str) -> None:
    data = quote(vectors, name)
    assert parse(data).to_bytes() == data


def test_its_collateral_has_its_time(vectors: Path) -> None:
    """Valid 2025-06-19T10:56:11Z to 2025-07-19T10:01:18Z, says its README."""
    made = endorsements(vectors, "sgx/phala_sgx_quote_collateral.json")
    begin = datetime(2025, 6, 19, 10, 56, 11, tzinfo=UTC)
    end = datetime(2025, 7, 19, 10, 1, 18, tzinfo=UTC)
    second = timedelta(seconds=1)
    for at in (begin, end - second):
        TEE.verify(quote(vectors), made, at=at)
    for at, problem in ((begin - second, "tcb_info is not valid"), (end, "qe_identity has exp")):
        with pytest.raises(UntrustedError, match=problem):
            TEE.verify(quote(vectors), made, at=at)


def test_collateral_of_another_platform(vectors: Path) -> None:
    other = endorsements(vectors, "composite/sgx_2025-08_00606A000000.json")
    with pytest.raises(UntrustedError):
        TEE.verify(quote(vectors), other, at=datetime(2025, 8, 20, tzinfo=UTC))


def test_collateral_for_tdx(vectors: Path) -> None:
    for path in sorted((vectors / "evidence" / "composite").glob("tdx_2025-06_*.json")):
        other = endorsements(vectors, f"composite/{path.name}")
        with pytest.raises(UntrustedError):
            TEE.verify(quote(vectors), other, at=AT)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_optional(vectors: Path, name: str) -> None:
    complete = endorsements(vectors, COLLATERAL)
    items = {key: value for key, value in complete.items.items() if key != name}
    with pytest.raises(UndecidedError, match=name):
        TEE.verify(quote(vectors), Endorsements(anchors=complete.anchors, items=items), at=AT)


def test_signatures_of_a_genuine_quote(vectors: Path) -> None:
    made = endorsements(vectors, COLLATERAL)
    data = quote(vectors)
    for offset in (12, 28, 47, 48, 112, 176, 304, 306, 368, 431, 436, 500, 564, 900, 948, 1014):
        bent = bytearray(data)
        bent[offset] ^= 1
        with pytest.raises((UntrustedError, DecodeError)):
            TEE.verify(bytes(bent), made, at=AT)


def test_tdx_quotes_are_not_sgx_quotes(vectors: Path) -> None:
    made = endorsements(vectors, COLLATERAL)
    for name in ("sgx/automata/quote_tdx.bin", "tdx/phala_tdx_quote.bin"):
        with pytest.raises(DecodeError):
            TEE.verify(quote(vectors, name), made, at=AT)


def test_intels_sample_is_refused(vectors: Path) -> None:
    """Synthetic: certification data of type 1, a root of its own."""
    with pytest.raises(DecodeError, match="type 1"):
        TEE.verify(
            quote(vectors, "sgx/intel-qvl-sample/quote.dat"),
            endorsements(vectors, COLLATERAL),
            at=AT,
        )


def test_sample_quotes_parse_or_are_malformed(vectors: Path) -> None:
    text = (vectors / "evidence" / "sgx" / "automata" / "sample_quotes.hex").read_text()
    for line in text.split():
        try:
            data = bytes.fromhex(line.removeprefix("0x"))
        except ValueError:
            continue
        try:
            assert parse(data).to_bytes() == data
        except DecodeError:
            continue
