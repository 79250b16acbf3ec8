"""Verification of TDX quotes: format, module, levels, convergence."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa
from broch.tee.dcap.collateral import NAMES
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.tdx import VERIFIER
from broch.tee.tdx.module import converge
from broch.tee.tdx.report import DEBUG, PERFMON, SEPT_VE_DISABLE, TdReport
from broch.tee.tdx.verify import TdxClaims, parse
from broch.tee.verifier import Verifier

from .attester import (
    KEYS,
    NOW,
    REPORT,
    REPORT_15,
    STRANGER,
    Attester,
    identity,
    isv,
    level,
    moment,
)

SVN: Final = REPORT.tee_tcb_svn
UTD, OOD = "UpToDate", "OutOfDate"
OOD_CN: Final = "OutOfDateConfigurationNeeded"


def claims(attester: Attester) -> TdxClaims:
    return VERIFIER.verify(attester.evidence(), attester.endorsements(), at=NOW)


def status(attester: Attester) -> str:
    found = claims(attester)
    assert found.details["tcb_status"] == found.tcb.status
    return found.tcb.status


def svn(*first: int) -> bytes:
    """TEE_TCB_SVN that begins so."""
    return bytes(first).ljust(16, b"\0")


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("tdx", "Intel TDX")


@pytest.mark.parametrize(("version", "report"), [(4, REPORT), (5, REPORT), (5, REPORT_15)])
def test_claims(version: int, report: TdReport) -> None:
    attester = Attester(version=version, report=report)
    found = claims(attester)
    assert found.tee == "tdx"
    assert found.measurement == b"T" * 48
    assert found.signer is None
    assert found.report_data == bytes(range(64))
    assert len(found.report_data) == VERIFIER.report_data_size
    assert not found.debug
    assert found.emulated
    assert found.tcb.status == UTD
    assert found.details["rtmr3"] == "33" * 48
    assert found.details["td_attribute_names"] == "SEPT_VE_DISABLE"
    assert found.details["mr_service_td"] == ("56" * 48 if report is REPORT_15 else "")
    assert found.details["module"] == "TDX_01"


# (1) Format


@pytest.mark.parametrize(("version", "report"), [(4, REPORT), (5, REPORT), (5, REPORT_15)])
def test_quotes_round_trip(version: int, report: TdReport) -> None:
    data = Attester(version=version, report=report).evidence()
    quote, found = parse(data)
    assert quote.to_bytes() == data
    assert found == report
    assert TdReport.from_bytes(report.to_bytes()) == report


def test_zeros_may_follow_and_nothing_else() -> None:
    assert status(Attester(padding=70)) == UTD
    attester = Attester()
    for tail in (b"\1", bytes(69) + b"\1", b"\1" + bytes(69)):
        with pytest.raises(DecodeError, match="not zero"):
            VERIFIER.verify(attester.evidence() + tail, attester.endorsements(), at=NOW)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"version": 3}, "version 3"),
        ({"version": 6}, "version 6"),
        ({"tee_type": 0}, "TEE type 0"),
        ({"tee_type": 0x82}, "TEE type 130"),
        ({"att_key_type": 3}, "key type 3"),
        ({"qe_vendor_id": bytes(16)}, "QE vendor"),  # dcap-qvl 127
    ],
)
def test_header(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        parse(Attester(header_fields=fields).evidence())


@pytest.mark.parametrize(
    "descriptor", [(1, 384), (2, 648), (3, 584), (0, 584), (4, 584), (2, 583), (2, 2**32 - 1)]
)
def test_body_descriptors(descriptor: tuple[int, int]) -> None:
    with pytest.raises(DecodeError, match=f"body of type {descriptor[0]} with {descriptor[1]}"):
        parse(Attester(version=5, descriptor=descriptor).evidence())


def test_certification_data_is_wrapped() -> None:
    with pytest.raises(DecodeError):
        parse(Attester(wrapped=False).evidence())


@pytest.mark.parametrize("version", [4, 5])
def test_every_truncation(version: int) -> None:
    data = Attester(version=version).evidence()
    for size in range(0, len(data), 3):
        with pytest.raises(DecodeError):
            parse(data[:size])


def test_reports_of_other_sizes() -> None:
    for size in (0, 583, 585, 647, 649):
        with pytest.raises(DecodeError, match="expected 584 or 648"):
            TdReport.from_bytes(bytes(size))


# Claims, not errors


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_a_td_under_debug_is_debug(bit: int) -> None:
    report = replace(REPORT, td_attributes=SEPT_VE_DISABLE | 1 << bit)
    assert claims(Attester(report=report)).debug


def test_attributes_are_named() -> None:
    report = replace(REPORT, td_attributes=DEBUG | PERFMON)
    assert claims(Attester(report=report)).details["td_attribute_names"] == "DEBUG,PERFMON"


# (2)-(7) What is shared with SGX: that it is asked for


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_optional(name: str) -> None:
    attester = Attester()
    made = attester.endorsements()
    items = {key: value for key, value in made.items.items() if key != name}
    with pytest.raises(UndecidedError, match=name):
        VERIFIER.verify(
            attester.evidence(), Endorsements(anchors=made.anchors, items=items), at=NOW
        )


def test_collateral_for_sgx() -> None:
    with pytest.raises(UntrustedError, match="tcb_info is of 'SGX', not of 'TDX'"):
        claims(Attester(edit=lambda document: document.update(id="SGX")))


def test_the_identity_of_the_quoting_enclave_is_signed_and_matched() -> None:
    """CVE-2026-22696: signature and policy of the QE identity were not checked."""
    attester = Attester()
    made = attester.endorsements()
    for name, value in (
        ("qe_identity_signature", bytes(64)),
        ("qe_identity", made.items["qe_identity"].replace(b'"isvprodid": 2', b'"isvprodid": 3')),
        ("qe_identity_signature", ecdsa.sign(STRANGER, made.items["qe_identity"])),
    ):
        assert made.items[name] != value
        bent = Endorsements(anchors=made.anchors, items={**made.items, name: value})
        with pytest.raises(UntrustedError, match="qe_identity: the signature"):
            VERIFIER.verify(attester.evidence(), bent, at=NOW)
    for changes in ({"mrsigner": b"X" * 32}, {"isvprodid": 1}, {"xfrm": 7}, {"miscselect": 1}):
        with pytest.raises(UntrustedError, match="quoting enclave is not that of qe_identity"):
            claims(Attester(qe_fields=changes))


def test_the_sgx_quoting_enclave_makes_no_td_quotes() -> None:
    attester = Attester()
    made = attester.endorsements()
    data = made.items["qe_identity"].replace(b'"TD_QE"', b'"QE"')
    signature = ecdsa.sign(KEYS.tcb_signing, data)
    items = {**made.items, "qe_identity": data, "qe_identity_signature": signature}
    with pytest.raises(UntrustedError, match="qe_identity is of 'QE', not of 'TD_QE'"):
        VERIFIER.verify(
            attester.evidence(), Endorsements(anchors=made.anchors, items=items), at=NOW
        )


def test_json_that_was_serialised_again() -> None:
    """Section 2.9: the signature is over the bytes, not over the meaning."""
    attester = Attester()
    made = attester.endorsements()
    again = json.dumps(json.loads(made.items["tcb_info"]), separators=(",", ":")).encode()
    with pytest.raises(UntrustedError, match="tcb_info: the signature"):
        VERIFIER.verify(
            attester.evidence(),
            Endorsements(anchors=made.anchors, items={**made.items, "tcb_info": again}),
            at=NOW,
        )


def test_collateral_past_its_next_update() -> None:
    """aleph-vm 1195: old collateral could be played back."""
    with pytest.raises(UntrustedError, match="tcb_info has expired"):
        claims(Attester(edit=lambda document: document.update(nextUpdate=moment(NOW))))
    future = "2026-03-01T12:00:01Z"
    with pytest.raises(UntrustedError, match="tcb_info is not valid before"):
        claims(Attester(edit=lambda document: document.update(issueDate=future)))


def test_a_quote_without_its_signature() -> None:
    """cvm-attest passed such quotes."""
    attester = Attester()
    made, data = attester.endorsements(), attester.evidence()
    for cut in (data[: 48 + 584], data[: 48 + 584] + bytes(4), data[: 48 + 584] + bytes(200)):
        with pytest.raises(DecodeError):
            VERIFIER.verify(cut, made, at=NOW)


def test_an_attackers_root() -> None:
    """cvm-attest with fetch_root_ca=False: any root. Here it must be an anchor, and believable."""
    attester, other = Attester(), Attester()
    anchors = other.endorsements().anchors
    with pytest.raises(UntrustedError, match="is not among the anchors"):
        VERIFIER.verify(
            attester.evidence(),
            Endorsements(anchors=anchors, items=attester.endorsements().items),
            at=NOW,
        )


def test_signed_by_another_key() -> None:
    with pytest.raises(UntrustedError, match="quote: the signature"):
        claims(Attester(signer=STRANGER))


@pytest.mark.parametrize("version", [4, 5])
def test_every_signed_byte(version: int) -> None:
    attester = Attester(version=version, report=REPORT if version == 4 else REPORT_15)
    evidence, made = attester.evidence(), attester.endorsements()
    for offset in range(48 + len(attester.report.to_bytes()) + (6 if version == 5 else 0)):
        bent = bytearray(evidence)
        bent[offset] ^= 1
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), made, at=NOW)


# (8) The module


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mr_signer_seam": b"X" * 48}, "MRSIGNERSEAM is not that of TDX_01"),
        ({"seam_attributes": 1}, "SEAMATTRIBUTES are not those of TDX_01"),
        ({"seam_attributes": 1 << 63}, "SEAMATTRIBUTES are not those of TDX_01"),
        ({"tee_tcb_svn": svn(5, 2, 3)}, "knows no TDX module TDX_02"),
        ({"tee_tcb_svn": svn(5, 255, 3)}, "knows no TDX module TDX_FF"),
        (
            {"tee_tcb_svn": svn(5, 0, 3), "mr_signer_seam": b"X" * 48},
            "MRSIGNERSEAM is not that of tdxModule",
        ),
        (
            {"tee_tcb_svn": svn(5, 0, 3), "seam_attributes": 1},
            "SEAMATTRIBUTES are not those of tdxModule",
        ),
    ],
)
def test_each_rule_of_the_module(changes: dict[str, Any], problem: str) -> None:
    """dcap-qvl 124: the identity of the TDX module was not checked."""
    with pytest.raises(UntrustedError, match=problem):
        claims(Attester(report=replace(REPORT, **changes)))


def test_modules_of_later_versions() -> None:
    modules = [identity("TDX_01", isv(5, OOD)), identity("TDX_0A", isv(2, UTD))]
    found = claims(Attester(report=replace(REPORT, tee_tcb_svn=svn(2, 10, 3)), modules=modules))
    assert found.module.name == "TDX_0A"
    assert found.tcb.status == UTD


@pytest.mark.parametrize(
    ("edit", "error", "problem"),
    [
        (lambda d: d.pop("tdxModuleIdentities"), UntrustedError, "knows no TDX module"),
        (lambda d: d.update(tdxModuleIdentities={}), DecodeError, "no list of objects"),
        (lambda d: d["tdxModuleIdentities"].append(identity("TDX_01")), DecodeError, "twice"),
        (lambda d: d["tdxModuleIdentities"][0].pop("mrsigner"), DecodeError, "mrsigner"),
        (lambda d: d["tdxModuleIdentities"][0].update(mrsigner="00"), DecodeError, "mrsigner"),
        (lambda d: d["tdxModuleIdentities"][0].pop("tcbLevels"), DecodeError, "tcbLevels"),
        (lambda d: d["tdxModuleIdentities"][0].pop("attributesMask"), DecodeError, "Mask"),
        (
            lambda d: d["tdxModuleIdentities"][0]["tcbLevels"][0].update(tcbStatus="Fine"),
            DecodeError,
            "unknown TCB status",
        ),
    ],
)
def test_bad_descriptions_of_modules(edit: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        claims(Attester(edit=edit))


def test_version_0_is_described_by_the_tcb_info_itself() -> None:
    attester = Attester(report=replace(REPORT, tee_tcb_svn=svn(5, 0, 3)), modules=[])
    assert claims(attester).module.name == "tdxModule"
    attester.edit = lambda document: document.pop("tdxModule")
    with pytest.raises(DecodeError, match="tdxModule"):
        claims(attester)


def test_a_module_below_every_level() -> None:
    found = claims(Attester(report=replace(REPORT, tee_tcb_svn=svn(1, 1, 3))))
    assert found.module.status is TcbStatus.NOT_SUPPORTED
    assert found.tcb.status is TcbStatus.NOT_SUPPORTED


def test_levels_of_modules_need_not_be_sorted() -> None:
    """dcap-qvl 126: levels were assumed to be sorted."""
    modules = [identity("TDX_01", isv(2, OOD), isv(5, UTD))]
    assert status(Attester(modules=modules)) == UTD


# (9) Levels


def test_components_0_and_1_are_the_modules_own() -> None:
    """A level that wants module SVN 5 fits a module 1 with SVN 2: that is step 8's to rate."""
    levels = [level(UTD, tdx=(5, 0, 3)), level(OOD, tdx=(0, 0, 0))]
    modules = [identity("TDX_01", isv(2, UTD))]
    report = replace(REPORT, tee_tcb_svn=svn(2, 1, 3))
    assert status(Attester(report=report, modules=modules, levels=levels)) == UTD
    # Without a version they are compared as the others are.
    report = replace(REPORT, tee_tcb_svn=svn(2, 0, 3))
    assert status(Attester(report=report, modules=modules, levels=levels)) == OOD


