"""From a pinned root to a platform: certificates, revocation, signed collateral.

Steps 2 to 5 of verification (numbered as in Intel's quote verification library). All that does not
depend on the time is done once per content and remembered; each call then compares the time with
the narrowest window of everything that took part. Only success is remembered.

A root is believed if the caller names it as an anchor *and* it is either pinned here, by digest, or
says in its own name that it is emulated. So no anchor that a caller is talked into can make
evidence look like Intel's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from broch.errors import UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa
from broch.tee.dcap.certs import (
    Cert,
    Crl,
    Window,
    check_crl,
    check_issued,
    check_not_revoked,
    read_chain,
    read_crl,
)
from broch.tee.dcap.collateral import Collateral
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.tcb import QeIdentity, TcbInfo

# SHA-256 of the DER certificate at
# https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer
INTEL_SGX_ROOT: Final = bytes.fromhex(
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
)
EMULATED_PREFIX: Final = "Broch Emulated"
ROLE_PCK: Final = "Intel SGX PCK Certificate"
ROLES_PCK_CA: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
ROLE_TCB_SIGNING: Final = "Intel SGX TCB Signing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Collateral whose signatures hold, under one root."""

    root: Cert
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    root_crl: Crl
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A platform whose certificates hold, and the collateral about it."""

    root_name: str
    emulated: bool
    pck_key: EllipticCurvePublicKey = field(repr=False)
    pck: PckExtension
    pck_ca: str
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    windows: tuple[Window, ...] = field(repr=False)
    begin: datetime  # latest begin and earliest end of all windows
    end: datetime

    def check_time(self, at: datetime) -> None:
        """Every certificate, list and document is valid ``at``.

        Raises:
            UntrustedError: one is not; the message names it.
        """
        if self.begin <= at < self.end:
            return
        for window in self.windows:
            if at < window.begin:
                raise UntrustedError(f"{window.what} is not valid before {window.begin}, at {at}")
            if at >= window.end:
                raise UntrustedError(f"{window.what} has expired on {window.end}, at {at}")


def establish(chain: bytes, endorsements: Endorsements, at: datetime) -> Trusted:
    """Trust in the platform whose PCK chain (PEM: leaf, CA, root) is ``chain``.

    Raises:
        DecodeError: a certificate, list or document cannot be read.
        UntrustedError: unknown root, wrong role, bad signature, revoked, not valid at this time.
        UndecidedError: no anchor, or collateral is missing.
        UsageError: ``at`` has no time zone.
    """
    if at.tzinfo is None:
        raise UsageError("the time of verification has no time zone")
    if not endorsements.anchors:
        raise UndecidedError("the endorsements name no root to trust")
    collateral = Collateral.from_items(endorsements.items)
    trusted = _platform(chain, collateral, tuple(endorsements.anchors))
    trusted.check_time(at)
    return trusted


def is_emulated_root(cert: Cert) -> bool:
    """Whether a root says of itself that it is emulated."""
    return cert.name.startswith(EMULATED_PREFIX)


def check_root(root: Cert, anchors: Sequence[bytes]) -> None:
    """The end of a chain is a root that the caller trusts and that is what it says.

    Raises:
        UntrustedError: not an anchor, neither pinned nor emulated, or not self-signed.
    """
    digest = hashlib.sha256(root.der).digest()
    if root.der not in anchors:
        raise UntrustedError(f"root {root.name!r} ({digest.hex()}) is not among the anchors")
    if digest != INTEL_SGX_ROOT and not is_emulated_root(root):
        raise UntrustedError(f"root {root.name!r} ({digest.hex()}) is neither Intel's nor emulated")
    check_issued(root, root)


@lru_cache(maxsize=1024)
def _platform(chain: bytes, collateral: Collateral, anchors: tuple[bytes, ...]) -> Trusted:
    """Steps 2 to 5 without the time."""
    # (2) Chain: leaf, PCK CA, root, each in its role.
    certs = read_chain(chain, "PCK certificate chain")
    if len(certs) != 3:
        raise UntrustedError(f"PCK chain of {len(certs)} certificates, expected 3")
    leaf, intermediate, root = certs
    check_root(root, anchors)
    _check_role(intermediate, ROLES_PCK_CA)
    check_issued(intermediate, root)
    _check_role(leaf, (ROLE_PCK,))
    check_issued(leaf, intermediate)
    if leaf.is_ca or not leaf.may_sign_data:
        raise UntrustedError("the PCK certificate is a CA or may not sign data")
    if leaf.sgx_extension is None:
        raise UntrustedError("the PCK certificate has no SGX extension")
    signed = _signed(collateral, anchors)
    if signed.root.der != root.der:
        raise UntrustedError(f"the collateral is under another root, {signed.root.name!r}")
    # (3) Revocation: both lists are there, are the issuers' own and do not list a certificate.
    pck_crl = read_crl(collateral.pck_crl, "pck_crl")
    check_crl(pck_crl, intermediate, "pck_crl")
    check_not_revoked(intermediate, signed.root_crl)
    check_not_revoked(leaf, pck_crl)
    # (4) FMSPC and PCE-ID of the TCB info are the platform's.
    pck = PckExtension.from_bytes(leaf.sgx_extension)
    for what, own, described in (
        ("FMSPC", pck.fmspc, signed.tcb_info.fmspc),
        ("PCE-ID", pck.pceid, signed.tcb_info.pceid),
    ):
        if own != described:
            raise UntrustedError(
                f"tcb_info is for {what} {described.hex()}, the platform has {own.hex()}"
            )
    windows = (*signed.windows, leaf.window, intermediate.window, pck_crl.window)
    return Trusted(
        root_name=root.name,
        emulated=is_emulated_root(root),
        pck_key=leaf.key,
        pck=pck,
        pck_ca=intermediate.name,
        tcb_info=signed.tcb_info,
        qe_identity=signed.qe_identity,
        windows=windows,
        begin=max(window.begin for window in windows),
        end=min(window.end for window in windows),
    )


@lru_cache(maxsize=64)
def _signed(collateral: Collateral, anchors: tuple[bytes, ...]) -> Signed:
    """Steps 3 (the root's list) to 5 for collateral that several platforms share."""
    tcb_signer, root = _signer(collateral.tcb_info_issuer_chain, "tcb_info_issuer_chain", anchors)
    qe_signer, qe_root = _signer(
        collateral.qe_identity_issuer_chain, "qe_identity_issuer_chain", anchors
    )
    if qe_root.der != root.der:
        raise UntrustedError("TCB info and QE identity are under different roots")
    root_crl = read_crl(collateral.root_ca_crl, "root_ca_crl")
    check_crl(root_crl, root, "root_ca_crl")
    check_not_revoked(tcb_signer, root_crl)
    check_not_revoked(qe_signer, root_crl)
    # (4) TCB info: signed as raw bytes, by the TCB signing key.
    ecdsa.verify(tcb_signer.key, collateral.tcb_info_signature, collateral.tcb_info, "tcb_info")
    tcb_info = TcbInfo.from_bytes(collateral.tcb_info)
    # (5) QE identity: likewise.
    ecdsa.verify(
        qe_signer.key, collateral.qe_identity_signature, collateral.qe_identity, "qe_identity"
    )
    qe_identity = QeIdentity.from_bytes(collateral.qe_identity)
    return Signed(
        root=root,
        tcb_info=tcb_info,
        qe_identity=qe_identity,
        root_crl=root_crl,
        windows=(
            root.window,
            tcb_signer.window,
            qe_signer.window,
            root_crl.window,
            Window(what="tcb_info", begin=tcb_info.issue_date, end=tcb_info.next_update),
            Window(what="qe_identity", begin=qe_identity.issue_date, end=qe_identity.next_update),
        ),
    )


def _signer(chain: bytes, what: str, anchors: tuple[bytes, ...]) -> tuple[Cert, Cert]:
    """The TCB signing certificate, issued directly by the root, and that root."""
    certs = read_chain(chain, what)
    if len(certs) != 2:
        raise UntrustedError(f"{what} has {len(certs)} certificates, expected 2")
    signer, root = certs
    check_root(root, anchors)
    _check_role(signer, (ROLE_TCB_SIGNING,))
    check_issued(signer, root)
    if signer.is_ca or not signer.may_sign_data:
        raise UntrustedError("the TCB signing certificate is a CA or may not sign data")
    return signer, root


def _check_role(cert: Cert, roles: Sequence[str]) -> None:
    if cert.name not in roles:
        raise UntrustedError(f"certificate {cert.name!r} is not {' or '.join(roles)}")
