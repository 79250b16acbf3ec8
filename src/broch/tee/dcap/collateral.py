"""The collateral that a DCAP verifier needs, under the names of Intel's ``sgx_ql_qve_collateral``.

    root_ca_crl                DER, revocations by the root
    pck_crl                    DER, revocations by the PCK CA
    tcb_info                   JSON, exactly the bytes that were signed
    tcb_info_signature         64 bytes, r and s
    tcb_info_issuer_chain      PEM: TCB signing certificate, root
    qe_identity, qe_identity_signature, qe_identity_issuer_chain    likewise

These are the names of ``Endorsements.items``. The PCK chain itself comes in the quote; the PCK
CRL is checked with the CA in that chain, so ``pck_crl_issuer_chain`` is not needed and not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from broch.errors import DecodeError, UndecidedError
from broch.wire import strict_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What there is, as it came. Hashable: verified collateral is cached by content."""

    root_ca_crl: bytes | None = field(repr=False)
    pck_crl: bytes | None = field(repr=False)
    tcb_info: bytes | None = field(repr=False)
    tcb_info_signature: bytes | None = field(repr=False)
    tcb_info_issuer_chain: bytes | None = field(repr=False)
    qe_identity: bytes | None = field(repr=False)
    qe_identity_signature: bytes | None = field(repr=False)
    qe_identity_issuer_chain: bytes | None = field(repr=False)

    @classmethod
    def from_items(cls, items: Mapping[str, bytes]) -> Self:
        """Take the items out of endorsements. What is missing is missed where it is needed."""
        found = {name: items.get(name) for name in NAMES}
        return cls(**{name: None if item is None else bytes(item) for name, item in found.items()})

    def need(self, name: str) -> bytes:
        """One item, at the step of verification that reads it; none of them is optional.

        Raises:
            UndecidedError: it is missing; the message names it.
        """
        value: bytes | None = getattr(self, name)
        if value is None:
            raise UndecidedError(
                f"the endorsements lack {name}", hint="fetch the collateral of this platform"
            )
        return value


NAMES = tuple(item.name for item in fields(Collateral))
_AS_HEX = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")


def items_from_json(data: bytes, what: str = "collateral") -> dict[str, bytes]:
    """Items of endorsements from a QuoteCollateralV3 document, as PCCS clients exchange it.

    Binary members are hex there, the others text; members that are not collateral are left out.
    Which ones are missing is for the verifier to say; ``what`` is the document's name in errors.

    Raises:
        DecodeError: not such a document.
    """
    document: dict[str, Any] = strict_json.document(data, what)
    present = [name for name in NAMES if name in document]
    if not present:
        raise DecodeError(0, "none of its members is collateral", what=what)
    items: dict[str, bytes] = {}
    for name in present:
        value = strict_json.text(document, name, what)
        try:
            items[name] = bytes.fromhex(value) if name in _AS_HEX else value.encode()
        except ValueError:
            raise DecodeError(0, f"{name} cannot be decoded", what=what) from None
    return items
