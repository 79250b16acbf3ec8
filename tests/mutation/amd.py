"""SEV-SNP: report, certificates and list, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from tests.pki import NOW, usage
from tests.pki import name as distinguished
from tests.unit.tee.snp.attester import CHIP, TCB, Attester, extensions, integer, text

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.snp import VERIFIER
from broch.tee.snp.product import Product
from broch.tee.snp.report import Report
from broch.tee.snp.vek import ARC

from .case import NO_SIGNATURE, Errors, Mutation, at_step, bent_bytes, each_field, with_items

SIGNATURE: Final = ("signature", UntrustedError, f"SNP report: the {NO_SIGNATURE}")
SLOTS: Final = {"snp report:": Report.__slots__}
# What is looked at before the signature: what fixes how the rest is read, and with which key.
FIRST: Final[dict[str, tuple[str, Errors, str]]] = {
    "version": ("format", DecodeError, "CPUID in a report of version 2"),
    "policy": SIGNATURE,
    "signature_algo": ("format", DecodeError, "signature algorithm 0"),
    "cpuid_family": ("cpuid", UntrustedError, "of no known product"),
    "launch_mit_vector": ("format", DecodeError, "mitigations in a report of version 3"),
    "current_mit_vector": ("format", DecodeError, "mitigations in a report of version 3"),
}


def base(attester: Attester, error: Errors | None = UntrustedError, check: str = "") -> Mutation:
    return Mutation(
        name="snp",
        verifier=VERIFIER,
        evidence=attester.evidence(),
        endorsements=attester.endorsements(),
        at=NOW,
        error=error,
        check=check,
    )


def sound() -> Mutation:
    """Nothing broken."""
    return base(Attester(), None)


def snp() -> Iterator[Mutation]:
    """Everything."""
    yield from report_fields()
    yield from signed_fields()
    yield from at_step("chain", certificate_fields())
    yield from at_step("chain", extension_values())
    yield from at_step("crl", revocations())
    yield from at_step("chain", dates())
    yield from at_step("chain", items())


def report_fields() -> Iterator[Mutation]:
    """(1), (5): every field, changed after it was signed."""
    made = base(Attester())
    for field, report in each_field(Report.from_bytes(made.evidence)):
        step, error, check = FIRST.get(field, SIGNATURE)
        yield replace(
            made,
            name=f"snp report: {field}",
            evidence=report.to_bytes(),
            error=error,
            step=step,
            check=check,
        )


def lower(tcb: bytes, index: int) -> bytes:
    return tcb[:index] + bytes([tcb[index] - 1]) + tcb[index + 1 :]


def higher(tcb: bytes, index: int) -> bytes:
    return tcb[:index] + bytes([tcb[index] + 1]) + tcb[index + 1 :]


def signed_fields() -> Iterator[Mutation]:
    """(3), (4), (6)-(8): what a report says of itself, signed over the change."""
    tcb = TCB[Product.MILAN]
    for index, component in ((0, "boot loader"), (1, "TEE"), (6, "SNP"), (7, "microcode")):
        for field, value, problem in (
            ("reported_tcb", lower(tcb, index), "the key is of TCB"),
            ("reported_tcb", higher(tcb, index), "the key is of TCB"),
            ("committed_tcb", lower(tcb, index), "reported TCB is above the committed"),
            ("committed_tcb", higher(tcb, index), "committed TCB is above the current"),
            ("current_tcb", lower(tcb, index), "committed TCB is above the current"),
            ("launch_tcb", higher(tcb, index), "launch TCB is above the current"),
        ):
            way = "lower" if value < tcb else "higher"
            made = base(Attester().bend(**{field: value}), check=problem)
            step = "reported_tcb" if field == "reported_tcb" else "relations"
            yield replace(made, name=f"snp signed: {field} {component} {way}", step=step)
    for index in range(2, 6):
        for field in ("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb"):
            value = higher(tcb, index)
            made = base(Attester().bend(**{field: value}), DecodeError, "a reserved byte")
            yield replace(made, name=f"snp signed: {field} reserved {index}", step="reported_tcb")
    fields: tuple[tuple[str, Any, str, Errors, str], ...] = (
        ("flags", 4, "key_kind", UntrustedError, "signed by a VLEK, the certificate is of a VCEK"),
        ("flags", 7 << 2, "key_kind", UntrustedError, "signed by a NONE"),
        ("flags", 3 << 2, "format", DecodeError, "signing key 3 is reserved"),
        ("flags", 2, "chip_id", UntrustedError, "the chip is masked and its identity is there"),
        ("flags", 1 << 5, "format", DecodeError, "reserved bits of flags"),
        ("policy", 0x3001F & ~(1 << 17), "format", DecodeError, "bit 17 of policy"),
        ("policy", 1 << 26 | 1 << 17, "format", DecodeError, "reserved bits of policy"),
        ("platform_info", 1 << 6, "format", DecodeError, "reserved bits of platform_info"),
        ("vmpl", 4, "format", DecodeError, "VMPL 4"),
        ("chip_id", CHIP[::-1], "chip_id", UntrustedError, "the key is of another chip"),
        ("chip_id", bytes(64), "chip_id", UntrustedError, "the key is of another chip"),
        ("cpuid_model", 0x11, "cpuid", UntrustedError, "the report is of Genoa, the key of Milan"),
        (
            "committed_version",
            bytes((30, 55, 1)),
            "relations",
            UntrustedError,
            "committed firmware is newer",
        ),
    )
    for name, value, step, error, problem in fields:
        made = base(Attester().bend(**{name: value}), error, problem)
        yield replace(made, name=f"snp signed: {name} {value!r:.30}", step=step)


# Each certificate alone; everything else stays sound and properly signed over the change.
CERTIFICATES: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("ark", {"common": "ARK-Milan"}, "neither AMD's nor emulated"),
    ("ark", {"common": "Root"}, "neither AMD's nor emulated"),
    ("ark", {"signer": "stranger"}, f"SNP Root': the {NO_SIGNATURE}"),
    ("ark", {"signer": "ask"}, f"SNP Root': the {NO_SIGNATURE}"),
    ("ark", {"issuer_name": "SEV-Milan"}, "was not issued by"),
    ("ark", {"ca": False}, "may not issue certificates"),
    ("ark", {"with_constraints": False}, "may not issue certificates"),
    ("ark", {"key_usage": None}, "may not issue certificates"),
    ("ark", {"key_usage": usage(ca=False)}, "may not issue certificates"),
    ("ark", {"key_usage": usage(ca=True, crl_sign=False)}, "may not sign revocation lists"),
    ("ark", {"path_length": 0}, "allows no such chain"),
    ("ark", {"pss": False}, "expected RSASSA-PSS"),
    ("ark", {"digest": SHA256()}, NO_SIGNATURE),
    ("ask", {"common": "SEV-Genoa"}, "is not 'SEV-Milan'"),
    ("ask", {"common": "SEV-VLEK-Milan"}, "is not 'SEV-Milan'"),
    ("ask", {"common": "ARK-Milan"}, "is not 'SEV-Milan'"),
    ("ask", {"common": "SEV-VCEK"}, "is not 'SEV-Milan'"),
    ("ask", {"signer": "stranger"}, f"'SEV-Milan': the {NO_SIGNATURE}"),
    ("ask", {"signer": "ask"}, f"'SEV-Milan': the {NO_SIGNATURE}"),
    ("ask", {"issuer_name": "ARK-Milan"}, "is not among the anchors"),
    ("ask", {"ca": False, "path_length": None}, "may not issue certificates"),
    ("ask", {"key_usage": None}, "may not issue certificates"),
    ("ask", {"key_usage": usage(ca=False)}, "may not issue certificates"),
    ("ask", {"pss": False}, "expected RSASSA-PSS"),
    ("vek", {"common": "SEV-VLEK"}, "signed by a VCEK|not those of a SEV-VLEK"),
    ("vek", {"common": "VCEK"}, "neither SEV-VCEK nor SEV-VLEK"),
    ("vek", {"common": "SEV-Milan"}, "neither SEV-VCEK nor SEV-VLEK"),
    ("vek", {"common": "ARK-Milan"}, "neither SEV-VCEK nor SEV-VLEK"),
    ("vek", {"signer": "stranger"}, f"'SEV-VCEK': the {NO_SIGNATURE}"),
    ("vek", {"signer": "ark"}, f"'SEV-VCEK': the {NO_SIGNATURE}"),
    ("vek", {"issuer_name": "Stranger"}, "was not issued by"),
    ("vek", {"pss": False, "serial": 1}, "expected RSASSA-PSS"),
    ("vek", {"with_constraints": True, "ca": True}, "is a CA"),
]


def certificate_fields() -> Iterator[Mutation]:
    """(2): every certificate's role, signer, issuer, rights; then its bytes."""
    for label, changes, problem in CERTIFICATES:
        made = base(Attester().change(label, **changes), (DecodeError, UntrustedError), problem)
        lists = "revocation lists" in problem
        yield replace(
            made,
            name=f"snp {label}: {', '.join(f'{k} {v!r:.40}' for k, v in changes.items())}",
            step="crl" if lists else "chain",
        )
    made = base(Attester())
    for item in ("vek", "ask", "crl"):
        for offset, bent in bent_bytes(made.endorsements.items[item], 23):
            yield replace(
                made,
                name=f"snp {item} byte {offset}",
                endorsements=with_items(made.endorsements, {item: bent}),
                error=(DecodeError, UntrustedError),
                step="crl" if item == "crl" else "chain",
                check="",
            )


