"""How other verifiers failed, one test each: what they let through is refused here, or shown.

The name of each test begins with whose failure it was; the docstring says what was let through and
where it was published. Where the failure was one of policy, the claim that a policy needs is
tested; that the default policy refuses it is in ``tests/unit/attest``. The relay of attested TLS
(CVE-2026-33697) is in ``tests/unit/attest/tls``.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.pki import NOW as PKI_NOW
from tests.pki import ec_key
from tests.unit.tee.cca.test_cca import Attester as CcaAttester
from tests.unit.tee.cca.test_cca import verify as verify_cca
from tests.unit.tee.nitro import test_nitro as aws
from tests.unit.tee.psa import test_psa as psa
from tests.unit.tee.sgx.attester import EXTENSION
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW as SGX_NOW
from tests.unit.tee.snp.attester import CHIP
from tests.unit.tee.snp.attester import Attester as SnpAttester
from tests.unit.tee.tdx.attester import NOW as TDX_NOW
from tests.unit.tee.tdx.attester import REPORT, STRANGER, Attester, identity, isv, level
from tests.unit.tee.tpm import attester as tpm_maker

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError
from broch.tee import nitro, snp, tdx, tpm
from broch.tee.contract import Claims, Endorsements
from broch.tee.dcap import ecdsa
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx import TEE as SGX
from broch.tee.tdx.verify import TdxClaims
from broch.tee.tpm.evidence import Evidence
from broch.wire import cbor, cose
from broch.wire.cose import Alg, Tagging


def sgx(attester: SgxAttester) -> Claims:
    return SGX.verify(attester.evidence(), attester.endorsements(), at=SGX_NOW)


def td(attester: Attester) -> TdxClaims:
    return tdx.VERIFIER.verify(attester.evidence(), attester.endorsements(), at=TDX_NOW)


def guest(attester: SnpAttester) -> Claims:
    return snp.VERIFIER.verify(attester.evidence(), attester.endorsements(), at=PKI_NOW)


def other_items(endorsements: Endorsements, **changes: bytes) -> Endorsements:
    return Endorsements(anchors=endorsements.anchors, items={**endorsements.items, **changes})


# Intel


def test_dcap_qvl_cve_2026_22696_qe_identity_was_not_verified() -> None:
    """GHSA-796p-j2gh-9m2q: neither its signature nor that the QE is the one it describes."""
    attester = SgxAttester()
    made = attester.endorsements()
    document = made.items["qe_identity"]
    forged = other_items(made, qe_identity_signature=ecdsa.sign(STRANGER, document))
    with pytest.raises(UntrustedError, match="qe_identity: the signature does not hold"):
        SGX.verify(attester.evidence(), forged, at=SGX_NOW)
    for fields in ({"mrsigner": b"X" * 32}, {"isvprodid": 9}, {"xfrm": 7}, {"miscselect": 1}):
        with pytest.raises(UntrustedError, match="quoting enclave is not that of qe_identity"):
            sgx(SgxAttester(qe_fields=fields))


def test_dcap_qvl_124_the_tdx_module_was_not_identified() -> None:
    """Any SEAM module could have measured the TD."""
    for changes in ({"mr_signer_seam": b"X" * 48}, {"seam_attributes": 1}):
        with pytest.raises(UntrustedError, match=r"not th(at|ose) of TDX_01"):
            td(Attester(report=replace(REPORT, **changes)))


@pytest.mark.parametrize("status", ["OutOfDate", "ConfigurationNeeded", "SWHardeningNeeded"])
def test_dcap_qvl_125_every_status_counted_as_valid(status: str) -> None:
    """Here there is no "is valid": the status is a claim, and a policy has to name it."""
    found = td(Attester(levels=[level(status)]))
    assert found.tcb.status == status
    assert found.details["tcb_status"] == status


def test_dcap_qvl_126_levels_were_assumed_to_be_sorted() -> None:
    low, high = level("OutOfDate", tdx=(0, 0, 0), sgx=1), level("UpToDate")
    for order in ([low, high], [high, low]):
        assert td(Attester(levels=order)).tcb.status is TcbStatus.UP_TO_DATE


def test_dcap_qvl_127_any_maker_of_quoting_enclaves() -> None:
    for attester in (SgxAttester, Attester):
        made: Any = attester(header_fields={"qe_vendor_id": b"\x11" * 16})
        with pytest.raises(DecodeError, match="QE vendor 1111"):
            (sgx if attester is SgxAttester else td)(made)


@pytest.mark.parametrize("count", [0, 15, 17])
def test_dcap_qvl_components_were_zipped_to_the_shorter_list(count: int) -> None:
    """Fifteen components in a level: the sixteenth was never compared."""

    def cut(document: dict[str, Any]) -> None:
        tcb = document["tcbLevels"][0]["tcb"]
        tcb["sgxtcbcomponents"] = [{"svn": 0}] * count

    with pytest.raises(DecodeError, match=f"{count} sgxtcbcomponents, expected 16"):
        sgx(SgxAttester(edit_tcb_info=cut))


def test_automata_144_a_revoked_qe_was_accepted_before_its_signature_was_looked_at() -> None:
    revoked = [isv(8, "Revoked")]
    assert td(Attester(qe_levels=revoked)).tcb.status is TcbStatus.REVOKED
    attester = Attester(qe_levels=revoked)
    made = attester.endorsements()
    forged = other_items(
        made, qe_identity_signature=ecdsa.sign(STRANGER, made.items["qe_identity"])
    )
    with pytest.raises(UntrustedError, match="qe_identity: the signature"):
        tdx.VERIFIER.verify(attester.evidence(), forged, at=TDX_NOW)


@pytest.mark.parametrize("where", ["platform", "module", "QE"])
def test_automata_132_155_a_revoked_tcb_counted_as_success(where: str) -> None:
    """Revoked anywhere is Revoked altogether."""
    bent = {
        "platform": Attester(levels=[level("Revoked")]),
        "module": Attester(modules=[identity("TDX_01", isv(5, "Revoked"))]),
        "QE": Attester(qe_levels=[isv(8, "Revoked")]),
    }[where]
    assert td(bent).details["tcb_status"] == "Revoked"


def test_bitrouter_566_the_tcb_status_was_dropped() -> None:
    """It is in the claims of every quote, and there is no claim without one."""
    for claims in (sgx(SgxAttester()), td(Attester())):
        assert claims.details["tcb_status"] == "UpToDate"
        assert claims.details["platform_tcb_status"]
        assert claims.details["qe_tcb_status"]


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_aleph_vm_1195_old_collateral_could_be_played_back(document: str) -> None:
    """nextUpdate was not checked."""
    expired = (SGX_NOW.replace(year=2020), SGX_NOW)
    with pytest.raises(UntrustedError, match=f"{document} has expired"):
        sgx(SgxAttester(periods={document: expired}))


def test_go_tdx_guest_only_the_modules_level_was_returned() -> None:
    """verify.go:1042: a platform out of date passed under a fresh module."""
    found = td(Attester(levels=[level("OutOfDate")]))
    assert found.module.status is TcbStatus.UP_TO_DATE
    assert found.tcb.status is TcbStatus.OUT_OF_DATE


def test_go_tdx_guest_collateral_and_lists_were_opt_in() -> None:
    """Nothing is optional here: what is missing leaves it undecided."""
    attester = Attester()
    made, evidence = attester.endorsements(), attester.evidence()
    for name in made.items:
        rest = {item: value for item, value in made.items.items() if item != name}
        with pytest.raises(UndecidedError, match=name):
            tdx.VERIFIER.verify(
                evidence, Endorsements(anchors=made.anchors, items=rest), at=TDX_NOW
            )


def test_occlum_1121_the_challenge_was_not_the_verifiers() -> None:
    """What the verifier sent comes back as a claim, and no byte of it can be another."""
    report = replace(REPORT, report_data=b"challenge".ljust(64, b"\0"))
    attester = Attester(report=report)
    evidence = attester.evidence()
    claims = tdx.VERIFIER.verify(evidence, attester.endorsements(), at=TDX_NOW)
    assert claims.report_data == b"challenge".ljust(64, b"\0")
    other = evidence.replace(b"challenge", b"Challenge")
    with pytest.raises(UntrustedError, match="quote: the signature"):
        tdx.VERIFIER.verify(other, attester.endorsements(), at=TDX_NOW)


def test_cvm_attest_quotes_without_a_signature() -> None:
    attester = Attester()
    bare = attester.evidence()[: 48 + 584]
    for cut in (bare, bare + bytes(4), bare + bytes(700)):
        with pytest.raises(DecodeError):
            tdx.VERIFIER.verify(cut, attester.endorsements(), at=TDX_NOW)


def test_cvm_attest_an_attackers_root() -> None:
    """With ``fetch_root_ca=False`` any root was taken that came with the quote."""
    attester = SgxAttester(root_name="Intel SGX Root CA")
    made, evidence = attester.endorsements(), attester.evidence()
    with pytest.raises(UntrustedError, match="neither Intel's nor emulated"):
        SGX.verify(evidence, made, at=SGX_NOW)
    with pytest.raises(UndecidedError, match="no root to trust"):
        SGX.verify(evidence, replace(made, anchors=()), at=SGX_NOW)


def test_cvm_attest_a_td_under_debug() -> None:
    assert td(Attester(report=replace(REPORT, td_attributes=1))).debug
    assert not td(Attester()).debug


# AMD


def test_go_sev_guest_185_190_a_forged_root_was_accepted_when_none_was_given() -> None:
    """Nil certificates in the verifier's options: nothing was compared."""
    attester = SnpAttester()
    made, evidence = attester.endorsements(), attester.evidence()
    with pytest.raises(UndecidedError, match="no root to trust"):
        snp.VERIFIER.verify(evidence, replace(made, anchors=()), at=PKI_NOW)
    for name in ("ask", "vek"):
        rest = {item: value for item, value in made.items.items() if item != name}
        with pytest.raises(UndecidedError, match=f"lack {name}"):
            snp.VERIFIER.verify(
                evidence, Endorsements(anchors=made.anchors, items=rest), at=PKI_NOW
            )


