"""Nitro: document, certificates and dates, each thing broken alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from tests.pki import NOW, SHA256, ec_key, usage
from tests.unit.tee.nitro.test_nitro import CHAIN, Attester, tree

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee.contract import Endorsements
from broch.tee.nitro import VERIFIER
from broch.wire import cbor
from broch.wire.cose import Alg

from .case import NO_SIGNATURE, Errors, Mutation, at_step, bent_bytes, flip

SIGNATURE: Final = f"Nitro document: the {NO_SIGNATURE}"


def base(
    attester: Attester, error: Errors | None = UntrustedError, check: str = "", at: Any = NOW
) -> Mutation:
    evidence = attester.evidence()
    return of(evidence, root_of(evidence), error, check, at)


def of(evidence: bytes, root: bytes, error: Errors | None, check: str, at: Any = NOW) -> Mutation:
    return Mutation(
        name="nitro",
        verifier=VERIFIER,
        evidence=evidence,
        endorsements=Endorsements(anchors=(root,)),
        at=at,
        error=error,
        check=check,
    )


def root_of(evidence: bytes) -> bytes:
    """The root in a document: signatures over certificates are random, so it is this one."""
    fields = cbor.decode(cbor.decode(evidence, what="test")[2], what="test")
    bundle = fields.get("cabundle")
    return bundle[0] if bundle and isinstance(bundle[0], bytes) else b""


def sound() -> Mutation:
    """Nothing broken."""
    return base(Attester(), None)


def nitro() -> Iterator[Mutation]:
    """Everything."""
    yield from at_step("signature", unsigned_fields())
    yield from at_step("format", signed_fields())
    yield from at_step("format", envelope())
    yield from at_step("chain", certificates())
    yield from at_step("chain", dates())


# Read before the signature, because the chain and the limits of the fields are.
FIRST: Final[dict[str, tuple[str, Errors, str]]] = {
    "digest": ("format", DecodeError, "digest 'SHA385', expected 'SHA384'"),
    "certificate": ("chain", DecodeError, "certificate"),
    "cabundle": ("chain", UntrustedError, "is not among the anchors"),
}


def unsigned_fields() -> Iterator[Mutation]:
    """(1), (2), (4): every field, changed after it was signed."""
    evidence = Attester().evidence()
    root, parts = root_of(evidence), cbor.decode(evidence, what="test")
    fields = cbor.decode(parts[2], what="test")
    for name, value in fields.items():
        changed = {**fields, name: bend(value)}
        step, error, check = FIRST.get(name, ("signature", UntrustedError, SIGNATURE))
        bent = cbor.encode([*parts[:2], cbor.encode(changed), parts[3]])
        yield replace(of(bent, root, error, check), name=f"nitro {name} after signing", step=step)
    for index in fields["pcrs"]:
        pcrs = {**fields["pcrs"], index: flip(fields["pcrs"][index])}
        bent = cbor.encode([*parts[:2], cbor.encode({**fields, "pcrs": pcrs}), parts[3]])
        made = of(bent, root, UntrustedError, SIGNATURE)
        yield replace(made, name=f"nitro PCR {index} after signing")
    for index in range(1, len(CHAIN)):
        bundle = list(fields["cabundle"])
        bundle[index] = bundle[index][:-1] + flip(bundle[index][-1:])
        bent = cbor.encode([*parts[:2], cbor.encode({**fields, "cabundle": bundle}), parts[3]])
        made = of(bent, root, UntrustedError, NO_SIGNATURE)
        yield replace(made, name=f"nitro cabundle[{index}] after signing", step="chain")
    bent = cbor.encode([*parts[:3], flip(parts[3])])
    yield replace(of(bent, root, UntrustedError, SIGNATURE), name="nitro signature")


def bend(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, 0: flip(value[0])}
    return [flip(value[0]), *value[1:]] if isinstance(value, list) else flip(value)


def signed_fields() -> Iterator[Mutation]:
    """(1), (5), (6): what a document says, signed over the change."""
    for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"):
        made = base(Attester(without=(name,)), DecodeError, f"missing fields .'{name}'")
        yield replace(made, name=f"nitro without {name}")
    for name, limit in (("user_data", 1024), ("nonce", 1024), ("public_key", 1024)):
        longer = base(Attester(fields={name: bytes(limit + 1)}), DecodeError, f"{name} is not")
        yield replace(longer, name=f"nitro {name} of {limit + 1} bytes")
        longest = base(Attester(fields={name: bytes(limit)}), None)
        yield replace(longest, name=f"nitro {name} of {limit} bytes")
    for days, word in ((-40, "before"), (400, "after")):
        stamp = int((NOW + timedelta(days=days)).timestamp() * 1000)
        made = base(Attester(fields={"timestamp": stamp}), check="when its certificate was not")
        yield replace(made, name=f"nitro timestamp {word} its certificate", step="timestamp")
    for index in range(3):
        pcrs = {place: bytes(48) if place == index else b"p" * 48 for place in range(3)}
        made = base(Attester(fields={"pcrs": pcrs}), None)
        yield replace(made, name=f"nitro PCR {index} zero", shows=lambda claims: claims.debug)
        missing = {place: value for place, value in pcrs.items() if place != index}
        made = base(Attester(fields={"pcrs": missing}), DecodeError, f"PCR {index} is missing")
        yield replace(made, name=f"nitro without PCR {index}")


def envelope() -> Iterator[Mutation]:
    """(1), (4): tag, headers, algorithm, key, and bytes all over."""
    evidence = Attester().evidence()
    root = root_of(evidence)
    parts = cbor.decode(evidence, what="test")
    for name, changed, error, check in (
        ("tagged", cbor.encode(cbor.Tag(18, list(parts))), DecodeError, "array of four"),
        (
            "unprotected header",
            cbor.encode([parts[0], {4: b"x"}, *parts[2:]]),
            DecodeError,
            "empty",
        ),
        ("no algorithm", cbor.encode([b"", *parts[1:]]), UntrustedError, "algorithm None"),
        ("a byte after it", evidence + b"\0", DecodeError, "after the item"),
        ("no signature", cbor.encode([*parts[:3], b""]), UntrustedError, "a signature of 0 bytes"),
    ):
        step = "format" if error is DecodeError else "signature"
        yield replace(of(changed, root, error, check), name=f"nitro envelope: {name}", step=step)
    other = tree().change("leaf", key=ec_key("leaf", ec.SECP256R1))
    made_es256 = base(Attester(tree=other, alg=Alg.ES256), check="algorithm -7, expected ES384")
    yield replace(made_es256, name="nitro envelope: ES256", step="signature")
    for offset, bent in bent_bytes(evidence, 61):
        yield replace(
            of(bent, root, (DecodeError, UntrustedError), ""),
            name=f"nitro byte {offset}",
            step="format|chain|signature",
        )


CERTIFICATES: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("root", {"common": "aws.nitro-enclaves"}, "neither AWS's nor emulated"),
    ("root", {"signer": "stranger"}, f"Nitro Root': the {NO_SIGNATURE}"),
    ("root", {"ca": False}, "may not issue"),
    ("root", {"with_constraints": False}, "may not issue"),
    ("root", {"key_usage": usage(ca=False)}, "may not issue"),
    ("root", {"path_length": 2}, "allows no such chain"),
    ("root", {"digest": SHA256()}, "signature algorithm"),
    *(
        (label, changes, problem)
        for label in CHAIN[1:]
        for changes, problem in (
            ({"signer": "stranger"}, f"'{label}.aws.nitro-enclaves': the {NO_SIGNATURE}"),
            ({"issuer_name": "Stranger"}, "was not issued by"),
            ({"ca": False, "path_length": None}, "may not issue"),
            ({"key_usage": None}, "may not issue"),
            ({"key_usage": usage(ca=False)}, "may not issue"),
            ({"digest": SHA256()}, "signature algorithm"),
        )
    ),
    ("region", {"path_length": 1}, "allows no such chain"),
    ("zone", {"path_length": 0}, "allows no such chain"),
    ("leaf", {"signer": "zone"}, NO_SIGNATURE),
    ("leaf", {"signer": "stranger"}, NO_SIGNATURE),
    ("leaf", {"issuer_name": "Stranger"}, "was not issued by"),
    ("leaf", {"ca": True, "path_length": None}, "is a CA"),
    ("leaf", {"key_usage": usage(ca=False, data=False)}, "may not sign data"),
    ("leaf", {"key_usage": None}, "may not sign data"),
    ("leaf", {"common": "region.aws.nitro-enclaves"}, "a name comes twice"),
]


def certificates() -> Iterator[Mutation]:
    """(2): every certificate's role, signer, issuer, rights; the order; the anchor."""
    for label, changes, problem in CERTIFICATES:
        made = base(Attester(tree=tree().change(label, **changes)), check=problem)
        shown = ", ".join(f"{key} {value!r:.40}" for key, value in changes.items())
        yield replace(made, name=f"nitro {label}: {shown}")
    for title, bundle, problem in (
        ("root alone", ("root",), "was not issued by"),
        ("without the instance", ("root", "region", "zone"), "was not issued by"),
        ("without the region", ("root", "zone", "instance"), "was not issued by"),
        ("turned round", CHAIN[::-1], "neither AWS's nor emulated"),
        ("twice the zone", ("root", "region", "zone", "zone", "instance"), "was not issued by"),
    ):
        yield replace(base(Attester(bundle=bundle), check=problem), name=f"nitro bundle: {title}")
    evidence = Attester().evidence()
    other = tree().change("root", common="Broch Emulated Other Root").der("root")
    made = of(evidence, other, UntrustedError, "is not among the anchors")
    yield replace(made, name="nitro under another anchor")
    nobody = replace(made, endorsements=Endorsements(anchors=()), error=UndecidedError)
    yield replace(nobody, name="nitro without an anchor", check="no root to trust")


def dates() -> Iterator[Mutation]:
    """(3): every date, one second too late or too early."""
    second, day = timedelta(seconds=1), timedelta(days=1)
    early, late = (NOW - day, NOW - second), (NOW + second, NOW + day)
    names = {"root": "Broch Emulated Nitro Root", "leaf": "enclave.aws"}
    for (begin, end), problem in ((early, "has expired"), (late, "is not valid before")):
        for label in (*CHAIN, "leaf"):
            common = names.get(label, f"{label}.aws.nitro-enclaves")
            changed = Attester(tree=tree().change(label, begin=begin, end=end))
            made = base(changed, check=f"'{common}' {problem}")
            yield replace(made, name=f"nitro {label} {problem}")
