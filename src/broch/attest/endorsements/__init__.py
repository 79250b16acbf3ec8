"""Endorsements: where collateral, certificates and revocation lists come from and are kept.

>>> from broch.attest.endorsements import load
>>> len(load(None, "nitro", b"").anchors)  # AWS's root; nothing else is needed
1

Verification itself does no I/O: :func:`load` finds what it needs, before.
"""

from pathlib import Path

from broch.attest.endorsements.folder import read_folder
from broch.tee.contract import Endorsements

__all__ = ["load", "read_folder"]


def load(folder: Path | None, tee: str, evidence: bytes) -> Endorsements:
    """The endorsements for ``evidence`` of the kind ``tee``, as far as they are there.

    Args:
        folder: a plain folder (:mod:`.folder`); None: only the roots in this package.
        tee: name of the TEE: "sgx", "snp" and so on.
        evidence: decides which of several devices' endorsements are taken; it is not believed.

    What is missing is for the verifier to say.

    Raises:
        UsageError: the folder cannot be read, or a name in it means nothing.
        DecodeError: a file in it is not what it claims to be.
        UntrustedError: a secret in it that others may read.
    """
    from broch.attest.endorsements import roots

    if folder is None:
        return Endorsements(anchors=roots.built_in(tee))
    return read_folder(folder, tee)
