"""Applications with a node on real hardware, in real processes: devices on disk, evidence of ours.

Everything between the kernel's files and the verdict is what runs on such a machine: the machine's
process, evidence, join, policy, keys.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.trees import gramine_tree, message_device, tsm_tree
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.snp.attester import Attester as SnpAttester
from tests.unit.tee.tdx.attester import REPORT
from tests.unit.tee.tdx.attester import Attester as TdxAttester
from tests.unit.tee.tpm.swtpm import software_tpm

from broch.app.home import Home
from broch.app.supervisor import Supervisor
from broch.errors import BrochError, PolicyError, UndecidedError
from broch.tee.contract import Endorsements
from broch.tee.tpm import native as tpm_native

from .apps import run_app, until, write_app

TDX_POLICY = f"""
emulated = true
[tdx]
measurements = ["{"54" * 48}"]
[tdx.rtmrs]
0 = ["{"30" * 48}"]
1 = ["{"31" * 48}"]
2 = ["{"32" * 48}"]
"""
SGX_POLICY = f"""
emulated = true
[sgx]
measurements = ["{"45" * 32}"]
"""
SNP_POLICY = f"""
emulated = true
[snp]
measurements = ["{"4d" * 48}"]
products = ["Milan"]
allow_any_tcb = true
"""
TPM_POLICY = f"""
[tpm.pcrs.sha256]
4 = ["{"00" * 32}"]
"""
SEALING = """
from broch import Module

module = Module("source")

@module.entry
def derive() -> str:
    return module.derive_key("a").hex()

@module.entry
def sign() -> int:
    return len(module.sign(b"words"))

@module.entry
def keep() -> None:
    module.store["a"] = 1
"""


def write_endorsements(folder: Path, endorsements: Endorsements) -> None:
    (folder / "anchors").mkdir(parents=True)
    for number, root in enumerate(endorsements.anchors):
        (folder / "anchors" / f"{number}.der").write_bytes(root)
    for name, data in endorsements.items.items():
        (folder / name).write_bytes(data)


def native_app(folder: Path, tee: str, policy: str, endorsements: Endorsements, code: str) -> Path:
    """An application whose module runs on a native node; without the parts that need another."""
    node = f'tee = "{tee}"\ndevice = "native"\npolicy = "{tee}.toml"\nendorsements = "endorsements"'
    old = f'[nodes.cloud]\ntee = "{tee}"\ndevice = "emulated"'

    def change(text: str) -> str:
        assert old in text
        text = text.replace(old, f"[nodes.cloud]\n{node}")
        if code:
            start, end = text.index("[modules.source.ocalls]"), text.index("[modules.sink]")
            text = text[:start] + text[end:]
            start, end = text.index("[[connections]]"), text.index("[policy]")
            text = text[:start] + text[end:]
            text = text[: text.index("[run]")]
        return text

    sources = {"source_code": code} if code else {}
    path = write_app(folder, f"native-{tee}", cloud=tee, change=change, **sources)
    (folder / f"{tee}.toml").write_text(policy)
    write_endorsements(folder / "endorsements", endorsements)
    return path


async def nothing(app: Supervisor) -> None:
    raise AssertionError("it runs")


def tdx_quote(attester: TdxAttester) -> Callable[[bytes], bytes]:
    def make(report_data: bytes) -> bytes:
        attester.report = replace(REPORT, report_data=report_data)
        return attester.evidence()

    return make


def test_a_trust_domain_joins_and_is_connected(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = TdxAttester()
    path = native_app(app_folder, "tdx", TDX_POLICY, attester.endorsements(), "")
    root = tmp_path / "root"

    async def work(app: Supervisor) -> None:
        assert await app.call("source", "double", {"n": 21}) == 42  # asks the other node
        status = {module["name"]: module for module in app.status()["modules"]}
        source = status["source"]
        assert (source["tee"], source["verdict"]) == ("tdx", "accepted")
        assert source["emulated"] is True  # by its evidence, whose root says so
        assert source["seals_to"] is None
        assert status["sink"]["tee"] == "keystone"
        node = app.status()["nodes"][0]
        assert (node["device"], node["emulated"]) == ("native", False)

    with tsm_tree(root, "cloud", "tdx_guest", tdx_quote(attester)) as instance:
        run_app(path, shared_home, work, root)
        assert instance.reports == 2  # when the device was opened, and for the join


def test_host_functions_cannot_have_evidence_made(
    shared_home: Home, app_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the devices are in a folder that agents may read."""
    attester, root = TdxAttester(), app_folder / "root"
    path = native_app(app_folder, "tdx", TDX_POLICY, attester.endorsements(), "")
    provider = root / "sys/kernel/config/tsm/report/broch.cloud/provider"
    (root / "dev").mkdir(parents=True)
    (root / "dev/other").write_bytes(b"other")
    seen = []

    async def work(app: Supervisor) -> None:
        seen.append(await app.call("source", "host", [14]))
        if "Landlock" in str(app.status()["nodes"][0]["lacks"]):
            pytest.skip("this kernel has no Landlock")

    with tsm_tree(root, "cloud", "tdx_guest", tdx_quote(attester)):
        for asked in (provider, root / "dev/other"):
            monkeypatch.setenv("TEST_SECRET", str(asked))
            run_app(path, shared_home, work, root)
    assert seen == ["PermissionError", b"other".hex()]


