"""Nodes on real hardware: what is accepted of them, each part of it broken alone."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.kernels import TsmKernel
from tests.unit.tee.snp.attester import ROOT_NAME, Attester

from broch.app.descriptor import Descriptor, load
from broch.app.descriptor_nodes import DeviceKind, Node
from broch.app.native import (
    NativeAdmission,
    check_device,
    read_policy,
    shares_with_processes,
)
from broch.attest import Policy, Verdict
from broch.enclave import join, packets
from broch.enclave.join import ModuleKeys
from broch.enclave.messages import Kind
from broch.errors import (
    BrochError,
    MalformedError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.image import Image, Interface
from broch.tee.contract import PackSettings
from broch.tee.guest import GuestDevice, NativeSettings, bind
from broch.tee.snp import cert_table
from broch.tee.snp.native import TEE
from broch.wire.x509 import read_certificate

NOW = datetime.now(UTC)
SNP = f"""
emulated = true
[snp]
measurements = ["{"4d" * 48}"]
products = ["Milan"]
[snp.min_tcb.Milan]
boot_loader = 4
tee = 1
snp = 24
microcode = 219
"""
KEYS = ModuleKeys(bytes(range(32)), bytes(range(32, 64)))
DEPLOYER = Ed25519PrivateKey.generate()


def attester() -> Attester:
    """A guest whose certificates are valid today."""
    made = Attester()
    day = timedelta(days=1)
    for label in ("ark", "ask", "vek"):
        made.change(label, begin=NOW - day, end=NOW + day)
    made.crl_options = {"begin": NOW - day, "end": NOW + day}
    return made


def image(module: str = "valve") -> Image:
    return Image(
        app="garden",
        module=module,
        files={"main.py": b"pass\n"},
        main="main.py",
        interface=Interface(),
        runtime=bytes(32),
        deployer=DEPLOYER.public_key().public_bytes_raw(),
    )


class Scene:
    """A guest, its node and its endorsements on disk; bend one thing, then let it join."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attester = attester()
        self.policy = SNP
        self.items = self.attester.items()
        self.root = self.attester.tree.der("ark")
        self.outer = Policy(emulated=True)
        self.built = image()
        self.aux = b""
        self.level = 0

    def node(self) -> Node:
        (self.folder / "snp.toml").write_text(self.policy)
        anchors = self.folder / "endorsements" / "anchors"
        anchors.mkdir(parents=True)
        if self.root:
            (anchors / "root.der").write_bytes(self.root)
        for name, data in self.items.items():
            (self.folder / "endorsements" / name).write_bytes(data)
        return Node(
            name="cloud",
            tee="snp",
            device=DeviceKind.NATIVE,
            policy=self.folder / "snp.toml",
            endorsements=self.folder / "endorsements",
        )

    def device(self) -> GuestDevice:
        def report(report_data: bytes, level: int) -> bytes:
            return self.attester.bend(report_data=report_data, vmpl=level).evidence()

        kernel = TsmKernel(provider="sev_guest", make=report, aux=self.aux, floor=self.level)
        return TEE.native(NativeSettings(name="cloud", kernel=kernel))

    def join(
        self,
        answer: Callable[[GuestDevice, bytes], bytes] | None = None,
        keys: ModuleKeys = KEYS,
    ) -> Verdict:
        device = self.device()
        admission = NativeAdmission(
            node=self.node(),
            app="garden",
            module="valve",
            tee=TEE,
            expected=TEE.measure(TEE.pack(self.built, PackSettings(), None)),
            endorsements=device.endorsements(),
            policy=self.outer,
            deployer=DEPLOYER,
        )
        nonce = admission.challenge()[1:]
        asked = join.report_data(nonce, KEYS, "garden", "valve", 64)
        give = answer or honest
        message = bytes([Kind.EVIDENCE]) + keys.exchange + keys.signing + give(device, asked)
        return admission.appraise(message, at=NOW)


def honest(device: GuestDevice, asked: bytes) -> bytes:
    identity = device.load(TEE.pack(image(), PackSettings(), None)).identity
    return device.evidence(identity, asked)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_image_on_the_system_is_let_in(scene: Scene) -> None:
    verdict = scene.join()
    assert str(verdict) == "accepted"
    assert verdict.claims.emulated  # as its root says
    assert all(check.outcome != "failed" for check in verdict.checks)
    assert {"measurement", "product_line", "min_tcb", "nonce"} <= {
        check.rule for check in verdict.checks if check.passed
    }


def another_image(device: GuestDevice, asked: bytes) -> bytes:
    other = device.load(TEE.pack(image("pump"), PackSettings(), None))
    return device.evidence(other.identity, asked)


def no_image(device: GuestDevice, asked: bytes) -> bytes:
    return device._hardware.evidence(asked)


def by_hand(device: GuestDevice, asked: bytes) -> bytes:
    return device._hardware.evidence(bind(image().digest(), asked, 64))


def an_old_one(device: GuestDevice, asked: bytes) -> bytes:
    return honest(device, bytes(64))


