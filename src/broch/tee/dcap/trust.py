"""From a pinned root to a platform: certificates, revocation, signed collateral.

Steps 2 to 5 of verification (numbered as in Intel's quote verification library). All that does not
depend on the time is done once per content and kept in the caller's cache
(:mod:`broch.tee.cache`); each call then compares the time with every window of validity that took
part.

A root is believed if the caller names it as an anchor *and* it is either pinned here, by digest, or
says in its own name that it is emulated. So no anchor that a caller is talked into can make
evidence look like Intel's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import UndecidedError, UntrustedError, UsageError
from broch.tee import roots
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa, pckext
from broch.tee.dcap.certs import (
    check_crl,
    check_issued,
    read_certificate,
    read_crl,
    split_chain,
    verifying_key,
)
from broch.tee.dcap.collateral import Collateral
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.tcb import QeIdentity, TcbInfo
from broch.wire.x509 import Certificate, Crl, Window, check_not_revoked, check_path_lengths

# SHA-256 of the DER certificate at
# https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer
INTEL_SGX_ROOT: Final = bytes.fromhex(
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
)
ROLE_PCK: Final = "Intel SGX PCK Certificate"
ROLES_PCK_CA: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
ROLE_TCB_SIGNING: Final = "Intel SGX TCB Signing"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCollateral:
    """Collateral whose signatures hold, under one root. Its windows are checked at each use."""

    root: Certificate
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    root_crl: Crl
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A platform whose certificates hold, and the collateral about it. Can be pickled."""

    root_name: str
    emulated: bool
    pck_key: VerifyingKey = field(repr=False)
    pck: PckExtension
    pck_ca: str
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    windows: tuple[Window, ...] = field(repr=False)
    begin: datetime  # latest begin and earliest end of all windows
    end: datetime
    details: Mapping[str, str] = field(repr=False)  # of claims: what is the platform's

    def check_time(self, at: datetime) -> None:
        """Every certificate, list and document is valid ``at``.

        Raises:
            UntrustedError: one is not; the message names it.
        """
        if self.begin <= at < self.end:
            return
        for window in self.windows:
            window.check(at)


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
        raise UndecidedError(
            "the endorsements name no root to trust",
            hint="name Intel's SGX root certificate as an anchor",
        )
    collateral = Collateral.from_items(endorsements.items)
    anchors = tuple(endorsements.anchors)
    cache = endorsements.cache
    trusted = cache.get(
        ("dcap platform", chain, collateral, anchors),
        lambda: _platform(chain, collateral, anchors, cache),
    )
    trusted.check_time(at)
    return trusted


def is_emulated_root(cert: Certificate) -> bool:
    """Whether a root says of itself that it is emulated."""
    return roots.is_emulated(cert.name)


def check_root(root: Certificate, anchors: Sequence[bytes]) -> None:
    """The end of a chain is a root that the caller trusts and that is what it says.

    Raises:
        UntrustedError: not an anchor, neither pinned nor emulated, or not self-signed.
    """
    digest = hashlib.sha256(root.der).digest()
    if root.der not in anchors:
        raise UntrustedError(
            f"root {root.name!r} ({digest.hex()}) is not among the anchors",
            hint="evidence of real hardware ends in Intel's root; compare the digests",
        )
    if digest != INTEL_SGX_ROOT and not is_emulated_root(root):
        raise UntrustedError(f"root {root.name!r} ({digest.hex()}) is neither Intel's nor emulated")
    check_issued(root, root)


