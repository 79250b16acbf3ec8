"""AWS Nitro Enclaves: attestation documents of the Nitro hypervisor, COSE_Sign1 under AWS's root.

>>> from broch.tee.nitro import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('nitro', 1024)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.contract import Endorsements
    from broch.tee.nitro.verify import NitroClaims

__all__ = ["VERIFIER", "Nitro"]


class Nitro:
    """AWS Nitro Enclaves, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "nitro"
    title: str = "AWS Nitro Enclaves"
    report_data_size: int = 1024  # at most; user_data has the length that the enclave gave it

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> NitroClaims:
        """See :func:`broch.tee.nitro.verify.verify`."""
        from broch.tee.nitro.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Nitro()