@pytest.mark.parametrize("answer", [another_image, no_image, an_old_one])
def test_evidence_that_does_not_bind_this_image_and_challenge(
    scene: Scene, answer: Callable[[GuestDevice, bytes], bytes]
) -> None:
    with pytest.raises(UntrustedError, match="not an answer to this challenge"):
        scene.join(answer)


def test_what_is_bound_is_what_is_documented(scene: Scene) -> None:
    assert str(scene.join(by_hand)) == "accepted"


def test_keys_of_another(scene: Scene) -> None:
    with pytest.raises(UntrustedError, match="not an answer to this challenge"):
        scene.join(keys=ModuleKeys(bytes(32), KEYS.signing))


def test_an_image_that_was_built_otherwise(scene: Scene) -> None:
    scene.built = replace(image(), version=2)
    with pytest.raises(UntrustedError, match="not an answer to this challenge"):
        scene.join()


@pytest.mark.parametrize(
    ("bent", "text"),
    [
        ({"measurement": b"N" * 48}, "measurement 4e4e.*, expected 4d4d"),
        ({"policy": 0xB001F}, "debug enclave"),
        ({"policy": 0x7001F}, "migration agent"),
    ],
)
def test_systems_that_the_policy_does_not_accept(
    scene: Scene, bent: dict[str, Any], text: str
) -> None:
    scene.attester.bend(**bent)
    with pytest.raises(PolicyError, match=text) as caught:
        scene.join()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("microcode = 219", "microcode = 220", "reported TCB"),
        ('["Milan"]\n[snp.min_tcb.Milan]', '["Genoa"]\n[snp.min_tcb.Genoa]', "product line Milan"),
        ("emulated = true", "emulated = false", "accepts real devices only"),
    ],
)
def test_policies_that_do_not_accept_the_system(
    scene: Scene, old: str, new: str, text: str
) -> None:
    assert scene.policy.count(old) == 1
    scene.policy = scene.policy.replace(old, new)
    with pytest.raises(PolicyError, match=text):
        scene.join()


def test_another_privilege_level(scene: Scene) -> None:
    scene.level = 2
    with pytest.raises(PolicyError, match="VMPL 2, expected 0"):
        scene.join()


def test_a_node_relaxes_nothing_that_the_descriptor_does_not(scene: Scene) -> None:
    scene.outer = Policy()
    with pytest.raises(PolicyError, match="accepts real devices only"):
        scene.join()


def test_debug_needs_both(scene: Scene) -> None:
    scene.attester.bend(policy=0xB001F)
    scene.policy = "allow_debug = true\n" + scene.policy
    with pytest.raises(PolicyError, match="debug enclave"):
        scene.join()


def test_debug_with_both(scene: Scene) -> None:
    scene.attester.bend(policy=0xB001F)
    scene.policy = "allow_debug = true\n" + scene.policy
    scene.outer = Policy(emulated=True, allow_debug=True)
    assert scene.join().claims.debug


@pytest.mark.parametrize("name", ["vek", "ask", "crl"])
def test_endorsements_that_are_missing(scene: Scene, name: str) -> None:
    del scene.items[name]
    with pytest.raises(UndecidedError, match=f"lack {name}") as caught:
        scene.join()
    assert caught.value.hint


def test_a_policy_can_do_without_a_revocation_list(scene: Scene) -> None:
    del scene.items["crl"]
    scene.policy = "allow_no_revocation = true\n" + scene.policy
    verdict = scene.join()
    (found,) = [check for check in verdict.checks if check.rule == "revocation"]
    assert found.outcome == "skipped"


def table(of: Attester) -> bytes:
    items = of.items()
    return cert_table.write(
        {
            cert_table.VCEK: items["vek"],
            cert_table.ASK: items["ask"],
            cert_table.ARK: of.tree.der("ark"),
            cert_table.CRL: items["crl"],
        }
    )


def test_certificates_of_the_host_fill_gaps(scene: Scene) -> None:
    scene.items = {}
    scene.aux = table(scene.attester)
    assert str(scene.join()) == "accepted"


def test_a_root_of_the_host_is_none(scene: Scene) -> None:
    scene.items, scene.root = {}, b""
    scene.aux = table(scene.attester)
    assert read_certificate(scene.attester.tree.der("ark"), "ark").name == ROOT_NAME
    with pytest.raises(BrochError, match=r"no root to trust|not among the anchors"):
        scene.join()


def test_what_a_person_gave_goes_before_what_the_host_gave(scene: Scene) -> None:
    other = attester()
    other.change("vek", key=scene.attester.tree.certs["stranger"].key)
    scene.aux = table(other)
    assert str(scene.join()) == "accepted"


# Before anything starts.


def descriptor(folder: Path, tee: str = "snp", line: str = 'policy = "snp.toml"') -> Descriptor:
    (folder / "main.py").write_text("")
    text = (
        '[app]\nname = "garden"\n[nodes.cloud]\n'
        f'tee = "{tee}"\ndevice = "native"\n{line}\n'
        '[modules.valve]\nnode = "cloud"\nsource = "main.py"\n'
    )
    (folder / "app.toml").write_text(text)
    return load(folder / "app.toml", tees=("keystone",), natives=("sgx", "snp", "tdx", "tpm"))


