"""What is taken for evidence, in which writing, of which hardware; and what for nothing."""

import base64
import json
from typing import Any

import pytest
from tests.unit.attest import support
from tests.unit.attest.support import CASES

from broch.attest import formats
from broch.attest.formats import MAX_INPUT, identify, read, unwrap
from broch.errors import DecodeError
from broch.tee import registry
from broch.tee.contract import Endorsements
from broch.wire import cbor, cmw


@pytest.mark.parametrize("tee", sorted(CASES))
def test_every_kind_in_every_writing(tee: str) -> None:
    data = CASES[tee]().evidence
    text = base64.b64encode(data)
    lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    pem = b"-----BEGIN EVIDENCE-----\n" + lines + b"\n-----END EVIDENCE-----\n"
    for written, how in (
        (data, "binary"),
        (text, "base64"),
        (lines + b"\n", "base64"),
        (base64.urlsafe_b64encode(data).rstrip(b"="), "base64"),
        (data.hex().encode(), "hex"),
        (b"0x" + data.hex().upper().encode() + b"\n", "hex"),
        (pem, "PEM"),
        (pem.replace(b"\n", b"\r\n"), "PEM"),
    ):
        assert unwrap(written) == (data, how)
        found = read(written)
        assert (found.tee, found.data) == (tee, data)
        assert not found.items


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"hello",
        b"{}",
        b"[]",
        bytes(1184),
        bytes(48),
        b"\x03\x00\x02\x00",
        b"\x06\x00\x02\x00" + bytes(100),
        b"\x04\x00\x02\x00\x55" + bytes(100),
        b"\xa0",
        b"\xa1\x61a\x01",
        b"-----BEGIN X-----\nAA==\n-----END Y-----",
        b"-----BEGIN X-----\nAA==\n-----END X-----\n-----BEGIN X-----\nAA==\n-----END X-----",
        b"-----BEGIN X-----\nA\n-----END X-----",
        b"A" * 33,
    ],
)
def test_what_is_no_evidence(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read(data)


def test_a_tdreport_is_no_evidence() -> None:
    with pytest.raises(DecodeError, match="a TDREPORT, which only the processor"):
        read(b"\x81" + bytes(1023))
    with pytest.raises(DecodeError, match="an HCL report without the vTPM's quote"):
        read(b"HCLA" + bytes(2600))


def test_the_largest_input() -> None:
    with pytest.raises(DecodeError, match="longer than"):
        read(bytes(MAX_INPUT + 1))


def test_evidence_without_a_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "verifier_names", lambda: ("tdx",))
    with pytest.raises(DecodeError, match="evidence of sgx, which has no verifier here"):
        identify(support.sgx().evidence)


@pytest.mark.parametrize("tee", sorted(CASES))
def test_conceptual_message_wrappers(tee: str) -> None:
    data = CASES[tee]().evidence
    for kind in ("application/octet-stream", 10001):
        record = cmw.Record(type=kind, value=data, indicator=cmw.Indicator.EVIDENCE)
        found = read(record.to_cbor())
        assert (found.tee, found.data, found.wrapped) == (tee, data, f"CMW {kind}")
    tag = cmw.Record(type=10001, value=data, is_tag=True)
    assert read(tag.to_cbor()).data == data
    plain = cmw.Record(type="application/eat+cwt", value=data)
    assert read(plain.to_json().encode()).data == data


def test_wrappers_that_hold_no_evidence() -> None:
    data = support.psa().evidence
    results = cmw.Record(type="a/b", value=data, indicator=cmw.Indicator.ATTESTATION_RESULTS)
    with pytest.raises(DecodeError, match="is not evidence, by its own word"):
        read(results.to_cbor())
    inner = cmw.Record(type="a/b", value=data).to_cbor()
    for bad in (cmw.Record(type="a/b", value=inner), cmw.Record(type="a/b", value=b"x")):
        with pytest.raises(DecodeError):
            read(bad.to_cbor())


def tsm(**changes: Any) -> bytes:
    report = support.snp().evidence
    fields = {"auxblob": b"", "outblob": report, "provider": "sev_guest\n", **changes}
    return cbor.encode({name: value for name, value in fields.items() if value is not None})


def test_configfs_tsm() -> None:
    from broch.tee.snp import cert_table

    items = dict(support.snp().endorsements.items)
    table = cert_table.write({cert_table.VCEK: items["vek"], cert_table.ASK: items["ask"]})
    found = read(tsm(auxblob=table))
    assert found.tee == "snp"
    assert found.wrapped == "configfs-tsm"
    assert found.items == {"vek": items["vek"], "ask": items["ask"]}
    assert read(tsm(provider="tdx_guest")).tee == "tdx"
    assert not read(tsm()).items


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "someone"},
        {"provider": 3},
        {"outblob": "text"},
        {"outblob": None},
        {"auxblob": "text"},
        {"auxblob": b"table"},
        {"other": b""},
    ],
)
def test_bundles_that_are_none(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        read(tsm(**changes))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"platform": "az-snp"},
        {"platform": "az-snp", "evidence": {}},
        {"platform": "az-snp", "evidence": []},
        {"hcl_report": "AA"},
        {"platform": "snp"},
        {"platform": "snp", "evidence": {}},
        {"platform": "snp", "evidence": {"attestation_report": "AA=="}},
        {"platform": "snp", "evidence": {"attestation_report": "?"}},
        {"platform": "snp", "evidence": {"attestation_report": "\u00e4"}},
        {"platform": "snp", "evidence": {"attestation_report": "AA==", "cert_chain": []}},
        {"platform": "snp", "evidence": {"attestation_report": "AA==", "cert_chain": {"ark": ""}}},
        {"version": 1, "hcl_report": "AA", "vcek": "AA", "tpm_quote": {}},
        {"version": 1, "hcl_report": "?", "vcek": "AA", "tpm_quote": {}},
        {"version": 1, "hcl_report": 3, "vcek": "AA", "tpm_quote": {}},
    ],
)
def test_json_that_is_no_bundle(document: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        read(json.dumps(document).encode())


def test_what_came_along_is_below_what_the_caller_has() -> None:
    """A sender's certificates help, and replace nothing."""
    case = support.snp()
    junk = formats.Evidence(tee="snp", data=case.evidence, items={"vek": b"junk", "crl": b"junk"})
    from broch.attest.result import examine

    result = examine(
        junk, lambda tee, data: case.endorsements, case.policy(), at=case.at, nonce=case.nonce
    )
    assert result.exit_code == 0
    alone = formats.Evidence(
        tee="snp", data=case.evidence, items={**case.endorsements.items, "unsafe_no_crl": b""}
    )
    items = {name: value for name, value in alone.items.items() if name != "crl"}
    roots = Endorsements(anchors=case.endorsements.anchors)
    for found, expected in ((alone.items, 0), (items, 6)):
        only = formats.Evidence(tee="snp", data=case.evidence, items=found)
        result = examine(only, lambda tee, data: roots, case.policy(), at=case.at, nonce=case.nonce)
        assert result.exit_code == expected
