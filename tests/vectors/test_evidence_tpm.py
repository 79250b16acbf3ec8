"""TPMs of others, and Azure's under SEV-SNP and TDX. Every file there has a verdict here."""

import base64
import hashlib
import json
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from broch.errors import UndecidedError, UntrustedError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements
from broch.tee.dcap import certs, ecdsa, platform
from broch.tee.dcap.collateral import items_from_json
from broch.tee.snp import VERIFIER as SNP_VERIFIER
from broch.tee.tdx import VERIFIER as TDX_VERIFIER
from broch.tee.tdx.verify import parse
from broch.tee.tpm import VERIFIER
from broch.tee.tpm.attest import Attest
from broch.tee.tpm.certify import check_certified
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.hcl import SNP, TDX, HclReport
from broch.tee.tpm.reader import sized
from broch.tee.tpm.verify import TpmClaims
from broch.wire import cbor
from broch.wire.x509 import to_der

AT: Final = datetime(2026, 3, 1, tzinfo=UTC)
SHA256: Final = 0x000B
TPM_FILES: Final = {
    "README.md": "text",
    "services/corim-enacttrust-valid.cbor": "endorsements",
    "services/corim-parsec-tpm-valid.cbor": "endorsements",
    "services/enacttrust-basic-key.pem": "a private key",
    "services/parsec-tpm-evidence.cbor": "authentic: a certification and a quote",
    "trustee/tpm_evidence.json": "authentic under its key, which must be enrolled",
}
AZURE_FILES: Final = {
    "README.md": "text",
    "az_snp/evidence-v1.json": "bundle",
    "az_snp/hcl-report.bin": "HCL report",
    "az_snp/imds-chain-0.der": "ASK",
    "az_snp/imds-chain-1.der": "ARK",
    "az_snp/imds-vcek.der": "VCEK of live-evidence.json",
    "az_snp/live-evidence.json": "bundle",
    "az_snp/quote.bin": "quote with registers",
    "az_snp/tpm-quote.msg": "quote without registers or key: refused",
    "az_snp/tpm-quote.sig": "its signature",
    "az_snp/vcek.pem": "VCEK chain",
    "az_tdx/evidence-v1.json": "bundle",
    "az_tdx/hcl-report.bin": "HCL report",
    "az_tdx/live-evidence.json": "bundle",
    "az_tdx/quote.bin": "quote with registers",
    "az_tdx/td-quote.bin": "TD quote",
    "az_tdx/tpm-quote-v1.json": "quote with registers",
}
BUNDLES: Final = [name for name, verdict in AZURE_FILES.items() if verdict == "bundle"]


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_file_has_a_verdict(folder: Path) -> None:
    assert names(folder / "tpm") == TPM_FILES.keys()
    assert names(folder / "azure-cvm") == AZURE_FILES.keys()


def url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def rsassa(raw: bytes) -> bytes:
    """TPMT_SIGNATURE of what Azure hands out without its head."""
    return b"\x00\x14\x00\x0b" + sized(raw)


def verify(evidence: Evidence, key: bytes) -> TpmClaims:
    made = Endorsements(anchors=(), items={"attestation_key": key})
    return VERIFIER.verify(evidence.to_bytes(), made, at=AT)


def evidence_of(message: bytes, signature: bytes, pcrs: dict[int, bytes]) -> Evidence:
    """All 24 registers come with each bundle; the quote's own selection is taken of them."""
    bitmap = message[message.index(b"\x00\x00\x00\x01\x00\x0b\x03") + 7 :][:3]
    bits = int.from_bytes(bitmap, "little")
    chosen = {index: value for index, value in pcrs.items() if bits >> index & 1}
    return Evidence(attest=message, signature=signature, pcrs={SHA256: chosen})


def from_json(quote: dict[str, Any]) -> Evidence:
    values = [bytes.fromhex(value) for value in quote["pcrs"]]
    return evidence_of(
        bytes.fromhex(quote["message"]),
        rsassa(bytes.fromhex(quote["signature"])),
        dict(enumerate(values)),
    )


