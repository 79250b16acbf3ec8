"""Policies in files: what each key becomes, and that a short one is never a lax one."""

from pathlib import Path
from typing import Final

import pytest

from broch.attest import Policy
from broch.attest.policy_file import from_toml, load
from broch.attest.reference import (
    CcaReference,
    PsaReference,
    Reference,
    SgxReference,
    SnpReference,
    TdxReference,
    TpmReference,
)
from broch.errors import MalformedError, UsageError
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.snp.product import Product, Tcb

A32: Final = "aa" * 32
A48: Final = "aa" * 48
A64: Final = "aa" * 64
FULL: Final = f"""
name = "tag:example.org,2026:all"
emulated = true
allow_debug = true
accept_tcb = ["SWHardeningNeeded", "OutOfDate"]
grace_days = 30
reject_advisories = ["INTEL-SA-00615"]
allow_no_nonce = true
allow_no_revocation = true

[sgx]
signers = ["{A32}"]
product_ids = [0, 3]
min_version = 2
min_tcb_evaluation = 17
ppids = ["{"bb" * 16}"]
allow_attributes = ["PROVISIONKEY"]

[tdx]
measurements = ["{A48}"]
mr_seams = ["{A48}"]
service_tds = ["{A48}"]
allow_sept_ve = true
allow_attributes = ["PERFMON"]
[tdx.rtmrs]
1 = ["{A48}"]

[snp]
measurements = ["{A48}"]
signers = ["{A48}"]
products = ["Genoa", "Turin"]
vmpls = [0, 1]
min_version = 1
chip_ids = ["{A64}"]
host_data = ["{A32}"]
require_platform = ["ALIAS_CHECK_COMPLETE"]
allow_migration_agent = true
forbid_smt = true
forbid_cxl = true
require_policy = ["SINGLE_SOCKET", "CIPHERTEXT_HIDING"]
min_abi = "1.55"
author_keys = ["{A48}"]
[snp.min_tcb.Genoa]
boot_loader = 7
tee = 0
snp = 14
microcode = 72
[snp.min_tcb.Turin]
fmc = 1
boot_loader = 1
tee = 1
snp = 1
microcode = 62

[nitro]
measurements = ["{A48}"]
signers = ["{A48}"]
pcrs = {{ 1 = ["{A48}"], 2 = ["{A48}", "{"bb" * 48}"] }}
max_age_seconds = 300

[psa]
firmware = ["{A32}", "{A48}"]
allow_mac = true
client_ids = [-1, 3002]

[cca]
measurements = ["{A32}"]
firmware = ["{A32}"]
rems = {{ 0 = ["{A32}"] }}

[tpm]
pcrs.sha256 = {{ 0 = ["{A32}"] }}
allow_unproved_key = true
allow_unsafe_clock = true

[keystone]
measurements = ["{A64}"]

[trustzone]
measurements = ["{A32}"]

[assertions]
"is small" = "claims.version < 10"
"""


def read(text: str) -> Policy:
    return from_toml(text, "policy.toml")


def refused(text: str) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        read(text)
    assert str(caught.value.place).startswith("policy.toml:")
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_key() -> None:
    policy = read(FULL)
    a32, a48, a64 = (bytes.fromhex(value) for value in (A32, A48, A64))
    assert policy == Policy(
        name="tag:example.org,2026:all",
        emulated=True,
        allow_debug=True,
        accept_tcb=frozenset({TcbStatus.SW_HARDENING_NEEDED, TcbStatus.OUT_OF_DATE}),
        grace_days=30,
        reject_advisories=frozenset({"INTEL-SA-00615"}),
        allow_no_nonce=True,
        allow_no_revocation=True,
        references=policy.references,
        assertions={"is small": "claims.version < 10"},
    )
    found = policy.references
    assert found["sgx"] == SgxReference(
        signers=frozenset({a32}),
        product_ids=frozenset({0, 3}),
        min_version=2,
        min_tcb_evaluation=17,
        ppids=frozenset({b"\xbb" * 16}),
        allow_attributes=frozenset({"PROVISIONKEY"}),
    )
    assert found["tdx"] == TdxReference(
        measurements=frozenset({a48}),
        mr_seams=frozenset({a48}),
        service_tds=frozenset({a48}),
        allow_sept_ve=True,
        allow_attributes=frozenset({"PERFMON"}),
        rtmrs={1: frozenset({a48})},
    )
    assert found["snp"] == SnpReference(
        measurements=frozenset({a48}),
        signers=frozenset({a48}),
        products=frozenset({Product.GENOA, Product.TURIN}),
        vmpls=frozenset({0, 1}),
        min_version=1,
        chip_ids=frozenset({a64}),
        host_data=frozenset({a32}),
        require_platform=frozenset({"ALIAS_CHECK_COMPLETE"}),
        allow_migration_agent=True,
        forbid_smt=True,
        forbid_cxl=True,
        require_policy=frozenset({"SINGLE_SOCKET", "CIPHERTEXT_HIDING"}),
        min_abi=(1, 55),
        author_keys=frozenset({a48}),
        min_tcb={
            Product.GENOA: Tcb(boot_loader=7, tee=0, snp=14, microcode=72),
            Product.TURIN: Tcb(fmc=1, boot_loader=1, tee=1, snp=1, microcode=62),
        },
    )
    assert found["nitro"].pcrs == {  # type: ignore[attr-defined]
        1: frozenset({a48}),
        2: frozenset({a48, b"\xbb" * 48}),
    }
    assert found["nitro"].max_age_seconds == 300  # type: ignore[attr-defined]
    assert found["psa"] == PsaReference(
        firmware=frozenset({a32, a48}), allow_mac=True, client_ids=frozenset({-1, 3002})
    )
    assert found["cca"] == CcaReference(
        measurements=frozenset({a32}),
        firmware=frozenset({a32}),
        rems={0: frozenset({a32})},
    )
    assert found["tpm"] == TpmReference(
        pcrs={"sha256": {0: frozenset({a32})}}, allow_unproved_key=True, allow_unsafe_clock=True
    )
    assert found["keystone"] == Reference(measurements=frozenset({a64}))
    assert found["trustzone"] == Reference(measurements=frozenset({a32}))


