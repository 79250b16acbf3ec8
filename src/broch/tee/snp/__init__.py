"""AMD SEV-SNP: attestation reports of versions 2, 3 and 5, signed by a VCEK or a VLEK.

>>> from broch.tee.snp import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('snp', 64)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.contract import Endorsements
    from broch.tee.snp.verify import SnpClaims

__all__ = ["VERIFIER", "Snp"]


class Snp:
    """AMD SEV-SNP, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "snp"
    title: str = "AMD SEV-SNP"
    report_data_size: int = 64

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> SnpClaims:
        """See :func:`broch.tee.snp.verify.verify`."""
        from broch.tee.snp.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Snp()