def test_a_system_that_was_not_measured_is_not_let_in(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = TdxAttester()
    policy = TDX_POLICY.replace("32" * 48, "33" * 48)
    path = native_app(app_folder, "tdx", policy, attester.endorsements(), "")
    root = tmp_path / "root"

    with (
        tsm_tree(root, "cloud", "tdx_guest", tdx_quote(attester)),
        pytest.raises(PolicyError, match=r"RTMR2 3232.*, expected 3333") as caught,
    ):
        run_app(path, shared_home, nothing, root)
    assert caught.value.hint


COUNTING = """
from broch import Module

module = Module("source")
count = [0]

@module.entry
def add(n: int) -> int:
    count[0] += n
    return count[0]

@module.entry
def crash() -> None:
    raise ValueError

@module.export_state
def export_count() -> int:
    return count[0]

@module.import_state
def import_count(n: int) -> None:
    count[0] = n
"""


def test_updates_and_restarts_are_attested_again(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester, root = TdxAttester(), tmp_path / "root"
    path = native_app(app_folder, "tdx", TDX_POLICY, attester.endorsements(), COUNTING)

    async def work(app: Supervisor) -> None:
        assert await app.call("source", "add", [3]) == 3
        (app_folder / "source.py").write_text(COUNTING + "# changed\n")
        assert (await app.update("source"))["state"] is True
        assert await app.call("source", "add", [4]) == 7
        with pytest.raises(BrochError, match="raised ValueError"):
            await app.call("source", "crash", None)

        async def is_back() -> bool:
            (source,) = (m for m in app.status()["modules"] if m["name"] == "source")
            return bool(source["restarts"] == 1 and source["state"] == "running")

        await until(is_back)
        assert await app.call("source", "add", [1]) == 1

    with tsm_tree(root, "cloud", "tdx_guest", tdx_quote(attester)) as instance:
        run_app(path, shared_home, work, root)
        assert instance.reports == 4  # the device, the join, the update, the restart


def test_sealing_is_refused_where_the_hardware_has_no_keys(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = TdxAttester()
    path = native_app(app_folder, "tdx", TDX_POLICY, attester.endorsements(), SEALING)
    root = tmp_path / "root"

    async def work(app: Supervisor) -> None:
        assert await app.call("source", "sign", None) == 64  # by a key of this run
        with pytest.raises(BrochError, match="Intel TDX has no sealing keys"):
            await app.call("source", "derive", None)

    with tsm_tree(root, "cloud", "tdx_guest", tdx_quote(attester)):
        run_app(path, shared_home, work, root)


def test_a_module_under_gramine_seals_and_has_no_counter(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = SgxAttester()

    def quote(report_data: bytes) -> bytes:
        attester.body_fields = {"reportdata": report_data}
        return attester.evidence()

    path = native_app(app_folder, "sgx", SGX_POLICY, attester.endorsements(), SEALING)
    root, keys = tmp_path / "root", []

    async def work(app: Supervisor) -> None:
        keys.append(await app.call("source", "derive", None))
        status = {module["name"]: module for module in app.status()["modules"]}
        assert status["source"]["seals_to"] == "code"
        with pytest.raises(BrochError, match="Intel SGX has no monotonic counter"):
            await app.call("source", "keep", None)

    with gramine_tree(root, quote):
        run_app(path, shared_home, work, root)
        run_app(path, shared_home, work, root)
    assert keys[0] == keys[1]
    assert len(bytes.fromhex(keys[0])) == 32


def test_a_machine_with_a_real_tpm_in_software(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    with software_tpm(tmp_path / "state") as tpm:
        enrolled = {"ak_public": tpm_native.ak_public(tpm)}
        path = native_app(
            app_folder, "tpm", TPM_POLICY, Endorsements(anchors=(), items=enrolled), SEALING
        )
        root = tmp_path / "root"

        async def work(app: Supervisor) -> None:
            (source,) = (m for m in app.status()["modules"] if m["name"] == "source")
            assert (source["verdict"], source["emulated"]) == ("accepted", False)
            assert len(bytes.fromhex(await app.call("source", "derive", None))) == 32

        with message_device(root / "dev/tpmrm0", lambda message: tpm._exchange(message, 4096)):
            run_app(path, shared_home, work, root)


def test_a_snp_guest_without_its_device_cannot_seal(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = SnpAttester()

    def report(report_data: bytes) -> bytes:
        return attester.bend(report_data=report_data).evidence()

    path = native_app(app_folder, "snp", SNP_POLICY, attester.endorsements(), SEALING)
    root = tmp_path / "root"

    with (
        tsm_tree(root, "cloud", "sev_guest", report),
        pytest.raises(BrochError, match="sealing keys of SEV-SNP come from /dev/sev-guest"),
    ):
        run_app(path, shared_home, nothing, root)


def test_hardware_that_is_not_here(shared_home: Home, app_folder: Path, tmp_path: Path) -> None:
    path = native_app(app_folder, "tdx", TDX_POLICY, TdxAttester().endorsements(), "")

    with pytest.raises(UndecidedError, match=r"app.toml:6: no TDX device: .* are missing"):
        run_app(path, shared_home, nothing, tmp_path / "root")


def test_a_device_that_is_of_another_kind_is_told_with_its_node(
    shared_home: Home, app_folder: Path, tmp_path: Path
) -> None:
    attester = TdxAttester()
    path = native_app(app_folder, "tdx", TDX_POLICY, attester.endorsements(), "")
    root = tmp_path / "root"

    with (
        tsm_tree(root, "cloud", "sev_guest", tdx_quote(attester)),
        pytest.raises(UndecidedError, match=r"app.toml:4: the reports of this machine are of"),
    ):
        run_app(path, shared_home, nothing, root)
