"""``broch endorsements``: against services on loopback, in the process that runs the tests."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests import pki
from tests.publishers import Answer, Publisher, amd, intel, serve
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW as SGX_NOW
from tests.unit.tee.snp import attester as snp

from broch.attest.endorsements import Store, load
from broch.attest.explain import read_next
from broch.cli import entry
from broch.tee.dcap import platform
from broch.tee.sgx import TEE
from broch.tee.sgx.verify import parse

SGX: Final = SgxAttester()
ROOT: Final = SGX.endorsements().anchors[0]
GUEST: Final = snp.Attester()
ARK: Final = GUEST.tree.der("ark")
VEK_PATH: Final = f"{snp.CHIP.hex()}?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219"
SUBJECTS: Final = ["dcap.pck.platform", "dcap.qe.sgx", "dcap.root", "dcap.tcb.sgx.464d53504321"]


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BROCH_DEBUG", raising=False)
    (tmp_path / "quote").write_bytes(SGX.evidence())
    (tmp_path / "report").write_bytes(GUEST.evidence())
    (tmp_path / "root.der").write_bytes(ROOT)
    (tmp_path / "ark.der").write_bytes(ARK)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = entry.run(["endorsements", *arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def pcs() -> Iterator[Publisher]:
    chain = platform.pck_chain(parse(SGX.evidence()).certification)
    answers = intel(SGX.endorsements().items, chain, "464D53504321", hexadecimal=True)
    with serve(answers) as publisher:
        yield publisher


@pytest.fixture
def kds() -> Iterator[Publisher]:
    tree = GUEST.tree
    answers = amd(
        "Milan",
        ark=ARK,
        ask=tree.der("ask"),
        crl=tree.crl("ark"),
        veks={VEK_PATH: tree.der("vek")},
    )
    with serve(answers) as publisher:
        yield publisher


def test_fetch_export_import_verify(run: Run, pcs: Publisher, tmp_path: Path) -> None:
    """The whole way of endorsements to a machine without a network."""
    done = run("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der", "--json")
    assert done.code == 0, done.err
    assert sorted(item["subject"] for item in done.json["subjects"]) == SUBJECTS
    assert {item["state"] for item in done.json["subjects"]} == {"fetched"}
    done = run("export", "bundle", "--json")
    assert done.code == 0
    assert done.json["sha256"] == hashlib.sha256((tmp_path / "bundle").read_bytes()).hexdigest()
    done = run("import", "bundle", "--store", "other", "--anchor", "root.der", "--json")
    assert done.code == 0, done.err
    assert {item["state"] for item in done.json["subjects"]} == {"imported"}
    found = load(tmp_path / "other", "sgx", SGX.evidence(), anchors=[ROOT])
    assert TEE.verify(SGX.evidence(), found, at=SGX_NOW).emulated


def test_early_tcb_info_is_for_looking_ahead(run: Run, pcs: Publisher, tmp_path: Path) -> None:
    arguments = ("fetch", "quote", "--pcs", pcs.base, "--early", "early.json")
    assert run(*arguments).code == 4, "its root is nobody's"
    assert not Path("early.json").exists()
    done = run(*arguments, "--anchor", "root.der", "--json")
    assert done.code == 0, done.err
    assert done.json["subject"] == "dcap.tcb.sgx.464d53504321"
    assert pcs.requests[-1].endswith("fmspc=464D53504321&update=early")
    assert read_next(Path("early.json").read_bytes()).fmspc == b"FMSPC!"
    assert not (tmp_path / "home").exists(), "the store is left alone"
    assert run("fetch", "report", "--early", "x").code == 2


def test_the_default_store_is_private(run: Run, pcs: Publisher, tmp_path: Path) -> None:
    assert run("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der").code == 0
    assert (tmp_path / "home" / "endorsements").stat().st_mode & 0o777 == 0o700


def test_fetch_says_what_it_did(run: Run, pcs: Publisher) -> None:
    arguments = ("fetch", "quote", "quote", "--pcs", pcs.base, "--anchor", "root.der")
    assert "dcap.qe.sgx" in run(*arguments).out
    asked = len(pcs.requests)
    lines = [line.split()[:2] for line in run(*arguments).out.splitlines() if "dcap." in line]
    assert [state for _, state in lines] == ["current"] * 4
    assert len(pcs.requests) == asked


def test_fetch_goes_on_after_a_failure(run: Run, pcs: Publisher) -> None:
    pcs.faults.extend([Answer(status=404)])
    done = run("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der", "--json")
    assert done.code == 6
    assert len(done.json["subjects"]) == 3
    assert [item["code"] for item in done.json["problems"]] == ["undecided"]
    assert done.json["error"] == done.json["problems"][0]
    assert "error:" in done.err
    assert "404" in done.err


def test_a_root_that_is_not_pinned_is_refused(run: Run, pcs: Publisher) -> None:
    done = run("fetch", "quote", "--pcs", pcs.base)
    assert done.code == 4
    assert "not among the anchors" in done.err
    assert list(Store(Path("home/endorsements")).entries()) == []


def test_an_outage_is_a_warning_while_there_is_something_valid(run: Run) -> None:
    tree, now = GUEST.tree, datetime.now(UTC)
    answers = amd(
        "Milan",
        ark=ARK,
        ask=tree.der("ask"),
        crl=tree.crl("ark", begin=now - timedelta(days=1), end=now + timedelta(days=1)),
        veks={VEK_PATH: tree.change("vek", end=now + timedelta(days=1)).der("vek")},
    )
    with serve(answers) as kds:
        arguments = ("fetch", "report", "--kds", kds.base, "--anchor", "ark.der", "--refresh")
        assert run(*arguments).code == 0
        kds.down = Answer(status=429, headers={"Retry-After": "7200"})
        done = run(*arguments, "--json")
    assert done.code == 0, done.err
    assert {item["state"] for item in done.json["subjects"]} == {"kept"}
    assert "warning: snp.milan.vcek: " in done.err
    assert "429" in done.err


def test_show(run: Run, kds: Publisher) -> None:
    assert run("show").code == 2
    assert run("fetch", "report", "--kds", kds.base, "--anchor", "ark.der").code == 0
    done = run("show", "--at", pki.NOW.isoformat(), "--json")
    assert done.code == 0
    assert [item["state"] for item in done.json["subjects"]] == ["current", "current"]
    done = run("show", "report", "--at", "2030-01-01T00:00:00Z")
    assert done.code == 6
    assert "expired" in done.out
    assert "hint: broch endorsements fetch report" in done.err
    done = run("show", "report", "--at", "2020-01-01T00:00:00Z", "--json")
    assert {item["state"] for item in done.json["subjects"]} == {"not yet valid"}
    done = run("show", "quote", "--json")
    assert done.code == 6
    assert {item["state"] for item in done.json["subjects"]} == {"missing"}
    assert done.json["error"]["code"] == "undecided"
    assert done.json["error"]["hint"] == "broch endorsements fetch quote"


def test_export_only_what_is_wanted(run: Run, kds: Publisher, pcs: Publisher) -> None:
    run("fetch", "report", "--kds", kds.base, "--anchor", "ark.der")
    done = run("export", "bundle", "--for", "quote")
    assert done.code == 6
    assert "is not in the store" in done.err
    assert not Path("bundle").exists()
    run("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der")
    assert sorted(run("export", "b", "--for", "quote", "--json").json["subjects"]) == SUBJECTS
    assert len(run("export", "b", "--json").json["subjects"]) == 6


def test_import_takes_all_or_nothing(run: Run, kds: Publisher, pcs: Publisher) -> None:
    run("fetch", "report", "--kds", kds.base, "--anchor", "ark.der")
    run("fetch", "quote", "--pcs", pcs.base, "--anchor", "root.der")
    run("export", "bundle")
    # Only one of the two roots is trusted here, so nothing of the bundle is taken.
    done = run("import", "bundle", "--store", "other", "--anchor", "ark.der")
    assert done.code == 4
    assert not Path("other").exists()


def test_a_bundle_that_is_behind_changes_nothing(run: Run, kds: Publisher) -> None:
    run("fetch", "report", "--kds", kds.base, "--anchor", "ark.der")
    run("export", "bundle")
    newer = Store(Path("home/endorsements"))
    name = next(iter(newer.entries())).subject
    items = {
        "ask": GUEST.tree.der("ask"),
        "ark": ARK,
        "crl": GUEST.tree.crl("ark", begin=pki.BEGIN + timedelta(days=1)),
    }
    assert newer.put(name, items, source="x", fetched=pki.NOW, anchors=[ARK])
    done = run("import", "bundle", "--anchor", "ark.der", "--json")
    assert done.code == 0
    states = {item["subject"]: item["state"] for item in done.json["subjects"]}
    assert states[str(name)] == "older"


@pytest.mark.parametrize("content", [b"", b"x", b"\x84", b"{}"])
def test_what_is_no_bundle_is_malformed(run: Run, content: bytes) -> None:
    Path("bundle").write_bytes(content)
    done = run("import", "bundle")
    assert done.code == 3
    assert done.err.startswith("error: bundle: bundle: offset ")
    assert not Path("home").exists()


def test_a_report_that_does_not_say_its_product(run: Run, kds: Publisher) -> None:
    old = snp.Attester().bend(version=2, cpuid_family=0, cpuid_model=0, cpuid_stepping=0)
    Path("old").write_bytes(old.evidence())
    done = run("fetch", "old", "--kds", kds.base)
    assert done.code == 6
    assert "Milan, Genoa or Turin" in done.err
    done = run("fetch", "old", "--kds", kds.base, "--product", "Roma")
    assert done.code == 2
    arguments = ("fetch", "old", "--kds", kds.base, "--product", "milan", "--anchor", "ark.der")
    assert run(*arguments).code == 0
    assert run("show", "old", "--at", pki.NOW.isoformat()).code == 0


def test_what_nobody_publishes(run: Run) -> None:
    Path("document").write_bytes(b"\x84\x43")  # how a Nitro document begins
    done = run("fetch", "document")
    assert done.code == 2
    assert "none are needed" in done.err


def test_files_that_are_not_there(run: Run) -> None:
    for arguments in (
        ("fetch", "none"),
        ("import", "none"),
        ("show", "none"),
        ("export", "b"),
        ("fetch", "quote", "--anchor", "none"),
    ):
        assert run(*arguments).code == 2, arguments
    assert run("fetch", "quote", "--anchor", "quote").code == 3
    assert run("fetch", "root.der").code == 3
    assert run("fetch", "quote", "--pcs", "http://example.com").code == 2