EXTENSIONS: Final[list[tuple[str, bytes, Errors, str]]] = [
    (".1", integer(2), DecodeError, "structure version"),
    (".2", text("Genoa-B0"), UntrustedError, "is not 'SEV-Genoa'"),
    (".2", text("Naples"), UntrustedError, "product 'Naples' is not a known one"),
    (".3.1", integer(3), UntrustedError, "the key is of TCB"),
    (".3.2", integer(2), UntrustedError, "the key is of TCB"),
    (".3.3", integer(25), UntrustedError, "the key is of TCB"),
    (".3.8", integer(218), UntrustedError, "the key is of TCB"),
    (".3.4", integer(1), DecodeError, "reserved TCB component"),
    (".3.5", integer(1), DecodeError, "reserved TCB component"),
    (".3.6", integer(1), DecodeError, "reserved TCB component"),
    (".3.7", integer(1), DecodeError, "reserved TCB component"),
    (".3.9", integer(0), DecodeError, "FMC"),
    (".4", CHIP[::-1], UntrustedError, "the key is of another chip"),
    (".5", text("CN=x"), DecodeError, "not those of a SEV-VCEK"),
]


def extension_values() -> Iterator[Mutation]:
    """(6), (7): every extension of the VCEK with another value, and without it."""
    for oid, value, error, problem in EXTENSIONS:
        found = {**extensions(Product.MILAN), ARC + oid: value}
        made = base(Attester().change("vek", extensions=found), error, problem)
        step = {"the key is of TCB": "reported_tcb", "the key is of another chip": "chip_id"}
        yield replace(
            made, name=f"snp extension {oid}: {value.hex():.20}", step=step.get(problem, "chain")
        )
    for oid in (".1", ".2", ".3.1", ".3.2", ".3.3", ".3.8", ".4"):
        found = {key: value for key, value in extensions(Product.MILAN).items() if key != ARC + oid}
        problem = "not those of a SEV-VCEK" if oid == ".4" else f"{oid} is missing"
        made = base(Attester().change("vek", extensions=found), DecodeError, problem)
        yield replace(made, name=f"snp without extension {oid}")


