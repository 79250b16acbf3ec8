"""`broch evidence get` on device trees that answer: what it writes is inspected and verified."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.e2e.conftest import Broch
from tests.trees import gramine_tree, message_device, tsm_tree
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW
from tests.unit.tee.tdx.attester import REPORT
from tests.unit.tee.tdx.attester import Attester as TdxAttester
from tests.unit.tee.tpm.swtpm import software_tpm

from broch.attest.collect import INSTANCE
from broch.tee.contract import Endorsements

NONCE = bytes(range(32)).hex()
POLICY = 'name = "lab"\nemulated = true\n[{tee}]\nmeasurements = ["{measurement}"]\n'
NODE = INSTANCE.removeprefix("broch.")


def keep(folder: Path, endorsements: Endorsements) -> None:
    (folder / "anchors").mkdir(parents=True)
    for number, anchor in enumerate(endorsements.anchors):
        (folder / "anchors" / f"{number}.der").write_bytes(anchor)
    for name, item in endorsements.items.items():
        (folder / name).write_bytes(item)


def sgx_quote(attester: SgxAttester) -> Callable[[bytes], bytes]:
    def make(report_data: bytes) -> bytes:
        attester.body_fields = {"reportdata": report_data}
        return attester.evidence()

    return make


def tdx_quote(attester: TdxAttester) -> Callable[[bytes], bytes]:
    def make(report_data: bytes) -> bytes:
        attester.report = replace(REPORT, report_data=report_data)
        return attester.evidence()

    return make


def test_a_trust_domain(broch: Broch) -> None:
    attester, root = TdxAttester(), broch.folder / "root"
    with tsm_tree(root, NODE, "tdx_guest", tdx_quote(attester)) as instance:
        got = broch("evidence", "get", "--nonce", NONCE, "--out", "quote", "--root", "root")
    assert got.code == 0, got.err
    assert instance.reports == 1, "a quote takes seconds: no more of them than is needed"
    assert got.out == ""
    assert "evidence of tdx in quote: " in got.err
    assert "not verified" in got.err
    inspected = broch("inspect", "quote", "--json")
    assert inspected.json["kind"] == "tdx"
    keep(broch.folder / "collateral", attester.endorsements())
    (broch.folder / "policy.toml").write_text(
        POLICY.format(tee="tdx", measurement=(b"T" * 48).hex())
    )
    verify = (
        *("verify", "quote", "--policy", "policy.toml", "--endorsements", "collateral"),
        *("--at", NOW.isoformat(), "--json"),
    )
    assert broch(*verify, "--nonce", NONCE).json["status"] == "accepted"
    other = broch(*verify, "--nonce", "00" * 32)
    assert (other.code, other.json["error"]["check"]) == (5, "nonce")


def test_under_gramine_to_standard_output(broch: Broch) -> None:
    attester, root = SgxAttester(), broch.folder / "root"
    data = hashlib.sha512(b"a key").hexdigest()
    with gramine_tree(root, sgx_quote(attester)):
        got = broch("evidence", "get", "--report-data", data, "--root", "root", "--json")
    assert got.code == 0, got.err
    told = got.json
    evidence = base64.b64decode(told["evidence"])
    assert (told["tee"], told["nonce"], told["report_data"]) == ("sgx", None, data)
    assert (told["size"], told["sha256"]) == (len(evidence), hashlib.sha256(evidence).hexdigest())
    attester.body_fields = {"reportdata": bytes.fromhex(data)}
    assert bytes.fromhex(data) in evidence


def test_a_tpm_and_the_key_to_enrol(broch: Broch) -> None:
    """A real TPM in software; where it is not installed, skipped."""
    root = broch.folder / "root"
    with (
        software_tpm(broch.folder / "state") as tpm,
        message_device(root / "dev/tpmrm0", lambda message: tpm._exchange(message, 4096)),
    ):
        (broch.folder / "keys").mkdir()
        got = broch(
            *("evidence", "get", "--nonce", NONCE, "--out", "quote", "--root", "root", "--json"),
            *("--ak-public", "keys/ak_public"),
        )
    assert got.code == 0, got.err
    assert (got.json["tee"], got.json["written"]) == ("tpm", "quote")
    assert got.json["ak_public"] == "keys/ak_public"
    digest = hashlib.sha256(bytes(8 * 32)).hexdigest()
    (broch.folder / "policy.toml").write_text(POLICY.format(tee="tpm", measurement=digest))
    verify = ("verify", "quote", "--policy", "policy.toml", "--endorsements", "keys", "--json")
    done = broch(*verify, "--nonce", NONCE)
    assert (done.code, done.json["status"]) == (0, "accepted"), done.err


def test_a_machine_without_any(broch: Broch) -> None:
    (broch.folder / "root").mkdir()
    got = broch("evidence", "get", "--nonce", NONCE, "--root", "root", "--out", "quote")
    assert (got.code, got.out) == (6, "")
    assert "no hardware that gives evidence is here" in got.err
    assert "hint: broch doctor" in got.err
    assert not (broch.folder / "quote").exists()
