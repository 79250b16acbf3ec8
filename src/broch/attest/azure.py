"""Azure's confidential VMs: a virtual TPM whose key a hardware report vouches for.

    {"platform": "az-snp" or "az-tdx", "evidence": BUNDLE}, or BUNDLE alone:
      version       1
      hcl_report    base64url: header, hardware report, runtime data (:mod:`broch.tee.tpm.hcl`)
      vcek          base64url, DER (SNP)      td_quote   base64url (TDX)
      tpm_quote     signature (hex, RSASSA with SHA-256), message (hex, TPMS_ATTEST),
                    pcrs (24 values of SHA-256, hex; the quote selects among them)

The order is what makes it sound: hardware first; its REPORT_DATA is the hash of the runtime data;
that has the vTPM's key; the key signed the quote, and the quote answers the challenge. What the
policy says of the hardware and of the vTPM has to hold, both.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from broch.attest.appraise import check
from broch.attest.checks import Check, passed
from broch.attest.formats import Evidence
from broch.attest.policy import Policy
from broch.attest.reference import TpmReference
from broch.attest.steps import performed
from broch.errors import DecodeError
from broch.tee.contract import Claims, Endorsements
from broch.tee.steps import Steps
from broch.tee.tpm import VERIFIER as TPM
from broch.tee.tpm.attest import Attest
from broch.tee.tpm.evidence import Evidence as Quote
from broch.tee.tpm.hcl import SNP, TDX, HclReport
from broch.tee.tpm.reader import SHA256, sized
from broch.tee.tpm.signature import RSASSA
from broch.tee.tpm.trust import ATTESTATION_KEY
from broch.wire import base64url, strict_json

if TYPE_CHECKING:
    from broch.attest.result import Part

_W: Final = "Azure bundle"
_PLATFORMS: Final = {"az-snp": "snp", "az-tdx": "tdx"}
_KINDS: Final = {SNP: "snp", TDX: "tdx"}
_REGISTERS: Final = 24


def from_document(outer: Mapping[str, Any]) -> Evidence:
    """A bundle, taken apart. Nothing in it has been verified.

    Raises:
        DecodeError: not a bundle.
    """
    bundle: Mapping[str, Any] = outer
    if not outer.keys() & {"platform", "hcl_report"}:
        raise DecodeError(0, "JSON that is not evidence of a known kind", what="evidence")
    if "platform" in outer:
        _expect(outer, {"platform", "evidence"})
        bundle = strict_json.mapping(outer, "evidence", _W)
    tee = "tdx" if "td_quote" in bundle else "snp"
    _expect(bundle, {"version", "hcl_report", "tpm_quote", "td_quote" if tee == "tdx" else "vcek"})
    if "platform" in outer and _PLATFORMS.get(strict_json.text(outer, "platform", _W)) != tee:
        raise DecodeError(0, f"platform {outer['platform']!r:.40} with evidence of {tee}", what=_W)
    if strict_json.number(bundle, "version", 2**16, _W) != 1:
        raise DecodeError(0, f"version {bundle['version']}, expected 1", what=_W)
    hcl = _url(bundle, "hcl_report")
    report = HclReport.from_bytes(hcl)
    if _KINDS[report.report_type] != tee:
        raise DecodeError(0, f"an HCL report of type {report.report_type} for {tee}", what=_W)
    snp = tee == "snp"
    return Evidence(
        tee=tee,
        data=report.hardware if snp else _url(bundle, "td_quote"),
        items={"vek": _url(bundle, "vcek")} if snp else {},
        wrapped="Azure vTPM",
        hcl=hcl,
        quote=_quote(strict_json.mapping(bundle, "tpm_quote", _W)),
    )


def _expect(item: Mapping[str, Any], keys: set[str]) -> None:
    if item.keys() != keys:
        raise DecodeError(0, f"expected the members {', '.join(sorted(keys))}", what=_W)


def _url(item: Mapping[str, Any], key: str) -> bytes:
    return base64url.decode(strict_json.text(item, key, _W).rstrip("="), what=f"{_W}: {key}")


def _quote(item: Mapping[str, Any]) -> bytes:
    """The quote as our verifier takes it: with those registers that it says it is over."""
    _expect(item, {"signature", "message", "pcrs"})
    message, signature = (
        strict_json.hexadecimal(item, key, len(strict_json.text(item, key, _W)) // 2, _W)
        for key in ("message", "signature")
    )
    values = item["pcrs"]
    if not isinstance(values, list) or len(values) != _REGISTERS:
        raise DecodeError(0, f"pcrs is not a list of {_REGISTERS}", what=_W)
    registers = [
        strict_json.hexadecimal({"pcr": value}, "pcr", 32, f"{_W}: register {index}")
        for index, value in enumerate(values)
    ]
    selected = [
        index
        for selection in Attest.from_bytes(message).selections
        for index in selection.indices
        if selection.bank == SHA256 and index < _REGISTERS
    ]
    return Quote(
        attest=message,
        signature=RSASSA.to_bytes(2, "big") + SHA256.to_bytes(2, "big") + sized(signature),
        pcrs={SHA256: {index: registers[index] for index in selected}},
    ).to_bytes()


def examine_vtpm(
    evidence: Evidence, claims: Claims, policy: Policy, *, at: datetime, nonce: bytes | None
) -> "Iterator[Part]":
    """The hardware, whose ``claims`` were verified, and then the vTPM, one part each.

    Raises:
        DecodeError: a structure cannot be read.
        UntrustedError: binding, signature or registers do not hold.
    """
    from broch.attest.result import Part

    assert evidence.hcl is not None
    assert evidence.quote is not None
    hcl = HclReport.from_bytes(evidence.hcl)
    bound = hashlib.sha256(hcl.runtime_data).digest()
    bindings = (_as_binding(item) for item in check(claims, policy, at=at, nonce=bound))
    yield Part(tee=claims.tee, claims=claims, checks=(*performed(claims), *bindings))
    with Steps(at) as steps:
        steps.current = _BOUND.rule
        key = hcl.bound_key(claims.report_data)
    endorsed = Endorsements(anchors=(), items={ATTESTATION_KEY: key})
    quoted = TPM.verify(evidence.quote, endorsed, at=at)
    rules = check(quoted, _for_bound_key(policy), at=at, nonce=nonce)
    yield Part(tee="tpm", claims=quoted, checks=(*performed(quoted), _BOUND, *rules))


_BOUND: Final = passed("bound_key", "the hardware report binds the key that signed the quote")


def _as_binding(item: Check) -> Check:
    """The hardware answers no challenge itself: it binds the key that does."""
    return (
        replace(item, why="binds the vTPM's key, which answers") if item.rule == "nonce" else item
    )


def _for_bound_key(policy: Policy) -> Policy:
    """Where hardware vouches for the key, the TPM's own attributes of it add nothing."""
    reference = policy.references.get("tpm")
    if not isinstance(reference, TpmReference):
        return policy
    bound = replace(reference, allow_unproved_key=True)
    return replace(policy, references=MappingProxyType({**policy.references, "tpm": bound}))
