"""PSA and CCA: tokens and what is enrolled, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from tests.pki import NOW, ec_key
from tests.unit.tee.cca.test_cca import CPAK, INSTANCE
from tests.unit.tee.cca.test_cca import Attester as Realm
from tests.unit.tee.cca.test_cca import spki as cca_spki
from tests.unit.tee.psa import test_psa as psa_maker

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.cca import VERIFIER as CCA
from broch.tee.cca.token import PLATFORM, REALM
from broch.tee.contract import Endorsements
from broch.tee.psa import VERIFIER as PSA
from broch.wire import cbor

from .case import (
    NO_SIGNATURE,
    Errors,
    Mutation,
    at_step,
    bent_bytes,
    ends_of,
    flip,
    with_items,
)

PSA_SIGNATURE: Final = f"PSA token: the {NO_SIGNATURE}"
STRANGER: Final = ec_key("stranger", ec.SECP256R1)


def of(
    name: str,
    verifier: Any,
    evidence: bytes,
    items: dict[str, bytes],
    error: Any,
    check: str,
    step: str = "",
) -> Mutation:
    return Mutation(
        name=name,
        verifier=verifier,
        evidence=evidence,
        endorsements=Endorsements(anchors=(), items=items),
        at=NOW,
        error=error,
        step=step,
        check=check,
    )


def sound_psa() -> Mutation:
    """Nothing broken."""
    return of("psa", PSA, psa_maker.sign(psa_maker.NEW), psa_maker.items(), None, "")


def psa() -> Iterator[Mutation]:
    """Every claim after signing, then signed over; every enrolled thing; bytes all over."""
    sound = sound_psa()
    parts = cbor.decode(sound.evidence, what="test").value
    claims = psa_maker.NEW
    for label, value in claims.items():
        changed = cbor.encode({**claims, label: bend(value)})
        bent = cbor.encode(cbor.Tag(18, [*parts[:2], changed, parts[3]]))
        yield replace(
            sound,
            name=f"psa claim {label} after signing",
            evidence=bent,
            error=UntrustedError,
            step="signature",
            check=PSA_SIGNATURE,
        )
    signed: tuple[tuple[str, dict[Any, Any], str, Errors, str], ...] = (
        ("profile", {265: "tag:psacertified.org,2023:psa#other"}, "claims", DecodeError, "profile"),
        ("nonce", {10: b"n" * 31}, "claims", DecodeError, "10"),
        (
            "instance id",
            {256: b"\x01" * 33},
            "device",
            UntrustedError,
            "instance id is not that of",
        ),
        (
            "kind of instance id",
            {256: b"\x02" * 33},
            "claims",
            DecodeError,
            "does not begin with 1",
        ),
        (
            "implementation id",
            {2396: b"j" * 32},
            "device",
            UntrustedError,
            "implementation id is not the",
        ),
        ("client id", {2394: 0}, "claims", DecodeError, "client id"),
        ("lifecycle unknown", {2395: 0}, "lifecycle", UntrustedError, "UNKNOWN cannot attest"),
        ("lifecycle assembly", {2395: 0x1000}, "lifecycle", UntrustedError, "cannot attest"),
        ("lifecycle provisioning", {2395: 0x2000}, "lifecycle", UntrustedError, "cannot attest"),
        ("lifecycle decommissioned", {2395: 0x6000}, "lifecycle", UntrustedError, "cannot attest"),
        ("lifecycle of no state", {2395: 0x7000}, "claims", DecodeError, "2395"),
        ("components", {2399: []}, "claims", DecodeError, "2399"),
        ("an unknown claim", {9999: 1}, "claims", DecodeError, "unknown claims"),
    )
    for title, changes, step, error, check in signed:
        evidence = psa_maker.sign({**claims, **changes})
        made = replace(sound, name=f"psa signed: {title}", evidence=evidence)
        yield replace(made, error=error, step=step, check=check)
    for state in (0x4000, 0x5000):
        yield replace(
            sound,
            name=f"psa signed: lifecycle {state:x}",
            evidence=psa_maker.sign({**claims, 2395: state}),
            shows=lambda found: found.debug,
        )
    for name, value, error, check in (
        ("attestation_key", None, UndecidedError, "lack attestation_key"),
        ("implementation_id", None, UndecidedError, "lack implementation_id"),
        ("attestation_key", psa_maker.spki(STRANGER), UntrustedError, PSA_SIGNATURE),
        ("attestation_key", b"junk", DecodeError, "attestation_key"),
        ("implementation_id", b"j" * 32, UntrustedError, "implementation id is not the enrolled"),
        ("instance_id", b"\x01" * 33, UntrustedError, "instance id is not that of"),
    ):
        yield replace(
            sound,
            name=f"psa endorsement {name} {value!r:.20}",
            endorsements=with_items(sound.endorsements, {name: value}),
            error=error,
            step="signature" if name == "attestation_key" else "device",
            check=check,
        )
    yield from at_step("format|signature", bytes_of(sound, "psa", 7))


def bytes_of(sound: Mutation, name: str, every: int) -> Iterator[Mutation]:
    yield from ends_of(sound, name)
    for offset, bent in bent_bytes(sound.evidence, every):
        yield replace(
            sound,
            name=f"{name} byte {offset}",
            evidence=bent,
            error=(DecodeError, UntrustedError, UndecidedError),
            check="",
        )


def bend(value: Any) -> Any:
    if isinstance(value, list):
        first = value[0]
        if isinstance(first, dict):
            return [{**first, 2: flip(first[2])}, *value[1:]]
        return [flip(first), *value[1:]]
    return flip(value)


CCA_ITEMS: Final = {
    "implementation_id": b"i" * 32,
    "instance_id": INSTANCE,
    "platform_key": cca_spki(CPAK),
}


def realm_case(
    name: str, attester: Realm, error: Errors | None, check: str = "", step: str = ""
) -> Mutation:
    return of(f"cca {name}", CCA, attester.evidence(), CCA_ITEMS, error, check, step)


def sound_cca() -> Mutation:
    """Nothing broken."""
    return realm_case("sound", Realm(), None)


def cca() -> Iterator[Mutation]:
    """Every claim of both tokens after signing, then signed over; keys; enrolled things."""
    sound = sound_cca()
    tokens = cbor.decode(sound.evidence, what="test").value
    for which, word in ((PLATFORM, "platform"), (REALM, "realm")):
        parts = cbor.decode(tokens[which], what="test").value
        claims = cbor.decode(parts[2], what="test")
        for label, value in claims.items():
            changed = cbor.encode({**claims, label: bend(value)})
            token = cbor.encode(cbor.Tag(18, [*parts[:2], changed, parts[3]]))
            step, error, check = after_signing(word, label)
            yield replace(
                sound,
                name=f"cca {word} claim {label} after signing",
                evidence=Realm.wrap({**tokens, which: token}),
                error=error,
                step=step,
                check=check,
            )
        token = cbor.encode(cbor.Tag(18, [*parts[:3], flip(parts[3])]))
        yield replace(
            sound,
            name=f"cca {word} signature",
            evidence=Realm.wrap({**tokens, which: token}),
            error=UntrustedError,
            step="signature" if word == "platform" else "realm_signature",
            check=f"CCA {word} token: the {NO_SIGNATURE}",
        )
    other = ec_key("another realm")
    untrusted = (
        ("a stranger's platform key", Realm(cpak=other), "signature", NO_SIGNATURE),
        ("a stranger's realm key", Realm(rak=other), "realm_signature", NO_SIGNATURE),
        ("an unbound realm key", Realm(platform={10: b"x" * 32}), "realm_key", "realm"),
        ("implementation id", Realm(platform={2396: b"j" * 32}), "device", "implementation"),
        ("instance id", Realm(platform={256: b"\x01j" * 16 + b"j"}), "device", "instance"),
        ("lifecycle", Realm(platform={2395: 0x1000}), "device", "cannot attest"),
    )
    malformed = (
        ("platform profile", Realm(platform={265: "x"}), "device", "profile"),
        ("realm profile", Realm(realm={265: "x"}), "realm_key", "profile"),
        ("short challenge", Realm(realm={10: b"c" * 32}), "realm_key", "10"),
        ("three REMs", Realm(realm={44239: [b"0" * 32] * 3}), "realm_key", "four measurements"),
        ("unknown hash", Realm(realm={44240: "md5"}), "realm_key", "hash algorithm"),
    )
    for error, cases in ((UntrustedError, untrusted), (DecodeError, malformed)):
        for title, attester, step, check in cases:
            yield realm_case(f"signed: {title}", attester, error, check, step)
    for label in (10, 44235, 44236, 44237, 44238, 44239, 44240):
        made = Realm(without=(("realm", label),))
        check = f"claim {label}"
        yield realm_case(f"realm without {label}", made, DecodeError, check, "realm_key")
    for label in (265, 10, 2396, 256, 2401, 2395, 2399, 2402):
        made = Realm(without=(("platform", label),))
        check = "profile None" if label == 265 else f"claim {label}"
        yield realm_case(f"platform without {label}", made, DecodeError, check, "device")
    for name, value, wrong, check in (
        *((item, None, UndecidedError, f"lack {item}") for item in CCA_ITEMS),
        ("platform_key", cca_spki(other), UntrustedError, NO_SIGNATURE),
        ("platform_key", cca_spki(STRANGER), UntrustedError, "expected ES256"),
        ("implementation_id", b"j" * 32, UntrustedError, "implementation"),
        ("instance_id", b"\x01" * 32 + b"\x02", UntrustedError, "instance"),
    ):
        yield replace(
            sound,
            name=f"cca endorsement {name} {value!r:.60}",
            endorsements=with_items(sound.endorsements, {name: value}),
            error=wrong,
            step="signature" if name == "platform_key" else "device",
            check=check,
        )
    swapped = {PLATFORM: tokens[REALM], REALM: tokens[PLATFORM]}
    yield replace(
        sound,
        name="cca tokens swapped",
        evidence=Realm.wrap(swapped),
        error=UntrustedError,
        step="signature",
        check=f"CCA platform token: the {NO_SIGNATURE}",
    )
    where = "format|signature|realm_key|realm_signature"
    yield from at_step(where, bytes_of(sound, "cca", 11))


def after_signing(word: str, label: int) -> tuple[str, Errors, str]:
    # The platform's signature comes first; what it binds of the realm, before the realm's own.
    if word == "platform":
        return "signature", UntrustedError, f"CCA platform token: the {NO_SIGNATURE}"
    if label == 44237:
        return "realm_key", UntrustedError, "realm"
    if label in (265, 44236, 44240):  # read before the realm's key is known
        return "realm_key", DecodeError, "profile|hash algorithm"
    return "realm_signature", UntrustedError, f"CCA realm token: the {NO_SIGNATURE}"
