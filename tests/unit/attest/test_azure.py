"""Azure: hardware vouches for a vTPM's key; every link of that is broken alone."""

import base64
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from tests.pki import NOW
from tests.unit.attest.support import failures, module

from broch.attest import Policy, formats
from broch.attest.formats import Evidence
from broch.attest.inspection import taken_apart
from broch.attest.reference import Reference, SnpReference, TdxReference, TpmReference
from broch.attest.result import Result, Status, examine
from broch.errors import DecodeError
from broch.tee.contract import Endorsements
from broch.tee.snp.product import Product
from broch.tee.tpm.evidence import Evidence as Quote
from broch.tee.tpm.hcl import SNP, TDX
from broch.tee.tpm.signature import Signature

HCL: Final = module("tpm", "test_hcl")
TPM: Final = module("tpm", "attester")
SHA256: Final = 0x000B


def url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(kw_only=True)
class Guest:
    """A confidential VM; change something, then ask for its bundle."""

    tee: str = "snp"
    runtime: bytes = field(default_factory=lambda: HCL.runtime(HCL.AK, HCL.EK))
    bound: bytes | None = None  # what the hardware binds, if not the runtime data
    tpm_key: Any = TPM.AK_RSA
    attest: Any = TPM.QUOTED
    pcrs: dict[int, bytes] = field(default_factory=lambda: dict(TPM.PCRS[SHA256]))
    changes: dict[str, Any] = field(default_factory=dict)
    endorsements: Endorsements = field(init=False)

    def bundle(self) -> dict[str, Any]:
        data = self.runtime if self.bound is None else self.bound
        report_data = hashlib.sha256(data).digest() + bytes(32)
        if self.tee == "snp":
            chip = module("snp", "attester").Attester(product=Product.GENOA)
            chip.bend(report_data=report_data)
            hardware, own = chip.evidence(), {"vcek": url(chip.items()["vek"])}
        else:
            theirs = module("tdx", "attester")
            chip = theirs.Attester(report=replace(theirs.REPORT, report_data=report_data))
            hardware, own = bytes(1184), {"td_quote": url(chip.evidence())}
        self.endorsements = chip.endorsements()
        kind = SNP if self.tee == "snp" else TDX
        hcl = HCL.report(self.runtime, hardware=hardware, report_type=kind)
        signed = Quote.from_bytes(TPM.Attester(key=self.tpm_key, attest=self.attest).evidence())
        values = [self.pcrs.get(index, bytes(32)).hex() for index in range(24)]
        quote = {
            "signature": Signature.from_bytes(signed.signature).parts[0].hex(),
            "message": signed.attest.hex(),
            "pcrs": values,
        }
        sound = {"version": 1, "hcl_report": url(hcl.to_bytes()), "tpm_quote": quote, **own}
        return {**sound, **self.changes}

    def data(self) -> bytes:
        whole = {"platform": f"az-{self.tee}", "evidence": self.bundle()}
        return json.dumps(whole).encode()

    def examine(self, policy: Policy | None = None, nonce: bytes = TPM.NONCE) -> Result:
        evidence = formats.read(self.data())
        return examine(
            evidence,
            lambda tee, data: self.endorsements,
            policy or policy_for(self.tee),
            at=NOW,
            nonce=nonce,
        )


def policy_for(tee: str, **changes: Any) -> Policy:
    own: Reference
    if tee == "snp":
        own = SnpReference(
            allow_any_measurement=True,
            products=frozenset({Product.GENOA}),
            allow_any_tcb=True,
            vmpls=frozenset(range(4)),
        )
    else:
        own = TdxReference(measurements=frozenset({b"T" * 48}))
    tpm = TpmReference(measurements=frozenset({TPM.QUOTED.pcr_digest}))
    return replace(Policy(name="test", emulated=True, references={tee: own, "tpm": tpm}), **changes)


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_a_sound_bundle(tee: str) -> None:
    result = Guest(tee=tee).examine()
    assert result.status is Status.ACCEPTED, result.error
    assert [part.tee for part in result.parts] == [tee, "tpm"]
    assert result.emulated
    assert "the hardware report binds the key" in str(result.to_dict())


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_the_challenge_is_the_tpms_to_answer(tee: str) -> None:
    guest = Guest(tee=tee)
    result = guest.examine(nonce=b"another nonce")
    assert failures(result) == ["nonce"]
    # And not the hardware's, which binds a key and no challenge.
    bound = hashlib.sha256(guest.runtime).digest()
    assert failures(guest.examine(nonce=bound)) == ["nonce"]


