"""Arm CCA: attestation tokens of realms, with the platform's (RMM specification, section A7.2).

>>> from broch.tee.cca import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('cca', 64)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.cca.verify import CcaClaims
    from broch.tee.contract import Endorsements

__all__ = ["VERIFIER", "Cca"]


class Cca:
    """Arm CCA, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "cca"
    title: str = "Arm CCA"
    report_data_size: int = 64

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> CcaClaims:
        """See :func:`broch.tee.cca.verify.verify`."""
        from broch.tee.cca.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Cca()
