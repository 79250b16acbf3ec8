"""TPM 2.0: quotes, keys and certificates, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from tests.pki import NOW, Tree, ec_key, rsa_key, usage
from tests.unit.tee.tpm.attester import (
    AK_EC,
    AK_RSA,
    AK_SERIAL,
    NONCE,
    PCRS,
    QUOTED,
    SHA256,
    Attester,
    certificate_items,
    certified,
    certify_items,
    public,
    sign,
    spki,
    tree,
)
from tests.unit.tee.tpm.booted import SHA384, Machine, header

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.tpm import VERIFIER
from broch.tee.tpm.attest import Attest, Selection
from broch.tee.tpm.evidence import Evidence
from broch.tee.tpm.public import (
    ATTESTATION,
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
)

from .case import NO_SIGNATURE, Errors, Mutation, at_step, bent_bytes, ends_of, flip

SIGNATURE: Final = f"TPM quote: the {NO_SIGNATURE}"
ENROLLED: Final = {"ak_public": public(AK_EC)}
SLOTS: Final = {
    "tpm quote:": tuple(name for name in Attest.__slots__ if name not in ("name", "qualified_name"))
}


def of(
    name: str,
    attester: Attester,
    error: Errors | None,
    check: str = "",
    items: dict[str, bytes] | None = None,
    anchors: tuple[bytes, ...] = (),
) -> Mutation:
    return Mutation(
        name=f"tpm {name}",
        verifier=VERIFIER,
        evidence=attester.evidence(),
        endorsements=Endorsements(anchors=anchors, items=ENROLLED if items is None else items),
        at=NOW,
        error=error,
        check=check,
    )


def sound() -> Mutation:
    """Nothing broken."""
    return of("sound", Attester(), None)


def tpm() -> Iterator[Mutation]:
    """Everything."""
    yield from at_step("signature", quote_fields())
    yield from at_step("registers", registers())
    yield from at_step("event_log", logs())
    yield from at_step("key", keys())
    yield from at_step("key", certificates())
    yield from at_step("key", certifications())
    made = sound()
    yield from ends_of(made, "tpm")
    for offset, bent in bent_bytes(made.evidence, 5):
        yield replace(
            made,
            name=f"tpm byte {offset}",
            evidence=bent,
            error=(DecodeError, UntrustedError),
            step="format|signature|registers",
        )


def quote_fields() -> Iterator[Mutation]:
    """(3), (4): every field of the quote, changed after it was signed."""
    made = sound()
    sound_evidence = Evidence.from_bytes(made.evidence)
    for name in SLOTS["tpm quote:"]:
        value = getattr(QUOTED, name)
        if name == "selections":
            changed = replace(QUOTED, selections=(replace(value[0], indices=(0, 1, 2, 7)),))
        elif name == "type":
            changed = certified(b"n" * 34)
        elif name == "safe":
            changed = replace(QUOTED, safe=False)
        else:
            changed = replace(QUOTED, **{name: flip(value)})
        yield replace(
            made,
            name=f"tpm quote: {name}",
            evidence=replace(sound_evidence, attest=changed.to_bytes()).to_bytes(),
            error=UntrustedError,
            check=SIGNATURE,
        )


def ec_other() -> Any:
    return ec_key("stranger", type(AK_EC.curve))


def registers() -> Iterator[Mutation]:
    """(5): every register, the selection, the digest."""
    values = PCRS[SHA256]
    digested = "not those that the TPM has digested"
    selected = "not exactly those that the quote selects"
    for index in values:
        bent = {SHA256: {**values, index: flip(values[index])}}
        yield of(f"register {index}", Attester(pcrs=bent), UntrustedError, digested)
        missing = {SHA256: {place: value for place, value in values.items() if place != index}}
        yield of(f"without register {index}", Attester(pcrs=missing), UntrustedError, selected)
    more = {SHA256: {**values, 9: b"9" * 32}}
    yield of("a register too many", Attester(pcrs=more), UntrustedError, selected)
    shifted = {SHA256: dict(enumerate(values.values()))}
    yield of("registers by position", Attester(pcrs=shifted), UntrustedError, selected)
    swapped = {SHA256: {**values, 0: values[1], 1: values[0]}}
    yield of("registers swapped", Attester(pcrs=swapped), UntrustedError, digested)
    wrong = replace(QUOTED, pcr_digest=flip(QUOTED.pcr_digest))
    yield of("signed digest", Attester(attest=wrong), UntrustedError, digested)
    nothing = replace(QUOTED, selections=(Selection(bank=SHA256, width=3, indices=()),))
    yield of("a quote over nothing", Attester(attest=nothing), UntrustedError, "over no register")
    certification = Attester(attest=certified(b"n" * 34))
    made = of("a certification", certification, UntrustedError, "type 0x8017, not a quote")
    yield replace(made, step="type")
    shown = of("the challenge is a claim", Attester(), None)
    yield replace(shown, shows=lambda claims: claims.report_data == NONCE)


def logs() -> Iterator[Mutation]:
    """(6): every event of a log, its digests, its place."""
    sound_log = Machine().boot()
    shown = of("event log", sound_log.attester(), None)
    yield replace(shown, shows=lambda claims: claims.explained == frozenset(range(9)))
    firmwares = [event for event in sound_log.events if event[0] < 8]
    for place, event in enumerate(firmwares):
        rest = [other for other in sound_log.events if other is not event]
        digest = event.index(b"\x0b\0") + 2
        bent = event[:digest] + flip(event[digest : digest + 32]) + event[digest + 32 :]
        register = f"does not lead to the registers sha256:{event[0]}$"
        for what, events in (
            ("missing", rest),
            ("twice", [*sound_log.events, event]),
            ("of another digest", [*rest[:place], bent, *rest[place:]]),
        ):
            attester = sound_log.attester()
            attester.event_log = header(sound_log.banks) + b"".join(events)
            yield of(f"event {place} {what}", attester, UntrustedError, register)
    other_bank = sound_log.attester()
    other_bank.event_log = Machine(banks=(SHA384,)).boot().log()
    yield of("a log of other banks", other_bank, UntrustedError, "no digests of sha256")
    junk = sound_log.attester()
    junk.event_log = b"junk"
    yield replace(of("junk as log", junk, DecodeError, "event log"), step="format")


def keys() -> Iterator[Mutation]:
    """(2): enrolled keys: which, how many, with what attributes."""
    other = ec_other()
    for name, items, error, check in (
        ("no key", {}, UndecidedError, "have 0 of"),
        ("two keys", {**ENROLLED, "attestation_key": spki(AK_EC)}, UndecidedError, "have 2 of"),
        ("a stranger's key", {"ak_public": public(other)}, UntrustedError, SIGNATURE),
        ("a stranger's SPKI", {"attestation_key": spki(other)}, UntrustedError, SIGNATURE),
        ("an RSA key", {"attestation_key": spki(AK_RSA)}, UntrustedError, SIGNATURE),
        ("junk as key", {"attestation_key": b"junk"}, DecodeError, "not a public key"),
        ("junk as public", {"ak_public": b"junk"}, DecodeError, "TPMT_PUBLIC"),
    ):
        step = "signature" if check == SIGNATURE else "key"
        yield replace(of(name, Attester(), error, check, items), step=step)
    for name, bit in (
        ("fixedTPM", FIXED_TPM),
        ("fixedParent", FIXED_PARENT),
        ("sensitiveDataOrigin", SENSITIVE_DATA_ORIGIN),
        ("restricted", RESTRICTED),
        ("sign", SIGN),
        ("decrypt", DECRYPT),
    ):
        items = {"ak_public": public(AK_EC, ATTESTATION ^ bit)}
        check = "are not those of an attestation key"
        yield of(f"key attribute {name}", Attester(), UntrustedError, check, items)


def certificates() -> Iterator[Mutation]:
    """(2): every certificate's role, signer, rights and dates; every entry of the list."""
    yield certified_by("certified", tree(), {}, None)
    for label, changes, problem in (
        ("root", {"signer": "stranger"}, NO_SIGNATURE),
        ("root", {"ca": False}, "may not issue"),
        ("root", {"key_usage": usage(ca=False)}, "may not issue"),
        ("root", {"path_length": 0}, "allows no such chain"),
        ("issuer", {"signer": "stranger"}, NO_SIGNATURE),
        ("issuer", {"issuer_name": "Stranger"}, "is not among the anchors"),
        ("issuer", {"ca": False, "path_length": None}, "may not issue"),
        ("issuer", {"key_usage": usage(ca=False)}, "may not issue"),
        ("ak", {"signer": "stranger"}, NO_SIGNATURE),
        ("ak", {"signer": "root"}, NO_SIGNATURE),
        ("ak", {"issuer_name": "Stranger"}, "was not issued by"),
        ("ak", {"ca": True}, "is a CA or may not sign data"),
        ("ak", {"key_usage": None}, "is a CA or may not sign data"),
        ("ak", {"extended": ()}, "is not of an attestation key"),
        ("ak", {"extended": ("1.3.6.1.5.5.7.3.2",)}, "is not of an attestation key"),
        ("ak", {"key": rsa_key("another ak")}, SIGNATURE),
    ):
        shown = ", ".join(f"{key} {value!r:.40}" for key, value in changes.items())
        made = tree().change(label, **changes)
        step = "signature" if problem == SIGNATURE else "key"
        bad = certified_by(f"{label}: {shown}", made, {}, UntrustedError, problem)
        yield replace(bad, step=step)
    second, day = timedelta(seconds=1), timedelta(days=1)
    for begin, end, problem in (
        (NOW - day, NOW - second, "has expired"),
        (NOW + second, NOW + day, "is not valid before"),
    ):
        for label, common in (("root", "TPM Root"), ("issuer", "TPM Issuer"), ("ak", "AK")):
            made = tree().change(label, begin=begin, end=end)
            check = f"{common}' {problem}"
            yield certified_by(f"{label} {problem}", made, {}, UntrustedError, check)
        options = {"begin": begin, "end": end}
        check = f"crl {problem}"
        yield certified_by(f"list {problem}", tree(), options, UntrustedError, check)
    lists: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("lists the key", {"revoked": (AK_SERIAL,)}, "'AK' .serial 4d. is revoked"),
        ("of a stranger's key", {"signer": "stranger"}, f"crl: the {NO_SIGNATURE}"),
        ("of the root's key", {"signer": "root"}, f"crl: the {NO_SIGNATURE}"),
    )
    for title, changes, problem in lists:
        yield certified_by(f"list {title}", tree(), changes, UntrustedError, problem)
    missing = certified_by("without list", tree(), {}, UndecidedError, "lack crl")
    items = {name: value for name, value in missing.endorsements.items.items() if name != "crl"}
    anchors = missing.endorsements.anchors
    yield replace(missing, endorsements=Endorsements(anchors=anchors, items=items))


