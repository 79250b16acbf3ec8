"""SEV-SNP against reports and certificates of real processors. Every file there has a verdict here.

No revocation list is among them, so going without one is asked for by name.
"""

import base64
import hashlib
import json
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.snp import VERIFIER, cert_table
from broch.tee.snp.product import ARKS, Product
from broch.tee.snp.report import Report, SigningKey
from broch.tee.snp.vek import Vek
from broch.tee.snp.verify import SnpClaims
from broch.wire import cbor
from broch.wire.x509 import read_certificate, to_der

AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
VLEK_AT: Final = datetime(2025, 6, 1, tzinfo=UTC)
CHAIN: Final = "an AMD root or intermediate"
# File -> verdict. Reports are named with their key and time below.
FILES: Final = {
    "README.md": "text",
    **{
        f"attestation-rs/{product}_{role}.der": CHAIN
        for product in ("milan", "genoa", "turin")
        for role in ("ark", "ask", "asvk")
    },
    "attestation-rs/live-evidence-genoa.json": "authentic, as JSON",
    "attestation-rs/live-report-v5-genoa.bin": "authentic",
    "attestation-rs/live-vcek-genoa.der": "VCEK",
    "attestation-rs/test-report.bin": "authentic",
    "attestation-rs/test-vcek.der": "VCEK",
    "attestation-rs/test-vcek-invalid-legacy.der": "not the report's key",
    "attestation-rs/test-vcek-invalid-new.der": "not the report's key",
    "attestation-rs/test-vlek-report.bin": "authentic",
    "attestation-rs/test-vlek.der": "VLEK",
    "go-sev-guest/ask_ark_genoa.pem": CHAIN,
    "go-sev-guest/ask_ark_genoa_vlek.pem": CHAIN,
    "go-sev-guest/ask_ark_milan.pem": CHAIN,
    "go-sev-guest/ask_ark_milan_vlek.pem": CHAIN,
    "go-sev-guest/ask_ark_turin_vcek.pem": CHAIN,
    "go-sev-guest/ask_ark_turin_vlek.pem": CHAIN,
    "go-sev-guest/milan.testcer": CHAIN,
    "go-sev-guest/milanvlek.testcer": CHAIN,
    "go-sev-guest/attestation.bin": "authentic",
    "go-sev-guest/vcek.testcer": "VCEK",
    **{
        f"microsoft/{product}_{role}.pem": CHAIN
        for product in ("milan", "genoa", "turin")
        for role in ("ark", "ask")
    },
    "microsoft/milan_attestation_report.bin": "authentic",
    "microsoft/milan_vcek.pem": "VCEK",
    **{f"trustee/{product}_ask_ark_asvk.pem": CHAIN for product in ("milan", "genoa", "turin")},
}
REPORTS: Final = {  # report -> key, issuer, root, time
    "attestation-rs/live-report-v5-genoa.bin": ("attestation-rs/live-vcek-genoa.der", "genoa", AT),
    "attestation-rs/test-report.bin": ("attestation-rs/test-vcek.der", "milan", AT),
    "attestation-rs/test-vlek-report.bin": ("attestation-rs/test-vlek.der", "milan", VLEK_AT),
    "go-sev-guest/attestation.bin": ("go-sev-guest/vcek.testcer", "milan", AT),
    "microsoft/milan_attestation_report.bin": ("microsoft/milan_vcek.pem", "milan", AT),
}


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence" / "snp"


def ders(data: bytes) -> list[bytes]:
    """Certificates of a file, PEM or DER."""
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", data, re.DOTALL)
    return [base64.b64decode(block) for block in blocks] or [data]


def endorsements(folder: Path, key: str, product: str) -> Endorsements:
    vek = ders((folder / key).read_bytes())[0]
    vlek = Vek.from_certificate(read_certificate(vek, key)).kind is SigningKey.VLEK
    return Endorsements(
        anchors=((folder / f"attestation-rs/{product}_ark.der").read_bytes(),),
        items={
            "vek": vek,
            "ask": (
                folder / f"attestation-rs/{product}_{'asvk' if vlek else 'ask'}.der"
            ).read_bytes(),
            "unsafe_no_crl": b"",
        },
    )


def verify(folder: Path, report: str) -> SnpClaims:
    key, product, at = REPORTS[report]
    made = endorsements(folder, key, product)
    return VERIFIER.verify((folder / report).read_bytes(), made, at=at)


def test_every_file_has_a_verdict(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == FILES.keys()
    assert {name for name, verdict in FILES.items() if verdict == "authentic"} == REPORTS.keys()


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_reports(folder: Path, name: str) -> None:
    claims = verify(folder, name)
    data = (folder / name).read_bytes()
    assert Report.from_bytes(data).to_bytes() == data
    assert not claims.emulated
    assert claims.debug is (name == "go-sev-guest/attestation.bin")
    assert claims.details["revocation"] == "not checked"


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_without_a_revocation_list_nothing_is_decided(folder: Path, name: str) -> None:
    key, product, at = REPORTS[name]
    made = endorsements(folder, key, product)
    items = {item: value for item, value in made.items.items() if item != "unsafe_no_crl"}
    with pytest.raises(UndecidedError, match="lack crl"):
        VERIFIER.verify(
            (folder / name).read_bytes(), Endorsements(anchors=made.anchors, items=items), at=at
        )


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_signed_bit_of_a_genuine_report_counts(folder: Path, name: str) -> None:
    key, product, at = REPORTS[name]
    made, data = endorsements(folder, key, product), (folder / name).read_bytes()
    for offset in range(0, 672, 7):
        bent = bytearray(data)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), made, at=at)


