"""All evidence that others made, in one walk: every file has a verdict, every row comes true.

What each verdict means is tested in the module of its hardware (``test_evidence_*``,
``test_sgx_vectors``, ``test_keystone_vectors``), which names its files in a table. Here: no folder
and no file is outside of the tables; every row of ``composite/EXPECTED.json`` comes true, and the
other verifier, where it is installed, still says what is written there; no file is believed by a
verifier of other hardware, or by its own without endorsements.
"""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import dcap_qvl
import pytest
from tests.vectors.test_evidence_cca import FILES as CCA
from tests.vectors.test_evidence_nitro import FILES as NITRO
from tests.vectors.test_evidence_psa import FILES as PSA
from tests.vectors.test_evidence_snp import FILES as SNP
from tests.vectors.test_evidence_tdx import COMPOSITE, EXTRA
from tests.vectors.test_evidence_tdx import FILES as TDX
from tests.vectors.test_evidence_tpm import AZURE_FILES, TPM_FILES

from broch.errors import BrochError, UntrustedError
from broch.tee import registry
from broch.tee.contract import Claims, Endorsements
from broch.tee.dcap import platform
from broch.tee.dcap.collateral import items_from_json
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx.verify import SgxClaims
from broch.tee.sgx.verify import verify as verify_sgx
from broch.tee.tdx.verify import TdxClaims
from broch.tee.tdx.verify import verify as verify_tdx

QVL: Final = "synthetic, of another root: refused"
CERT: Final = "a certificate or list of Intel's"
SGX: Final = {
    "README.md": "text",
    "automata/intel_root_ca_crl.der": CERT,
    "automata/pck.der": CERT,
    "automata/pck_platform_crl.der": CERT,
    "automata/platform.der": CERT,
    "automata/quote_sgx.bin": "authentic: a debug enclave",
    "automata/quote_tdx.bin": "a TD quote",
    "automata/root.der": CERT,
    "automata/sample_quotes.hex": "quotes to parse",
    "automata/signing.der": CERT,
    **{
        f"intel-qvl-sample/{name}": QVL
        for name in (
            "intermediateCaCrl.der",
            "pckCert.pem",
            "pckSignChain.pem",
            "qeIdentity.json",
            "quote.dat",
            "rootCaCrl.der",
            "tcbInfo.json",
            "tcbSignChain.pem",
            "trustedRootCaCert.pem",
        )
    },
    "intel_sgx_root_ca.der": CERT,
    "phala_sgx_quote.bin": "authentic",
    "phala_sgx_quote_collateral.json": "its collateral",
}
KEYSTONE: Final = {
    "README.md": "text",
    "keystone_report_testkey.bin": "well signed by the published test key: refused",
    "keystone_report_testkey.json": "what is in it",
}
SANCUS: Final = {
    "README.md": "text",
    "sancus_kat_128.json": "known answers",
    "sancus_kat_64.json": "known answers",
}
TSM: Final = {
    "README.md": "text",
    "corim-sevsnp-valid.cbor": "reference values",
    "sevsnp-tsm-report.cbor": "authentic, in the container of configfs-tsm",
}
VERDICTS: Final[dict[str, dict[str, str]]] = {
    "": {"README.md": "text"},
    "azure-cvm": AZURE_FILES,
    "cca": CCA,
    "composite": dict.fromkeys(COMPOSITE, "collateral, and what to expect"),
    "keystone": KEYSTONE,
    "nitro": NITRO,
    "psa": PSA,
    "sancus": SANCUS,
    "sgx": SGX,
    "snp": SNP,
    "tdx": TDX,
    "tpm": TPM_FILES,
    "tsm": TSM,
}
AT: Final = datetime(2025, 6, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_file_has_a_verdict(folder: Path) -> None:
    expected = {
        f"{place}/{name}".lstrip("/") for place, table in VERDICTS.items() for name in table
    }
    found = {str(path.relative_to(folder)) for path in files(folder)}
    assert found - expected == set(), "files that nobody has given a verdict"
    assert expected - found == set(), "verdicts on files that are not there"


def test_every_verdict_says_something() -> None:
    assert all(verdict for table in VERDICTS.values() for verdict in table.values())


# Every row


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "composite/EXPECTED.json").read_text())
    return found


def quote(folder: Path, name: str) -> bytes:
    """A quote; one file has text after its own, which is refused elsewhere and cut off here."""
    data = (folder / name).read_bytes().removesuffix(EXTRA)
    return bytes.fromhex(data.decode().strip().removeprefix("0x")) if name.endswith("hex") else data


@cache
def endorsements(folder: Path, collateral: str) -> Endorsements:
    return Endorsements(
        anchors=((folder / "sgx/intel_sgx_root_ca.der").read_bytes(),),
        items=items_from_json((folder / collateral).read_bytes()),
    )


def verify(folder: Path, row: dict[str, Any]) -> SgxClaims | TdxClaims:
    data = quote(folder, row["quote"])
    made, at = endorsements(folder, row["collateral"]), datetime.fromisoformat(row["at"])
    if row["quote"].startswith("sgx/"):
        return verify_sgx(data, made, at=at)
    return verify_tdx(data, made, at=at)


def level(status: str | None) -> TcbStatus:
    return TcbStatus(status or TcbStatus.NOT_SUPPORTED)


