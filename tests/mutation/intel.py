"""SGX and TDX: quotes, certificates, lists and collateral, each thing broken alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from tests.unit.tee.sgx import attester as sgx_attester
from tests.unit.tee.sgx import support
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.tdx import attester as tdx_attester
from tests.unit.tee.tdx.attester import Attester as TdxAttester

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.dcap import ecdsa
from broch.tee.dcap.collateral import NAMES
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.quote import Header, Quote
from broch.tee.dcap.report import BODY_SIZE, ReportBody
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx import TEE as SGX
from broch.tee.tdx import VERIFIER as TDX
from broch.tee.tdx.report import TdReport

from .case import NO_SIGNATURE, Errors, Mutation, at_path, each_field, flip, leaves, put, with_items

NOT_SUPPORTED: Final = TcbStatus.NOT_SUPPORTED
Verdict = tuple[str, Errors, str]  # step, error, what its message says
HEADER: Final[dict[str, Verdict]] = {  # what is looked at before any signature
    "version": ("format", DecodeError, "version"),
    "att_key_type": ("format", DecodeError, "attestation key type 3"),
    "tee_type": ("format", DecodeError, "TEE type"),
    "qe_vendor_id": ("format", DecodeError, "QE vendor"),
}
QUOTE_SIGNATURE: Final = ("signature", UntrustedError, f"quote: the {NO_SIGNATURE}")
QE_SIGNATURE: Final = ("qe_report", UntrustedError, f"QE report: the {NO_SIGNATURE}")
BINDING: Final = ("qe_report", UntrustedError, "does not bind the attestation key")
CERTIFICATION: Final[dict[str, Verdict]] = {
    "qe_report": QE_SIGNATURE,
    "qe_report_signature": QE_SIGNATURE,
    "qe_auth_data": BINDING,
    "cert_type": ("format", DecodeError, "certification data of type 4"),
    "cert_data": ("chain", DecodeError, "not a PEM certificate"),
}


def sgx() -> Iterator[Mutation]:
    """Everything of SGX."""
    yield from quote_fields("sgx", SgxAttester(), BODY_SIZE)
    yield from pck_extension()
    yield from certificates()
    yield from lists()
    yield from dates()
    yield from documents()
    yield from items("sgx", SgxAttester())


def tdx() -> Iterator[Mutation]:
    """What TDX has besides: its body and its documents."""
    attester = TdxAttester()
    yield from quote_fields("tdx", attester, len(attester.report.to_bytes()))
    yield from tdx_documents()
    yield from items("tdx", attester)


def sgx_with(field: str, value: Any) -> SgxAttester:
    """An attester with one field changed."""
    fields: dict[str, Any] = {field: value}
    return SgxAttester(**fields)


def judged(name: str, attester: Any, evidence: bytes, verdict: Verdict) -> Mutation:
    step, error, check = verdict
    is_sgx = isinstance(attester, SgxAttester)
    return Mutation(
        name=name,
        verifier=SGX if is_sgx else TDX,
        evidence=evidence,
        endorsements=attester.endorsements(),
        at=support.NOW if is_sgx else tdx_attester.NOW,
        error=error,
        step=step,
        check=check,
    )


def quote_fields(tee: str, attester: Any, body_size: int) -> Iterator[Mutation]:
    """(1), (6), (7): every field of a quote, changed after it was signed."""
    sound = Quote.from_bytes(attester.evidence(), body_size=body_size, wrapped=tee == "tdx")

    def mutation(name: str, quote: Quote, verdict: Verdict) -> Mutation:
        return judged(f"{tee} quote: {name}", attester, quote.to_bytes(), verdict)

    for name, header in each_field(sound.header):
        verdict = HEADER.get(name, QUOTE_SIGNATURE)
        if (tee, name) == ("tdx", "version"):  # 5, whose body begins with its type
            verdict = ("format", DecodeError, "body of type")
        yield mutation(f"header {name}", replace(sound, header=header), verdict)
    report: ReportBody | TdReport = (ReportBody if tee == "sgx" else TdReport).from_bytes(
        sound.body
    )
    for name in report.__slots__:
        if getattr(report, name) is None:
            continue  # TDX 1.5 has them
        bent = replace(report, **{name: flip(getattr(report, name))})
        yield mutation(f"body {name}", replace(sound, body=bent.to_bytes()), QUOTE_SIGNATURE)
    for name, certification in each_field(sound.certification):
        verdict = CERTIFICATION[name]
        yield mutation(name, replace(sound, certification=certification), verdict)
    own = sound.certification
    for name, qe in each_field(ReportBody.from_bytes(own.qe_report)):
        changed = replace(sound, certification=replace(own, qe_report=qe.to_bytes()))
        yield mutation(f"QE report {name}", changed, QE_SIGNATURE)
    yield mutation("signature", replace(sound, signature=flip(sound.signature)), QUOTE_SIGNATURE)
    changed = replace(sound, attestation_key=flip(sound.attestation_key))
    yield mutation("attestation key", changed, BINDING)


# What a platform's certificate says; it is signed over the change.
EXTENSION: Final[dict[str, tuple[Errors | None, str]]] = {
    "ppid": (None, ""),
    "pcesvn": (None, "NotSupported"),
    "cpusvn": (None, ""),
    "pceid": (UntrustedError, "tcb_info is for PCE-ID"),
    "fmspc": (UntrustedError, "tcb_info is for FMSPC"),
    "sgx_type": (None, ""),
}


def pck_extension() -> Iterator[Mutation]:
    """(4), (9): every field of the SGX extension."""
    sound = sgx_attester.EXTENSION
    for name in PckExtension.__slots__:
        value = getattr(sound, name)
        if name == "components":
            for index in range(16):
                lower = tuple(svn - (place == index) for place, svn in enumerate(value))
                changed = replace(sound, components=lower)
                yield extended(f"component {index + 1}", changed, None, "NotSupported")
        elif value is not None:
            error, check = EXTENSION[name]
            bent = value - 1 if name == "pcesvn" else flip(value)
            yield extended(name, replace(sound, **{name: bent}), error, check)


def extended(name: str, extension: PckExtension, error: Errors | None, check: str) -> Mutation:
    attester = SgxAttester(extension=extension.to_bytes())
    status = check or "UpToDate"
    return Mutation(
        name=f"sgx PCK certificate: {name}",
        verifier=SGX,
        evidence=attester.evidence(),
        endorsements=attester.endorsements(),
        at=support.NOW,
        error=error,
        check=check if error else "",
        step="tcb_info" if error else "",
        shows=lambda claims: claims.pck == extension and claims.tcb.status == status,
    )


ROLES: Final = {
    "leaf": ("Intel SGX PCK Certificate", "leaf_name"),
    "ca": ("Intel SGX PCK Platform CA", "ca_name"),
    "signing": ("Intel SGX TCB Signing", "signing_name"),
}


def certificates() -> Iterator[Mutation]:
    """(2): every certificate in every other's role, signed by every other's key."""
    names = {common for common, _ in ROLES.values()} | {"Intel SGX Root CA", "Somebody"}
    for role, (own, parameter) in ROLES.items():
        for other in sorted(names - {own, "Intel SGX PCK Processor CA"}):
            changed = sgx_with(parameter, other)
            verdict: Verdict = ("chain", UntrustedError, f"certificate '{other}' is not {own}")
            yield judged(f"sgx {role} named {other}", changed, changed.evidence(), verdict)
        signer = {"leaf": "ca", "ca": "root", "signing": "root"}[role]
        for key in sorted(sgx_attester.KEYS.keys() - {signer}):
            changed = SgxAttester(signers={role: key})
            verdict = ("chain", UntrustedError, f"certificate '{own}': the {NO_SIGNATURE}")
            yield judged(f"sgx {role} signed by {key}", changed, changed.evidence(), verdict)
    for key in sorted(sgx_attester.KEYS.keys() - {"root"}):
        changed = SgxAttester(signers={"root": key})
        verdict = ("chain", UntrustedError, f"Test Root': the {NO_SIGNATURE}")
        yield judged(f"sgx root signed by {key}", changed, changed.evidence(), verdict)
    for role, allowed, problem in (
        ("root", None, "may not issue certificates"),
        ("root", 0, "allows no such chain below it"),
        ("ca", None, "may not issue certificates"),
        ("leaf", 0, "is a CA or may not sign data"),
        ("signing", 0, "is a CA or may not sign data"),
    ):
        changed = SgxAttester(path_lengths={role: allowed})
        verdict = ("chain", UntrustedError, problem)
        yield judged(f"sgx {role} path length {allowed}", changed, changed.evidence(), verdict)


def lists() -> Iterator[Mutation]:
    """(3): every entry of every revocation list, and whose list it is."""
    for parameter, role in (
        ("ca_revokes", "leaf"),
        ("root_revokes", "ca"),
        ("root_revokes", "signing"),
    ):
        changed = sgx_with(parameter, (role,))
        verdict: Verdict = ("crl", UntrustedError, f"'{ROLES[role][0]}' .serial .* is revoked")
        yield judged(f"sgx {parameter} {role}", changed, changed.evidence(), verdict)
    for short, item, owner in (("pck_crl", "pck_crl", "ca"), ("root_crl", "root_ca_crl", "root")):
        for key in sorted(sgx_attester.KEYS.keys() - {owner}):
            changed = SgxAttester(signers={short: key})
            verdict = ("crl", UntrustedError, f"{item}: the {NO_SIGNATURE}")
            yield judged(f"sgx {item} signed by {key}", changed, changed.evidence(), verdict)
        for issuer in sorted({"root", "ca", "leaf", "signing"} - {owner}):
            changed = SgxAttester(crl_issuers={short: issuer})
            verdict = ("crl", UntrustedError, f"{item} is not of")
            yield judged(f"sgx {item} of {issuer}", changed, changed.evidence(), verdict)


DATED: Final = {
    "root": ("chain", "certificate 'Broch Emulated Test Root'"),
    "ca": ("chain", "certificate 'Intel SGX PCK Platform CA'"),
    "leaf": ("chain", "certificate 'Intel SGX PCK Certificate'"),
    "signing": ("chain", "certificate 'Intel SGX TCB Signing'"),
    "root_crl": ("crl", "root_ca_crl"),
    "pck_crl": ("crl", "pck_crl"),
    "tcb_info": ("tcb_info", "tcb_info"),
    "qe_identity": ("qe_identity", "qe_identity"),
}


def dates() -> Iterator[Mutation]:
    """(2)-(5): every date, one second too late or too early."""
    second = timedelta(seconds=1)
    for what, (step, shown) in DATED.items():
        early = (support.NOW - timedelta(days=2), support.NOW - second)
        late = (support.NOW + second, support.NOW + timedelta(days=2))
        for period, problem in ((early, "has expired"), (late, "is not valid before")):
            changed = SgxAttester(periods={what: period})
            verdict: Verdict = (step, UntrustedError, f"{shown} {problem}")
            yield judged(f"sgx {what} {problem}", changed, changed.evidence(), verdict)


# Every leaf of the documents, signed over the change: another value, and what comes of it.
Change = tuple[Any, Errors | None, str]
TCB_INFO: Final[dict[str, Change]] = {
    "id": ("TDX", UntrustedError, "tcb_info is of 'TDX'"),
    "version": (2, DecodeError, "version 2, expected 3"),
    "issueDate": ("2099-01-01T00:00:00Z", UntrustedError, "tcb_info is not valid before"),
    "nextUpdate": ("2001-01-01T00:00:00Z", UntrustedError, "tcb_info has expired"),
    "fmspc": ("000000000000", UntrustedError, "tcb_info is for FMSPC"),
    "pceId": ("FFFF", UntrustedError, "tcb_info is for PCE-ID"),
    "tcbType": (1, None, "UpToDate"),
    "tcbEvaluationDataNumber": (0, None, "UpToDate"),
    "svn": (255, None, "NotSupported"),
    "pcesvn": (12, None, "NotSupported"),
    "tcbDate": ("2001-01-01T00:00:00Z", None, "UpToDate"),
    "tcbStatus": ("Revoked", None, "Revoked"),
}
QE_IDENTITY: Final[dict[str, Change]] = {
    "id": ("QVE", UntrustedError, "qe_identity is of 'QVE'"),
    "version": (3, DecodeError, "version 3, expected 2"),
    "issueDate": ("2099-01-01T00:00:00Z", UntrustedError, "qe_identity is not valid before"),
    "nextUpdate": ("2001-01-01T00:00:00Z", UntrustedError, "qe_identity has expired"),
    "tcbEvaluationDataNumber": (0, None, "UpToDate"),
    "miscselect": ("01000000", UntrustedError, "MISCSELECT of the quoting enclave"),
    "miscselectMask": ("00000000", None, "UpToDate"),
    "attributes": ("00" * 16, UntrustedError, "ATTRIBUTES of the quoting enclave"),
    "attributesMask": ("00" * 16, UntrustedError, "ATTRIBUTES of the quoting enclave"),
    "mrsigner": ("00" * 32, UntrustedError, "MRSIGNER of the quoting enclave"),
    "isvprodid": (99, UntrustedError, "ISVPRODID of the quoting enclave"),
    "isvsvn": (99, None, "NotSupported"),
    "tcbDate": ("2001-01-01T00:00:00Z", None, "UpToDate"),
    "tcbStatus": ("OutOfDate", None, "OutOfDate"),
}
MODULE: Final[dict[str, Change]] = {
    "id": ("TDX_02", UntrustedError, "knows no TDX module TDX_01"),
    "mrsigner": ("11" * 48, UntrustedError, "MRSIGNERSEAM is not that of TDX_01"),
    "attributes": ("01" + "00" * 7, UntrustedError, "SEAMATTRIBUTES are not those of TDX_01"),
    "attributesMask": ("00" * 8, None, "UpToDate"),
    "isvsvn": (6, None, "OutOfDate"),
    "tcbDate": ("2001-01-01T00:00:00Z", None, "UpToDate"),
    "tcbStatus": ("Revoked", None, "Revoked"),
}


def documents() -> Iterator[Mutation]:
    """(4), (5): every leaf of the documents."""
    for document, table, parameter in (
        ("tcb_info", TCB_INFO, "edit_tcb_info"),
        ("qe_identity", QE_IDENTITY, "edit_qe_identity"),
    ):
        sound = json.loads(SgxAttester().endorsements().items[document])
        for path in leaves(sound):
            value, error, status = table[str(path[-1])]
            # What does not fit the QE is found once there is a report of it to compare.
            compared = document == "qe_identity" and "of the quoting enclave" in status
            step = "qe_report" if compared else document
            assert at_path(sound, path) != value, path
            changed = sgx_with(parameter, putting(path, value))
            yield documented(f"sgx {document}", step, path, changed, error, status)


def tdx_documents() -> Iterator[Mutation]:
    """(8): every leaf of the TCB info that only TDX has."""
    sound = json.loads(TdxAttester().endorsements().items["tcb_info"])
    for path in leaves(sound):
        if path[0] == "tdxModule" or path[:2] == ("tdxModuleIdentities", 0):
            value, error, status = MODULE[str(path[-1])]
            if path[0] == "tdxModule":  # describes modules without a version, which this is not
                error, status = None, "UpToDate"
            elif path[2:4] == ("tcbLevels", 1):  # the level below the platform's
                value, error, status = lower_level(str(path[-1]))
            changed = TdxAttester(edit=putting(path, value))
            yield documented("tdx tcb_info", "tdx_module", path, changed, error, status)
        elif "tdxtcbcomponents" in path:
            # Components 0 and 1 are the module's own (it has a version here).
            status = "UpToDate" if path[-2] in (0, 1) else "NotSupported"
            changed = TdxAttester(edit=putting(path, 255))
            yield documented("tdx tcb_info", "", path, changed, None, status)


def lower_level(name: str) -> Change:
    values = {"isvsvn": 3, "tcbDate": "2001-01-01T00:00:00Z", "tcbStatus": "Revoked"}
    return values[name], None, "UpToDate"


def putting(path: tuple[str | int, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: put(document, path, value)


def documented(
    name: str,
    step: str,
    path: tuple[str | int, ...],
    attester: Any,
    error: Errors | None,
    status: str,
) -> Mutation:
    made = judged("", attester, attester.evidence(), (step, error or UntrustedError, status))
    return replace(
        made,
        name=f"{name}: {'.'.join(map(str, path))}",
        error=error,
        shows=lambda claims: claims.tcb.status == status,
    )


# Chains of the signers are needed first of all.
_NEEDED_AT: Final = {
    "root_ca_crl": "crl",
    "pck_crl": "crl",
    "tcb_info": "tcb_info",
    "tcb_info_signature": "tcb_info",
    "qe_identity": "qe_identity",
    "qe_identity_signature": "qe_identity",
}


def items(tee: str, attester: Any) -> Iterator[Mutation]:
    """Every endorsement missing, of others, or changed after it was signed."""
    evidence, sound = attester.evidence(), attester.endorsements()
    base = judged("", attester, evidence, ("chain", UndecidedError, ""))
    for name in NAMES:
        missing = with_items(sound, {name: None})
        yield replace(
            base,
            name=f"{tee} without {name}",
            endorsements=missing,
            error=UndecidedError,
            step=_NEEDED_AT.get(name, "chain"),
            check=f"lack {name}",
        )
    swapped = {"pck_crl": sound.items["root_ca_crl"], "root_ca_crl": sound.items["pck_crl"]}
    yield replace(
        base,
        name=f"{tee} lists swapped",
        endorsements=with_items(sound, swapped),
        error=UntrustedError,
        step="crl",
        check="root_ca_crl is not of",
    )
    unsigned = {"tcb_info": "tcb_info", "qe_identity": "qe_identity"}
    for item in unsigned:
        document = json.loads(sound.items[item])
        for path in leaves(document):
            changed = json.loads(sound.items[item])
            put(changed, path, flip(at_path(document, path)))
            yield replace(
                base,
                name=f"{tee} unsigned {item}: {'.'.join(map(str, path))}",
                endorsements=with_items(sound, {item: json.dumps(changed).encode()}),
                error=UntrustedError,
                step=item,
                check=f"{item}: the {NO_SIGNATURE}",
            )
        stranger = ecdsa.sign(sgx_attester.KEYS["stranger"], sound.items[item])
        yield replace(
            base,
            name=f"{tee} {item} signed by a stranger",
            endorsements=with_items(sound, {f"{item}_signature": stranger}),
            error=UntrustedError,
            step=item,
            check=f"{item}: the {NO_SIGNATURE}",
        )
    yield replace(
        base,
        name=f"{tee} without an anchor",
        endorsements=Endorsements(anchors=(), items=sound.items),
        error=UndecidedError,
        check="name no root to trust",
    )
    other = SgxAttester(root_name="Broch Emulated Other Root").anchor()
    yield replace(
        base,
        name=f"{tee} under another anchor",
        endorsements=Endorsements(anchors=(other,), items=sound.items),
        error=UntrustedError,
        check="is not among the anchors",
    )


# For the test that nothing is left out.
SLOTS: Final = {
    "sgx quote: header": Header.__slots__,
    "tdx quote: header": Header.__slots__,
    "sgx quote: body": ReportBody.__slots__,
    "tdx quote: body": tuple(
        name for name in TdReport.__slots__ if name not in ("tee_tcb_svn2", "mr_service_td")
    ),
    "sgx quote: QE report": ReportBody.__slots__,
    "tdx quote: QE report": ReportBody.__slots__,
}


def sound_sgx() -> Mutation:
    """Nothing broken."""
    attester = SgxAttester()
    made = judged("sgx", attester, attester.evidence(), ("", UntrustedError, ""))
    return replace(made, error=None)


def sound_tdx() -> Mutation:
    """Nothing broken."""
    attester = TdxAttester()
    made = judged("tdx", attester, attester.evidence(), ("", UntrustedError, ""))
    return replace(made, error=None)
