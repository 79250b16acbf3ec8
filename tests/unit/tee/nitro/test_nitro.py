"""Nitro documents: each field, certificate, date and step broken alone."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pki import BEGIN, END, NOW, SHA256, Cert, Tree, ec_key, rsa_key, usage

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.nitro import VERIFIER
from broch.tee.nitro.document import Document
from broch.tee.nitro.root import ROOT_G1, ROOT_G1_SHA256
from broch.tee.verifier import Verifier
from broch.wire import cbor, cose
from broch.wire.cose import Alg, Tagging
from broch.wire.x509 import read_certificate

SECOND: Final = timedelta(seconds=1)
ROOT_NAME: Final = "Broch Emulated Nitro Root"
CHAIN: Final = ("root", "region", "zone", "instance")


def tree() -> Tree:
    """Like AWS's: root, region, zone, instance, and the enclave's own certificate."""
    certs = {"root": Cert(common=ROOT_NAME, key=ec_key("root"), ca=True, key_usage=usage(ca=True))}
    for index, (label, issuer) in enumerate(zip(CHAIN[1:], CHAIN, strict=False)):
        certs[label] = Cert(
            common=f"{label}.aws.nitro-enclaves",
            key=ec_key(label),
            issuer=issuer,
            ca=True,
            path_length=2 - index,
            key_usage=usage(ca=True),
        )
    certs["leaf"] = Cert(
        common="enclave.aws", key=ec_key("leaf"), issuer="instance", key_usage=usage(ca=False)
    )
    certs["stranger"] = Cert(common="Stranger", key=ec_key("stranger"))
    return Tree(certs=certs)


@dataclass(kw_only=True)
class Attester:
    """An enclave; change a field, then ask for evidence."""

    tree: Tree = field(default_factory=tree)
    fields: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    bundle: tuple[str, ...] = CHAIN
    alg: Alg = Alg.ES384
    tagging: Tagging = Tagging.UNTAGGED
    signer: str = "leaf"

    def payload(self) -> dict[str, Any]:
        sound = {
            "module_id": "i-0-enc0",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": {index: bytes([index + 1]) * 48 for index in (4, 0, 1, 2, 3, 8)},
            "certificate": self.tree.der("leaf"),
            "cabundle": [self.tree.der(label) for label in self.bundle],
            "public_key": b"key",
            "user_data": b"data",
            "nonce": b"nonce",
        }
        found = {**sound, **self.fields}
        return {name: value for name, value in found.items() if name not in self.without}

    def evidence(self) -> bytes:
        key = self.tree.certs[self.signer].key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cose.sign1(cbor.encode(self.payload()), key, self.alg, tagging=self.tagging)

    def endorsements(self) -> Endorsements:
        return Endorsements(anchors=(ROOT_G1, self.tree.der("root")))


def check(attester: Attester, at: datetime = NOW) -> None:
    # Signatures over certificates are random, so the anchor is the one in the document.
    evidence = attester.evidence()
    anchors = cabundle(evidence)[:1]
    VERIFIER.verify(evidence, Endorsements(anchors=(ROOT_G1, *anchors)), at=at)


def cabundle(evidence: bytes) -> list[bytes]:
    fields = cbor.decode(cbor.decode(evidence, what="test")[2], what="test")
    bundle = fields.get("cabundle")
    return [der for der in bundle if isinstance(der, bytes)] if isinstance(bundle, list) else []


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("nitro", "AWS Nitro Enclaves")


def test_the_pin_is_the_root() -> None:
    assert sha256(ROOT_G1).digest() == ROOT_G1_SHA256
    root = read_certificate(ROOT_G1, "root")
    assert root.name == "aws.nitro-enclaves"
    assert root.is_ca


def test_claims() -> None:
    evidence = Attester().evidence()
    anchors = tuple(cabundle(evidence)[:1])
    claims = VERIFIER.verify(evidence, Endorsements(anchors=anchors), at=NOW)
    assert claims.tee == "nitro"
    assert claims.measurement == b"\x01" * 48
    assert claims.signer == b"\x09" * 48
    assert claims.report_data == b"data"
    assert claims.nonce == b"nonce"
    assert claims.public_key == b"key"
    assert claims.timestamp == NOW
    assert not claims.debug
    assert claims.emulated
    assert claims.details["pcr8"] == "09" * 48
    assert Document.from_bytes(evidence).to_bytes() == evidence


@pytest.mark.parametrize("how", ["absent", "null"])
def test_what_may_be_absent(how: str) -> None:
    names = ("public_key", "user_data", "nonce")
    attester = Attester(without=names) if how == "absent" else Attester(fields=dict.fromkeys(names))
    evidence = attester.evidence()
    anchors = tuple(cabundle(evidence)[:1])
    claims = VERIFIER.verify(evidence, Endorsements(anchors=anchors), at=NOW)
    assert claims.nonce is None
    assert claims.public_key is None
    assert claims.report_data == b""
    assert claims.details["nonce"] == "absent"


@pytest.mark.parametrize("zero", [(0, 1, 2), (0,), (1,), (2,)])
def test_zeros_mean_debug(zero: tuple[int, ...]) -> None:
    pcrs = {index: bytes(48) if index in zero else b"p" * 48 for index in range(16)}
    evidence = Attester(fields={"pcrs": pcrs}).evidence()
    anchors = tuple(cabundle(evidence)[:1])
    assert VERIFIER.verify(evidence, Endorsements(anchors=anchors), at=NOW).debug


def test_an_image_that_nobody_signed() -> None:
    for pcrs in (
        dict.fromkeys(range(3), b"p" * 48),
        {**dict.fromkeys(range(3), b"p" * 48), 8: bytes(48)},
    ):
        evidence = Attester(fields={"pcrs": pcrs}).evidence()
        anchors = tuple(cabundle(evidence)[:1])
        assert VERIFIER.verify(evidence, Endorsements(anchors=anchors), at=NOW).signer is None


# Fields


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_fields_of_1024_bytes_are_accepted(name: str) -> None:
    """AWS documents 512 for two of them; genuine documents have 1024 in each."""
    check(Attester(fields={name: bytes(1024)}))
    with pytest.raises(DecodeError, match=f"{name} is not"):
        check(Attester(fields={name: bytes(1025)}))


PCRS: Final[dict[Any, Any]] = dict.fromkeys(range(3), b"p" * 48)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"module_id": ""}, "module_id"),
        ({"module_id": b"x"}, "module_id"),
        ({"module_id": "x" * 1025}, "module_id"),
        ({"digest": "SHA256"}, "digest 'SHA256'"),
        ({"digest": None}, "digest None"),
        ({"timestamp": 0}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": 1 << 60}, "timestamp"),
        ({"timestamp": "now"}, "timestamp"),
        ({"pcrs": {}}, "1 to 32 entries"),
        ({"pcrs": []}, "1 to 32 entries"),
        ({"pcrs": {**PCRS, 32: b"p" * 48}}, "PCR 32"),
        ({"pcrs": {**PCRS, -1: b"p" * 48}}, "PCR -1"),
        ({"pcrs": {**PCRS, "3": b"p" * 48}}, "PCR '3'"),
        ({"pcrs": {**PCRS, 3: b"p" * 32}}, "PCR 3 is not 48"),
        ({"pcrs": {**PCRS, 3: b"p" * 64}}, "PCR 3 is not 48"),
        ({"pcrs": {**PCRS, 3: None}}, "PCR 3 is not 48"),
        ({"pcrs": {1: b"p" * 48, 2: b"p" * 48}}, "PCR 0 is missing"),
        ({"pcrs": {0: b"p" * 48, 1: b"p" * 48}}, "PCR 2 is missing"),
        ({"certificate": b""}, "certificate"),
        ({"certificate": None}, "certificate"),
        ({"certificate": bytes(1025)}, "certificate"),
        ({"cabundle": None}, "cabundle"),
        ({"cabundle": []}, "cabundle"),
        ({"cabundle": [b"x"] * 9}, "cabundle"),
        ({"cabundle": [""]}, "certificate"),
        ({"public_key": b""}, "public_key"),
        ({"user_data": "text"}, "user_data"),
        ({"nonce": 1}, "nonce"),
        ({"other": 1}, "unknown fields"),
    ],
)
def test_each_field(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        check(Attester(fields=fields))


@pytest.mark.parametrize(
    "name", ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"]
)
def test_fields_that_are_required(name: str) -> None:
    with pytest.raises(DecodeError, match="missing fields"):
        check(Attester(without=(name,)))


def test_duplicate_pcrs() -> None:
    """Section 2.9: duplicate CBOR keys, of which general decoders keep the last."""
    payload = cbor.encode(Attester().payload())
    pcr = b"\x00\x58\x30" + b"\x01" * 48
    assert payload.count(b"\xa6") >= 1
    twice = payload.replace(b"\xa6\x04\x58\x30", b"\xa7" + pcr + b"\x04\x58\x30", 1)
    key = ec_key("leaf")
    with pytest.raises(DecodeError, match="comes twice"):
        Document.from_bytes(cose.sign1(twice, key, Alg.ES384, tagging=Tagging.UNTAGGED))


def test_envelope() -> None:
    with pytest.raises(DecodeError, match="array of four"):
        Document.from_bytes(Attester(tagging=Tagging.TAGGED).evidence())
    with pytest.raises(DecodeError, match="after the item"):
        Document.from_bytes(Attester().evidence() + b"\0")
    with pytest.raises(DecodeError, match="longer than"):
        Document.from_bytes(bytes(40000))
    parts = cbor.decode(Attester().evidence(), what="test")
    with pytest.raises(DecodeError, match="not empty"):
        Document.from_bytes(cbor.encode([parts[0], {4: b"x"}, *parts[2:]]))
    with pytest.raises(DecodeError, match="not a map"):
        Document.from_bytes(cbor.encode([*parts[:2], b"\x80", parts[3]]))


def test_the_algorithm_is_not_the_headers_choice() -> None:
    made = tree().change("leaf", key=ec_key("leaf", ec.SECP256R1))
    with pytest.raises(UntrustedError, match="algorithm -7, expected ES384"):
        check(Attester(tree=made, alg=Alg.ES256))
    parts = cbor.decode(Attester().evidence(), what="test")
    with pytest.raises(UntrustedError, match="algorithm None"):
        check_raw(cbor.encode([b"", *parts[1:]]))


def check_raw(evidence: bytes, at: datetime = NOW) -> None:
    VERIFIER.verify(evidence, Endorsements(anchors=tuple(cabundle(evidence)[:1])), at=at)


# Certificates

CERTIFICATES: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("root", {"common": "aws.nitro-enclaves"}, "neither AWS's nor emulated"),
    ("root", {"signer": "stranger"}, "'Broch Emulated Nitro Root': the signature"),
    ("root", {"ca": False}, "may not issue"),
    ("root", {"key_usage": usage(ca=False)}, "may not issue"),
    ("root", {"path_length": 2}, "allows no such chain"),
    ("region", {"signer": "stranger"}, "'region.aws.nitro-enclaves': the signature"),
    ("region", {"issuer_name": "Stranger"}, "was not issued by"),
    ("region", {"path_length": 1}, "allows no such chain"),
    ("region", {"ca": False, "path_length": None}, "may not issue"),
    ("zone", {"key_usage": usage(ca=False)}, "may not issue"),
    ("zone", {"digest": SHA256()}, "signature algorithm"),
    ("zone", {"path_length": 0}, "allows no such chain"),
    ("instance", {"key_usage": None}, "may not issue"),
    ("instance", {"signer": "root"}, "signature does not hold"),
    ("leaf", {"signer": "zone"}, "signature does not hold"),
    ("leaf", {"ca": True, "path_length": None}, "is a CA"),
    ("leaf", {"key_usage": usage(ca=False, data=False)}, "may not sign data"),
    ("leaf", {"key_usage": None}, "may not sign data"),
]


@pytest.mark.parametrize(("label", "changes", "problem"), CERTIFICATES)
def test_each_role_of_each_certificate(label: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(Attester(tree=tree().change(label, **changes)))


def test_a_leaf_with_another_key() -> None:
    parts = cbor.decode(Attester().evidence(), what="test")
    fields = cbor.decode(parts[2], what="test")
    for key, problem in (
        (rsa_key("leaf"), "no EC key"),
        (ec_key("leaf", ec.SECP256R1), "secp256r1 for ES384"),
    ):
        made = tree().change("leaf", key=key)
        fields |= {"cabundle": [made.der(x) for x in CHAIN], "certificate": made.der("leaf")}
        bundle = cbor.encode([*parts[:2], cbor.encode(fields), parts[3]])
        with pytest.raises(UntrustedError, match=problem):
            check_raw(bundle)


@pytest.mark.parametrize("label", [*CHAIN, "leaf"])
def test_each_certificate_has_its_period(label: str) -> None:
    wide = tree()
    for other in {*CHAIN, "leaf"} - {label}:
        wide = wide.change(other, begin=BEGIN - timedelta(days=9), end=END + timedelta(days=9))
    evidence = Attester(tree=wide).evidence()
    check_raw(evidence, BEGIN)
    check_raw(evidence, END)
    with pytest.raises(UntrustedError, match="is not valid before"):
        check_raw(evidence, BEGIN - SECOND)
    with pytest.raises(UntrustedError, match="has expired"):
        check_raw(evidence, END + SECOND)


@pytest.mark.parametrize("off", [BEGIN - SECOND, END + SECOND])
def test_the_document_was_made_while_its_certificate_was_valid(off: datetime) -> None:
    """What it says of the time decides nothing, but it must not contradict the certificate."""
    with pytest.raises(UntrustedError, match="when its certificate was not valid"):
        check(Attester(fields={"timestamp": int(off.timestamp() * 1000)}))


def test_the_documents_own_time_does_not_revive_it() -> None:
    with pytest.raises(UntrustedError, match="has expired"):
        check(Attester(), END + timedelta(days=1))


@pytest.mark.parametrize(
    "bundle",
    [
        ("root", "zone", "region", "instance"),
        ("root", "region", "instance"),
        ("root",),
        ("root", "root", "region", "zone", "instance"),
        ("root", "region", "zone", "instance", "instance"),
    ],
)
def test_the_bundle_is_the_chain_in_its_order(bundle: tuple[str, ...]) -> None:
    with pytest.raises(UntrustedError):
        check(Attester(bundle=bundle))


def test_the_root_in_the_document_is_not_trusted_by_itself() -> None:
    evidence = Attester().evidence()
    with pytest.raises(UntrustedError, match="not among the anchors"):
        VERIFIER.verify(evidence, Endorsements(anchors=(ROOT_G1,)), at=NOW)
    with pytest.raises(UndecidedError, match="no root"):
        VERIFIER.verify(evidence, Endorsements(anchors=()), at=NOW)


def test_another_root_under_the_genuine_one_does_not_help() -> None:
    """The genuine root is put first, the chain is a stranger's."""
    attester = Attester()
    bundle = [ROOT_G1, *(attester.tree.der(label) for label in CHAIN[1:])]
    evidence = Attester(fields={"cabundle": bundle}).evidence()
    with pytest.raises(UntrustedError, match=r"was not issued by 'aws\.nitro-enclaves'"):
        VERIFIER.verify(evidence, Endorsements(anchors=(ROOT_G1,)), at=NOW)


