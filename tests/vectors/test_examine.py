"""Both questions at once, over everything that others recorded: what is it, and is it accepted?

What each verifier says of each file is tested beside this; here the whole way is gone that
``broch verify`` goes, with endorsements from a folder and policies from text.
"""

import json
import re
import shutil
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from broch.attest import formats
from broch.attest.checks import Outcome
from broch.attest.endorsements import load
from broch.attest.inspection import taken_apart
from broch.attest.policy_file import from_toml
from broch.attest.result import Result, Status, examine
from broch.errors import BrochError, DecodeError
from broch.tee.contract import Endorsements

# File -> what it is evidence of. Every other file is refused as evidence.
KINDS: Final = {
    "azure-cvm/az_snp/evidence-v1.json": "snp, Azure vTPM",
    "azure-cvm/az_snp/live-evidence.json": "snp, Azure vTPM",
    "azure-cvm/az_tdx/evidence-v1.json": "tdx, Azure vTPM",
    "azure-cvm/az_tdx/live-evidence.json": "tdx, Azure vTPM",
    "azure-cvm/az_tdx/td-quote.bin": "tdx",
    "cca/ccatoken/cca_token.cbor": "cca",
    "cca/services/cca-evidence.cbor": "cca",
    "cca/services/cca-good.cbor": "cca",
    "keystone/keystone_report_testkey.bin": "keystone",
    "nitro/blocky/nitro_attestation.b64": "nitro",
    "nitro/blocky/selfsigned_attestation.b64": "nitro, malformed",
    "psa/psatoken/psa-2_0_0_mac0.bin": "psa",
    "psa/psatoken/psa-2_0_0_sign1.bin": "psa",
    "psa/psatoken/psa-iot-1_mac0.bin": "psa",
    "psa/psatoken/psa-iot-1_sign1.bin": "psa",
    "sgx/automata/quote_sgx.bin": "sgx",
    "sgx/automata/quote_tdx.bin": "tdx",
    "sgx/intel-qvl-sample/quote.dat": "sgx",
    "sgx/phala_sgx_quote.bin": "sgx",
    "snp/attestation-rs/live-evidence-genoa.json": "snp, JSON",
    "snp/attestation-rs/live-report-v5-genoa.bin": "snp",
    "snp/attestation-rs/test-report.bin": "snp",
    "snp/attestation-rs/test-vlek-report.bin": "snp",
    "snp/go-sev-guest/attestation.bin": "snp",
    "snp/microsoft/milan_attestation_report.bin": "snp",
    "tdx/attestation-rs/tdx_quote_4.dat": "tdx",
    "tdx/attestation-rs/tdx_quote_5.dat": "tdx",
    "tdx/go-tdx-guest/quote_v5_sample.dat": "tdx",
    "tdx/go-tdx-guest/tdx_prod_quote_SPR_E4.dat": "tdx, malformed",
    "tdx/intel-qvl-sample/quote.dat": "tdx, malformed",
    "tdx/phala_tdx-quote.hex": "tdx",
    "tdx/phala_tdx_quote.bin": "tdx",
    "tdx/phala_tdx_quote_outdated.bin": "tdx",
    "tdx/trustee/tdx_quote_4.dat": "tdx",
    "tdx/trustee/tdx_quote_5.dat": "tdx",
    "tdx/trustee/tdx_quote_6.dat": "tdx",
    "tsm/sevsnp-tsm-report.cbor": "snp, configfs-tsm",
}
EXTRA: Final = b"\nextra bytes(only for testing purpose)\n"
ANY: Final = "allow_no_nonce = true\n[{}]\nallow_any_measurement = true\n"
SNP_ANY: Final = """
allow_no_nonce = true
allow_no_revocation = true
[snp]
allow_any_measurement = true
allow_any_tcb = true
products = {}
"""
ALL_LINES: Final = '["Milan", "Genoa", "Turin"]'
AT: Final = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "evidence"


