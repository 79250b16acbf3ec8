"""TDX against quotes and collateral of Intel's. Every file there has a verdict here.

Rows of EXPECTED.json hold what an independent script and another verifier say of each quote.
"""

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from broch.errors import BrochError, DecodeError, UntrustedError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements
from broch.tee.dcap import certs, ecdsa, platform
from broch.tee.dcap.collateral import items_from_json
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.tdx import VERIFIER
from broch.tee.tdx.module import converge
from broch.tee.tdx.report import SEPT_VE_DISABLE
from broch.tee.tdx.verify import TdxClaims, parse

QUOTE, REPORT, COLLATERAL = "a genuine quote", "a TDREPORT, not evidence", "collateral"
LOG, TEXT, SYNTHETIC = "an event log", "text", "of another root: refused"
FILES: Final = {
    "README.md": TEXT,
    "attestation-rs/pck_crl_platform.der": COLLATERAL,
    "attestation-rs/qe_identity_signing_chain.pem": COLLATERAL,
    "attestation-rs/root_ca_crl.der": COLLATERAL,
    "attestation-rs/tcb_info_50806f000000.json": COLLATERAL,
    "attestation-rs/tcb_info_90c06f000000.json": COLLATERAL,
    "attestation-rs/tcb_signing_chain.pem": COLLATERAL,
    "attestation-rs/td_qe_identity.json": COLLATERAL,
    "attestation-rs/tdx_quote_4.dat": QUOTE,
    "attestation-rs/tdx_quote_5.dat": QUOTE,
    "attestation-rs/tdx_tdreport_live.bin": REPORT,
    "automata/0625_qe_td.json": COLLATERAL,
    "automata/0625_tcbinfov3_00806f050000.json": COLLATERAL,
    "automata/0625_tcbinfov3_90C06F000000.json": COLLATERAL,
    "automata/0625_tdxtcbeval.json": COLLATERAL,
    "automata/0825_platform_crl.der": COLLATERAL,
    "automata/0825_sgx_qeidentity_v4.json": COLLATERAL,
    "automata/0825_sgx_tcbinfov3_00606a000000.json": COLLATERAL,
    "automata/0825_sgxtcbeval.json": COLLATERAL,
    "automata/1025_identity.json": COLLATERAL,
    "automata/1025_pck_crl.der": COLLATERAL,
    "automata/1025_tcb_info.json": COLLATERAL,
    "go-tdx-guest/README.md": TEXT,
    "go-tdx-guest/ccel_data.dat.gz": LOG,
    "go-tdx-guest/ccel_table.dat": LOG,
    "go-tdx-guest/nonce.dat": TEXT,
    "go-tdx-guest/pck_crl_issuer_chain.pem": COLLATERAL,
    "go-tdx-guest/pckcrl": COLLATERAL,
    "go-tdx-guest/quote_v5_sample.dat": QUOTE,
    "go-tdx-guest/report.dat": REPORT,
    "go-tdx-guest/rootcrl.der": COLLATERAL,
    "go-tdx-guest/sample_qeIdentity_response": COLLATERAL,
    "go-tdx-guest/sample_tcbInfo_response": COLLATERAL,
    "go-tdx-guest/sample_tcbinfo_response_v5": COLLATERAL,
    "go-tdx-guest/tcb_signing_chain_2018-2025.pem": COLLATERAL,
    "go-tdx-guest/tdx_prod_quote_SPR_E4.dat": QUOTE,
    "go-tdx-guest/trusted_root.pem": COLLATERAL,
    "intel-qvl-sample/intermediateCaCrl.der": SYNTHETIC,
    "intel-qvl-sample/pckCert.pem": SYNTHETIC,
    "intel-qvl-sample/pckSignChain.pem": SYNTHETIC,
    "intel-qvl-sample/qeIdentity.json": SYNTHETIC,
    "intel-qvl-sample/quote.dat": SYNTHETIC,
    "intel-qvl-sample/rootCaCrl.der": SYNTHETIC,
    "intel-qvl-sample/tcbInfo.json": SYNTHETIC,
    "intel-qvl-sample/tcbSignChain.pem": SYNTHETIC,
    "intel-qvl-sample/trustedRootCaCert.pem": SYNTHETIC,
    "phala_tdx-quote.hex": QUOTE,
    "phala_tdx_quote.bin": QUOTE,
    "phala_tdx_quote_collateral.json": COLLATERAL,
    "phala_tdx_quote_outdated.bin": QUOTE,
    "phala_tdx_quote_outdated_collateral.json": COLLATERAL,
    "trustee/tdx_quote_4.dat": QUOTE,
    "trustee/tdx_quote_5.dat": QUOTE,
    "trustee/tdx_quote_6.dat": QUOTE,
}
COMPOSITE: Final = {
    "EXPECTED.json",
    "README.md",
    "sgx_2025-06_00A067110000.json",
    "sgx_2025-08_00606A000000.json",
    "tdx_2023-06_50806F000000.json",
    "tdx_2025-06_00806F050000.json",
    "tdx_2025-06_90C06F000000.json",
    "tdx_2025-06_B0C06F000000.json",
    "tdx_2025-10_00806F050000.json",
    "tdx_2026-02_90C06F000000.json",
    "tdx_2026-03_50806F000000.json",
    "tdx_2026-03_90C06F000000.json",
}
EXTRA: Final = b"\nextra bytes(only for testing purpose)\n"
JUNE: Final = datetime(2025, 6, 25, tzinfo=UTC)
B0C0: Final = "composite/tdx_2025-06_B0C06F000000.json"


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence"