def certifications() -> Iterator[Mutation]:
    """(2): one key of a TPM vouches for the one that quotes: signer, subject, type, challenge."""
    by_other = Attester(key=AK_RSA)
    good = certify_items(AK_EC, AK_RSA)
    shown = of("certification", by_other, None, items={**ENROLLED, **good})
    yield replace(shown, shows=lambda claims: claims.key.certified)
    stranger = certify_items(ec_other(), AK_RSA)
    asked = certify_items(AK_EC, AK_RSA, qualifying=NONCE)
    quote = {"certify_info": QUOTED.to_bytes(), "certify_signature": sign(AK_EC, QUOTED.to_bytes())}
    for name, items, error, check in (
        ("a stranger's", stranger, UntrustedError, f"certification: the {NO_SIGNATURE}"),
        ("of itself", certify_items(AK_RSA, AK_RSA), UntrustedError, "TPM certification"),
        ("of another key", {"certified_public": public(ec_other())}, UntrustedError, "another key"),
        ("another challenge", asked, UntrustedError, "another challenge"),
        ("an unused challenge", {"certify_challenge": NONCE}, UntrustedError, "another challenge"),
        ("a quote", quote, UntrustedError, "type 0x8018, not a certification"),
        ("junk", {"certify_info": b"junk"}, UntrustedError, NO_SIGNATURE),
        ("junk as signature", {"certify_signature": b"junk"}, DecodeError, "TPMT_SIGNATURE"),
        ("junk as key", {"certified_public": b"junk"}, DecodeError, "TPMT_PUBLIC"),
    ):
        made = {**ENROLLED, **good, **items}
        yield of(f"certification: {name}", by_other, error, check, made)
    for bit in (FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, RESTRICTED, SIGN, DECRYPT):
        items = {**ENROLLED, **certify_items(AK_EC, AK_RSA, ATTESTATION ^ bit)}
        check = "are not those of an attestation key"
        yield of(f"certification: attribute {bit:x}", by_other, UntrustedError, check, items)
    for name in good:
        items = {**ENROLLED, **{other: good[other] for other in good if other != name}}
        yield of(f"certification: no {name}", by_other, UndecidedError, f"lack {name}", items)


def certified_by(
    name: str, made: Tree, crl: dict[str, Any], error: Errors | None, check: str = ""
) -> Mutation:
    items = certificate_items(made, **crl)
    return of(f"certificate {name}", Attester(), error, check, items, (made.der("root"),))
