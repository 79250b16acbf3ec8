"""Whatever comes from services, bundles, folders and peers: a value, or an error of ours."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import pki
from tests.unit.attest.tls import ends
from tests.unit.tee.snp import attester as snp

from broch.attest.endorsements import bundle, read_folder, subject, wanted
from broch.attest.endorsements.checks import check
from broch.attest.fetch.http import Response, retry_after
from broch.attest.fetch.pcs import crl, signed_member
from broch.attest.tls import binding, check_certificate
from broch.errors import BrochError, DecodeError
from broch.tee.snp.product import Product

GUEST: Final = snp.Attester()
CHAIN: Final = {
    "ask": GUEST.tree.der("ask"),
    "ark": GUEST.tree.der("ark"),
    "crl": GUEST.tree.crl("ark"),
}
VEK: Final = {**CHAIN, "vek": GUEST.tree.der("vek")}
BUNDLE: Final = bundle.encode(
    [
        bundle.Packed(
            subject=subject.snp_chain("Milan", "vcek"), source="x", fetched=pki.NOW, items=CHAIN
        )
    ]
)
REPLY: Final = b'{"tcbInfo": {"a": [1, "\\u00e4"]}, "signature": "' + b"ab" * 64 + b'"}'
NONCE: Final = bytes(range(32))


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with some bytes changed, a piece taken out or put in, or cut off."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(made) - 1, 0)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and made:
            made[place] = draw(st.integers(0, 255))
        elif kind == 1:
            del made[place : place + draw(st.integers(1, 40))]
        elif kind == 2:
            made[place:place] = draw(st.binary(max_size=8))
        else:
            del made[place:]
    return bytes(made)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), bent(BUNDLE)))
def test_bundles(data: bytes) -> None:
    try:
        found = bundle.decode(data)
    except DecodeError:
        return
    assert bundle.encode(found) == data


times = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)
).map(lambda at: at.replace(microsecond=0))
subjects = st.sampled_from(
    [
        subject.snp_chain("Milan", "vcek"),
        subject.snp_vek("Turin", bytes(64), bytes(8)),
        subject.dcap_root(),
        subject.dcap_tcb("tdx", bytes(6)),
    ]
)
contents = st.dictionaries(
    subjects,
    st.tuples(
        st.text(max_size=20),
        times,
        st.dictionaries(st.text(max_size=8), st.binary(max_size=20), max_size=4),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(contents)
def test_bundles_round_trip(
    content: dict[subject.Subject, tuple[str, datetime, dict[str, bytes]]],
) -> None:
    packed = [
        bundle.Packed(subject=name, source=source, fetched=fetched, items=items)
        for name, (source, fetched, items) in content.items()
    ]
    decoded = bundle.decode(bundle.encode(packed))
    assert decoded == tuple(sorted(packed, key=lambda item: item.subject))


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=100), bent(REPLY)))
def test_signed_documents(body: bytes) -> None:
    try:
        document, signature = signed_member(body, "tcbInfo", "test")
    except DecodeError:
        return
    assert document in body
    assert len(signature) == 64


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=50), bent(CHAIN["crl"]), bent(CHAIN["crl"].hex().encode())))
def test_lists(body: bytes) -> None:
    try:
        assert crl(Response(url="test", body=body, headers={}))[:1]
    except DecodeError:
        return


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_retry_after(value: str) -> None:
    wait = retry_after(value, pki.NOW)
    assert wait is None or wait >= 0


@pytest.mark.parametrize("name", sorted(VEK))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bent_items_do_not_get_in(name: str, data: st.DataObject) -> None:
    """No change to a signed item goes unnoticed, wherever it is."""
    about = (
        subject.snp_vek("Milan", snp.CHIP, snp.TCB[Product.MILAN])
        if name == "vek"
        else subject.snp_chain("Milan", "vcek")
    )
    good = {item: VEK[item] for item in about.kind.items}
    check(about, good, [CHAIN["ark"]])
    changed = data.draw(bent(VEK[name]).filter(lambda made: made != VEK[name]))
    with pytest.raises(BrochError):
        check(about, {**good, name: changed}, [CHAIN["ark"]])


@settings(deadline=None)
@given(st.binary(max_size=1300))
def test_what_evidence_needs(data: bytes) -> None:
    for tee in ("sgx", "tdx", "snp"):
        with pytest.raises(BrochError):
            wanted(tee, data)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    name=st.sampled_from(["vek.der", "vek.pem", "crl.hex", "cert_table.bin", "ark.der"]),
    data=st.one_of(st.binary(max_size=100), bent(CHAIN["ask"])),
)
def test_folders(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        read_folder(tmp_path, "snp")
    except BrochError:
        pass
    finally:
        path.unlink()


EVIDENCE: Final = binding.wrap("sgx", b"evidence")
READERS: Final[dict[str, tuple[Callable[[bytes], object], bytes]]] = {
    "challenge": (binding.read_challenge, binding.challenge_message(NONCE)),
    "answer": (binding.read_answer, binding.answer_message(EVIDENCE, NONCE)),
    "proof": (binding.read_proof, binding.proof_message(EVIDENCE)),
}


@pytest.mark.parametrize("name", READERS)
@settings(deadline=None)
@given(data=st.data())
def test_messages_of_attested_tls(name: str, data: st.DataObject) -> None:
    read, example = READERS[name]
    read(example)
    try:
        read(data.draw(st.one_of(st.binary(max_size=100), bent(example))))
    except DecodeError:
        return


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_certificates_of_attested_tls(data: st.DataObject) -> None:
    der = ends.credential().certificate
    changed = data.draw(bent(der).filter(lambda made: made != der))
    with pytest.raises(BrochError):
        check_certificate(changed, ends.expected())