def test_relaxations_are_told_one_by_one() -> None:
    assert list(read(FULL).relaxations()) == [
        "emulated",
        "allow_debug",
        "allow_no_nonce",
        "allow_no_revocation",
        "accept_tcb = ['OutOfDate', 'SWHardeningNeeded']",
        "grace_days = 30",
        "psa.allow_mac",
        "sgx.allow_attributes = ['PROVISIONKEY']",
        "snp.allow_migration_agent",
        "tdx.allow_attributes = ['PERFMON']",
        "tdx.allow_sept_ve",
        "tpm.allow_unproved_key",
        "tpm.allow_unsafe_clock",
    ]


def test_the_shortest_policy_is_strict() -> None:
    policy = read(f'[sgx]\nmeasurements = ["{A32}"]')
    assert policy == Policy(name="policy.toml", references=policy.references)
    assert not list(policy.relaxations())
    assert policy.references == {"sgx": SgxReference(measurements=frozenset({b"\xaa" * 32}))}


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("", 1, "accepts nothing", "add a table of"),
        ("emulated = true", 1, "accepts nothing", "add a table of"),
        ("[sgx]", 1, "[sgx] does not say which code", "add measurements or signers"),
        ("[nitro]", 1, "does not say which code", "add measurements or signers or pcrs"),
        ("[psa]", 1, "does not say which code", "add measurements or firmware"),
        ("[keystone]", 1, "[keystone] does not say which code", "add measurements"),
        (f'[cca]\nmeasurements = ["{A32}"]', 1, "platform firmware", "add firmware"),
        (f'[cca]\nfirmware = ["{A32}"]', 1, "[cca] does not say which code", "add measurements"),
        (
            f'[sgx]\nsigners = ["{A32}"]\nmin_version = 0',
            1,
            "knows the code by its signer, and has no product_ids",
            "add product_ids = [0]",
        ),
        (f'[sgx]\nsigners = ["{A32}"]\nproduct_ids = [1]', 1, "has no min_version", "= 1"),
        (f'[snp]\nmeasurements = ["{A48}"]', 1, "names no product lines", "Genoa"),
        (
            f'[snp]\nmeasurements = ["{A48}"]\nproducts = ["Genoa"]',
            1,
            "no minimum TCB for Genoa",
            "add [snp.min_tcb.Genoa]",
        ),
        (
            f'[snp]\nmeasurements = ["{A48}"]\nproducts = ["Genoa"]\n[snp.min_tcb.Genoa]\nsnp = 1',
            4,
            "missing key 'boot_loader'",
            "add boot_loader",
        ),
        (
            f'[snp]\nsigners = ["{A48}"]\nproducts = ["Milan"]\nallow_any_tcb = true',
            1,
            "knows the code by its signer, and has no min_version",
            "add min_version = 1",
        ),
        (f'[nitro]\npcrs = {{ 3 = ["{A48}"] }}', 1, "does not say which code", "measurements"),
        ('accept_tcb = ["Revoked"]', 1, "'Revoked', which no policy can accept", "known: "),
        ('accept_tcb = ["NotSupported"]', 1, "which no policy can accept", "known: "),
        ('accept_tcb = ["OutofDate"]', 1, "no TCB status", "did you mean 'OutOfDate'?"),
        ("acept_tcb = []", 1, "unknown key 'acept_tcb'", "did you mean 'accept_tcb'?"),
        ("[sxg]", 1, "unknown key 'sxg'", "did you mean 'sgx'?"),
        ("debug = true", 1, "unknown key 'debug'", None),
        ('[sgx]\nmesurements = ["00"]', 2, "unknown key", "did you mean 'measurements'?"),
        ('[tdx]\nsigners = ["00"]', 2, "unknown key 'signers'", None),
        ('[sgx]\nmeasurements = ["00"]', 2, "measurements holds 1 bytes, expected 32", None),
        ('[sgx]\nmeasurements = ["xy"]', 2, "'xy', expected bytes in hex", None),
        ("[sgx]\nmeasurements = [1]", 2, "measurements holds 1, expected", None),
        ('[sgx]\nmeasurements = "aa"', 2, "measurements is 'aa', expected", None),
        ("[sgx]\nallow_any_measurement = 1", 2, "is 1, expected true or false", None),
        ("grace_days = -1", 1, "grace_days is -1", None),
        ("grace_days = true", 1, "grace_days is true", None),
        ('emulated = "yes"', 1, "emulated is 'yes', expected true or false", None),
        ('reject_advisories = ["sa 1"]', 1, "'sa 1' is no advisory", "like INTEL-SA-00615"),
        ('[sgx]\nallow_attributes = ["PROVISION"]', 2, "not known", "'PROVISIONKEY'"),
        ('[tdx.rtmrs]\n4 = ["00"]', 2, "register 4, expected 0 to 3", None),
        ('[tdx.rtmrs]\n01 = ["00"]', 2, "'01' is no number of a register", None),
        (f'[tdx.rtmrs]\n1 = ["{A32}"]', 2, "1 holds 32 bytes, expected 48", None),
        ("[tdx.rtmrs]\n1 = []", 2, "1 is empty", None),
        ('[snp]\nproducts = ["Milano"]', 2, "'Milano', which is not known", "'Milan'"),
        ("[snp]\nvmpls = [4]", 2, "vmpls holds 4", None),
        ('[snp]\nmin_abi = "1.x"', 2, "min_abi is '1.x', which is no version", '"1.55"'),
        ('[snp]\nmin_abi = "256.0"', 2, "which is no version", '"1.55"'),
        ('[snp]\nrequire_policy = ["DEBUG"]', 2, "'DEBUG', which is not known", None),
        ('[snp]\nauthor_keys = ["00"]', 2, "author_keys holds 1 bytes, expected 48", None),
        ("[nitro]\nmax_age_seconds = 0", 2, "max_age_seconds is 0, expected an integer", None),
        ("[sgx]\nproduct_ids = [1, 1]", 2, "product_ids holds 1 twice", None),
        ('[assertions]\nx = "claims.("', 2, "assertion 'x' is no CEL expression", None),
        ('[assertions]\nx = ""', 2, "x is empty", None),
        ("[assertions]\nx = true", 2, "x is true, expected", None),
        ("name = 3", 1, "name is 3", None),
        ("sgx = 1", 1, "sgx is 1, expected a table", None),
        ("[sgx", 1, "not TOML", None),
    ],
)
def test_each_mistake(text: str, line: int, message: str, hint: str | None) -> None:
    error = refused(text)
    assert message in error.message
    assert error.place == f"policy.toml:{line}"
    if hint is not None:
        assert hint in str(error.hint)


def test_each_table_can_be_had_by_name_of_its_relaxation_only() -> None:
    for tee in ("sgx", "tdx", "nitro", "psa", "tpm", "keystone", "trustzone"):
        policy = read(f"[{tee}]\nallow_any_measurement = true")
        assert list(policy.relaxations()) == [f"{tee}.allow_any_measurement"]


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[sgx]\nmeasurements = ["{A32}"]')
    assert load(file).name == "mine.toml"
    with pytest.raises(UsageError, match="cannot read the policy") as caught:
        load(tmp_path / "none.toml")
    assert caught.value.hint == "name a policy.toml"
    with pytest.raises(UsageError, match="is a folder, not a policy"):
        load(tmp_path)


def test_no_hint_weakens_security() -> None:
    """Whatever is missing, what is suggested is to say more, not to relax."""
    for text in ("", "[sgx]", "[snp]", "[cca]", "[tpm]", f'[sgx]\nsigners = ["{A32}"]'):
        assert "allow" not in str(refused(text).hint)