def judge(
    data: bytes, endorsements: Path | None, policy: str, at: datetime, nonce: bytes | None = None
) -> Result:
    return examine(
        formats.read(data),
        lambda tee, evidence: load(endorsements, tee, evidence),
        from_toml(policy, "policy.toml"),
        at=at,
        nonce=nonce,
    )


def failures(result: Result) -> list[str]:
    checks = [item for part in result.parts for item in part.checks]
    return [item.rule for item in checks if item.outcome is Outcome.FAILED]


# What it is


def kind(data: bytes) -> str | None:
    try:
        found = formats.read(data)
    except DecodeError:
        return None
    name = ", ".join(filter(None, (found.tee, found.wrapped)))
    try:
        assert taken_apart(found)
    except DecodeError:
        return f"{name}, malformed"
    return name


def test_every_file_is_told_for_what_it_is(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 100
    found = {str(path.relative_to(folder)): kind(path.read_bytes()) for path in files}
    assert {name: what for name, what in found.items() if what is not None} == KINDS


def test_every_file_under_a_policy_that_accepts_all_it_can(folder: Path, tmp_path: Path) -> None:
    """Nothing but our errors, and nothing accepted without endorsements but what needs none."""
    policy = "".join(
        f"[{tee}]\nallow_any_measurement = true\n"
        for tee in ("sgx", "tdx", "nitro", "psa", "tpm", "keystone", "trustzone")
    )
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            code = exit_code(path.read_bytes(), tmp_path, "allow_no_nonce = true\n" + policy)
            assert code in (3, 4, 6), path


def exit_code(data: bytes, endorsements: Path, policy: str) -> int:
    try:
        return judge(data, endorsements, policy, AT).exit_code
    except BrochError as exc:
        return exc.exit_code


# Intel


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "composite/EXPECTED.json").read_text())
    return found


def test_every_row_of_the_table(folder: Path, tmp_path: Path) -> None:
    accepted = 0
    for number, row in enumerate(rows(folder)):
        place = tmp_path / str(number)
        place.mkdir()
        shutil.copy(folder / row["collateral"], place / "collateral.json")
        data = (folder / row["quote"]).read_bytes().removesuffix(EXTRA)
        tee = row["collateral"].split("/")[1][:3]
        at = datetime.fromisoformat(row["at"])
        strict = judge(data, place, ANY.format(tee), at)
        if row["pck_not_yet_valid"]:
            assert strict.status is Status.UNTRUSTED, row
            continue
        level = row["tdx_level" if tee == "tdx" else "sgx_level"]
        good = level == "UpToDate" and row["module"] in (None, "UpToDate")
        bad = failures(strict)
        assert ("tcb_status" in bad) is not good, row
        assert ("debug" in bad) is row["debug"], row
        others = {"tcb_status", "debug", "sept_ve_disable", "mr_service_td"}
        assert set(bad) <= others, row
        assert (strict.status is Status.ACCEPTED) is (not bad), row
        # The other verifier, with its own strict policy, accepts nothing that this one does not.
        if row["dcap_qvl_0_7_0"].startswith("UpToDate"):
            assert strict.status is Status.ACCEPTED, row
        accepted += strict.status is Status.ACCEPTED
    assert accepted >= 3


def test_what_an_old_platform_lacks(folder: Path, tmp_path: Path) -> None:
    """Said component by component, with the level that would do and its date."""
    found = 0
    for row in rows(folder):
        if row["tdx_level"] != "OutOfDate":
            continue
        shutil.copy(folder / row["collateral"], tmp_path / "collateral.json")
        data = (folder / row["quote"]).read_bytes().removesuffix(EXTRA)
        result = judge(data, tmp_path, ANY.format("tdx"), datetime.fromisoformat(row["at"]))
        assert "tcb_status" in failures(result)
        text = "\n".join(result.to_dict()["explanation"])
        assert re.search(r"has SVN \d+, \d+ is needed", text), text
        assert re.search(r"The level of \d{4}-\d\d-\d\d would do \(UpToDate\)", text), text
        found += 1
    assert found


