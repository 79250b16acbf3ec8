"""Arm PSA: attestation tokens of platforms with a PSA root of trust (RFC 9783).

>>> from broch.tee.psa import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('psa', 64)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.contract import Endorsements
    from broch.tee.psa.verify import PsaClaims

__all__ = ["VERIFIER", "Psa"]


class Psa:
    """Arm PSA, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "psa"
    title: str = "Arm PSA"
    report_data_size: int = 64  # a nonce has 32, 48 or 64 bytes

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> PsaClaims:
        """See :func:`broch.tee.psa.verify.verify`."""
        from broch.tee.psa.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Psa()