def check_row(folder: Path, row: dict[str, Any]) -> str:
    """Compare everything that a row says; returns how it went."""
    if row["pck_not_yet_valid"]:
        with pytest.raises(UntrustedError, match=r"PCK Certificate' is not valid before"):
            verify(folder, row)
        return "refused"
    assert not row["pck_revoked"], "no genuine platform here is revoked"
    claims = verify(folder, row)
    assert claims.debug is row["debug"]
    assert not claims.emulated
    if isinstance(claims, SgxClaims):
        assert claims.tcb.platform is level(row["sgx_level"])
        assert claims.tcb.status is level(row["sgx_level"])
        return "SGX"
    found = platform.match_level(claims.platform)
    assert (found.status if found else TcbStatus.NOT_SUPPORTED) is level(row["sgx_level"])
    assert claims.tcb.platform is level(row["tdx_level"])
    # A module of version 0 has no levels of its own.
    assert claims.module.status is level(row["module"] or TcbStatus.UP_TO_DATE)
    # Components 0 and 1 compared too, as they must not be once the module has a version.
    assert naive(claims) is level(row["tdx_level_naive16"])
    return "TDX"


def naive(claims: TdxClaims) -> TcbStatus:
    own, svn = claims.platform.pck, claims.report.tee_tcb_svn
    for candidate in claims.platform.tcb_info.levels:
        pairs = [
            *zip(own.components, candidate.sgx, strict=True),
            *zip(svn, candidate.tdx, strict=True),
            (own.pcesvn, candidate.pcesvn),
        ]
        if all(mine >= theirs for mine, theirs in pairs):
            return candidate.status
    return TcbStatus.NOT_SUPPORTED


def test_every_row_comes_true(folder: Path) -> None:
    outcomes = [check_row(folder, row) for row in rows(folder)]
    assert len(outcomes) >= 19
    assert {"SGX", "TDX", "refused"} == set(outcomes)


def test_every_set_of_collateral_is_in_a_row_or_refused(folder: Path) -> None:
    used = {Path(row["collateral"]).name for row in rows(folder)}
    unused = COMPOSITE - used - {"EXPECTED.json", "README.md"}
    # Genuine collateral of a platform that no quote here comes from.
    assert unused == {"sgx_2025-08_00606A000000.json"}
    for name in unused:
        with pytest.raises(UntrustedError, match=r"pck_crl is not of 'Intel SGX PCK Processor CA'"):
            verify_sgx(
                quote(folder, "sgx/phala_sgx_quote.bin"),
                endorsements(folder, f"composite/{name}"),
                at=datetime(2025, 8, 20, tzinfo=UTC),
            )


def test_the_other_verifier_still_says_so(folder: Path) -> None:
    """And where it gives a status, ours is the same: it converges platform, module and QE too."""
    compared = 0
    for row in rows(folder):
        text = (folder / row["collateral"]).read_text()
        collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
        at = datetime.fromisoformat(row["at"])
        data = quote(folder, row["quote"])
        recorded = str(row["dcap_qvl_claims_only"])
        if recorded.startswith("ERR"):
            with pytest.raises(ValueError):
                dcap_qvl.verify(data, collateral, int(at.timestamp()))
            continue
        assert dcap_qvl.verify(data, collateral, int(at.timestamp())).status == recorded
        assert verify(folder, row).tcb.status == recorded
        compared += 1
    assert compared >= 4


# What no file is


def verifiers() -> list[str]:
    names = [name for name in registry.verifier_names() if name != "sancus"]
    assert len(names) >= 9
    return names


def shapes(path: Path) -> list[bytes]:
    """The bytes of a file, and what it may be the text of."""
    data = path.read_bytes()
    found = [data]
    with suppress(ValueError):
        found.append(bytes.fromhex(data.decode().strip().removeprefix("0x")))
    with suppress(ValueError):
        found.append(base64.b64decode(data))
    return found


def test_no_file_is_believed_without_endorsements(folder: Path) -> None:
    """By any verifier; and all that leaves a verifier is an error of ours."""
    nothing = Endorsements(anchors=())
    tried = 0
    for path in files(folder):
        for data in shapes(path):
            for name in verifiers():
                with pytest.raises(BrochError):
                    registry.find_verifier(name).verify(data, nothing, at=AT)
                tried += 1
    assert tried > 1500


def test_no_file_is_believed_by_the_verifier_of_other_hardware(folder: Path) -> None:
    """Endorsed with all that is at hand: roots, collateral, keys, chains."""
    everything = Endorsements(
        anchors=tuple(
            (folder / name).read_bytes()
            for name in ("sgx/intel_sgx_root_ca.der", "snp/attestation-rs/milan_ark.der")
        ),
        items=items_from_json((folder / "composite/tdx_2025-06_B0C06F000000.json").read_bytes()),
    )
    believed: dict[str, Claims] = {}
    for path in files(folder):
        for data in shapes(path):
            for name in verifiers():
                try:
                    claims = registry.find_verifier(name).verify(data, everything, at=AT)
                except BrochError:
                    continue
                believed[f"{path.relative_to(folder)} by {name}"] = claims
    # One genuine quote's own collateral is among it; its copy with another platform is not.
    assert set(believed) == {
        "tdx/phala_tdx-quote.hex by tdx",
        "tdx/phala_tdx_quote.bin by tdx",
    }
    statuses = {claims.details["tcb_status"] for claims in believed.values()}
    assert statuses == {"UpToDate", "NotSupported"}
