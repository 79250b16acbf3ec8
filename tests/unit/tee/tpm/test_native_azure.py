"""An Azure-like virtual TPM, whose key a hardware report binds: from our getters to a verdict.

The TPM is real (swtpm); the host puts the report into its NV memory and the key at its handle, as
Azure's does. Report and certificates are of our own AMD-like authority.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from tests.pki import NOW
from tests.unit.tee.snp.attester import Attester

from broch.attest import formats, policy_file
from broch.attest.result import Result, examine
from broch.tee.contract import Endorsements
from broch.tee.tpm import native
from broch.tee.tpm.attest import Selection
from broch.tee.tpm.commands import OWNER
from broch.tee.tpm.evidence import Evidence as Quote
from broch.tee.tpm.public import ATTESTATION, RSA, Public
from broch.tee.tpm.reader import SHA256, sized
from broch.tee.tpm.signature import RSASSA, Signature

from .swtpm import PASSWORD, SoftwareTpm, software_tpm
from .test_native import write_nv

EVICT = 0x120
NONCE = bytes(range(32))
ALL = Selection(bank=SHA256, width=3, indices=tuple(range(24)))
NULL = b"\0\x10"
RSA_AK = (
    struct.pack(">HHI", RSA, SHA256, ATTESTATION | 1 << 6)
    + sized(b"")
    + NULL
    + struct.pack(">HHHI", RSASSA, SHA256, 2048, 0)
    + sized(b"")
)
POLICY = f"""
emulated = true
allow_no_revocation = true
[snp]
measurements = ["{"4d" * 48}"]
products = ["Milan"]
allow_any_tcb = true
[tpm.pcrs.sha256]
4 = ["{"00" * 32}"]
"""


def url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def runtime_data(public: bytes) -> bytes:
    key = Public.from_bytes(public).key
    assert isinstance(key, RSAPublicKey)
    modulus = key.public_numbers().n.to_bytes(256, "big")
    jwk = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": url(modulus)}
    return json.dumps({"keys": [jwk]}).encode()


class Vm:
    """A confidential VM: its TPM and the authority behind its hardware report."""

    def __init__(self, tpm: SoftwareTpm) -> None:
        self.tpm = tpm
        self.attester = Attester()
        with native.commands(tpm) as commands:
            handle, public = commands.create_primary(RSA_AK)
            where = native.AZURE_AK.to_bytes(4, "big")
            commands.run(EVICT, [OWNER, handle], where, sessions=[PASSWORD])
            commands.flush(handle)
        runtime = runtime_data(public)
        self.attester.bend(report_data=hashlib.sha256(runtime).digest().ljust(64, b"\0"))
        head = struct.pack("<4sIIII12s", b"HCLA", 1, 0, 2, 0, bytes(12))
        middle = struct.pack("<IIIII", len(runtime) + 20, 1, 2, 1, len(runtime))
        report = head + self.attester.evidence() + middle + runtime
        write_nv(tpm, native.AZURE_HCL, report.ljust(2048, b"\0"))

    def bundle(self, nonce: bytes = NONCE) -> bytes:
        """What a client sends: all of it by our getters, but for the certificate."""
        quote = Quote.from_bytes(native.quote(self.tpm, nonce, ALL, native.AZURE_AK))
        (signature,) = Signature.from_bytes(quote.signature).parts
        return json.dumps(
            {
                "version": 1,
                "hcl_report": url(native.hcl_report(self.tpm).to_bytes()),
                "vcek": url(self.attester.tree.der("vek")),
                "tpm_quote": {
                    "signature": signature.hex(),
                    "message": quote.attest.hex(),
                    "pcrs": [quote.pcrs[SHA256][index].hex() for index in ALL.indices],
                },
            }
        ).encode()

    def result(self, bundle: bytes, nonce: bytes = NONCE) -> Result:
        def source(tee: str, evidence: bytes) -> Endorsements:
            items = {"ask": self.attester.tree.der("ask")} if tee == "snp" else {}
            return Endorsements(anchors=(self.attester.tree.der("ark"),), items=items)

        policy = policy_file.from_toml(POLICY, "policy.toml")
        return examine(formats.read(bundle), source, policy, at=NOW, nonce=nonce)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with software_tpm(tmp_path_factory.mktemp("azure") / "state") as tpm:
        yield Vm(tpm)


def test_hardware_key_and_quote_hold_together(vm: Vm) -> None:
    result = vm.result(vm.bundle())
    assert result.error is None
    assert [part.tee for part in result.parts] == ["snp", "tpm"]
    assert result.emulated  # by the root of our authority


def test_the_quote_answers_one_challenge(vm: Vm) -> None:
    result = vm.result(vm.bundle(), nonce=bytes(32))
    assert result.exit_code == 5
    assert "does not answer this challenge" in str(result.error)


def test_a_key_that_the_hardware_does_not_bind(vm: Vm, tmp_path: Path) -> None:
    with software_tpm(tmp_path / "state") as tpm:
        other = Vm(tpm).bundle()
    bundle, stranger = json.loads(vm.bundle()), json.loads(other)
    bundle["tpm_quote"] = stranger["tpm_quote"]
    result = vm.result(json.dumps(bundle).encode())
    assert result.exit_code == 4
    assert "signature does not hold" in str(result.error)
