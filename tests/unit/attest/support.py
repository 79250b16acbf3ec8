"""Evidence of every kind of hardware, made here, and policies that accept it."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from tests.pki import NOW

from broch.attest import Policy
from broch.attest.checks import Outcome
from broch.attest.formats import Evidence
from broch.attest.reference import (
    CcaReference,
    NitroReference,
    PsaReference,
    Reference,
    SgxReference,
    SnpReference,
    TdxReference,
    TpmReference,
)
from broch.attest.result import Result, examine
from broch.tee.contract import Endorsements
from broch.tee.snp.product import Product


@dataclass(frozen=True, kw_only=True)
class Case:
    """Evidence that is sound, and what it takes to accept it."""

    tee: str
    evidence: bytes
    endorsements: Endorsements
    reference: Reference
    nonce: bytes
    at: datetime = NOW

    def policy(self, **changes: Any) -> Policy:
        """A policy that accepts it, or another."""
        reference = changes.pop("reference", self.reference)
        made = Policy(name="test", emulated=True, references={self.tee: reference})
        return replace(made, **changes)

    def examine(self, policy: Policy | None = None, **changes: Any) -> Result:
        """The result, under a policy that accepts it or another."""
        evidence = changes.pop("evidence", self.evidence)
        source = changes.pop("source", lambda tee, data: self.endorsements)
        return examine(
            Evidence(tee=self.tee, data=evidence),
            source,
            policy or self.policy(),
            at=changes.pop("at", self.at),
            nonce=changes.pop("nonce", self.nonce),
        )


def module(tee: str, name: str) -> Any:
    """Where the attester of a kind of hardware is."""
    return importlib.import_module(f"tests.unit.tee.{tee}.{name}")


def sgx(**changes: Any) -> Case:
    theirs = module("sgx", "attester")
    attester = theirs.Attester(**changes)
    support = module("sgx", "support")
    return Case(
        tee="sgx",
        evidence=attester.evidence(),
        endorsements=attester.endorsements(),
        reference=SgxReference(measurements=frozenset({b"E" * 32})),
        nonce=support.REPORT_DATA,
        at=support.NOW,
    )


def tdx(**changes: Any) -> Case:
    attester = module("tdx", "attester").Attester(**changes)
    return Case(
        tee="tdx",
        evidence=attester.evidence(),
        endorsements=attester.endorsements(),
        reference=TdxReference(measurements=frozenset({b"T" * 48})),
        nonce=bytes(range(64)),
    )


def snp(product: Product = Product.GENOA, *, vlek: bool = False, **report: Any) -> Case:
    theirs = module("snp", "attester")
    attester = theirs.Attester(product=product, vlek=vlek).bend(**report)
    return Case(
        tee="snp",
        evidence=attester.evidence(),
        endorsements=attester.endorsements(),
        reference=SnpReference(
            measurements=frozenset({attester.report.measurement}),
            products=frozenset({product}),
            allow_any_tcb=True,
            vmpls=frozenset({attester.report.vmpl}),
        ),
        nonce=attester.report.report_data,
    )


def nitro(**fields: Any) -> Case:
    attester = module("nitro", "test_nitro").Attester(fields={"nonce": b"n" * 20, **fields})
    evidence = attester.evidence()
    anchors = module("nitro", "test_nitro").cabundle(evidence)[:1]
    return Case(
        tee="nitro",
        evidence=evidence,
        endorsements=Endorsements(anchors=tuple(anchors)),
        reference=NitroReference(measurements=frozenset({b"\1" * 48})),
        nonce=b"n" * 20,
    )


def psa(claims: Mapping[int, Any] = MappingProxyType({})) -> Case:
    theirs = module("psa", "test_psa")
    return Case(
        tee="psa",
        evidence=theirs.sign({**theirs.NEW, **claims}),
        endorsements=Endorsements(anchors=(), items=theirs.items()),
        reference=PsaReference(firmware=frozenset({b"m" * 32})),
        nonce=b"n" * 64,
    )


def cca(**changes: Any) -> Case:
    theirs = module("cca", "test_cca")
    items = {
        "implementation_id": b"i" * 32,
        "instance_id": theirs.INSTANCE,
        "platform_key": theirs.spki(theirs.CPAK),
    }
    return Case(
        tee="cca",
        evidence=theirs.Attester(**changes).evidence(),
        endorsements=Endorsements(anchors=(), items=items),
        reference=CcaReference(
            measurements=frozenset({b"r" * 32}), firmware=frozenset({b"m" * 32})
        ),
        nonce=b"c" * 64,
    )


def tpm(**attest: Any) -> Case:
    theirs = module("tpm", "attester")
    attester = theirs.Attester(attest=replace(theirs.QUOTED, **attest))
    return Case(
        tee="tpm",
        evidence=attester.evidence(),
        endorsements=Endorsements(anchors=(), items={"ak_public": theirs.public(attester.key)}),
        reference=TpmReference(measurements=frozenset({theirs.QUOTED.pcr_digest})),
        nonce=theirs.NONCE,
    )


CASES: Final[Mapping[str, Callable[[], Case]]] = MappingProxyType(
    {"sgx": sgx, "tdx": tdx, "snp": snp, "nitro": nitro, "psa": psa, "cca": cca, "tpm": tpm}
)


def outcomes(result: Result) -> dict[str, Outcome]:
    """Rule -> outcome, of all parts."""
    return {item.rule: item.outcome for part in result.parts for item in part.checks}


def failures(result: Result) -> list[str]:
    """The rules that failed, in all parts."""
    checks = [item for part in result.parts for item in part.checks]
    return [item.rule for item in checks if item.outcome is Outcome.FAILED]


def bent(case: Case, **changes: Any) -> Reference:
    """The reference values of a case, changed."""
    return replace(case.reference, **changes)


def tdx_with(**report: Any) -> Case:
    theirs = module("tdx", "attester")
    return tdx(report=replace(theirs.REPORT, **report))