def test_a_genuine_quote_by_its_reference_values(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "composite/sgx_2025-06_00A067110000.json", tmp_path / "collateral.json")
    data = (folder / "sgx/phala_sgx_quote.bin").read_bytes()
    at = datetime(2025, 6, 25, tzinfo=UTC)
    measurement = "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
    policy = (
        'accept_tcb = ["ConfigurationAndSWHardeningNeeded"]\n'
        f'[sgx]\nmeasurements = ["{measurement}"]\n[assertions]\nx = "claims.version >= 0"'
    )
    result = judge(data, tmp_path, policy, at, b"Hello, world!")
    assert result.status is Status.ACCEPTED
    for written in (b64encode(data), data.hex().encode()):
        assert judge(written, tmp_path, policy, at, b"Hello, world!").to_dict() == result.to_dict()
    assert failures(judge(data, tmp_path, policy, at, b"Hello, World!")) == ["nonce"]
    other = policy.replace("33d8", "33d9")
    assert failures(judge(data, tmp_path, other, at, b"Hello, world!")) == ["measurement"]
    strict = policy.replace("accept_tcb", "# ")
    assert failures(judge(data, tmp_path, strict, at, b"Hello, world!")) == ["tcb_status"]
    late = judge(data, tmp_path, policy, datetime(2026, 11, 1, tzinfo=UTC), b"Hello, world!")
    assert late.status is Status.UNTRUSTED
    assert "expired" in str(late.error)
    (tmp_path / "collateral.json").unlink()
    assert judge(data, tmp_path, policy, at).status is Status.UNDECIDED


# AMD


def chips(folder: Path, place: Path, key: str, product: str, issuer: str = "ask") -> Path:
    """A folder with the certificates of one chip."""
    place.mkdir(exist_ok=True)
    source = folder / "snp" / "attestation-rs"
    shutil.copy(source / f"{product}_ark.der", place / "ark.der")
    shutil.copy(source / f"{product}_{issuer}.der", place / "ask.der")
    name = "vek.pem" if b"-----" in (folder / key).read_bytes()[:20] else "vek.der"
    shutil.copy(folder / key, place / name)
    return place


@pytest.mark.parametrize(
    ("report", "key", "product", "issuer", "at", "expected"),
    [
        ("live-report-v5-genoa.bin", "live-vcek-genoa.der", "genoa", "ask", AT, []),
        ("test-report.bin", "test-vcek.der", "milan", "ask", AT, []),
        (
            "test-vlek-report.bin",
            "test-vlek.der",
            "milan",
            "asvk",
            datetime(2025, 6, 1, tzinfo=UTC),
            ["vmpl"],
        ),
        (
            "../go-sev-guest/attestation.bin",
            "../go-sev-guest/vcek.testcer",
            "milan",
            "ask",
            AT,
            ["debug"],
        ),
    ],
)
def test_reports(
    folder: Path,
    tmp_path: Path,
    report: str,
    key: str,
    product: str,
    issuer: str,
    at: datetime,
    expected: list[str],
) -> None:
    place = chips(folder, tmp_path, f"snp/attestation-rs/{key}", product, issuer)
    data = (folder / "snp" / "attestation-rs" / report).read_bytes()
    assert failures(judge(data, place, SNP_ANY.format(ALL_LINES), at)) == expected
    # No Milan: its keys can be extracted.
    few = failures(judge(data, place, SNP_ANY.format('["Genoa", "Turin"]'), at))
    assert ("product_line" in few) is (product == "milan")
    # No list, and the policy does not say that it may be missing.
    strict = SNP_ANY.format(ALL_LINES).replace("allow_no_revocation = true", "")
    assert judge(data, place, strict, at).status is Status.UNDECIDED


def test_a_bundle_of_configfs_tsm(folder: Path) -> None:
    """Its certificates come with it; the root is the caller's."""
    data = (folder / "tsm/sevsnp-tsm-report.cbor").read_bytes()
    found = formats.read(data)
    assert found.items.keys() == {"vek", "ask"}
    certificates = folder / "snp" / "attestation-rs"
    for line, status in (("genoa", Status.ACCEPTED), ("milan", Status.UNTRUSTED)):
        roots = Endorsements(anchors=((certificates / f"{line}_ark.der").read_bytes(),))
        source = partial(given, roots)
        policy = from_toml(SNP_ANY.format(ALL_LINES), "policy.toml")
        result = examine(found, source, policy, at=AT, nonce=None)
        assert result.status is status, result.error