def _platform(
    pem: bytes, collateral: Collateral, anchors: tuple[bytes, ...], cache: VerificationCache
) -> Trusted:
    """Steps 2 to 5 without the time."""
    # (2) Chain: leaf, PCK CA, root, each in its role.
    chain = split_chain(pem, "PCK certificate chain")
    if len(chain) != 3:
        raise UntrustedError(f"PCK chain of {len(chain)} certificates, expected 3")
    root = _root(chain[2], anchors, cache)
    intermediate = _issued(chain[1], root, ROLES_PCK_CA, cache)
    leaf = read_certificate(chain[0], "PCK certificate")
    _check_role(leaf, (ROLE_PCK,))
    check_issued(leaf, intermediate)
    check_path_lengths((leaf, intermediate, root))
    if leaf.is_ca or not leaf.may_sign_data:
        raise UntrustedError("the PCK certificate is a CA or may not sign data")
    if pckext.OID not in leaf.extensions:
        raise UntrustedError("the PCK certificate has no SGX extension")
    verified = cache.get(
        ("dcap collateral", collateral, anchors), lambda: _collateral(collateral, anchors, cache)
    )
    if verified.root.der != root.der:
        raise UntrustedError(f"the collateral is under another root, {verified.root.name!r}")
    # (3) Revocation: both lists are there, are the issuers' own and do not list a certificate.
    pck_crl = cache.get(
        ("dcap PCK CRL", collateral.pck_crl, intermediate.der),
        lambda: _list(collateral.pck_crl, intermediate, "pck_crl"),
    )
    check_not_revoked(intermediate, verified.root_crl)
    check_not_revoked(leaf, pck_crl)
    # (4) FMSPC and PCE-ID of the TCB info are the platform's.
    pck = PckExtension.from_bytes(leaf.extensions[pckext.OID])
    for what, own, described in (
        ("FMSPC", pck.fmspc, verified.tcb_info.fmspc),
        ("PCE-ID", pck.pceid, verified.tcb_info.pceid),
    ):
        if own != described:
            raise UntrustedError(
                f"tcb_info is for {what} {described.hex()}, the platform has {own.hex()}",
                hint=f"fetch the TCB info of FMSPC {pck.fmspc.hex()}",
            )
    windows = (*verified.windows, leaf.window, intermediate.window, pck_crl.window)
    return Trusted(
        root_name=root.name,
        emulated=is_emulated_root(root),
        pck_key=verifying_key(leaf),
        pck=pck,
        pck_ca=intermediate.name,
        tcb_info=verified.tcb_info,
        qe_identity=verified.qe_identity,
        windows=windows,
        begin=max(window.begin for window in windows),
        end=min(window.end for window in windows),
        details={
            "root": root.name,
            "pck_ca": intermediate.name,
            "fmspc": pck.fmspc.hex(),
            "pceid": pck.pceid.hex(),
            "ppid": pck.ppid.hex(),
        },
    )


def _collateral(
    collateral: Collateral, anchors: tuple[bytes, ...], cache: VerificationCache
) -> VerifiedCollateral:
    """Steps 3 (the root's list) to 5 for collateral that several platforms share."""
    tcb_signer, root = _signer(
        collateral.tcb_info_issuer_chain, "tcb_info_issuer_chain", anchors, cache
    )
    qe_signer, qe_root = _signer(
        collateral.qe_identity_issuer_chain, "qe_identity_issuer_chain", anchors, cache
    )
    if qe_root.der != root.der:
        raise UntrustedError("TCB info and QE identity are under different roots")
    root_crl = _list(collateral.root_ca_crl, root, "root_ca_crl")
    check_not_revoked(tcb_signer, root_crl)
    check_not_revoked(qe_signer, root_crl)
    # (4) TCB info: signed as raw bytes, by the TCB signing key.
    signing_key = verifying_key(tcb_signer)
    ecdsa.verify(signing_key, collateral.tcb_info_signature, collateral.tcb_info, "tcb_info")
    tcb_info = TcbInfo.from_bytes(collateral.tcb_info)
    # (5) QE identity: likewise.
    ecdsa.verify(
        verifying_key(qe_signer),
        collateral.qe_identity_signature,
        collateral.qe_identity,
        "qe_identity",
    )
    qe_identity = QeIdentity.from_bytes(collateral.qe_identity)
    return VerifiedCollateral(
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


def _signer(
    pem: bytes, what: str, anchors: tuple[bytes, ...], cache: VerificationCache
) -> tuple[Certificate, Certificate]:
    """The TCB signing certificate, issued directly by the root, and that root."""
    chain = split_chain(pem, what)
    if len(chain) != 2:
        raise UntrustedError(f"{what} has {len(chain)} certificates, expected 2")
    root = _root(chain[1], anchors, cache)
    signer = _issued(chain[0], root, (ROLE_TCB_SIGNING,), cache)
    if signer.is_ca or not signer.may_sign_data:
        raise UntrustedError("the TCB signing certificate is a CA or may not sign data")
    return signer, root


def _root(der: bytes, anchors: tuple[bytes, ...], cache: VerificationCache) -> Certificate:
    """Three chains end in the same root, which is read and checked once."""

    def make() -> Certificate:
        root = read_certificate(der, "root")
        check_root(root, anchors)
        return root

    return cache.get(("dcap root", der, anchors), make)


def _issued(
    der: bytes, root: Certificate, roles: tuple[str, ...], cache: VerificationCache
) -> Certificate:
    """A certificate in one of these roles, issued by the root: few, and in every chain."""

    def make() -> Certificate:
        cert = read_certificate(der, "certificate")
        _check_role(cert, roles)
        check_issued(cert, root)
        check_path_lengths((cert, root))
        return cert

    return cache.get(("dcap issued", der, root.der, roles), make)


def _list(der: bytes, issuer: Certificate, what: str) -> Crl:
    crl = read_crl(der, what)
    check_crl(crl, issuer, what)
    return crl


def _check_role(cert: Certificate, roles: Sequence[str]) -> None:
    if cert.name not in roles:
        raise UntrustedError(f"certificate {cert.name!r} is not {' or '.join(roles)}")
