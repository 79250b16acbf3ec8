"""Verification: every step broken alone, with the verdict and the check that fails.

The attester is ours and can be bent (:mod:`.attester`); genuine quotes are in ``tests/vectors``.
Names of other projects' failures in brackets: each of their bugs is a test here.
"""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.dcap.collateral import NAMES
from broch.tee.dcap.quote import Quote
from broch.tee.dcap.report import DEBUG, INIT, MODE64BIT, PROVISIONKEY
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx.verify import SgxClaims, verify

from .attester import AUTH, BEGIN, EXTENSION, Attester
from .support import NOW, REPORT_DATA

LATER = BEGIN + timedelta(days=30)


def check(attester: Attester, at: datetime = NOW) -> SgxClaims:
    return verify(attester.evidence(), attester.endorsements(), at=at)


def test_an_attester_that_is_not_bent_is_believed() -> None:
    claims = check(Attester())
    assert claims.measurement == b"E" * 32
    assert claims.signer == b"S" * 32
    assert claims.report_data == REPORT_DATA
    assert (claims.version, claims.product_id) == (2, 1)
    assert (claims.debug, claims.emulated) == (False, True)
    assert claims.tcb.status is TcbStatus.UP_TO_DATE
    assert claims.pck == EXTENSION
    assert pickle.loads(pickle.dumps(claims)) == claims
    assert claims.details["fmspc"] == b"FMSPC!".hex()


def test_debug_is_a_claim_and_no_error() -> None:
    claims = check(Attester(body_fields={"flags": INIT | MODE64BIT | DEBUG}))
    assert claims.debug


def test_a_processor_ca_will_do() -> None:
    claims = check(Attester(ca_name="Intel SGX PCK Processor CA"))
    assert claims.details["pck_ca"] == "Intel SGX PCK Processor CA"