def given(endorsements: Endorsements, tee: str, evidence: bytes) -> Endorsements:
    return endorsements


def test_a_report_as_json_with_its_key(folder: Path, tmp_path: Path) -> None:
    source = folder / "snp" / "attestation-rs"
    for role in ("ark", "ask"):
        shutil.copy(source / f"genoa_{role}.der", tmp_path / f"{role}.der")
    data = (source / "live-evidence-genoa.json").read_bytes()
    result = judge(data, tmp_path, SNP_ANY.format(ALL_LINES), AT, b"genoa-test-fixture")
    assert result.status is Status.ACCEPTED, result.error


# Azure


def bundle(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "azure-cvm" / name).read_text())
    return found


TPM_ANY: Final = "[tpm]\nallow_any_measurement = true\n"
NONCES: Final = {"evidence-v1.json": b"challenge"}


@pytest.mark.parametrize("name", ["evidence-v1.json", "live-evidence.json"])
def test_azure_on_snp(folder: Path, tmp_path: Path, name: str) -> None:
    source = folder / "snp" / "attestation-rs"
    line = "milan" if name == "live-evidence.json" else None
    policy = SNP_ANY.format(ALL_LINES) + TPM_ANY
    data = json.dumps(bundle(folder, f"az_snp/{name}")).encode()
    results = {}
    for product in ("milan", "genoa", "turin") if line is None else (line,):
        shutil.copy(source / f"{product}_ark.der", tmp_path / "ark.der")
        shutil.copy(source / f"{product}_ask.der", tmp_path / "ask.der")
        results[product] = judge(data, tmp_path, policy, AT)
    good = [result for result in results.values() if result.status is Status.ACCEPTED]
    assert len(good) == 1, {name: str(result.error) for name, result in results.items()}
    hardware, tpm = good[0].parts
    assert (hardware.tee, tpm.tee) == ("snp", "tpm")
    whys = {item.rule: item.why for item in hardware.checks}
    assert whys["nonce"] == "binds the vTPM's key, which answers"
    challenge = tpm.claims.report_data  # type: ignore[union-attr]
    strict = policy.replace("allow_no_nonce = true", "")
    if len(challenge) >= 8:
        product = next(name for name, result in results.items() if result is good[0])
        shutil.copy(source / f"{product}_ark.der", tmp_path / "ark.der")
        shutil.copy(source / f"{product}_ask.der", tmp_path / "ask.der")
        assert not failures(judge(data, tmp_path, strict, AT, challenge))
        assert failures(judge(data, tmp_path, strict, AT, b"?" * 8)) == ["nonce"]


def test_azure_on_tdx(folder: Path, tmp_path: Path) -> None:
    at = datetime(2025, 10, 25, tzinfo=UTC)
    shutil.copy(folder / "composite/tdx_2025-10_00806F050000.json", tmp_path / "collateral.json")
    whole = bundle(folder, "az_tdx/evidence-v1.json")
    data = json.dumps(whole).encode()
    strict = judge(data, tmp_path, ANY.format("tdx") + TPM_ANY, at)
    assert [part.tee for part in strict.parts] == ["tdx", "tpm"]
    assert set(failures(strict)) == {"tcb_status", "sept_ve_disable"}
    lax = 'accept_tcb = ["OutOfDate"]\n' + ANY.format("tdx") + "allow_sept_ve = true\n" + TPM_ANY
    assert judge(data, tmp_path, lax, at).status is Status.ACCEPTED
    # Without a word about the vTPM it is not accepted.
    alone = lax.replace(TPM_ANY, "")
    assert "kind" in failures(judge(data, tmp_path, alone, at))
    # Another machine's runtime data, with its quote: sound by itself, bound by nothing.
    other = bundle(folder, "az_tdx/live-evidence.json")
    other = other.get("evidence", other)
    relayed = {**other, "td_quote": whole["evidence"]["td_quote"]}
    result = judge(json.dumps(relayed).encode(), tmp_path, lax, at)
    assert result.status is Status.UNTRUSTED
    assert "does not bind" in str(result.error)