def from_binary(data: bytes) -> Evidence:
    """Lengths (8 bytes, little-endian) in front of signature, message and registers."""
    parts: list[bytes] = []
    offset = 0
    for _ in range(2):
        (size,) = struct.unpack_from("<Q", data, offset)
        parts.append(data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    (count,) = struct.unpack_from("<Q", data, offset)
    offset += 8
    assert len(data) == offset + 32 * count
    values = {i: data[offset + 32 * i : offset + 32 * (i + 1)] for i in range(count)}
    return evidence_of(parts[1], rsassa(parts[0]), values)


# Azure, SEV-SNP


def snp_report_data(folder: Path, hcl: HclReport, vcek: bytes) -> bytes:
    """Verify the hardware report under its VCEK; the product is the one whose chain fits."""
    problems: list[Exception] = []
    for product in ("milan", "genoa", "turin"):
        certificates = folder / "snp" / "attestation-rs"
        made = Endorsements(
            anchors=((certificates / f"{product}_ark.der").read_bytes(),),
            items={
                "vek": vcek,
                "ask": (certificates / f"{product}_ask.der").read_bytes(),
                "unsafe_no_crl": b"",
            },
        )
        try:
            return SNP_VERIFIER.verify(hcl.hardware, made, at=AT).report_data
        except UntrustedError as exc:
            problems.append(exc)
    raise AssertionError(problems)


@pytest.mark.parametrize("name", [name for name in BUNDLES if "snp" in name])
def test_azure_on_snp(folder: Path, name: str) -> None:
    bundle = json.loads((folder / "azure-cvm" / name).read_text())["evidence"]
    hcl = HclReport.from_bytes(url(bundle["hcl_report"]))
    assert hcl.report_type == SNP
    key = hcl.bound_key(snp_report_data(folder, hcl, url(bundle["vcek"])))
    found = from_json(bundle["tpm_quote"])
    claims = verify(found, key)
    assert claims.report_data
    assert claims.details["sha256:0"] == bundle["tpm_quote"]["pcrs"][0]
    broken(found, key)


def broken(found: Evidence, key: bytes) -> None:
    """One register, one bit of the quote, and the key, each alone."""
    values = dict(found.pcrs[SHA256])
    index = min(values)
    bent = replace(found, pcrs={SHA256: {**values, index: bytes(32)}})
    with pytest.raises(UntrustedError, match="not those that the TPM has digested"):
        verify(bent, key)
    with pytest.raises(UntrustedError, match="not exactly those"):
        verify(replace(found, pcrs={SHA256: {**values, 23: bytes(32), 31: bytes(32)}}), key)
    attest = found.attest[:-1] + bytes((found.attest[-1] ^ 1,))
    with pytest.raises(UntrustedError, match="signature does not hold"):
        verify(replace(found, attest=attest), key)


def test_azure_on_snp_from_files(folder: Path) -> None:
    az = folder / "azure-cvm" / "az_snp"
    data = (az / "hcl-report.bin").read_bytes()
    hcl = HclReport.from_bytes(data)
    assert hcl.to_bytes() == data
    pem = re.findall(rb"-----BEGIN.*?-----END CERT\w+-----", (az / "vcek.pem").read_bytes(), re.S)
    key = hcl.bound_key(snp_report_data(folder, hcl, to_der(pem[0], "vcek")))
    claims = verify(from_binary((az / "quote.bin").read_bytes()), key)
    assert claims.report_data
    # This quote is of a TPM whose key is not there.
    alone = Evidence(
        attest=(az / "tpm-quote.msg").read_bytes(),
        signature=rsassa((az / "tpm-quote.sig").read_bytes()),
        pcrs={},
    )
    assert Attest.from_bytes(alone.attest).extra_data == b"challenge"
    with pytest.raises(UntrustedError, match="signature does not hold"):
        verify(alone, key)


def test_a_hardware_report_of_another_machine(folder: Path) -> None:
    """Its key is bound by its own report and by no other."""
    az = folder / "azure-cvm"
    first, second = (
        json.loads((az / name).read_text())["evidence"] for name in BUNDLES if "snp" in name
    )
    proved = snp_report_data(
        folder, HclReport.from_bytes(url(first["hcl_report"])), url(first["vcek"])
    )
    with pytest.raises(UntrustedError, match="does not bind"):
        HclReport.from_bytes(url(second["hcl_report"])).bound_key(proved)


# Azure, TDX


def tdx_report_data(folder: Path, quote: bytes) -> bytes:
    """Verify the quote where its collateral is at hand, else its signatures alone."""
    parsed, report = parse(quote)
    leaf = certs.read_chain(parsed.certification.cert_data, "chain")[0]
    certification = parsed.certification
    ecdsa.verify(
        certs.verifying_key(leaf), certification.qe_report_signature, certification.qe_report, "QE"
    )
    platform.check_signature(parsed, VerificationCache())
    if quote == (folder / "azure-cvm/az_tdx/td-quote.bin").read_bytes():
        collateral = (folder / "composite/tdx_2025-10_00806F050000.json").read_bytes()
        made = Endorsements(
            anchors=((folder / "sgx" / "intel_sgx_root_ca.der").read_bytes(),),
            items=items_from_json(collateral),
        )
        at = datetime(2025, 10, 25, tzinfo=UTC)
        assert TDX_VERIFIER.verify(quote, made, at=at).report_data == report.report_data
    return report.report_data


@pytest.mark.parametrize("name", [name for name in BUNDLES if "tdx" in name])
def test_azure_on_tdx(folder: Path, name: str) -> None:
    bundle = json.loads((folder / "azure-cvm" / name).read_text())
    bundle = bundle.get("evidence", bundle)
    hcl = HclReport.from_bytes(url(bundle["hcl_report"]))
    assert hcl.report_type == TDX
    key = hcl.bound_key(tdx_report_data(folder, url(bundle["td_quote"])))
    found = from_json(bundle["tpm_quote"])
    verify(found, key)
    broken(found, key)


def test_azure_on_tdx_from_files(folder: Path) -> None:
    az = folder / "azure-cvm" / "az_tdx"
    hcl = HclReport.from_bytes((az / "hcl-report.bin").read_bytes())
    key = hcl.bound_key(tdx_report_data(folder, (az / "td-quote.bin").read_bytes()))
    verify(from_binary((az / "quote.bin").read_bytes()), key)
    verify(from_json(json.loads((az / "tpm-quote-v1.json").read_text())), key)


# Others


def test_a_key_that_must_be_enrolled(folder: Path) -> None:
    bundle = json.loads((folder / "tpm" / "trustee" / "tpm_evidence.json").read_text())
    quote = bundle["tpm_quote"]
    found = evidence_of(
        base64.b64decode(quote["message"]),
        base64.b64decode(quote["signature"]),
        {index: bytes.fromhex(value) for index, value in enumerate(quote["pcrs"])},
    )
    claims = verify(found, base64.b64decode(bundle["ak_public"]))
    assert claims.details["endorsed_by"] == "attestation_key"
    with pytest.raises(UndecidedError):
        VERIFIER.verify(found.to_bytes(), Endorsements(anchors=()), at=AT)


def test_parsec(folder: Path) -> None:
    services = folder / "tpm" / "services"
    bundle = cbor.decode((services / "parsec-tpm-evidence.cbor").read_bytes(), what="parsec")
    corim = (services / "corim-parsec-tpm-valid.cbor").read_bytes()
    pem = re.search(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", corim, re.S)
    assert pem
    signer = load_pem_public_key(pem.group())
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    kat, pat = bundle["kat"], bundle["pat"]
    nonce = bytes.fromhex("deadbeefdeadbeef")
    key = check_certified(
        kat["certInfo"], kat["sig"], signer=signer, public=kat["pubArea"], qualifying=nonce
    )
    assert key.to_bytes() == kat["pubArea"]
    found = evidence_of(pat["attestInfo"], pat["sig"], dict.fromkeys(range(3), bytes(32)))
    assert hashlib.sha256(bytes(96)).digest() in found.attest
    claims = verify(found, signer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert claims.report_data == nonce
    load_der_public_key(signer.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
