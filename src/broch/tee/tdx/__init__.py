"""Intel TDX: DCAP quotes of versions 4 and 5 about trust domains.

>>> from broch.tee.tdx import VERIFIER
>>> VERIFIER.name, VERIFIER.report_data_size
('tdx', 64)

Importing this package imports nothing that is not needed yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broch.tee.contract import Endorsements
    from broch.tee.tdx.verify import TdxClaims

__all__ = ["VERIFIER", "Tdx"]


class Tdx:
    """Intel TDX, as :class:`broch.tee.verifier.Verifier` wants it."""

    name: str = "tdx"
    title: str = "Intel TDX"
    report_data_size: int = 64

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> TdxClaims:
        """See :func:`broch.tee.tdx.verify.verify`."""
        from broch.tee.tdx.verify import verify

        return verify(evidence, endorsements, at=at)


VERIFIER: Final = Tdx()