def set_(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(key)


def level(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["tcbLevels"][0].update(values)


def short_components(document: dict[str, Any]) -> None:
    document["tcbLevels"][0]["tcb"]["sgxtcbcomponents"].pop()


CASES: list[Any] = [
    # (1) Header.
    (1, Attester(header_fields={"version": 4}), DecodeError, "version 4"),
    (1, Attester(header_fields={"version": 2}), DecodeError, "version 2"),
    (1, Attester(header_fields={"att_key_type": 3}), DecodeError, "key type 3"),
    (1, Attester(header_fields={"tee_type": 0x81}), DecodeError, "TEE type 129"),
    (1, Attester(header_fields={"qe_vendor_id": bytes(16)}), DecodeError, "vendor"),
    (1, Attester(cert_type=1), DecodeError, "type 1"),
    (1, Attester(cert_type=6), DecodeError, "type 6"),
    # (2) Chain, roles, root.
    (2, Attester(root_name="Intel SGX Root CA"), UntrustedError, "neither Intel's nor emulated"),
    (2, Attester(root_name="My Broch Emulated Root"), UntrustedError, "neither Intel's"),
    (2, Attester(signers={"root": "stranger"}), UntrustedError, "signature does not hold"),
    (2, Attester(ca_name="Intel SGX PCK Certificate"), UntrustedError, "is not Intel SGX PCK P"),
    (2, Attester(ca_name="Intel SGX TCB Signing"), UntrustedError, "is not Intel SGX PCK P"),
    (2, Attester(signers={"ca": "stranger"}), UntrustedError, "signature does not hold"),
    (2, Attester(path_lengths={"ca": None}), UntrustedError, "may not issue"),
    (2, Attester(leaf_name="Intel SGX TCB Signing"), UntrustedError, "is not Intel SGX PCK C"),
    (2, Attester(leaf_name="intel sgx pck certificate"), UntrustedError, "is not Intel SGX"),
    (2, Attester(signers={"leaf": "root"}), UntrustedError, "signature does not hold"),
    (2, Attester(path_lengths={"leaf": 0}), UntrustedError, "is a CA"),
    (2, Attester(extension=None), UntrustedError, "no SGX extension"),
    (2, Attester(extension=b"\x30\x00"), DecodeError, "SGX extension"),
    (2, Attester(chain=("leaf", "ca")), UntrustedError, "2 certificates, expected 3"),
    (2, Attester(chain=("leaf", "ca", "root", "root")), UntrustedError, "4 certificates"),
    (2, Attester(chain=("root", "ca", "leaf")), UntrustedError, "not among the anchors"),
    (2, Attester(chain=("leaf", "leaf", "root")), UntrustedError, "is not Intel SGX PCK P"),
    # (3) Revocation.
    (3, Attester(ca_revokes=("leaf",)), UntrustedError, "PCK Certificate.*is revoked"),
    (3, Attester(root_revokes=("ca",)), UntrustedError, "Platform CA.*is revoked"),
    (3, Attester(root_revokes=("signing",)), UntrustedError, "TCB Signing.*is revoked"),
    (3, Attester(signers={"pck_crl": "stranger"}), UntrustedError, "pck_crl: the signature"),
    (3, Attester(signers={"root_crl": "stranger"}), UntrustedError, "root_ca_crl: the sig"),
    (3, Attester(crl_issuers={"pck_crl": "root"}), UntrustedError, "pck_crl is not of"),
    (3, Attester(crl_issuers={"root_crl": "ca"}), UntrustedError, "root_ca_crl is not of"),
    # (4) TCB info.
    (4, Attester(signers={"tcb_info": "stranger"}), UntrustedError, "tcb_info: the signature"),
    (4, Attester(signers={"tcb_info": "leaf"}), UntrustedError, "tcb_info: the signature"),
    (4, Attester(signing_name="Intel SGX PCK Certificate"), UntrustedError, "TCB Signing"),
    (4, Attester(path_lengths={"signing": 0}), UntrustedError, "is a CA"),
    (4, Attester(signers={"signing": "stranger"}), UntrustedError, "signature does not hold"),
    (4, Attester(issuer_chain=("signing", "ca", "root")), UntrustedError, "3 certificates"),
    (4, Attester(issuer_chain=("leaf", "root")), UntrustedError, "TCB Signing"),
    (4, Attester(edit_tcb_info=set_(id="TDX")), UntrustedError, "'TDX', not of 'SGX'"),
    (4, Attester(edit_tcb_info=set_(version=2)), DecodeError, "version 2"),
    (4, Attester(edit_tcb_info=set_(fmspc="000000000000")), UntrustedError, "FMSPC"),
    (4, Attester(edit_tcb_info=set_(pceId="0000")), UntrustedError, "PCE-ID"),
    (4, Attester(edit_tcb_info=drop("nextUpdate")), DecodeError, "nextUpdate"),
    (4, Attester(edit_tcb_info=level(tcbStatus="Fine")), DecodeError, "'Fine'"),
    (4, Attester(edit_tcb_info=level(tcbStatus="NotSupported")), DecodeError, "unknown TCB"),
    (4, Attester(edit_tcb_info=short_components), DecodeError, "15 sgxtcbcomponents"),
    # (5) QE identity [dcap-qvl GHSA-796p-j2gh-9m2q: it was not checked at all].
    (5, Attester(signers={"qe_identity": "stranger"}), UntrustedError, "qe_identity: the sig"),
    (5, Attester(edit_qe_identity=set_(id="TD_QE")), UntrustedError, "'TD_QE', not of 'QE'"),
    (5, Attester(edit_qe_identity=set_(id="QVE")), UntrustedError, "'QVE'"),
    (5, Attester(edit_qe_identity=set_(version=1)), DecodeError, "version 1"),
    (5, Attester(edit_qe_identity=set_(mrsigner="00" * 32)), UntrustedError, "MRSIGNER"),
    (5, Attester(edit_qe_identity=set_(isvprodid=2)), UntrustedError, "ISVPRODID"),
    (5, Attester(edit_qe_identity=set_(miscselect="01000000")), UntrustedError, "MISCSELECT"),
    (5, Attester(edit_qe_identity=set_(attributes="11" + "0" * 30)), UntrustedError, "ATTRIB"),
    (5, Attester(qe_fields={"mrsigner": bytes(32)}), UntrustedError, "MRSIGNER"),
    (5, Attester(qe_fields={"xfrm": 7}), UntrustedError, "ATTRIBUTES"),
    # (6) QE report.
    (6, Attester(qe_report_key="stranger"), UntrustedError, "QE report: the signature"),
    (6, Attester(auth_data=b"other"), UntrustedError, "does not bind"),
    (6, Attester(qe_fields={"reportdata": bytes(64)}), UntrustedError, "does not bind"),
    # (7) The quote.
    (7, Attester(quote_key="stranger"), UntrustedError, "quote: the signature"),
]


@pytest.mark.parametrize(
    ("attester", "error", "problem"),
    [
        pytest.param(*case[1:], id=f"({case[0]}) {index} {case[3]}")
        for index, case in enumerate(CASES)
    ],
)
def test_each_check(attester: Attester, error: type[BrochError], problem: str) -> None:
    with pytest.raises(error, match=problem):
        check(attester)


def test_6_a_debug_qe_is_refused_even_if_its_identity_admits_it() -> None:
    flags = INIT | MODE64BIT | PROVISIONKEY | DEBUG
    attester = Attester(
        qe_fields={"flags": flags},
        edit_qe_identity=set_(attributes=f"{flags:02X}" + "0" * 14 + "03" + "0" * 14),
    )
    with pytest.raises(UntrustedError, match="debug"):
        check(attester)


def test_6_the_upper_half_of_the_qe_report_data_is_zero() -> None:
    quote = Quote.from_bytes(Attester().evidence(), body_size=384, wrapped=False)
    binding = quote.certification.qe_report[320:352]
    with pytest.raises(UntrustedError, match="does not bind"):
        check(Attester(qe_fields={"reportdata": binding + bytes(31) + b"\1"}))


def test_7_an_attestation_key_that_is_no_point() -> None:
    key = b"\xff" * 64
    binding = sha256(key + AUTH).digest() + bytes(32)
    attester = Attester(qe_fields={"reportdata": binding})
    bent = bytearray(attester.evidence())
    bent[500:564] = key
    with pytest.raises(UntrustedError, match="not a point"):
        verify(bytes(bent), attester.endorsements(), at=NOW)


# Time: every certificate, list and document


WHAT = {
    "root": "certificate 'Broch Emulated Test Root'",
    "ca": "certificate 'Intel SGX PCK Platform CA'",
    "leaf": "certificate 'Intel SGX PCK Certificate'",
    "signing": "certificate 'Intel SGX TCB Signing'",
    "root_crl": "root_ca_crl",
    "pck_crl": "pck_crl",
    "tcb_info": "tcb_info",
    "qe_identity": "qe_identity",
}


@pytest.mark.parametrize("what", sorted(WHAT))
def test_each_date(what: str) -> None:
    attester = Attester(periods={what: (NOW, LATER)})
    second = timedelta(seconds=1)
    is_cert = WHAT[what].startswith("certificate")
    for at in (NOW, LATER - second):
        check(attester, at)
    if is_cert:
        check(attester, LATER)  # notAfter belongs to the period, nextUpdate does not
    for at, word in ((NOW - second, "not valid before"), (LATER + second, "expired")):
        with pytest.raises(UntrustedError, match=f"{WHAT[what]} .*{word}"):
            check(attester, at)


def test_a_cached_success_does_not_outlive_its_time() -> None:
    """[aleph-vm #1195: nextUpdate unchecked, old collateral replayed]."""
    attester = Attester(periods={"tcb_info": (BEGIN, LATER)})
    evidence, endorsements = attester.evidence(), attester.endorsements()
    verify(evidence, endorsements, at=NOW)
    with pytest.raises(UntrustedError, match="tcb_info has expired"):
        verify(evidence, endorsements, at=LATER)
    verify(evidence, endorsements, at=NOW)


def test_a_time_without_zone_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="time zone"):
        check(Attester(), NOW.replace(tzinfo=None))


# Endorsements


@pytest.mark.parametrize("name", NAMES)
def test_each_missing_item_leaves_it_undecided(name: str) -> None:
    attester = Attester()
    complete = attester.endorsements()
    items = {key: value for key, value in complete.items.items() if key != name}
    with pytest.raises(UndecidedError, match=name):
        verify(attester.evidence(), replace(complete, items=items), at=NOW)


@pytest.mark.parametrize("name", NAMES)
def test_each_item_is_protected(name: str) -> None:
    """One bit in the middle of each, which in JSON and PEM is content."""
    attester = Attester()
    complete = attester.endorsements()
    data = bytearray(complete.items[name])
    data[len(data) // 2] ^= 1
    bent = replace(complete, items={**complete.items, name: bytes(data)})
    with pytest.raises((UntrustedError, DecodeError)):
        verify(attester.evidence(), bent, at=NOW)


def test_no_anchor_leaves_it_undecided() -> None:
    attester = Attester()
    with pytest.raises(UndecidedError, match="no root"):
        verify(attester.evidence(), replace(attester.endorsements(), anchors=()), at=NOW)


def test_the_root_in_the_evidence_is_never_trusted_by_itself() -> None:
    attester, other = Attester(), Attester(root_name="Broch Emulated Other Root")
    endorsements = replace(attester.endorsements(), anchors=(other.anchor(),))
    with pytest.raises(UntrustedError, match="not among the anchors"):
        verify(attester.evidence(), endorsements, at=NOW)


def test_collateral_under_another_trusted_root_is_refused() -> None:
    attester, other = Attester(), Attester(root_name="Broch Emulated Other Root")
    endorsements = Endorsements(
        anchors=(attester.anchor(), other.anchor()), items=other.endorsements().items
    )
    with pytest.raises(UntrustedError, match="under another root"):
        verify(attester.evidence(), endorsements, at=NOW)


def test_qe_identity_under_another_trusted_root_is_refused() -> None:
    attester, other = Attester(), Attester(root_name="Broch Emulated Other Root")
    items = dict(attester.endorsements().items)
    items |= {
        name: value
        for name, value in other.endorsements().items.items()
        if name.startswith("qe_identity")
    }
    endorsements = Endorsements(anchors=(attester.anchor(), other.anchor()), items=items)
    with pytest.raises(UntrustedError, match="different roots"):
        verify(attester.evidence(), endorsements, at=NOW)


def test_json_that_was_serialised_again_is_refused() -> None:
    """[Signatures are over raw bytes, not over what a JSON library makes of them]."""
    attester = Attester()
    complete = attester.endorsements()
    again = json.dumps(json.loads(complete.items["tcb_info"]), indent=1).encode()
    bent = replace(complete, items={**complete.items, "tcb_info": again})
    with pytest.raises(UntrustedError, match="tcb_info: the signature"):
        verify(attester.evidence(), bent, at=NOW)


# (9), (10) TCB levels: findings, not errors


def levels(*made: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(tcbLevels=list(made))


def tcb(shift: int, status: str, *, pcesvn: int = 11, advisories: tuple[str, ...] = ()) -> Any:
    """A level whose last component is ``shift`` above the platform's."""
    components = [{"svn": svn} for svn in EXTENSION.components]
    components[15] = {"svn": EXTENSION.components[15] + shift}
    return {
        "tcb": {"sgxtcbcomponents": components, "pcesvn": pcesvn},
        "tcbDate": "2025-01-01T00:00:00Z",
        "tcbStatus": status,
        "advisoryIDs": list(advisories),
    }


@pytest.mark.parametrize("status", sorted(TcbStatus))
def test_9_each_status_is_a_claim(status: str) -> None:
    """[dcap-qvl #125, automata #132: a bad status counted as success, and was not to be seen]."""
    never = ("NotSupported", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded")
    attester = Attester(edit_tcb_info=levels(tcb(0, status, advisories=("INTEL-SA-1",))))
    if status in never:
        with pytest.raises(DecodeError, match="unknown TCB status"):
            check(attester)
        return
    claims = check(attester)
    assert claims.details["tcb_status"] == status
    assert claims.details["advisory_ids"] == "INTEL-SA-1"
    assert claims.details["tcb_date"] == "2025-01-01"


def test_9_no_level_is_not_supported() -> None:
    for made in ([tcb(1, "UpToDate")], [tcb(0, "UpToDate", pcesvn=12)], []):
        claims = check(Attester(edit_tcb_info=levels(*made)))
        assert claims.tcb.status is TcbStatus.NOT_SUPPORTED
        assert claims.tcb.level is None
        assert claims.details["tcb_date"] == ""


def test_9_levels_are_sorted_here_whatever_their_order() -> None:
    """[dcap-qvl #126: assumed sorted]."""
    low, high = tcb(-1, "OutOfDate"), tcb(0, "UpToDate")
    for made in ((low, high), (high, low)):
        assert check(Attester(edit_tcb_info=levels(*made))).tcb.status is TcbStatus.UP_TO_DATE


def test_9_a_lower_pcesvn_falls_to_the_level_below() -> None:
    made = levels(tcb(0, "UpToDate", pcesvn=12), tcb(0, "OutOfDate", pcesvn=10))
    assert check(Attester(edit_tcb_info=made)).tcb.status is TcbStatus.OUT_OF_DATE


def test_9_components_are_those_of_the_certificate_and_not_of_the_quote() -> None:
    claims = check(Attester(body_fields={"cpusvn": bytes(16)}))
    assert claims.tcb.status is TcbStatus.UP_TO_DATE
    claims = check(
        Attester(
            edit_tcb_info=levels(tcb(1, "UpToDate"), tcb(0, "OutOfDate")),
            body_fields={"cpusvn": b"\xff" * 16},
        )
    )
    assert claims.tcb.status is TcbStatus.OUT_OF_DATE


def qe_level(isvsvn: int, status: str, *advisories: str) -> dict[str, Any]:
    return {
        "tcb": {"isvsvn": isvsvn},
        "tcbDate": "2025-01-01T00:00:00Z",
        "tcbStatus": status,
        "advisoryIDs": list(advisories),
    }


def test_10_a_qe_that_is_out_of_date_counts() -> None:
    """[automata #144: a revoked QE was accepted]."""
    for status, platform, total in (
        ("OutOfDate", "UpToDate", "OutOfDate"),
        ("OutOfDate", "SWHardeningNeeded", "OutOfDate"),
        ("OutOfDate", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"),
        ("OutOfDate", "Revoked", "Revoked"),
        ("Revoked", "UpToDate", "Revoked"),
    ):
        claims = check(
            Attester(
                edit_tcb_info=levels(tcb(0, platform, advisories=("A",))),
                edit_qe_identity=levels(qe_level(9, "UpToDate"), qe_level(8, status, "B")),
            )
        )
        assert claims.details["tcb_status"] == total
        assert claims.details["platform_tcb_status"] == platform
        assert claims.details["qe_tcb_status"] == status
        assert claims.details["advisory_ids"] == "A,B"


def test_10_a_qe_below_every_level_is_not_supported() -> None:
    claims = check(Attester(edit_qe_identity=levels(qe_level(9, "UpToDate"))))
    assert claims.tcb.status is TcbStatus.NOT_SUPPORTED
    assert claims.tcb.qe_level is None


# Bytes after the quote


def test_zero_padding_is_accepted_and_nothing_else() -> None:
    attester = Attester()
    evidence, endorsements = attester.evidence(), attester.endorsements()
    verify(evidence + bytes(3000), endorsements, at=NOW)
    with pytest.raises(DecodeError, match="after the quote"):
        verify(evidence + bytes(10) + b"\1", endorsements, at=NOW)


@pytest.mark.parametrize("size", [0, 1, 47, 48, 431, 435, 436, 1000])
def test_short_evidence(size: int) -> None:
    attester = Attester()
    with pytest.raises(DecodeError):
        verify(attester.evidence()[:size], attester.endorsements(), at=NOW)


def test_evidence_without_its_signature_section_is_refused() -> None:
    """[cvm-attest passes it]."""
    attester = Attester()
    bare = attester.evidence()[:432] + bytes(4)
    with pytest.raises(DecodeError):
        verify(bare, attester.endorsements(), at=NOW)