@cache
def endorsements(folder: Path, collateral: str) -> Endorsements:
    return Endorsements(
        anchors=((folder / "sgx" / "intel_sgx_root_ca.der").read_bytes(),),
        items=items_from_json((folder / collateral).read_bytes()),
    )


def quote(folder: Path, name: str) -> bytes:
    """A quote; one file has text after its own, which is refused (tested below) and cut off."""
    data = (folder / name).read_bytes().removesuffix(EXTRA)
    return bytes.fromhex(data.decode().strip().removeprefix("0x")) if name.endswith("hex") else data


def rows(folder: Path) -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = json.loads((folder / "composite/EXPECTED.json").read_text())
    return [row for row in every if not row["quote"].startswith("sgx/")]


def verify(folder: Path, row: dict[str, Any]) -> TdxClaims:
    made = endorsements(folder, row["collateral"])
    return VERIFIER.verify(quote(folder, row["quote"]), made, at=datetime.fromisoformat(row["at"]))


def test_every_file_has_a_verdict(folder: Path) -> None:
    tdx = folder / "tdx"
    assert {str(p.relative_to(tdx)) for p in tdx.rglob("*") if p.is_file()} == FILES.keys()
    assert {path.name for path in (folder / "composite").iterdir()} == COMPOSITE


def test_every_row(folder: Path) -> None:
    checked = refused = 0
    for row in rows(folder):
        if row["pck_not_yet_valid"]:
            with pytest.raises(UntrustedError, match="is not valid before"):
                verify(folder, row)
            refused += 1
            continue
        claims = verify(folder, row)
        missing = TcbStatus.NOT_SUPPORTED
        assert claims.tcb.platform == (row["tdx_level"] or missing), row
        sgx = platform.match_level(claims.platform)
        assert (sgx.status if sgx else missing) == (row["sgx_level"] or missing), row
        module = row["module"] or TcbStatus.UP_TO_DATE  # a module without a version has no levels
        assert claims.module.status == module, row
        assert claims.debug is row["debug"]
        assert not claims.emulated
        # All together, and never better than a part.
        together = converge(claims.tcb.platform, claims.module.status)
        assert claims.tcb.status is platform.converge_qe(together, claims.tcb.qe)
        # The other verifier, where it gives a status at all.
        said = row["dcap_qvl_claims_only"]
        if not said.startswith("ERR"):
            assert claims.tcb.status == said
        elif "No matching TCB level" in said:
            assert claims.tcb.status is missing
        checked += 1
    assert checked >= 15
    assert refused >= 2


