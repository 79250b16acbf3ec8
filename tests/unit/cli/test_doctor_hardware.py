"""What `broch doctor` finds of hardware, on device trees that answer."""

import os
from pathlib import Path

import pytest
from tests.kernels import TsmKernel
from tests.trees import gramine_tree

from broch.cli import doctor, doctor_hardware
from broch.cli.doctor_hardware import Finding, look
from broch.tee import tsm


def found(root: Path) -> dict[str, Finding]:
    return {finding.path: finding for finding in look(root)}


def test_a_machine_without_any(tmp_path: Path) -> None:
    all_of_them = found(tmp_path)
    assert len(all_of_them) == 10
    for finding in all_of_them.values():
        assert finding.problem == "not here"
        assert finding.means.endswith("not for nodes on this machine")


def test_gramine(tmp_path: Path) -> None:
    with gramine_tree(tmp_path, lambda data: data):
        finding = found(tmp_path)["/dev/attestation"]
    assert finding.problem is None
    assert finding.found == "attestation by dcap"
    assert 'device = "native"' in finding.means


@pytest.mark.parametrize("path", ["/dev/nsm", "/dev/sev-guest"])
def test_devices_that_nodes_can_use(tmp_path: Path, path: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / path[1:]).touch()
    finding = found(tmp_path)[path]
    assert (finding.problem, finding.found) == (None, "here")
    assert 'device = "native"' in finding.means


@pytest.mark.parametrize("path", ["/dev/tee0", "/dev/keystone_enclave"])
def test_devices_that_are_not_used_yet(tmp_path: Path, path: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / path[1:]).touch()
    assert "this version of Broch does not use it" in found(tmp_path)[path].means


def test_a_device_of_other_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nsm").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert found(tmp_path)["/dev/nsm"].problem == "may not be used by this user"


def test_a_tpm_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/tpmrm0").write_bytes(b"")
    finding = found(tmp_path)["/dev/tpmrm0"]
    assert finding.problem is not None
    assert "2 bytes expected, 0 left" in finding.problem


def test_configfs_without_a_provider(tmp_path: Path) -> None:
    reports = tmp_path / "sys/kernel/config/tsm/report"
    reports.mkdir(parents=True)
    finding = found(tmp_path)["/sys/kernel/config/tsm/report"]
    assert finding.problem is not None
    assert "report is missing" in finding.problem
    assert list(reports.iterdir()) == []


def test_the_provider_is_asked_and_no_instance_left() -> None:
    kernel = TsmKernel(provider="tdx_guest", make=lambda data, level: b"")
    assert tsm.provider(kernel, "broch-doctor") == "tdx_guest"
    assert kernel.instances == {}
    assert kernel.calls == ["provider"]  # no report was made


def test_doctor_shows_them_all() -> None:
    names = {check.name for check in doctor.examine()}
    assert {device.path for device in doctor_hardware._DEVICES} <= names
