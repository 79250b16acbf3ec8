"""TPM quotes: each structure, way of endorsing, register and step broken alone."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pki import BEGIN, END, NOW, Tree, ec_key, usage

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.tpm import VERIFIER
from broch.tee.tpm.attest import Attest, Selection
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.public import (
    ATTESTATION,
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    Public,
)
from broch.tee.tpm.signature import RSAPSS, RSASSA, Signature
from broch.tee.tpm.verify import TpmClaims
from broch.tee.verifier import Verifier
from broch.wire import cbor

from .attester import (
    AK_EC,
    AK_RSA,
    AK_SERIAL,
    NONCE,
    PCRS,
    QUOTED,
    SHA1,
    SHA256,
    SHA384,
    Attester,
    certificate_items,
    certified,
    digest,
    public,
    sign,
    spki,
    tree,
)

SECOND: Final = timedelta(seconds=1)


def verify(evidence: bytes, items: dict[str, bytes] | None = None) -> TpmClaims:
    made = {"ak_public": public(AK_EC)} if items is None else items
    return VERIFIER.verify(evidence, Endorsements(anchors=(), items=made), at=NOW)


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("tpm", "TPM 2.0")


def test_claims() -> None:
    found = verify(Attester().evidence())
    assert found.tee == "tpm"
    assert found.measurement == QUOTED.pcr_digest
    assert found.report_data == NONCE
    assert len(found.report_data) == VERIFIER.report_data_size
    assert found.signer is None
    assert not found.debug
    assert not found.emulated
    assert found.details["sha256:14"] == "0f" * 32
    assert found.details["ak_attributes"] == "checked"
    assert found.details["reset_count"] == "3"


@pytest.mark.parametrize(
    ("key", "scheme"),
    [(AK_EC, None), (AK_RSA, RSASSA), (AK_RSA, RSAPSS)],
    ids=["ECDSA", "RSASSA", "RSAPSS"],
)
def test_schemes(key: Any, scheme: int | None) -> None:
    evidence = Attester(key=key, scheme=scheme).evidence()
    assert verify(evidence, {"ak_public": public(key)}).details["endorsed_by"] == "ak_public"
    assert verify(evidence, {"attestation_key": spki(key)}).details["ak_attributes"] == "not shown"


def test_the_digest_is_of_the_schemes_hash() -> None:
    values = list(PCRS[SHA256].values())
    attest = replace(QUOTED, pcr_digest=digest(values, "sha384"))
    evidence = Attester(key=AK_RSA, alg=SHA384, attest=attest).evidence()
    assert verify(evidence, {"attestation_key": spki(AK_RSA)}).measurement == attest.pcr_digest
    with pytest.raises(UntrustedError, match="not those that the TPM has digested"):
        verify(Attester(key=AK_RSA, alg=SHA384).evidence(), {"attestation_key": spki(AK_RSA)})


# Registers


def test_registers_are_mapped_by_index() -> None:
    """az vTPM: values were mapped by position, whatever the quote had selected."""
    values = PCRS[SHA256]
    turned = {SHA256: dict(reversed(values.items()))}
    assert verify(Attester(pcrs=turned).evidence()).pcrs[SHA256][7] == values[7]
    # The values of 0, 1, 2, 7 and 14, handed out as 0 to 4.
    shifted = {SHA256: dict(enumerate(values.values()))}
    with pytest.raises(UntrustedError, match="not exactly those that the quote selects"):
        verify(Attester(pcrs=shifted).evidence())
    swapped = {SHA256: {**values, 0: values[1], 1: values[0]}}
    with pytest.raises(UntrustedError, match="not those that the TPM has digested"):
        verify(Attester(pcrs=swapped).evidence())


@pytest.mark.parametrize(
    "pcrs",
    [
        {},
        {SHA256: {}},
        {SHA256: {k: v for k, v in PCRS[SHA256].items() if k != 14}},
        {SHA256: {**PCRS[SHA256], 15: bytes(32)}},
        {**PCRS, SHA1: {0: bytes(20)}},
        {**PCRS, SHA1: {}},
        {SHA384: {k: bytes(48) for k in PCRS[SHA256]}},
    ],
)
def test_registers_are_exactly_the_selected_ones(pcrs: dict[int, dict[int, bytes]]) -> None:
    with pytest.raises(UntrustedError, match="not exactly those that the quote selects"):
        verify(Attester(pcrs=pcrs).evidence())


@pytest.mark.parametrize("index", sorted(PCRS[SHA256]))
def test_every_register_counts(index: int) -> None:
    with pytest.raises(UntrustedError, match="not those that the TPM has digested"):
        verify(Attester(pcrs={SHA256: {**PCRS[SHA256], index: bytes(32)}}).evidence())


def test_a_quote_over_nothing() -> None:
    for selections in ((), (Selection(bank=SHA256, width=3, indices=()),)):
        attest = replace(QUOTED, selections=selections, pcr_digest=digest([]))
        with pytest.raises(UntrustedError, match="over no register"):
            verify(Attester(attest=attest, pcrs={}).evidence())


def test_two_banks_in_the_order_of_the_selection() -> None:
    pcrs = {SHA256: {0: b"a" * 32}, SHA1: {0: b"b" * 20, 23: b"c" * 20}}
    selections = (
        Selection(bank=SHA1, width=4, indices=(0, 23)),
        Selection(bank=SHA256, width=3, indices=(0,)),
    )
    values = [b"b" * 20, b"c" * 20, b"a" * 32]
    attest = replace(QUOTED, selections=selections, pcr_digest=digest(values))
    assert verify(Attester(attest=attest, pcrs=pcrs).evidence()).details["sha1:23"] == "63" * 20


# The key


def test_no_key_comes_with_the_evidence() -> None:
    """trustee: the key inside the evidence was trusted."""
    fields = cbor.decode(Attester().evidence(), what="test")
    with pytest.raises(DecodeError, match="not a map of"):
        verify(cbor.encode({**fields, "ak_public": public(AK_EC)}))
    with pytest.raises(UndecidedError, match="have 0 of ak_public"):
        verify(Attester().evidence(), {})


def test_one_way_and_not_two() -> None:
    both = {"ak_public": public(AK_EC), "attestation_key": spki(AK_RSA)}
    with pytest.raises(UndecidedError, match="have 2 of"):
        verify(Attester().evidence(), both)


def test_another_key() -> None:
    stranger = ec_key("stranger", ec.SECP256R1)
    for items in (
        {"ak_public": public(stranger)},
        {"attestation_key": spki(stranger)},
        {"attestation_key": spki(AK_RSA)},
    ):
        with pytest.raises(UntrustedError, match="signature does not hold"):
            verify(Attester().evidence(), items)


@pytest.mark.parametrize(
    "attributes",
    [
        ATTESTATION & ~FIXED_TPM,
        ATTESTATION & ~FIXED_PARENT,
        ATTESTATION & ~SENSITIVE_DATA_ORIGIN,
        ATTESTATION & ~RESTRICTED,
        ATTESTATION & ~SIGN,
        ATTESTATION | DECRYPT,
        0,
    ],
)
def test_each_attribute_of_an_attestation_key(attributes: int) -> None:
    with pytest.raises(UntrustedError, match="not those of an attestation key"):
        verify(Attester().evidence(), {"ak_public": public(AK_EC, attributes)})


@pytest.mark.parametrize("key", [b"", b"\x30\x00", spki(AK_EC)[:-1]])
def test_keys_that_are_none(key: bytes) -> None:
    with pytest.raises(DecodeError):
        verify(Attester().evidence(), {"attestation_key": key})


# A certificate


def check(made: Tree, at: datetime = NOW, **crl: Any) -> TpmClaims:
    items = certificate_items(made, **crl)
    anchors = (made.der("stranger"), made.der("root"))
    return VERIFIER.verify(Attester().evidence(), Endorsements(anchors=anchors, items=items), at=at)


def test_a_certified_key() -> None:
    found = check(tree())
    assert found.emulated
    assert found.details["root"] == "Broch Emulated TPM Root"
    assert found.details["revocation"] == "checked"
    assert not check(tree().change("root", common="Some TPM Root")).emulated


def test_a_key_certified_by_an_anchor_itself() -> None:
    made = tree().change("ak", issuer="root")
    items = {"ak_certificate": made.der("ak"), "unsafe_no_crl": b""}
    found = VERIFIER.verify(
        Attester().evidence(), Endorsements(anchors=(made.der("root"),), items=items), at=NOW
    )
    assert found.details["revocation"] == "not checked"


@pytest.mark.parametrize(
    ("label", "changes", "problem"),
    [
        ("ak", {"extended": ()}, "not of an attestation key"),
        ("ak", {"extended": ("2.23.133.8.1",)}, "not of an attestation key"),  # an EK
        ("ak", {"key_usage": None}, "may not sign data"),
        ("ak", {"ca": True}, "is a CA"),
        ("ak", {"signer": "stranger"}, "signature does not hold"),
        ("ak", {"issuer_name": "Stranger"}, "was not issued by|is not among"),
        ("ak", {"key": ec_key("other", ec.SECP256R1)}, "TPM quote: the signature"),
        ("issuer", {"signer": "stranger"}, "signature does not hold"),
        ("issuer", {"issuer_name": "Nobody"}, "not among the anchors"),
        ("issuer", {"ca": False, "path_length": None}, "may not issue"),
        ("issuer", {"key_usage": usage(ca=False)}, "may not issue"),
        ("issuer", {"key_usage": usage(ca=True, crl_sign=False)}, "revocation lists"),
        ("root", {"path_length": 0}, "allows no such chain"),
        ("root", {"ca": False}, "may not issue"),
        ("root", {"signer": "stranger"}, "signature does not hold"),
    ],
)
def test_each_role_of_each_certificate(label: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(tree().change(label, **changes))


@pytest.mark.parametrize("label", ["root", "issuer", "ak"])
def test_each_certificate_has_its_period(label: str) -> None:
    wide = {"begin": BEGIN - timedelta(days=9), "end": END + timedelta(days=9)}
    made = tree()
    for other in {"root", "issuer", "ak"} - {label}:
        made = made.change(other, **wide)
    check(made, BEGIN, **wide)
    check(made, END, **wide)
    with pytest.raises(UntrustedError, match="not valid before"):
        check(made, BEGIN - SECOND, **wide)
    with pytest.raises(UntrustedError, match="has expired"):
        check(made, END + SECOND, **wide)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"revoked": (AK_SERIAL,)}, "is revoked"),
        ({"signer": "root"}, "crl: .*signature"),
        ({"end": NOW}, "crl has expired"),
        ({"begin": NOW + SECOND, "end": END}, "crl is not valid before"),
    ],
)
def test_each_rule_of_the_list(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(tree(), **options)


def test_what_a_certificate_needs_besides() -> None:
    made = tree()
    items = certificate_items(made)
    del items["crl"]
    anchored = Endorsements(anchors=(made.der("root"),), items=items)
    with pytest.raises(UndecidedError, match="lack crl"):
        VERIFIER.verify(Attester().evidence(), anchored, at=NOW)
    with pytest.raises(UndecidedError, match="no root"):
        verify(Attester().evidence(), certificate_items(made))


# Structures


def test_structures_round_trip() -> None:
    for attest in (QUOTED, certified(b"\x00\x0b" + bytes(32)), replace(QUOTED, safe=False)):
        assert Attest.from_bytes(attest.to_bytes()) == attest
    for key in (AK_EC, AK_RSA):
        data = sign(key, b"data")
        assert Signature.from_bytes(data).to_bytes() == data
        assert Public.from_bytes(public(key)).to_bytes() == public(key)
    evidence = Attester().evidence()
    assert Evidence.from_bytes(evidence).to_bytes() == evidence


@pytest.mark.parametrize(
    "data",
    [
        QUOTED.to_bytes() + b"\0",
        b"\xff\x54\x43\x48" + QUOTED.to_bytes()[4:],
        b"\xff\x54\x43\x47\x80\x14" + QUOTED.to_bytes()[6:],
        replace(QUOTED, extra_data=bytes(67)).to_bytes(),
        replace(QUOTED, qualified_signer=bytes(69)).to_bytes(),
        replace(QUOTED, selections=(Selection(bank=0x12, width=3, indices=()),)).to_bytes(),
        replace(QUOTED, selections=(Selection(bank=SHA256, width=2, indices=()),)).to_bytes(),
        replace(QUOTED, selections=QUOTED.selections * 2).to_bytes(),
        replace(QUOTED, selections=QUOTED.selections * 17).to_bytes(),
        QUOTED.to_bytes().replace(b"\x01\x20\x20\x03", b"\x02\x20\x20\x03"),
        bytes(5000),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_each_rule_of_an_attest(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Attest.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x14\x00\x04\x00\x01x",  # SHA-1
        b"\x00\x05\x00\x0b\x00\x01x",  # HMAC
        b"\x00\x14\x00\x0b\x00\x02x",
        b"\x00\x18\x00\x0b\x00\x01x",
        b"\x00\x14\x00\x0b\x02\x01" + bytes(513),
        sign(AK_EC, b"x") + b"\0",
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_each_rule_of_a_signature(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Signature.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        public(AK_EC) + b"\0",
        public(AK_EC)[:-1],
        b"\x00\x25" + public(AK_EC)[2:],
        public(AK_EC, name_alg=SHA1),
        public(AK_EC, policy=bytes(65)),
        public(AK_RSA).replace(b"\x08\x00\x00\x00\x00\x00", b"\x04\x00\x00\x00\x00\x00"),
        public(AK_RSA).replace(b"\x08\x00\x00\x00\x00\x00", b"\x08\x00\x00\x00\x00\x02"),
        public(AK_EC).replace(b"\x00\x03\x00\x10", b"\x00\x10\x00\x10"),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_each_rule_of_a_public_key(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Public.from_bytes(data)


def test_keys_with_a_policy_or_a_cipher() -> None:
    for data in (
        public(AK_EC, policy=bytes(32)),
        public(AK_RSA, symmetric=b"\x00\x06\x00\x80\x00\x43"),
    ):
        assert Public.from_bytes(data).attributes == ATTESTATION


@pytest.mark.parametrize(
    "fields",
    [
        {"attest": "x"},
        {"signature": None},
        {"pcrs": []},
        {"pcrs": {"sha256": {}}},
        {"pcrs": {0x12: {}}},
        {"pcrs": {SHA256: []}},
        {"pcrs": {SHA256: {32: bytes(32)}}},
        {"pcrs": {SHA256: {"0": bytes(32)}}},
        {"pcrs": {SHA256: {0: bytes(20)}}},
        {"more": 1},
    ],
)
def test_each_rule_of_the_evidence(fields: dict[str, Any]) -> None:
    sound = cbor.decode(Attester().evidence(), what="test")
    with pytest.raises(DecodeError):
        Evidence.from_bytes(cbor.encode({**sound, **fields}))


def test_every_signed_byte() -> None:
    sound = Evidence.from_bytes(Attester().evidence())
    for offset in range(len(sound.attest)):
        bent = bytearray(sound.attest)
        bent[offset] ^= 1
        with pytest.raises((DecodeError, UntrustedError)):
            verify(replace(sound, attest=bytes(bent)).to_bytes())


def test_a_certification_is_no_quote() -> None:
    attest = certified(Public.from_bytes(public(AK_RSA)).name())
    with pytest.raises(UntrustedError, match="not a quote"):
        verify(Attester(attest=attest).evidence())


def test_what_is_signed_must_be_the_tpms_own() -> None:
    """A signature over other data, which a restricted key would not make."""
    data = b"\x00" + QUOTED.to_bytes()[1:]
    evidence = Evidence(attest=data, signature=sign(AK_EC, data), pcrs=PCRS).to_bytes()
    with pytest.raises(DecodeError, match="magic number"):
        verify(evidence)


def test_a_time_without_zone() -> None:
    with pytest.raises(UsageError):
        VERIFIER.verify(
            Attester().evidence(), Endorsements(anchors=()), at=NOW.replace(tzinfo=None)
        )


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=120))
def test_noise_gives_our_errors(data: bytes) -> None:
    for reader in (Attest.from_bytes, Signature.from_bytes, Public.from_bytes, Evidence.from_bytes):
        for prefix in (b"", b"\xff\x54\x43\x47\x80\x18"):
            try:
                made = reader(prefix + data)
            except BrochError:
                continue
            assert made.to_bytes() == prefix + data