@pytest.mark.parametrize("name", ["ARK-Milan", "ARK-Genoa", "ARK-Turin"])
def test_microsoft_tav_140_a_root_of_the_callers_with_amds_name(name: str) -> None:
    """Even as an anchor: who bears AMD's name has AMD's digest."""
    with pytest.raises(UntrustedError, match="neither AMD's nor emulated"):
        guest(SnpAttester().change("ark", common=name))


def test_microsoft_tav_142_a_vlek_was_taken_for_a_vcek() -> None:
    """SIGNING_KEY was not compared with the certificate."""
    for vlek, flags in ((False, 4), (True, 0)):
        with pytest.raises(UntrustedError, match="the certificate is of a V"):
            guest(SnpAttester(vlek=vlek).bend(flags=flags))


def test_microsoft_tav_142_the_chips_identity_was_not_compared() -> None:
    with pytest.raises(UntrustedError, match="another chip"):
        guest(SnpAttester().bend(chip_id=CHIP[::-1]))


def test_trustee_the_chip_was_never_checked_since_the_name_was_misspelt() -> None:
    """``CN == "VCEK"``; the real name is "SEV-VCEK", and another is no key at all."""
    with pytest.raises(UntrustedError, match="another chip"):
        guest(SnpAttester().change("vek", common="SEV-VCEK").bend(chip_id=bytes(64)))
    with pytest.raises(UntrustedError, match="neither SEV-VCEK nor SEV-VLEK"):
        guest(SnpAttester().change("vek", common="VCEK"))