@pytest.mark.parametrize("index", range(2, 16))
def test_every_other_component_counts(index: int) -> None:
    """dcap-qvl: components were cut short."""
    wanted = [0] * 16
    wanted[index] = 4
    levels = [level(UTD, tdx=tuple(wanted)), level(OOD, tdx=(0,))]
    assert status(Attester(levels=levels)) == OOD
    own = bytearray(SVN)
    own[index] = 4
    assert status(Attester(levels=levels, report=replace(REPORT, tee_tcb_svn=bytes(own)))) == UTD


def test_no_level_is_low_enough() -> None:
    for levels in ([level(UTD, tdx=(0, 0, 4))], [level(UTD, sgx=11)], [level(UTD, pcesvn=12)], []):
        found = claims(Attester(levels=levels))
        assert found.tcb.status is TcbStatus.NOT_SUPPORTED
        assert found.tcb.date is None


def test_levels_without_tdx_components_fit_no_td() -> None:
    bare = level(UTD)
    del bare["tcb"]["tdxtcbcomponents"]
    assert status(Attester(levels=[bare])) == TcbStatus.NOT_SUPPORTED


@pytest.mark.parametrize("count", [0, 15, 17])
def test_all_16_components_are_there(count: int) -> None:
    short = level(UTD)
    short["tcb"]["tdxtcbcomponents"] = [{"svn": 0}] * count
    with pytest.raises(DecodeError, match=f"{count} tdxtcbcomponents, expected 16"):
        claims(Attester(levels=[short]))