@pytest.mark.parametrize("name", [n for n, v in FILES.items() if v == "not the report's key"])
def test_keys_of_others(folder: Path, name: str) -> None:
    """Certificates whose chip was changed: neither AMD's signature holds nor does anything else."""
    report = (folder / "attestation-rs/test-report.bin").read_bytes()
    with pytest.raises(UntrustedError):
        VERIFIER.verify(report, endorsements(folder, name, "milan"), at=AT)


def test_no_key_fits_another_report(folder: Path) -> None:
    for report in REPORTS:
        for other, (key, product, at) in REPORTS.items():
            if other != report:
                with pytest.raises(UntrustedError):
                    VERIFIER.verify(
                        (folder / report).read_bytes(), endorsements(folder, key, product), at=at
                    )


def test_the_pins_are_amds_roots(folder: Path) -> None:
    """Four sources hold the same three."""
    found: dict[str, set[bytes]] = {}
    for name, verdict in FILES.items():
        if verdict == CHAIN:
            for der in ders((folder / name).read_bytes()):
                cert = read_certificate(der, name)
                if cert.name.startswith("ARK-"):
                    found.setdefault(cert.name, set()).add(hashlib.sha256(der).digest())
    assert found == {f"ARK-{product}": {digest} for digest, product in ARKS.items()}


def test_reported_below_current(folder: Path) -> None:
    claims = verify(folder, "attestation-rs/test-report.bin")
    assert claims.reported_tcb.microcode == 0x73
    assert claims.current_tcb.microcode == 0xCE
    assert claims.platform.vek.tcb == claims.reported_tcb


def test_a_vlek_has_expired_since(folder: Path) -> None:
    claims = verify(folder, "attestation-rs/test-vlek-report.bin")
    assert claims.details["csp_id"] == "CN=cc-us-east-2.amazonaws.com"
    assert claims.details["vmpl"] == "1"
    made = endorsements(folder, "attestation-rs/test-vlek.der", "milan")
    report = (folder / "attestation-rs/test-vlek-report.bin").read_bytes()
    with pytest.raises(UntrustedError, match="'SEV-VLEK' has expired"):
        VERIFIER.verify(report, made, at=AT)


def test_a_report_of_genoa_has_its_text(folder: Path) -> None:
    claims = verify(folder, "attestation-rs/live-report-v5-genoa.bin")
    assert claims.product is Product.GENOA
    assert claims.report_data.rstrip(b"\0") == b"hello-attestation"
    assert claims.report.launch_mit_vector == 11


def test_evidence_as_json(folder: Path) -> None:
    text = (folder / "attestation-rs/live-evidence-genoa.json").read_text()
    evidence = json.loads(text)["evidence"]
    made = endorsements(folder, "attestation-rs/live-vcek-genoa.der", "genoa")
    vek = base64.b64decode(evidence["cert_chain"]["vcek"])
    items = {**made.items, "vek": vek}
    report = base64.b64decode(evidence["attestation_report"])
    claims = VERIFIER.verify(report, Endorsements(anchors=made.anchors, items=items), at=AT)
    assert claims.report_data.rstrip(b"\0") == b"genoa-test-fixture"


def test_certificates_are_read_as_the_library_reads_them(folder: Path) -> None:
    """The copy with another serial number changes nothing that is used."""
    for name in FILES:
        if FILES[name].startswith(("an AMD", "VCEK", "VLEK", "not the")):
            for der in ders((folder / name).read_bytes()):
                mine = read_certificate(der, name)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    theirs = x509.load_der_x509_certificate(der)
                    assert mine.serial == theirs.serial_number
                assert mine.tbs == theirs.tbs_certificate_bytes
                assert mine.signature == theirs.signature
                assert mine.der == theirs.public_bytes(Encoding.DER)
                assert mine.subject == theirs.subject.public_bytes()


def test_a_bundle_of_configfs_tsm(vectors: Path) -> None:
    """A report with the host's certificate table, from Linux."""
    tsm = vectors / "evidence" / "tsm"
    assert {path.name for path in tsm.iterdir()} == {
        "README.md",
        "corim-sevsnp-valid.cbor",  # reference values, not evidence
        "sevsnp-tsm-report.cbor",
    }
    bundle = cbor.decode((tsm / "sevsnp-tsm-report.cbor").read_bytes(), what="bundle")
    table = cert_table.read(bundle["auxblob"])
    items = {**cert_table.items(bundle["auxblob"]), "unsafe_no_crl": b""}
    made = Endorsements(anchors=(to_der(table[cert_table.ARK], "ARK"),), items=items)
    claims = VERIFIER.verify(bundle["outblob"], made, at=AT)
    assert not claims.emulated
    assert claims.report.version == 3
