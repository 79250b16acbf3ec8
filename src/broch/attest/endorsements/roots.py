"""Roots that need nobody's word: those whose digest is pinned in this package.

Intel's and AMD's are recognised wherever they turn up (in an issuer chain, in a folder), since
only the certificate with the pinned digest counts; AWS's is in the package. Every other root is an
anchor only if the caller says so.
"""

import hashlib
from collections.abc import Iterable, Mapping

from broch.errors import DecodeError


def built_in(tee: str) -> tuple[bytes, ...]:
    """The roots of ``tee`` that are in this package whole."""
    if tee == "nitro":
        from broch.tee.nitro.root import ROOT_G1

        return (ROOT_G1,)
    return ()


def pinned(tee: str, certificates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of ``certificates`` (DER) whose digest is pinned as a root of ``tee``."""
    digests = _digests(tee)
    found = dict.fromkeys(der for der in certificates if hashlib.sha256(der).digest() in digests)
    return tuple(found)


def in_items(tee: str, items: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Pinned roots that came along with the endorsements themselves."""
    if tee not in ("sgx", "tdx") or "tcb_info_issuer_chain" not in items:
        return ()
    from broch.tee.dcap.certs import read_chain

    try:
        certs = read_chain(items["tcb_info_issuer_chain"], "tcb_info_issuer_chain")
    except DecodeError:
        return ()  # the verifier reads the same chain, and says what is wrong with it
    return pinned(tee, (cert.der for cert in certs))


def _digests(tee: str) -> frozenset[bytes]:
    if tee in ("sgx", "tdx"):
        from broch.tee.dcap.trust import INTEL_SGX_ROOT

        return frozenset({INTEL_SGX_ROOT})
    if tee == "snp":
        from broch.tee.snp.product import ARKS

        return frozenset(ARKS)
    if tee == "nitro":
        from broch.tee.nitro.root import ROOT_G1_SHA256

        return frozenset({ROOT_G1_SHA256})
    return frozenset()
