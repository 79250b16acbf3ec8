"""TPM 2.0: quotes of platform configuration registers, and Azure's binding of a virtual TPM.

>>> from broch.tee.tpm import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('tpm', 32)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.contract import Endorsements
    from broch.tee.tpm.verify import TpmClaims

__all__ = ["VERIFIER", "Tpm"]


class Tpm:
    """TPM 2.0, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "tpm"
    title: str = "TPM 2.0"
    report_data_size: int = 32  # qualifyingData that every TPM takes; some take 64

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> TpmClaims:
        """See :func:`broch.tee.tpm.verify.verify`."""
        from broch.tee.tpm.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Tpm()