@pytest.mark.parametrize("tee", ["snp", "tdx"])
@pytest.mark.parametrize(
    ("change", "step", "message"),
    [
        ({"bound": b"another machine's"}, "bound_key", "does not bind this runtime data"),
        ({"tpm_key": TPM.rsa_key("stranger")}, "signature", "signature does not hold"),
        (
            {"pcrs": {**TPM.PCRS[SHA256], 0: b"?" * 32}},
            "registers",
            "not those that the TPM has digested",
        ),
    ],
)
def test_each_link_broken_alone(tee: str, change: dict[str, Any], step: str, message: str) -> None:
    result = Guest(tee=tee, **change).examine()
    assert result.status is Status.UNTRUSTED
    assert message in str(result.error)
    # What was found of the hardware is told all the same.
    assert [part.tee for part in result.parts] == [tee, "tpm"]
    assert result.parts[0].claims is not None
    assert result.parts[-1].claims is None
    assert result.failure is not None
    assert result.failure.rule == step
    assert result.to_dict()["error"]["check"] == step
    assert result.to_dict()["status"] == "untrusted"


def test_a_key_in_the_runtime_data_is_nothing_without_the_hardware() -> None:
    """Whoever changes it there has to change what the hardware signed."""
    stranger = TPM.rsa_key("stranger").public_key().public_numbers()
    own = {**HCL.AK, "n": HCL.url(stranger.n)}
    forged = HCL.runtime(own, HCL.EK)
    sound = Guest().runtime
    result = Guest(runtime=forged, bound=sound, tpm_key=TPM.rsa_key("stranger")).examine()
    assert result.status is Status.UNTRUSTED
    assert "does not bind" in str(result.error)


@pytest.mark.parametrize("missing", ["snp", "tpm"])
def test_a_policy_has_to_say_something_of_both(missing: str) -> None:
    policy = policy_for("snp")
    fewer = {tee: value for tee, value in policy.references.items() if tee != missing}
    result = Guest().examine(replace(policy, references=fewer))
    assert result.status is Status.REFUSED
    assert failures(result)[0] == "kind"
    # The parts are judged apart: the other one is fine.
    bad = [part.tee for part in result.parts if any(c.outcome == "failed" for c in part.checks)]
    assert bad == [missing]


def test_rules_of_both_parts_hold() -> None:
    none = replace(policy_for("snp").references["snp"], products=frozenset({Product.TURIN}))  # type: ignore[call-arg]
    policy = policy_for("snp")
    references = {**policy.references, "snp": none}
    assert failures(Guest().examine(replace(policy, references=references))) == ["product_line"]
    other = TpmReference(measurements=frozenset({b"?" * 32}))
    references = {**policy.references, "tpm": other}
    assert failures(Guest().examine(replace(policy, references=references))) == ["measurement"]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": "1"},
        {"hcl_report": "AA"},
        {"hcl_report": "=?"},
        {"vcek": 3},
        {"vcek": "A"},
        {"td_quote": "AA"},
        {"extra": 1},
        {"tpm_quote": {}},
        {"tpm_quote": {"signature": "", "message": "", "pcrs": []}},
        {"tpm_quote": {"signature": "00", "message": "zz", "pcrs": ["00" * 32] * 24}},
        {"tpm_quote": {"signature": "00", "message": "00", "pcrs": ["00" * 32] * 23}},
        {"tpm_quote": {"signature": "00", "message": "00", "pcrs": ["00" * 31] * 24}},
        {"tpm_quote": {"signature": "00", "message": "00", "pcrs": [None] * 24}},
    ],
)
def test_bundles_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        formats.read(Guest(changes=changes).data())


def test_a_platform_that_is_another() -> None:
    for name in ("az-tdx", "snp", 3):
        whole = {"platform": name, "evidence": Guest().bundle()}
        with pytest.raises(DecodeError):
            formats.read(json.dumps(whole).encode())
    # The kind of report is the hardware's, whatever the members are called.
    swapped = Guest(tee="snp").bundle()
    tdx = Guest(tee="tdx").bundle()
    with pytest.raises(DecodeError, match="HCL report of type"):
        formats.read(json.dumps({**tdx, "hcl_report": swapped["hcl_report"]}).encode())


def test_it_is_taken_apart() -> None:
    found = formats.read(Guest().data())
    assert isinstance(found, Evidence)
    assert found.wrapped == "Azure vTPM"
    shown = taken_apart(found)
    assert shown.keys() == {"hardware", "runtime_data", "tpm"}
    assert shown["tpm"]["attest"]["extra_data"] == TPM.NONCE.hex()
    assert "HCLAkPub" in shown["runtime_data"]
    assert found.digest() != formats.read(Guest(tee="tdx").data()).digest()
