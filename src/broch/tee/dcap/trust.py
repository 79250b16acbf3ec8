"""From a pinned root to a platform: certificates, revocation, signed collateral.

Steps 2 to 5 of verification (numbered as in Intel's quote verification library). All that does not
depend on the time is done once per content and kept in the caller's cache
(:mod:`broch.tee.cache`); each call compares the time with every window of validity that took part,
those of a step before the next step begins.

A root is believed if the caller names it as an anchor *and* it is either pinned here, by digest, or
says in its own name that it is emulated. So no anchor that a caller is talked into can make
evidence look like Intel's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from broch.crypto.ecdsa import VerifyingKey
from broch.errors import UndecidedError, UntrustedError
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
from broch.tee.steps import Steps
from broch.wire.x509 import Certificate, Crl, Window, check_not_revoked, check_path_lengths

# SHA-256 of the DER certificate at
# https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer
INTEL_SGX_ROOT: Final = bytes.fromhex(
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
)
ROLE_PCK: Final = "Intel SGX PCK Certificate"
ROLES_PCK_CA: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
ROLE_TCB_SIGNING: Final = "Intel SGX TCB Signing"


class Kind(NamedTuple):
    """What the documents of a kind of quote say that they are about."""

    tcb_info: str
    qe_identity: str


SGX: Final = Kind(tcb_info="SGX", qe_identity="QE")
TDX: Final = Kind(tcb_info="TDX", qe_identity="TD_QE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who signed the documents, each issued directly by the root."""

    root: Certificate
    tcb_info: Certificate
    qe_identity: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A platform whose certificates hold, and the collateral about it. Can be pickled."""

    emulated: bool
    pck_key: VerifyingKey = field(repr=False)
    pck: PckExtension
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    windows: tuple[tuple[str, Window], ...] = field(repr=False)  # each after its step
    begin: datetime  # latest begin and earliest end of all windows
    end: datetime
    details: Mapping[str, str] = field(repr=False)  # of claims: what is the platform's

    def check_time(self, steps: Steps) -> None:
        """Every certificate, list and document is valid now.

        Raises:
            UntrustedError: one is not; the message names it.
        """
        if not self.begin <= steps.at < self.end:
            steps.check_again(self.windows)


def establish(chain: bytes, kind: Kind, endorsements: Endorsements, steps: Steps) -> Trusted:
    """Trust in the platform whose PCK chain (PEM: leaf, CA, root) is ``chain``.

    Raises:
        DecodeError: a certificate, list or document cannot be read.
        UntrustedError: unknown root, wrong role, bad signature, revoked, not valid at this time.
        UndecidedError: no anchor, or collateral is missing.
    """
    steps.current = "chain"
    if not endorsements.anchors:
        raise UndecidedError(
            "the endorsements name no root to trust",
            hint="fetch the collateral, which brings Intel's root along, or name it as an anchor",
        )
    collateral = Collateral.from_items(endorsements.items)
    anchors = tuple(endorsements.anchors)
    cache = endorsements.cache
    trusted = cache.get(
        ("dcap platform", chain, kind, collateral, anchors),
        lambda: _platform(chain, kind, collateral, endorsements, steps),
    )
    trusted.check_time(steps)
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
    pem: bytes,
    kind: Kind,
    collateral: Collateral,
    endorsements: Endorsements,
    steps: Steps,
) -> Trusted:
    """Steps 2 to 5. Of the time depends only where this fails, and nothing of what it returns."""
    anchors, cache = tuple(endorsements.anchors), endorsements.cache
    # (2) Chains: of the platform's key, and of those who signed the documents; under one root.
    leaf, intermediate, root = _pck_chain(pem, anchors, cache)
    pck = PckExtension.from_bytes(leaf.extensions[pckext.OID])
    chains = (
        collateral.need("tcb_info_issuer_chain"),
        collateral.need("qe_identity_issuer_chain"),
    )
    signers = cache.get(
        ("dcap signers", *chains, anchors), lambda: _signers(*chains, anchors, cache)
    )
    if signers.root.der != root.der:
        raise UntrustedError(f"the collateral is under another root, {signers.root.name!r}")
    certificates = (root, intermediate, leaf, signers.tcb_info, signers.qe_identity)
    windows = steps.check_times(*(cert.window for cert in certificates))
    # (3) Revocation: both lists are there, are the issuers' own and do not list a certificate.
    steps.current = "crl"
    root_crl = _list(collateral.need("root_ca_crl"), root, "root_ca_crl", cache)
    pck_crl = _list(collateral.need("pck_crl"), intermediate, "pck_crl", cache)
    for cert in (intermediate, signers.tcb_info, signers.qe_identity):
        check_not_revoked(cert, root_crl)
    check_not_revoked(leaf, pck_crl)
    windows += steps.check_times(root_crl.window, pck_crl.window)
    # (4) TCB info: signed as raw bytes, about this kind of TEE and this platform.
    steps.current = "tcb_info"
    documents = (collateral.need("tcb_info_signature"), collateral.need("tcb_info"))
    signed = (signers.tcb_info, *documents)
    tcb_info = cache.get(("dcap TCB info", signed[0].der, *signed[1:]), lambda: _tcb_info(*signed))
    _check_described(tcb_info, kind, pck)
    windows += steps.check_times(
        Window(what="tcb_info", begin=tcb_info.issue_date, end=tcb_info.next_update)
    )
    # (5) QE identity: likewise.
    steps.current = "qe_identity"
    documents = (collateral.need("qe_identity_signature"), collateral.need("qe_identity"))
    signed = (signers.qe_identity, *documents)
    qe_identity = cache.get(
        ("dcap QE identity", signed[0].der, *signed[1:]), lambda: _qe_identity(*signed)
    )
    if qe_identity.id != kind.qe_identity:
        raise UntrustedError(f"qe_identity is of {qe_identity.id!r}, not of {kind.qe_identity!r}")
    windows += steps.check_times(
        Window(what="qe_identity", begin=qe_identity.issue_date, end=qe_identity.next_update)
    )
    return Trusted(
        emulated=is_emulated_root(root),
        pck_key=verifying_key(leaf),
        pck=pck,
        tcb_info=tcb_info,
        qe_identity=qe_identity,
        windows=tuple(windows),
        begin=max(window.begin for _, window in windows),
        end=min(window.end for _, window in windows),
        details={
            "root": root.name,
            "pck_ca": intermediate.name,
            "fmspc": pck.fmspc.hex(),
            "pceid": pck.pceid.hex(),
            "ppid": pck.ppid.hex(),
        },
    )


def _pck_chain(
    pem: bytes, anchors: tuple[bytes, ...], cache: VerificationCache
) -> tuple[Certificate, Certificate, Certificate]:
    """Leaf, PCK CA, root, each in its role."""
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
    return leaf, intermediate, root


def _signers(
    tcb_info: bytes, qe_identity: bytes, anchors: tuple[bytes, ...], cache: VerificationCache
) -> Signers:
    """Those of both documents, whose chains (PEM) end in the same root."""
    tcb_signer, root = _signer(tcb_info, "tcb_info_issuer_chain", anchors, cache)
    qe_signer, qe_root = _signer(qe_identity, "qe_identity_issuer_chain", anchors, cache)
    if qe_root.der != root.der:
        raise UntrustedError("TCB info and QE identity are under different roots")
    return Signers(root=root, tcb_info=tcb_signer, qe_identity=qe_signer)


def _tcb_info(signer: Certificate, signature: bytes, document: bytes) -> TcbInfo:
    ecdsa.verify(verifying_key(signer), signature, document, "tcb_info")
    return TcbInfo.from_bytes(document)


def _qe_identity(signer: Certificate, signature: bytes, document: bytes) -> QeIdentity:
    ecdsa.verify(verifying_key(signer), signature, document, "qe_identity")
    return QeIdentity.from_bytes(document)


def _check_described(tcb_info: TcbInfo, kind: Kind, pck: PckExtension) -> None:
    """The TCB info is about this kind of TEE, and about platforms like this one."""
    if tcb_info.id != kind.tcb_info:
        raise UntrustedError(f"tcb_info is of {tcb_info.id!r}, not of {kind.tcb_info!r}")
    for what, own, described in (
        ("FMSPC", pck.fmspc, tcb_info.fmspc),
        ("PCE-ID", pck.pceid, tcb_info.pceid),
    ):
        if own != described:
            raise UntrustedError(
                f"tcb_info is for {what} {described.hex()}, the platform has {own.hex()}",
                hint=f"fetch the TCB info of FMSPC {pck.fmspc.hex()}",
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


def _list(der: bytes, issuer: Certificate, what: str, cache: VerificationCache) -> Crl:
    def make() -> Crl:
        crl = read_crl(der, what)
        check_crl(crl, issuer, what)
        return crl

    return cache.get(("dcap list", der, issuer.der, what), make)


def _check_role(cert: Certificate, roles: Sequence[str]) -> None:
    if cert.name not in roles:
        raise UntrustedError(f"certificate {cert.name!r} is not {' or '.join(roles)}")
