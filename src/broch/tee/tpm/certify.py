"""One key of a TPM vouches for another of the same TPM: TPM2_Certify.

For a TPM whose certificate, or whose enrolment, is of one key while another signs its quotes::

    certified_public     TPMT_PUBLIC of the key that signs the quotes
    certify_info         TPMS_ATTEST of type TPM_ST_ATTEST_CERTIFY, by the key that is endorsed
    certify_signature    TPMT_SIGNATURE over it
    certify_challenge    the qualifying data that were asked for; without it they must be empty

The first three come together. The certified key must have the attributes of an attestation key
itself: whatever else a key of the same TPM may be, an unrestricted one signs quotes that no TPM has
made. That the certification is old does no harm, since a key's name never changes what it stands
for; the quote is what has to be fresh.

Sources: TPM 2.0 Library, part 1, section 31; part 3, 18.2 (TPM2_Certify); TCG DICE attestation
architecture, tcg-dice-tpm-certify (2.23.133.20.1).
"""

import hmac
from collections.abc import Mapping
from typing import Final

from broch.errors import UndecidedError, UntrustedError
from broch.tee.tpm.attest import CERTIFY, Attest
from broch.tee.tpm.public import Public, PublicKey
from broch.tee.tpm.signature import Signature

PUBLIC: Final = "certified_public"
INFO: Final = "certify_info"
SIGNATURE: Final = "certify_signature"
CHALLENGE: Final = "certify_challenge"
_TOGETHER: Final = (PUBLIC, INFO, SIGNATURE)


def certified_key(items: Mapping[str, bytes], signer: PublicKey) -> Public | None:
    """The attestation key for which ``signer`` vouches; None if the items are about no such key.

    Raises:
        DecodeError: an item cannot be read.
        UntrustedError: signature, name, challenge or attributes do not hold.
        UndecidedError: some of the items are there, and others are missing.
    """
    if not any(name in items for name in (*_TOGETHER, CHALLENGE)):
        return None
    missing = [name for name in _TOGETHER if name not in items]
    if missing:
        raise UndecidedError(
            f"the endorsements have a certification of a key, and lack {', '.join(missing)}",
            hint="give what TPM2_Certify returned, and the key that it was about",
        )
    key = check_certified(
        items[INFO],
        items[SIGNATURE],
        signer=signer,
        public=items[PUBLIC],
        qualifying=items.get(CHALLENGE, b""),
    )
    key.check_attestation()
    return key


def check_certified(
    attest: bytes, signature: bytes, *, signer: PublicKey, public: bytes, qualifying: bytes
) -> Public:
    """The key ``public`` (TPMT_PUBLIC) is in the TPM of ``signer``.

    Raises:
        DecodeError: a structure cannot be read.
        UntrustedError: signature, name or qualifying data do not hold.
    """
    # (1) The signature of a key that is believed already.
    Signature.from_bytes(signature).check(signer, attest, "TPM certification")
    # (2) It is a certification, of this key, for this challenge.
    found = Attest.from_bytes(attest)
    if found.type != CERTIFY:
        raise UntrustedError(f"the TPM signed type 0x{found.type:04x}, not a certification")
    if not hmac.compare_digest(found.extra_data, qualifying):
        raise UntrustedError("the certification is for another challenge")
    key = Public.from_bytes(public)
    if not hmac.compare_digest(found.name, key.name()):
        raise UntrustedError("the certification is of another key")
    return key