@pytest.mark.parametrize("name", [name for name, verdict in FILES.items() if verdict == QUOTE])
def test_quotes_round_trip_and_carry_two_good_signatures(folder: Path, name: str) -> None:
    """Of the quoting enclave's report and of the quote; collateral is not at hand for each."""
    data = quote(folder, f"tdx/{name}")
    parsed, _ = parse(data)
    assert parsed.to_bytes() == data
    platform.check_signature(parsed, VerificationCache())
    leaf = certs.read_chain(parsed.certification.cert_data, name)[0]
    own = parsed.certification
    ecdsa.verify(certs.verifying_key(leaf), own.qe_report_signature, own.qe_report, name)


def test_the_platform_with_a_module_out_of_date(folder: Path) -> None:
    row = next(row for row in rows(folder) if row["quote"].startswith("azure"))
    claims = verify(folder, row)
    assert claims.tcb.status is TcbStatus.OUT_OF_DATE
    assert not claims.report.td_attributes & SEPT_VE_DISABLE
    # All 16 components compared naively give no level at all.
    assert row["tdx_level_naive16"] is None


def test_a_debug_td(folder: Path) -> None:
    claims = verify(folder, next(row for row in rows(folder) if row["debug"]))
    assert claims.debug
    assert "DEBUG" in claims.details["td_attribute_names"]


def test_padding_of_zeros_and_no_other(folder: Path) -> None:
    made = endorsements(folder, B0C0)
    data = quote(folder, "tdx/phala_tdx_quote.bin")
    parsed, _ = parse(data)
    assert parsed.padding == 70
    for tail in (b"", bytes(70), bytes(3065)):
        VERIFIER.verify(data[:-70] + tail, made, at=JUNE)
    for tail in (b"\1", bytes(69) + b"\1"):
        with pytest.raises(DecodeError, match="not zero"):
            VERIFIER.verify(data[:-70] + tail, made, at=JUNE)


def test_text_after_a_genuine_quote(folder: Path) -> None:
    data = (folder / "tdx/go-tdx-guest/tdx_prod_quote_SPR_E4.dat").read_bytes()
    assert data.endswith(EXTRA)
    with pytest.raises(DecodeError, match="not zero"):
        parse(data)


def test_every_signed_bit_counts(folder: Path) -> None:
    made = endorsements(folder, B0C0)
    data = quote(folder, "tdx/phala_tdx_quote.bin")
    for offset in range(0, 48 + 584, 5):
        bent = bytearray(data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), made, at=JUNE)


def test_a_bundle_as_it_was_published(folder: Path) -> None:
    made = endorsements(folder, "tdx/phala_tdx_quote_collateral.json")
    claims = VERIFIER.verify(quote(folder, "tdx/phala_tdx_quote.bin"), made, at=JUNE)
    assert claims.tcb.status is TcbStatus.UP_TO_DATE
    assert claims.details["fmspc"] == "b0c06f000000"


@pytest.mark.parametrize("name", [name for name, verdict in FILES.items() if verdict == REPORT])
def test_a_tdreport_is_no_quote(folder: Path, name: str) -> None:
    """It is authenticated by a key that never leaves the processor."""
    with pytest.raises(DecodeError):
        parse(quote(folder, f"tdx/{name}"))


def test_intels_sample_is_refused(folder: Path) -> None:
    for collateral in sorted(COMPOSITE - {"EXPECTED.json", "README.md"}):
        with pytest.raises(BrochError):
            VERIFIER.verify(
                quote(folder, "tdx/intel-qvl-sample/quote.dat"),
                endorsements(folder, f"composite/{collateral}"),
                at=JUNE,
            )


def test_sgx_quotes_are_no_td_quotes(folder: Path) -> None:
    with pytest.raises(DecodeError, match="version 3"):
        parse(quote(folder, "sgx/phala_sgx_quote.bin"))
    data, _ = parse(quote(folder, "sgx/automata/quote_tdx.bin"))
    assert data.header.version == 4
