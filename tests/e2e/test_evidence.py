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
from tests.unit.tee.tpm.booted import SHA256, Machine
from tests.unit.tee.tpm.swtpm import extend, software_tpm

from broch.attest.collect import INSTANCE
from broch.tee.contract import Endorsements
from broch.tee.tpm.event_log import EventLog

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


EVENT_LOG = "sys/kernel/security/tpm0/binary_bios_measurements"
SECURE = """
name = "fleet"
[tpm]
measurements = ["{measurement}"]
require_event_log = true
require_secure_boot = true
"""


def test_a_tpm_and_the_log_of_its_firmware(broch: Broch) -> None:
    """As a kernel has it in securityfs; the registers of a real TPM are extended by its events."""
    machine, root = Machine(banks=(SHA256,)).boot(), broch.folder / "root"
    get = ("evidence", "get", "--nonce", NONCE, "--root", "root", "--event-log")
    with (
        software_tpm(broch.folder / "state") as tpm,
        message_device(root / "dev/tpmrm0", lambda message: tpm._exchange(message, 4096)),
    ):
        for event in EventLog.from_bytes(machine.log()).events:
            extend(tpm, event.pcr, event.digests[SHA256])
        (broch.folder / "keys").mkdir()
        lacking = broch(*get, "--out", "lacking")
        log = root / EVENT_LOG
        log.parent.mkdir(parents=True)
        log.write_bytes(machine.log())
        got = broch(*get, "--out", "quote", "--ak-public", "keys/ak_public")
        log.write_bytes(Machine(banks=(SHA256,)).boot(secure=b"\0").log())
        other = broch(*get, "--out", "other")
    assert (lacking.code, got.code, other.code) == (6, 0, 0), (lacking.err, got.err, other.err)
    assert f"{EVENT_LOG} is missing" in lacking.err
    assert not (broch.folder / "lacking").exists()
    values = b"".join(machine.registers[SHA256][index] for index in range(8))
    policy = SECURE.format(measurement=hashlib.sha256(values).hexdigest())
    (broch.folder / "policy.toml").write_text(policy)
    options = ("--policy", "policy.toml", "--endorsements", "keys", "--nonce", NONCE, "--json")
    done = broch("verify", "quote", *options)
    assert (done.code, done.json["status"]) == (0, "accepted"), done.err
    assert done.json["parts"][0]["claims"]["details"]["secure_boot"] == "on"
    lied = broch("verify", "other", *options)  # the log of another boot
    assert (lied.code, lied.json["error"]["check"]) == (4, "event_log")


def test_a_machine_without_any(broch: Broch) -> None:
    (broch.folder / "root").mkdir()
    got = broch("evidence", "get", "--nonce", NONCE, "--root", "root", "--out", "quote")
    assert (got.code, got.out) == (6, "")
    assert "no hardware that gives evidence is here" in got.err
    assert "hint: broch doctor" in got.err
    assert not (broch.folder / "quote").exists()
