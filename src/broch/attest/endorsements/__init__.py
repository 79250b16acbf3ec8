"""Endorsements: where collateral, certificates and revocation lists come from and are kept.

>>> from broch.attest.endorsements import load
>>> len(load(None, "nitro", b"").anchors)  # AWS's root; nothing else is needed
1

Verification itself does no I/O: :func:`load` finds what it needs, before.
"""

from broch.attest.endorsements.folder import read_folder
from broch.attest.endorsements.loading import load
from broch.attest.endorsements.needs import wanted
from broch.attest.endorsements.shelf import Shelf
from broch.attest.endorsements.store import Entry, Store
from broch.attest.endorsements.subject import Subject

__all__ = ["Entry", "Shelf", "Store", "Subject", "load", "read_folder", "wanted"]