def revocations() -> Iterator[Mutation]:
    """(2): the entries of the list, and whose list it is."""
    for title, options, problem in (
        ("lists the ASK", {"revoked": (0x10001,)}, "'SEV-Milan' .serial 10001. is revoked"),
        ("lists the ASK among others", {"revoked": (1, 0x10001, 2)}, "is revoked"),
        ("of a stranger's key", {"signer": "stranger"}, f"crl: the {NO_SIGNATURE}"),
        ("of the ASK's key", {"signer": "ask"}, f"crl: the {NO_SIGNATURE}"),
        ("of a stranger's name", {"issuer": distinguished("Stranger")}, "crl is not of"),
        ("of the ASK's name", {"issuer": distinguished("SEV-Milan")}, "crl is not of"),
        ("with SHA-256", {"digest": SHA256()}, f"crl: the {NO_SIGNATURE}"),
        ("without PSS", {"pss": False}, "expected RSASSA-PSS"),
    ):
        attester = Attester()
        attester.crl_options = options
        yield replace(base(attester, check=problem), name=f"snp list {title}")


def dates() -> Iterator[Mutation]:
    """(2): every date, one second too late or too early."""
    second, day = timedelta(seconds=1), timedelta(days=1)
    early, late = (NOW - day, NOW - second), (NOW + second, NOW + day)
    for (begin, end), problem in ((early, "has expired"), (late, "is not valid before")):
        for label, common in (
            ("ark", "Broch Emulated SNP Root"),
            ("ask", "SEV-Milan"),
            ("vek", "SEV-VCEK"),
        ):
            changed = Attester().change(label, begin=begin, end=end)
            made = base(changed, check=f"'{common}' {problem}")
            yield replace(made, name=f"snp {label} {problem}")
        changed = Attester()
        changed.crl_options = {"begin": begin, "end": end}
        made = base(changed, check=f"crl {problem}")
        yield replace(made, name=f"snp crl {problem}", step="crl")


def items() -> Iterator[Mutation]:
    """Every endorsement missing or of others."""
    made = base(Attester(), UndecidedError)
    for item in ("vek", "ask", "crl"):
        missing = with_items(made.endorsements, {item: None})
        bad = replace(made, name=f"snp without {item}", endorsements=missing, check=f"lack {item}")
        yield replace(bad, step="crl" if item == "crl" else "chain")
    nobody = Endorsements(anchors=(), items=made.endorsements.items)
    yield replace(made, name="snp without an anchor", endorsements=nobody, check="no root to trust")
    other = Attester().change("ark", common="Broch Emulated Other Root").tree.der("ark")
    yield replace(
        made,
        name="snp under another anchor",
        endorsements=Endorsements(anchors=(other,), items=made.endorsements.items),
        error=UntrustedError,
        check="is not among the anchors",
    )