# The others


def test_nitro_on_its_day(folder: Path) -> None:
    data = (folder / "nitro/blocky/nitro_attestation.b64").read_bytes()
    then = datetime(2024, 9, 7, 16, tzinfo=UTC)
    result = judge(data, None, ANY.format("nitro"), then)
    assert result.status is Status.ACCEPTED
    claims: Any = result.parts[0].claims
    assert len(claims.nonce) == 1024
    assert not failures(judge(data, None, ANY.format("nitro"), then, claims.nonce))
    assert failures(judge(data, None, ANY.format("nitro"), then, claims.nonce[:-1])) == ["nonce"]
    assert judge(data, None, ANY.format("nitro"), AT).status is Status.UNTRUSTED


def test_psa_needs_an_enrolled_key(folder: Path, tmp_path: Path) -> None:
    tokens = folder / "psa" / "psatoken"
    data = (tokens / "psa-2_0_0_sign1.bin").read_bytes()
    assert judge(data, tmp_path, ANY.format("psa"), AT).status is Status.UNDECIDED
    shutil.copy(tokens / "public.pem", tmp_path / "attestation_key.pem")
    apart = taken_apart(formats.read(data))["token"]
    for name in ("implementation_id", "instance_id"):
        (tmp_path / f"{name}.hex").write_text(apart[name])
    assert judge(data, tmp_path, ANY.format("psa"), AT).status is Status.ACCEPTED
    nonce = bytes.fromhex(apart["nonce"])
    assert not failures(judge(data, tmp_path, ANY.format("psa"), AT, nonce))
    # Its MAC cannot be checked by anybody without the device's secret.
    mac = (tokens / "psa-2_0_0_mac0.bin").read_bytes()
    assert judge(mac, tmp_path, ANY.format("psa"), AT).status is Status.UNDECIDED


def test_keystones_test_key_is_never_accepted(folder: Path, tmp_path: Path) -> None:
    data = (folder / "keystone/keystone_report_testkey.bin").read_bytes()
    apart = taken_apart(formats.read(data))["report"]
    (tmp_path / "enrolled_device_key.hex").write_text(apart["dev_public_key"])
    (tmp_path / "sm_hash.hex").write_text(apart["sm_hash"])
    result = judge(data, tmp_path, ANY.format("keystone"), AT)
    assert result.status is Status.UNTRUSTED
    assert "test key" in str(result.error)


def test_cca(folder: Path, tmp_path: Path) -> None:
    tokens = folder / "cca" / "ccatoken"
    data = (tokens / "cca_token.cbor").read_bytes()
    apart = taken_apart(formats.read(data))
    pem = (tokens / "cca_platform.pub").read_bytes()
    assert re.match(rb"-----BEGIN PUBLIC KEY", pem)
    (tmp_path / "platform_key.pem").write_bytes(pem)
    for name in ("implementation_id", "instance_id"):
        (tmp_path / f"{name}.hex").write_text(apart["platform"][name])
    firmware = sorted({item["measurement"] for item in apart["platform"]["components"]})
    policy = (
        "allow_no_nonce = true\n[cca]\n"
        f"measurements = ['{apart['realm']['rim']}']\nfirmware = {firmware}"
    )
    assert judge(data, tmp_path, policy, AT).status is Status.ACCEPTED
    fewer = policy.replace(firmware[0], "00" * (len(firmware[0]) // 2))
    assert failures(judge(data, tmp_path, fewer, AT)) == ["firmware"]


def test_written_forms(folder: Path) -> None:
    text = (folder / "nitro/blocky/nitro_attestation.b64").read_bytes()
    assert formats.read(text).data == formats.read(b64decode(text)).data
