"""The part of the contract that every kind of evidence has: something that can verify it.

A :class:`~broch.tee.contract.Tee` is a :class:`Verifier` that can also pack images and emulate a
device. Some kinds of hardware are verified here and not run: for them a folder offers an object
named ``VERIFIER``.
"""

from datetime import datetime
from typing import Protocol

from broch.tee.contract import Claims, Endorsements


class Verifier(Protocol):
    """Decides whether evidence of one kind of hardware is authentic."""

    name: str
    title: str  # for people: "AMD SEV-SNP"
    report_data_size: int  # bytes that a report can carry

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        """Decide whether ``evidence`` is authentic. No I/O, no clock.

        Raises:
            DecodeError: not evidence of this kind.
            UntrustedError: a signature, a certificate or an endorsement does not hold.
            UndecidedError: an endorsement that is needed is missing.
        """
        ...
