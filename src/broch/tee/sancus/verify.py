"""Decide whether evidence of a Sancus module is authentic. No I/O, no clock.

Endorsement items, one of them, both secret:

    vendor_key            of a real node, from whoever runs it (16 bytes)
    emulated_vendor_key   of an emulated node of this installation

There is no certificate: the verifier can check a tag because it could have made it.
"""

import hmac
from datetime import datetime
from typing import Final

from broch.crypto.spongent import SpongeWrap
from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Claims, Endorsements
from broch.tee.sancus.evidence import Evidence
from broch.tee.sancus.keys import recalled_module_key
from broch.tee.sancus.module_file import measure
from broch.tee.steps import Steps

KEY_SIZE: Final = 16  # bytes
VENDOR_KEY: Final = "vendor_key"
EMULATED_VENDOR_KEY: Final = "emulated_vendor_key"


def verify(evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
    """Check what a module answered to a challenge.

    Raises:
        DecodeError: not evidence, or not an endorsement.
        UndecidedError: the vendor key is missing.
        UntrustedError: the tag is not that of this module on this node.
    """
    with Steps(at) as steps:
        # (1) Decode.
        steps.current = "format"
        found = Evidence.from_bytes(evidence)

        # (2) The key that the node shares with the vendor; Sancus 2.0, "Key management".
        steps.current = "key"
        key, emulated = vendor_key_of(endorsements)

        # (3) The module's key follows from text and layout, so a tag under it proves both.
        steps.current = "mac"
        module = recalled_module_key(key, found.text, found.layout)

        # (4) The tag over challenge and nonce.
        if not hmac.compare_digest(SpongeWrap(module).mac(found.signed()), found.tag):
            raise UntrustedError(
                "the tag is not that of this text, at this place, on the node of this vendor key"
            )

    layout = found.layout
    return Claims(
        tee="sancus",
        measurement=measure(found.text, layout),
        signer=None,
        report_data=found.challenge,
        debug=False,
        emulated=emulated,
        details={
            "vendor_id": f"{found.vendor_id} (said by the sender; proved is the vendor key)",
            "text": f"0x{layout.public_start:04x}-0x{layout.public_end - 1:04x}",
            "secret": f"0x{layout.secret_start:04x}-0x{layout.secret_end - 1:04x}",
            "nonce": found.nonce.hex(),
            "proof": "symmetric: convinces only who holds the vendor key",
        },
    )


def vendor_key_of(endorsements: Endorsements) -> tuple[bytes, bool]:
    """The vendor key, and whether it is an emulated node's.

    Raises:
        UndecidedError: there is none.
        UntrustedError: there are two.
        DecodeError: it has another size.
    """
    names = [name for name in (VENDOR_KEY, EMULATED_VENDOR_KEY) if name in endorsements.items]
    if not names:
        raise UndecidedError(
            f"no endorsement of the node: neither {VENDOR_KEY} nor {EMULATED_VENDOR_KEY}",
            hint="the vendor key comes from whoever runs the node",
        )
    if len(names) == 2:
        raise UntrustedError("vendor keys of a real and of an emulated node: which is it?")
    key = endorsements.items[names[0]]
    if len(key) != KEY_SIZE:
        raise DecodeError(0, f"{len(key)} bytes, expected {KEY_SIZE}", what=names[0])
    return key, names[0] == EMULATED_VENDOR_KEY