def test_trustee_no_revocation_list_for_snp() -> None:
    attester = SnpAttester()
    items = {name: value for name, value in attester.items().items() if name != "crl"}
    made = Endorsements(anchors=(attester.tree.der("ark"),), items=items)
    with pytest.raises(UndecidedError, match="lack crl"):
        snp.VERIFIER.verify(attester.evidence(), made, at=PKI_NOW)
    revoking = SnpAttester()
    revoking.crl_options = {"revoked": (0x10001,)}
    with pytest.raises(UntrustedError, match="is revoked"):
        guest(revoking)


def test_az_snp_the_default_policy_did_not_ask_for_debug() -> None:
    assert guest(SnpAttester().bend(policy=0xB001F)).debug
    assert not guest(SnpAttester()).debug


@pytest.mark.parametrize("size", [0, 1, 79, 80, 144, 671, 672, 1183, 1185])
def test_az_snp_short_user_data_was_a_panic(size: int) -> None:
    attester = SnpAttester()
    data = attester.evidence().ljust(1185, b"\0")[:size]
    with pytest.raises(DecodeError):
        snp.VERIFIER.verify(data, attester.endorsements(), at=PKI_NOW)


# TPM


def tpm_verify(evidence: bytes, **items: bytes) -> Claims:
    return tpm.VERIFIER.verify(evidence, Endorsements(anchors=(), items=items), at=PKI_NOW)