def test_self_signed_and_null_bundle() -> None:
    """Section 2.9: self-signed, cabundle null."""
    with pytest.raises(DecodeError, match="cabundle"):
        check(Attester(fields={"cabundle": None}))
    alone = tree().change("leaf", issuer="", common="Broch Emulated Leaf Root")
    der = alone.der("leaf")
    evidence = Attester(tree=alone, fields={"cabundle": [der], "certificate": der}).evidence()
    with pytest.raises(UntrustedError, match="may not issue"):
        check_raw(evidence)


def test_a_time_without_zone() -> None:
    with pytest.raises(UsageError):
        check(Attester(), NOW.replace(tzinfo=None))


# Signature


def test_bytes_all_over_the_document_count() -> None:
    evidence = Attester().evidence()
    anchors = tuple(cabundle(evidence)[:1])
    for offset in (*range(0, len(evidence), 5), *range(len(evidence) - 100, len(evidence))):
        bent = bytearray(evidence)
        bent[offset] ^= 1 << offset % 8
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), Endorsements(anchors=anchors), at=NOW)


def test_signed_by_another() -> None:
    with pytest.raises(UntrustedError, match="signature does not hold"):
        check(Attester(signer="stranger"))


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=100))
def test_noise_gives_our_errors(data: bytes) -> None:
    key = ec_key("leaf")
    for evidence in (data, cose.sign1(data, key, Alg.ES384, tagging=Tagging.UNTAGGED)):
        with pytest.raises(BrochError):
            Document.from_bytes(evidence)
