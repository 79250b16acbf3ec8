"""Fetching endorsements from those who publish them: Intel's PCS or a PCCS, AMD's KDS.

Apart from verification, which does no I/O: what is fetched is checked, kept in a store, and loaded
from there. AWS publishes nothing for Nitro, whose documents bring their certificates along.
"""

from broch.attest.fetch.fetcher import Fetcher, Outcome, State
from broch.attest.fetch.http import Http
from broch.attest.fetch.kds import AMD_KDS, AmdKds
from broch.attest.fetch.pcs import INTEL_PCS, IntelPcs

__all__ = [
    "AMD_KDS",
    "INTEL_PCS",
    "AmdKds",
    "Fetcher",
    "Http",
    "IntelPcs",
    "Outcome",
    "State",
]