def test_trustee_the_key_inside_the_evidence_was_trusted() -> None:
    """Evidence has no place for one here, and without an enrolled one nothing is decided."""
    evidence = tpm_maker.Attester().evidence()
    fields = cbor.decode(evidence, what="test")
    assert fields.keys() == {"attest", "signature", "pcrs"}
    with pytest.raises(UndecidedError, match="have 0 of"):
        tpm_verify(evidence)
    with_key = cbor.encode({**fields, "ak_public": tpm_maker.public(tpm_maker.AK_EC)})
    with pytest.raises(DecodeError, match="not a map of"):
        tpm_verify(with_key, ak_public=tpm_maker.public(tpm_maker.AK_EC))


def test_az_vtpm_registers_were_mapped_by_position() -> None:
    values = tpm_maker.PCRS[tpm_maker.SHA256]
    shifted = {tpm_maker.SHA256: dict(enumerate(values.values()))}
    with pytest.raises(UntrustedError, match="not exactly those that the quote selects"):
        tpm_verify(
            tpm_maker.Attester(pcrs=shifted).evidence(),
            ak_public=tpm_maker.public(tpm_maker.AK_EC),
        )


def test_keylime_cve_2022_1053_2025_13609_2026_1709_another_machines_key() -> None:
    """A registrar let keys be replaced: here a quote is of the key that was enrolled for it."""
    stranger = ec_key("stranger", ec.SECP256R1)
    evidence = tpm_maker.Attester(key=stranger).evidence()
    with pytest.raises(UntrustedError, match="signature does not hold"):
        tpm_verify(evidence, ak_public=tpm_maker.public(tpm_maker.AK_EC))


def test_keylime_2021_the_chain_from_ek_to_ak_could_be_broken() -> None:
    """Software could pass its key for a TPM's: attributes count, and two ways are none."""
    evidence = tpm_maker.Attester().evidence()
    soft = tpm_maker.public(tpm_maker.AK_EC, attributes=0x00040072)
    with pytest.raises(UntrustedError, match="not those of an attestation key"):
        tpm_verify(evidence, ak_public=soft)
    with pytest.raises(UndecidedError, match="have 2 of"):
        tpm_verify(
            evidence,
            ak_public=tpm_maker.public(tpm_maker.AK_EC),
            attestation_key=tpm_maker.spki(tpm_maker.AK_EC),
        )


def test_keylime_cve_2023_38201_the_challenge_could_be_left_out() -> None:
    """The qualifying data are signed; without them the claim is empty and equals no challenge."""
    nothing = replace(tpm_maker.QUOTED, extra_data=b"")
    claims = tpm_verify(
        tpm_maker.Attester(attest=nothing).evidence(),
        ak_public=tpm_maker.public(tpm_maker.AK_EC),
    )
    assert claims.report_data == b""
    sound = Evidence.from_bytes(tpm_maker.Attester().evidence())
    cut = replace(sound, attest=nothing.to_bytes()).to_bytes()
    with pytest.raises(UntrustedError, match="TPM quote: the signature"):
        tpm_verify(cut, ak_public=tpm_maker.public(tpm_maker.AK_EC))


# Formats


def test_nitro_self_signed_with_a_null_bundle() -> None:
    with pytest.raises(DecodeError, match="cabundle"):
        aws.check(aws.Attester(fields={"cabundle": None}))
    evidence = aws.Attester(bundle=("root",), tree=aws.tree()).evidence()
    with pytest.raises(UntrustedError):
        nitro.VERIFIER.verify(evidence, Endorsements(anchors=(nitro_root(evidence),)), at=PKI_NOW)


def nitro_root(evidence: bytes) -> bytes:
    return aws.cabundle(evidence)[0]


def test_cose_the_header_chose_the_algorithm() -> None:
    """ES256 and HMAC in the header of a document that is ES384's."""
    made = aws.tree().change("leaf", key=ec_key("leaf", ec.SECP256R1))
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        aws.check(aws.Attester(tree=made, alg=Alg.ES256))
    public = psa.spki(psa.KEY)
    mac = cose.mac0(cbor.encode(psa.NEW), public, tagging=Tagging.TAGGED)
    with pytest.raises(UndecidedError, match="lack mac_key"):
        psa.verify(mac)


