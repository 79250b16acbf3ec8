"""What carries evidence and endorsements: bundles, wrappers, replies of services, TLS.

Besides that only our errors may come back: what is accepted in one encoding has that encoding, and
a bent certificate of attested TLS or a bent signed item that is accepted is a defect.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from tests import pki
from tests.unit.attest.tls import ends
from tests.unit.tee.snp import attester as snp

from broch.attest.endorsements import bundle, subject
from broch.attest.endorsements.checks import check
from broch.attest.fetch.http import Response
from broch.attest.fetch.pcs import crl, signed_member
from broch.attest.tls import binding, check_certificate
from broch.attest.tls.ratls import check_ratls_certificate
from broch.errors import BrochError
from broch.tee.snp.product import Product
from broch.wire import cmw

_NONCE: Final = bytes(32)
_VEK: Final = subject.snp_vek("Milan", snp.CHIP, snp.TCB[Product.MILAN])


@cache
def _items() -> dict[str, bytes]:
    tree = snp.Attester().tree
    return {"vek": tree.der("vek"), "ask": tree.der("ask"), "ark": tree.der("ark")}


def _bundles() -> list[bytes]:
    packed = bundle.Packed(subject=_VEK, source="x", fetched=pki.NOW, items=_items())
    return [bundle.encode([packed]), bundle.encode([])]


def _bundle(data: bytes) -> None:
    found = bundle.decode(data)
    assert bundle.encode(found) == data, "accepted, and not in its one encoding"


def _wrappers() -> list[bytes]:
    record = cmw.Record(type="a/b", value=b"x", indicator=cmw.Indicator.EVIDENCE)
    tag = cmw.Record(type=30001, value=b"x", is_tag=True)
    collection = cmw.Collection(members={"a": record, 1: tag}, type="1.2.3")
    return [record.to_cbor(), record.to_json().encode(), tag.to_cbor(), collection.to_cbor()]


def _wrapper(data: bytes) -> None:
    for oid in (cmw.DICE_OID, cmw.PKIX_OID):
        try:
            cmw.from_extension(oid, data)
        except BrochError:
            continue
    found = cmw.decode(data)
    if isinstance(found, cmw.Record) and data[:1] != b"[":
        assert found.to_cbor() == data, "accepted, and not in its one encoding"


def _replies() -> list[bytes]:
    body = b'{"tcbInfo": {"a": [1]}, "signature": "' + b"ab" * 64 + b'"}'
    return [body, _items()["vek"], _items()["vek"].hex().encode()]


def _published(data: bytes) -> None:
    """A reply of PCS or KDS, as a document, a list and a key."""
    accepted = False
    for read in (
        lambda: signed_member(data, "tcbInfo", "reply"),
        lambda: crl(Response(url="reply", body=data, headers={})),
    ):
        try:
            read()
            accepted = True
        except BrochError:
            continue
    if not accepted:
        check(_VEK, {**_items(), "vek": data}, [_items()["ark"]])
    elif data != _items()["vek"]:
        try:
            check(_VEK, {**_items(), "vek": data}, [_items()["ark"]])
        except BrochError:
            return
        raise AssertionError("a key that nobody has certified was accepted")


def _messages() -> list[bytes]:
    record = binding.wrap("sgx", b"evidence")
    return [
        ends.credential().certificate,
        binding.challenge_message(_NONCE),
        binding.answer_message(record, _NONCE),
        binding.proof_message(record),
    ]


def _attested_tls(data: bytes) -> None:
    """A peer's certificate and messages."""
    good = ends.credential().certificate
    readers: tuple[Callable[[], object], ...] = (
        lambda: check_certificate(data, ends.expected()),
        lambda: check_ratls_certificate(data, ends.expected()),
    )
    for read in readers:
        try:
            read()
        except BrochError:
            continue
        assert data == good, "a bent certificate was accepted"
        return
    for parse in (binding.read_challenge, binding.read_answer):
        try:
            parse(data)
            return
        except BrochError:
            continue
    binding.read_proof(data)


PAIRS: Final[dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]]] = {
    "bundle": (_bundle, _bundles),
    "cmw": (_wrapper, _wrappers),
    "published": (_published, _replies),
    "attested_tls": (_attested_tls, _messages),
}
