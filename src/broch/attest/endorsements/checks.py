"""Nothing enters the store that its publisher has not signed.

Each subject can be checked by itself: its items bring the certificates up to the root along. The
root is pinned, or one of the anchors that the caller gives (tests, emulated services).

What is checked here is checked again by every verification, together with the time: this only keeps
a store from being filled with what could never be used, by a service or by a bundle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broch.attest.endorsements import roots
from broch.attest.endorsements.subject import CHAIN, Kind, Subject
from broch.errors import DecodeError, UntrustedError

Items = Mapping[str, bytes]
_SIGNATURE_SIZE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """When what is checked was issued, and when its publisher replaces it."""

    issued: datetime
    until: datetime


def check(subject: Subject, items: Items, anchors: Sequence[bytes] = ()) -> Dates:
    """The items are those of the subject, and signed under a pinned root or one of ``anchors``.

    Raises:
        DecodeError: an item is missing, too many, or cannot be read.
        UntrustedError: a signature, role or name does not hold.
    """
    kind, arguments = subject.match()
    if set(items) != set(kind.items):
        odd = sorted(set(items) ^ set(kind.items))
        raise DecodeError(0, f"missing or too many: {', '.join(odd)}", what=str(subject))
    return _CHECKS[kind](arguments, items, tuple(anchors))


def _dcap_root(_: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.tee.dcap.certs import check_crl, read_crl

    root = _dcap_chain(items, "root_ca_crl", None, anchors)[-1]
    crl = read_crl(items["root_ca_crl"], "root_ca_crl")
    check_crl(crl, root, "root_ca_crl")
    return Dates(issued=crl.window.begin, until=crl.window.end)


def _dcap_pck(arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.tee.dcap.certs import check_crl, read_crl

    role = f"Intel SGX PCK {arguments[0].capitalize()} CA"
    issuer = _dcap_chain(items, "pck_crl", role, anchors)[0]
    crl = read_crl(items["pck_crl"], "pck_crl")
    check_crl(crl, issuer, "pck_crl")
    return Dates(issued=crl.window.begin, until=crl.window.end)


def _dcap_tcb(arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.tee.dcap.tcb import TcbInfo

    _check_document(items, "tcb_info", anchors)
    info = TcbInfo.from_bytes(items["tcb_info"])
    if (info.id.lower(), info.fmspc.hex()) != arguments:
        raise UntrustedError(f"TCB info of {info.id} {info.fmspc.hex()}, not of {arguments}")
    return Dates(issued=info.issue_date, until=info.next_update)


def _dcap_qe(arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.tee.dcap.tcb import QeIdentity

    _check_document(items, "qe_identity", anchors)
    identity = QeIdentity.from_bytes(items["qe_identity"])
    expected = {"sgx": "QE", "tdx": "TD_QE"}[arguments[0]]
    if identity.id != expected:
        raise UntrustedError(f"identity of {identity.id!r}, expected {expected!r}")
    return Dates(issued=identity.issue_date, until=identity.next_update)


def _check_document(items: Items, name: str, anchors: tuple[bytes, ...]) -> None:
    """A JSON document: signed, as the bytes that it is, by Intel's key for such documents."""
    from broch.tee.dcap import ecdsa
    from broch.tee.dcap.certs import verifying_key
    from broch.tee.dcap.trust import ROLE_TCB_SIGNING

    signer = _dcap_chain(items, name, ROLE_TCB_SIGNING, anchors)[0]
    signature = items[f"{name}_signature"]
    if len(signature) != _SIGNATURE_SIZE:
        raise DecodeError(0, f"{len(signature)} bytes, expected 64", what=f"{name}_signature")
    ecdsa.verify(verifying_key(signer), signature, items[name], name)


def _dcap_chain(
    items: Items, name: str, role: str | None, anchors: tuple[bytes, ...]
) -> tuple[Any, ...]:
    """The certificates under which ``name`` is signed: signer (if any) and root."""
    from broch.tee.dcap.certs import check_issued, read_chain
    from broch.tee.dcap.trust import check_root

    what = name + CHAIN
    chain = read_chain(items[what], what)
    if len(chain) != (1 if role is None else 2):
        raise UntrustedError(f"{what} has {len(chain)} certificates")
    root = chain[-1]
    check_root(root, (*anchors, *roots.pinned("sgx", [root.der])))
    if role is not None:
        if chain[0].name != role:
            raise UntrustedError(f"{what}: certificate {chain[0].name!r} is not {role!r}")
        check_issued(chain[0], root)
    return chain


def _snp_chain(arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.wire.x509 import Algorithm, check_crl, read_crl

    ark, _ = _snp_certificates(arguments, items, anchors)
    crl = read_crl(items["crl"], "crl")
    check_crl(crl, ark, "crl", Algorithm.RSA_PSS_SHA384)
    return Dates(issued=crl.window.begin, until=crl.window.end)


def _snp_vek(arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]) -> Dates:
    from broch.tee.snp.vek import Vek
    from broch.wire.x509 import Algorithm, check_issued, read_certificate

    _, ask = _snp_certificates((arguments[0], "vcek"), items, anchors)
    cert = read_certificate(items["vek"], "vek")
    check_issued(cert, ask, Algorithm.RSA_PSS_SHA384)
    vek = Vek.from_certificate(cert)
    tcb = vek.tcb.to_bytes(vek.product).hex()
    found = (vek.product.lower(), vek.hwid.hex() if vek.hwid is not None else "", tcb)
    if found != arguments:
        raise UntrustedError("the VCEK is of another chip or TCB version than was asked for")
    return Dates(issued=cert.window.begin, until=cert.window.end)


def _snp_certificates(
    arguments: tuple[str, ...], items: Items, anchors: tuple[bytes, ...]
) -> tuple[Any, Any]:
    from broch.tee import roots as emulated
    from broch.wire.x509 import Algorithm, check_issued, read_certificate

    product = arguments[0].capitalize()
    ark, ask = (read_certificate(items[name], name) for name in ("ark", "ask"))
    if not roots.pinned("snp", [ark.der]) and not (
        ark.der in anchors and emulated.is_emulated(ark.name)
    ):
        raise UntrustedError(f"root {ark.name!r} is neither AMD's nor an emulated anchor")
    check_issued(ark, ark, Algorithm.RSA_PSS_SHA384)
    check_issued(ask, ark, Algorithm.RSA_PSS_SHA384)
    expected = f"SEV-{product}" if arguments[1] == "vcek" else f"SEV-VLEK-{product}"
    if ask.name != expected:
        raise UntrustedError(f"certificate {ask.name!r} is not {expected!r}")
    return ark, ask


_CHECKS: Final[Mapping[Kind, Callable[[tuple[str, ...], Items, tuple[bytes, ...]], Dates]]] = {
    Kind.DCAP_ROOT: _dcap_root,
    Kind.DCAP_PCK: _dcap_pck,
    Kind.DCAP_TCB: _dcap_tcb,
    Kind.DCAP_QE: _dcap_qe,
    Kind.SNP_CHAIN: _snp_chain,
    Kind.SNP_VEK: _snp_vek,
}