def test_cbor_duplicate_keys_and_trailing_bytes() -> None:
    """General decoders keep the last of two keys, and leave what follows unread."""
    with pytest.raises(DecodeError, match="comes twice"):
        cbor.decode(bytes.fromhex("a2 0a 41 01 0a 41 02"), what="test")
    with pytest.raises(DecodeError, match="after the item"):
        cbor.decode(bytes.fromhex("a1 0a 41 01 00"), what="test")
    for evidence, verify in (
        (aws.Attester().evidence() + b"\0", aws.check_raw),
        (psa.sign(psa.NEW) + b"\0", psa.verify),
        (CcaAttester().evidence() + b"\0", verify_cca),
    ):
        with pytest.raises(DecodeError, match="after the item"):
            verify(evidence)


def test_json_was_serialised_again_before_its_signature_was_checked() -> None:
    attester = SgxAttester()
    made = attester.endorsements()
    for name in ("tcb_info", "qe_identity"):
        again = json.dumps(json.loads(made.items[name]), separators=(",", ":")).encode()
        assert json.loads(again) == json.loads(made.items[name])
        with pytest.raises(UntrustedError, match=f"{name}: the signature"):
            SGX.verify(attester.evidence(), other_items(made, **{name: again}), at=SGX_NOW)


def test_json_with_a_key_twice() -> None:
    """Which of the two did the signer mean? Signed as it is, and refused."""
    attester = SgxAttester()
    made = attester.endorsements()
    text = made.items["tcb_info"]
    twice = text.replace(b'"id": "SGX"', b'"id": "SGX", "id": "SGX"')
    assert twice != text
    signing = attester.key("tcb_info")
    changed = other_items(made, tcb_info=twice, tcb_info_signature=ecdsa.sign(signing, twice))
    with pytest.raises(DecodeError, match="twice"):
        SGX.verify(attester.evidence(), changed, at=SGX_NOW)


def test_cca_a_realm_token_whose_key_is_not_bound_to_the_platform() -> None:
    stranger = ec_key("another realm")
    for attester in (
        CcaAttester(platform={10: b"x" * 32}),  # the platform vouches for another key
        CcaAttester(rak=stranger),  # the bound key did not sign
    ):
        with pytest.raises(UntrustedError, match="realm"):
            verify_cca(attester.evidence())


def test_veraison_265_no_reference_values_was_only_a_warning() -> None:
    """Here verifying never says "acceptable": the measurement is a claim to be compared."""
    claims = verify_cca(CcaAttester().evidence())
    assert claims.measurement == b"r" * 32
    assert not hasattr(claims, "status")


# What cannot be told from a signature


def test_coco_evidence_factory_evidence_for_anothers_key() -> None:
    """Any guest of the same measurement can ask for evidence: only report data tell them apart."""
    mine = td(Attester(report=replace(REPORT, report_data=b"m" * 64)))
    theirs = td(Attester(report=replace(REPORT, report_data=b"t" * 64)))
    assert mine.measurement == theirs.measurement
    assert mine.report_data != theirs.report_data


def test_wiretap_tee_fail_batteryram_extracted_keys_look_genuine() -> None:
    """No status expresses it; who lists his own machines needs their names, which are claims."""
    assert sgx(SgxAttester()).details["ppid"] == EXTENSION.ppid.hex()
    assert td(Attester()).details["ppid"]
    assert guest(SnpAttester()).details["chip_id"] == CHIP.hex()


def test_milanlaunchy_badfuse_every_report_of_milan_may_be_forged() -> None:
    """Reports of one product line: which it is, is a claim, out of AMD's own certificate."""
    claims = guest(SnpAttester())
    assert claims.details["product"].startswith("Milan")


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 5000, b"{}", b"\x84", bytes(1184)])
def test_all_of_them_noise_is_an_error_of_ours(data: bytes) -> None:
    nothing = Endorsements(anchors=(b"root",), items={})
    for verifier in (SGX, tdx.VERIFIER, snp.VERIFIER, nitro.VERIFIER, tpm.VERIFIER):
        with pytest.raises(BrochError):
            verifier.verify(data, nothing, at=PKI_NOW)