# (10) Convergence


def test_an_old_platform_under_a_fresh_module_is_out_of_date() -> None:
    """go-tdx-guest, verify.go 1042: only the module's level was returned."""
    found = claims(Attester(levels=[level(OOD)]))
    assert found.details["module_tcb_status"] == UTD
    assert found.details["platform_tcb_status"] == OOD
    assert found.tcb.status == OOD


def test_an_old_module_on_a_fresh_platform_is_out_of_date() -> None:
    modules = [identity("TDX_01", isv(6, UTD), isv(2, OOD, "INTEL-SA-2", "INTEL-SA-1"))]
    found = claims(Attester(modules=modules))
    assert found.details["platform_tcb_status"] == UTD
    assert found.tcb.status == OOD
    assert found.tcb.advisories == ("INTEL-SA-1", "INTEL-SA-2")
    assert found.details["tcb_date"] == "2025-01-01"


def test_an_old_quoting_enclave_is_out_of_date() -> None:
    assert status(Attester(qe_levels=[isv(9, UTD), isv(8, OOD)])) == OOD
    assert status(Attester(qe_levels=[isv(9, UTD)])) == TcbStatus.NOT_SUPPORTED


@pytest.mark.parametrize("where", ["platform", "module", "qe"])
def test_revoked_anywhere_is_revoked(where: str) -> None:
    """automata 132, 144, 155: Revoked counted as success."""
    attester = Attester()
    if where == "platform":
        attester.levels = [level("Revoked")]
    elif where == "module":
        attester.modules = [identity("TDX_01", isv(5, "Revoked"))]
    else:
        attester.qe_levels = [isv(8, "Revoked")]
    assert status(attester) == "Revoked"


@pytest.mark.parametrize(
    ("platform", "module", "expected"),
    [  # Checks/TdxModuleCheck.cpp
        (UTD, UTD, UTD),
        (UTD, OOD, OOD),
        ("SWHardeningNeeded", OOD, OOD),
        ("ConfigurationNeeded", OOD, OOD_CN),
        ("ConfigurationAndSWHardeningNeeded", OOD, OOD_CN),
        (OOD, OOD, OOD),
        (OOD_CN, OOD, OOD_CN),
        (OOD, UTD, OOD),
        (OOD_CN, UTD, OOD_CN),
        ("SWHardeningNeeded", UTD, "SWHardeningNeeded"),
        ("ConfigurationNeeded", UTD, "ConfigurationNeeded"),
        (UTD, "Revoked", "Revoked"),
        ("Revoked", UTD, "Revoked"),
        ("Revoked", OOD, "Revoked"),
        ("NotSupported", UTD, "NotSupported"),
        (UTD, "NotSupported", "NotSupported"),
    ],
)
def test_the_table_of_convergence(platform: str, module: str, expected: str) -> None:
    assert converge(TcbStatus(platform), TcbStatus(module)) is TcbStatus(expected)