def checked(folder: Path, tee: str, policy: str, line: str | None = None) -> None:
    (folder / f"{tee}.toml").write_text(policy)
    made = descriptor(folder, tee, line if line is not None else f'policy = "{tee}.toml"')
    for path in ("sys/kernel/config/tsm/report", "dev/tpmrm0"):
        (folder / "root" / path).mkdir(parents=True, exist_ok=True)
    check_device(made, made.nodes["cloud"], folder / "root")


TDX = f'[tdx]\nmeasurements = ["{"54" * 48}"]\n'
TPM = f'[tpm]\nmeasurements = ["{"54" * 32}"]\n'


def rtmrs(*indices: int) -> str:
    return "[tdx.rtmrs]\n" + "".join(f'{i} = ["{"00" * 48}"]\n' for i in indices)


def test_policies_that_say_which_system(tmp_path: Path) -> None:
    checked(tmp_path, "snp", SNP)
    checked(tmp_path, "tdx", TDX + rtmrs(1, 2))
    checked(tmp_path, "tpm", f'[tpm.pcrs.sha256]\n7 = ["{"00" * 32}"]\n')


@pytest.mark.parametrize(
    ("tee", "policy", "kind", "text"),
    [
        ("snp", "", MalformedError, "app.toml:6: snp.toml"),
        ("snp", TDX, PolicyError, "app.toml:6: .*no reference values for snp"),
        ("snp", SNP.replace("emulated", "emulatde"), MalformedError, "emulatde"),
        ("tdx", TDX, PolicyError, "no values for RTMR 1 and 2"),
        ("tdx", TDX + rtmrs(0, 1, 3), PolicyError, "no values for RTMR 1 and 2"),
        ("tpm", TPM, PolicyError, "names none of registers 0 to 7"),
        ("tpm", f'[tpm.pcrs.sha256]\n16 = ["{"00" * 32}"]\n', PolicyError, "none of registers"),
        ("tpm", f'[tpm.pcrs.sha1]\n4 = ["{"00" * 20}"]\n', PolicyError, "none of registers"),
        (
            "snp",
            SNP.replace(f'measurements = ["{"4d" * 48}"]', "allow_any_measurement = true"),
            PolicyError,
            "allow_any_measurement accepts any",
        ),
    ],
)
def test_policies_that_do_not(
    tmp_path: Path, tee: str, policy: str, kind: type[BrochError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        checked(tmp_path, tee, policy)


def test_a_native_node_needs_a_policy(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="native node cloud has no policy") as caught:
        checked(tmp_path, "snp", "", line="")
    assert 'policy = "FILE.toml"' in str(caught.value.hint)


def test_hardware_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "snp.toml").write_text(SNP)
    made = descriptor(tmp_path)
    with pytest.raises(UndecidedError, match=r"app.toml:5: no SEV-SNP device: /sys/.* are missing"):
        check_device(made, made.nodes["cloud"], tmp_path / "root")


def test_hardware_that_broch_cannot_use(tmp_path: Path) -> None:
    made = descriptor(tmp_path, "keystone", "")
    with pytest.raises(UndecidedError, match="cannot use Keystone devices") as caught:
        check_device(made, made.nodes["cloud"], tmp_path / "root")
    assert str(caught.value.hint).endswith("nitro, sgx, snp, tdx, tpm")


def test_gramine_gives_a_node_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gramine 1.5: no sequential packets, no ancillary data that arrives."""
    (tmp_path / "root/dev/attestation").mkdir(parents=True)
    (tmp_path / "sgx.toml").write_text(f'[sgx]\nmeasurements = ["{"45" * 32}"]\n')
    made = descriptor(tmp_path, "sgx", 'policy = "sgx.toml"')
    check_device(made, made.nodes["cloud"], tmp_path / "root")
    monkeypatch.setattr(packets, "send", lambda sock, message, _: sock.send(b"\0" + message))
    with pytest.raises(UndecidedError, match="share no memory and pass no descriptors") as caught:
        check_device(made, made.nodes["cloud"], tmp_path / "root")
    assert "without a node" in str(caught.value.hint)

    def refuse() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(packets, "pair", refuse)
    assert not shares_with_processes()


def test_a_policy_that_went_away(tmp_path: Path) -> None:
    (tmp_path / "snp.toml").write_text(SNP)
    node = descriptor(tmp_path).nodes["cloud"]
    os.unlink(tmp_path / "snp.toml")
    with pytest.raises(UsageError):
        read_policy(node)


def test_what_a_machine_hands_out_has_no_roots(scene: Scene) -> None:
    scene.aux = table(scene.attester)
    handed = scene.device().endorsements()
    assert handed.anchors == ()
    assert set(handed.items) == {"vek", "ask", "crl"}
