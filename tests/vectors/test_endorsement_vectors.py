"""Endorsements as Intel and AMD really publish them, through services that hand them out again."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.publishers import intel, pem, serve

from broch.attest.endorsements import Store, load, subject, wanted
from broch.attest.endorsements.checks import check
from broch.attest.fetch import Fetcher, Http, IntelPcs, State
from broch.attest.fetch.pcs import signed_member
from broch.errors import UntrustedError
from broch.tee.dcap import platform
from broch.tee.dcap.collateral import NAMES, items_from_json
from broch.tee.sgx import TEE as SGX
from broch.tee.sgx.verify import parse as parse_sgx
from broch.tee.snp.product import Tcb
from broch.tee.snp.vek import Vek
from broch.tee.tdx import VERIFIER as TDX
from broch.tee.tdx.verify import parse as parse_tdx
from broch.wire.x509 import read_certificate, to_der

# Replies of Intel's PCS as they came; which member is signed.
REPLIES: Final = {
    "tdx/automata/1025_tcb_info.json": "tcbInfo",
    "tdx/automata/0625_tcbinfov3_00806f050000.json": "tcbInfo",
    "tdx/automata/0625_tcbinfov3_90C06F000000.json": "tcbInfo",
    "tdx/automata/0825_sgx_tcbinfov3_00606a000000.json": "tcbInfo",
    "tdx/go-tdx-guest/sample_tcbInfo_response": "tcbInfo",
    "tdx/go-tdx-guest/sample_tcbinfo_response_v5": "tcbInfo",
    "tdx/automata/1025_identity.json": "enclaveIdentity",
    "tdx/automata/0625_qe_td.json": "enclaveIdentity",
    "tdx/automata/0825_sgx_qeidentity_v4.json": "enclaveIdentity",
    "tdx/go-tdx-guest/sample_qeIdentity_response": "enclaveIdentity",
}
# Quote, collateral, when, TEE, FMSPC in the collateral's name.
QUOTES: Final = [
    ("sgx/phala_sgx_quote.bin", "sgx_2025-06_00A067110000", datetime(2025, 6, 25, tzinfo=UTC)),
    ("tdx/phala_tdx_quote.bin", "tdx_2025-06_B0C06F000000", datetime(2025, 6, 25, tzinfo=UTC)),
]
VEKS: Final = {
    "attestation-rs/live-vcek-genoa.der": "genoa",
    "attestation-rs/test-vcek.der": "milan",
    "go-sev-guest/vcek.testcer": "milan",
    "microsoft/milan_vcek.pem": "milan",
}


@pytest.fixture(scope="module")
def evidence(vectors: Path) -> Path:
    return vectors / "evidence"


def signing_chains(evidence: Path) -> list[bytes]:
    """Intel's TCB signing certificate with its root: the one of 2018 and that of 2025."""
    old = evidence / "tdx" / "go-tdx-guest" / "tcb_signing_chain_2018-2025.pem"
    new = evidence / "tdx" / "attestation-rs" / "tcb_signing_chain.pem"
    return [old.read_bytes(), new.read_bytes()]


@pytest.mark.parametrize("name", REPLIES)
def test_what_is_cut_out_of_a_reply_is_what_intel_signed(evidence: Path, name: str) -> None:
    body, member = (evidence / name).read_bytes(), REPLIES[name]
    document, signature = signed_member(body, member, name)
    inner: dict[str, Any] = json.loads(document)
    if member == "tcbInfo":
        about, prefix = f"dcap.tcb.{inner['id'].lower()}.{inner['fmspc'].lower()}", "tcb_info"
    else:
        about = "dcap.qe." + {"QE": "sgx", "TD_QE": "tdx"}[inner["id"]]
        prefix = "qe_identity"
    accepted = 0
    for chain in signing_chains(evidence):
        items = {
            prefix: document,
            f"{prefix}_signature": signature,
            f"{prefix}_issuer_chain": chain,
        }
        with suppress(UntrustedError):
            check(subject.Subject.of(about), items)
            accepted += 1
        # Written anew, it is not what was signed.
        again = {**items, prefix: json.dumps(inner).encode()}
        with pytest.raises(UntrustedError, match="signature"):
            check(subject.Subject.of(about), again)
    assert accepted, "under one of Intel's two signing certificates"


@pytest.mark.parametrize("hexadecimal", [False, True], ids=["PCS", "PCCS"])
@pytest.mark.parametrize(("quote", "collateral", "at"), QUOTES)
def test_genuine_collateral_from_service_to_claims(
    evidence: Path, tmp_path: Path, quote: str, collateral: str, at: datetime, hexadecimal: bool
) -> None:
    """Nobody's word but Intel's: no anchor is given anywhere."""
    data = (evidence / quote).read_bytes()
    items = items_from_json((evidence / "composite" / f"{collateral}.json").read_bytes())
    tee, fmspc = collateral[:3], collateral[-12:]
    parsed = parse_sgx(data) if tee == "sgx" else parse_tdx(data)[0]
    chain = platform.pck_chain(parsed.certification).rstrip(b"\0")
    store = Store.create(tmp_path / "store")
    answers = intel(items, chain, fmspc, tee=tee, hexadecimal=hexadecimal)
    with serve(answers) as service, Http() as http:
        fetcher = Fetcher(store, [IntelPcs(http, service.base)], now=lambda: at)
        outcomes = fetcher.fetch_all(wanted(tee, data))
    assert {outcome.state for outcome in outcomes} == {State.FETCHED}
    found = load(store.folder, tee, data)
    assert dict(found.items) == {name: items[name] for name in NAMES}
    claims = (SGX if tee == "sgx" else TDX).verify(data, found, at=at)
    assert not claims.emulated


@pytest.mark.parametrize("name", VEKS)
def test_genuine_keys_of_amd_get_in_and_no_others(evidence: Path, name: str) -> None:
    folder, product = evidence / "snp", VEKS[name]
    vek = to_der((folder / name).read_bytes(), name)
    ask, ark = (
        to_der((folder / "attestation-rs" / f"{product}_{role}.der").read_bytes(), role)
        for role in ("ask", "ark")
    )
    read = Vek.from_certificate(read_certificate(vek, name))
    assert read.hwid is not None
    tcb = read.tcb.to_bytes(read.product)
    about = subject.snp_vek(product, read.hwid, tcb)
    items = {"vek": vek, "ask": ask, "ark": ark}
    dates = check(about, items)
    assert dates.issued < dates.until
    other = Tcb.from_bytes(tcb, read.product, "test")
    wrong = bytes((other.boot_loader + 1, *tcb[1:]))
    with pytest.raises(UntrustedError, match="another chip or TCB"):
        check(subject.snp_vek(product, read.hwid, wrong), items)
    with pytest.raises(UntrustedError):
        check(about, {**items, "ark": ask, "ask": ark})
    for asvk in (f"{product}_asvk.der",):
        der = (folder / "attestation-rs" / asvk).read_bytes()
        with pytest.raises(UntrustedError, match="is not 'SEV-"):
            check(about, {**items, "ask": to_der(der, asvk)})


def test_chains_are_as_amd_gives_them(evidence: Path) -> None:
    """ASK first, then ARK: the order that the client relies on."""
    for product in ("milan", "genoa"):
        body = (evidence / "snp" / "go-sev-guest" / f"ask_ark_{product}.pem").read_bytes()
        ask, ark = x509.load_pem_x509_certificates(body)
        assert ask.issuer == ark.subject == ark.issuer
        assert pem(ark.public_bytes(Encoding.DER)) in body.replace(b"\r\n", b"\n")
