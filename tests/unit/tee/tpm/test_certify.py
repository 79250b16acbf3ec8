"""TPM2_Certify: an endorsed key that vouches for the one that signs quotes."""

import pickle
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.pki import NOW, ec_key

from broch.errors import UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.tpm import VERIFIER
from broch.tee.tpm.attest import Attest
from broch.tee.tpm.certify import check_certified
from broch.tee.tpm.public import (
    ATTESTATION,
    DECRYPT,
    FIXED_TPM,
    RESTRICTED,
    SIGN,
    Public,
)
from broch.tee.tpm.verify import TpmClaims

from .attester import (
    AK_EC,
    AK_RSA,
    NONCE,
    QUOTED,
    Attester,
    certificate_items,
    certified,
    certify_items,
    public,
    sign,
    spki,
    tree,
)
from .test_tpm import verify


def certify(
    attest: Attest | None = None, key: Any = AK_EC, of: bytes = b"", qualifying: bytes = NONCE
) -> Public:
    subject = of or public(AK_RSA)
    made = (attest or certified(Public.from_bytes(public(AK_RSA)).name())).to_bytes()
    return check_certified(
        made,
        sign(key, made),
        signer=AK_EC.public_key(),
        public=subject,
        qualifying=qualifying,
    )


def test_a_key_in_the_same_tpm() -> None:
    assert certify().attributes == ATTESTATION


def test_each_rule_of_certify() -> None:
    with pytest.raises(UntrustedError, match="another key"):
        certify(of=public(AK_RSA, attributes=SIGN))
    with pytest.raises(UntrustedError, match="another challenge"):
        certify(qualifying=bytes(32))
    with pytest.raises(UntrustedError, match="signature does not hold"):
        certify(key=ec_key("stranger", ec.SECP256R1))
    with pytest.raises(UntrustedError, match="not a certification"):
        certify(QUOTED)


QUOTED_BY_OTHER: Final = Attester(key=AK_RSA).evidence()


def by_way(way: str, **changes: Any) -> TpmClaims:
    """A quote by a key for which another one vouches, which is endorsed in this way."""
    made = tree()
    items, anchors = {
        "ak_public": ({"ak_public": public(AK_EC)}, ()),
        "attestation_key": ({"attestation_key": spki(AK_EC)}, ()),
        "ak_certificate": (certificate_items(made), (made.der("root"),)),
    }[way]
    given = {**items, **certify_items(AK_EC, AK_RSA), **changes}
    kept = {name: value for name, value in given.items() if value is not None}
    endorsements = Endorsements(anchors=anchors, items=kept)
    return VERIFIER.verify(QUOTED_BY_OTHER, endorsements, at=NOW)


@pytest.mark.parametrize(
    ("way", "is_shown"),
    [("ak_public", True), ("attestation_key", False), ("ak_certificate", False)],
)
def test_a_key_for_which_an_endorsed_one_vouches(way: str, is_shown: bool) -> None:
    claims = by_way(way)
    assert claims.key.certified
    assert claims.details["endorsed_by"] == way
    assert claims.details["ak_certified"].startswith("by that key")
    assert claims.key.attributes_checked is is_shown
    assert pickle.loads(pickle.dumps(claims)).key.certified


def test_the_key_that_vouches_does_not_sign_quotes_then() -> None:
    with pytest.raises(UntrustedError, match="signature does not hold"):
        verify(Attester().evidence(), {"ak_public": public(AK_EC), **certify_items(AK_EC, AK_RSA)})
    with pytest.raises(UntrustedError, match="signature does not hold"):
        verify(QUOTED_BY_OTHER, {"ak_public": public(AK_EC)})


def test_a_certification_that_was_asked_for() -> None:
    asked = certify_items(AK_EC, AK_RSA, qualifying=NONCE)
    assert by_way("ak_public", **asked, certify_challenge=NONCE).key.certified
    for challenge in (None, bytes(32)):
        with pytest.raises(UntrustedError, match="another challenge"):
            by_way("ak_public", **asked, certify_challenge=challenge)


@pytest.mark.parametrize("name", ["certified_public", "certify_info", "certify_signature"])
def test_a_certification_in_part(name: str) -> None:
    with pytest.raises(UndecidedError, match=f"lack {name}"):
        by_way("ak_public", **{name: None})


def test_a_certification_vouches_for_no_unrestricted_key() -> None:
    """Of the same TPM and well certified: it signs whatever its user calls a quote."""
    for attributes in (ATTESTATION ^ RESTRICTED, ATTESTATION ^ FIXED_TPM, ATTESTATION | DECRYPT):
        with pytest.raises(UntrustedError, match="not those of an attestation key"):
            by_way("ak_public", **certify_items(AK_EC, AK_RSA, attributes=attributes))


def test_a_certification_alone_endorses_nothing() -> None:
    with pytest.raises(UndecidedError, match="have 0 of"):
        verify(QUOTED_BY_OTHER, certify_items(AK_EC, AK_RSA))
    with pytest.raises(UndecidedError, match="lack certified_public"):
        verify(Attester().evidence(), {"ak_public": public(AK_EC), "certify_challenge": NONCE})
