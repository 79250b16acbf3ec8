"""Policies as TOML files (docs/policy.md). Errors name the line and the nearest key.

Beyond the types of single keys these rules hold, so that a short policy is never a lax one:

1. at least one kind of hardware has a table; 2. every table says which code it accepts:
``measurements``, or ``signers``, or registers or ``firmware`` where the hardware has those, or
``allow_any_measurement = true``; 3. SGX signers come with ``product_ids`` and ``min_version``, SNP
signers with ``min_version``; 4. SNP product lines are named, each with a minimum TCB, or
``allow_any_tcb = true``; 5. no policy can accept Revoked or a platform that nobody has rated.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from broch.attest import assertions
from broch.attest.policy import NEVER, Policy
from broch.attest.reference import (
    CcaReference,
    NitroReference,
    PsaReference,
    Reference,
    Registers,
    SgxReference,
    SnpReference,
    TdxReference,
    TpmReference,
)
from broch.errors import MalformedError
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.snp.product import Product, Tcb
from broch.wire.toml_places import Table, near, parse, read

MAX_GRACE: Final = 3650  # days
MAX_AGE: Final = 3 * 60 * 60  # seconds that the certificate of a Nitro document lives
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]?", re.ASCII)
_ABI: Final = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})", re.ASCII)
_MAX_BYTE: Final = 255
_ADVISORY: Final = re.compile(r"[A-Z0-9-]{1,64}")
_HASHES: Final = (32, 48, 64)
# TEE -> sizes of measurements and of signers, bytes.
_SIZES: Final[Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] = MappingProxyType(
    {
        "sgx": ((32,), (32,)),
        "tdx": ((48,), ()),
        "snp": ((48,), (48,)),
        "nitro": ((48,), (48,)),
        "psa": ((32,), ()),
        "cca": (_HASHES, ()),
        "tpm": (_HASHES, ()),
        "keystone": ((64,), ()),
        "trustzone": ((32,), ()),
        "sancus": ((32,), ()),
    }
)
_ANY_SIZE: Final = tuple(range(1, 129))
_TCB_FIELDS: Final = {
    Product.MILAN: ("boot_loader", "tee", "snp", "microcode"),
    Product.GENOA: ("boot_loader", "tee", "snp", "microcode"),
    Product.TURIN: ("fmc", "boot_loader", "tee", "snp", "microcode"),
}


def load(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        UsageError: it cannot be read, or it has assertions and no evaluator is installed.
        MalformedError: not a policy; the first problem in the file.
    """
    return from_toml(read(path, "policy", "policy.toml"), path.name)


def from_toml(text: str, file: str) -> Policy:
    """The policy in ``text``; ``file`` is its name in errors.

    Raises:
        UsageError: it has assertions and no evaluator is installed.
        MalformedError: not a policy; the first problem in the file.
    """
    from broch.tee import registry

    root, _ = parse(text, file)
    name = root.text("name", file)
    flags = {
        key: root.flag(key)
        for key in ("emulated", "allow_debug", "allow_no_nonce", "allow_no_revocation")
    }
    accept_tcb = _statuses(root)
    grace = root.integer("grace_days", 0, 0, MAX_GRACE)
    advisories = root.texts("reject_advisories")
    for item in advisories:
        if not _ADVISORY.fullmatch(item):
            root.wrong("reject_advisories", f"{item!r:.80} is no advisory", "like INTEL-SA-00615")
    references = {
        tee: _reference(tee, root.table(tee)) for tee in registry.verifier_names() if root.has(tee)
    }
    expressions = _assertions(root.table("assertions"))
    root.close()
    if not references and not len(root.problems):
        hint = f"add a table of {', '.join(registry.verifier_names())}"
        raise MalformedError(
            "accepts nothing: no table for any kind of hardware", place=f"{file}:1", hint=hint
        )
    root.problems.raise_first()
    return Policy(
        name=name,
        accept_tcb=accept_tcb,
        grace_days=grace,
        reject_advisories=frozenset(advisories),
        references=MappingProxyType(references),
        assertions=MappingProxyType(expressions),
        **flags,
    )


def _statuses(root: Table) -> frozenset[TcbStatus]:
    known = [status.value for status in TcbStatus if status not in NEVER]
    found = set()
    for text in root.texts("accept_tcb"):
        if text in known:
            found.add(TcbStatus(text))
        elif text in {status.value for status in NEVER}:
            why = f"accept_tcb holds {text!r}, which no policy can accept"
            root.wrong("accept_tcb", why, f"known: {', '.join(known)}")
        else:
            why = f"accept_tcb holds {text!r:.80}, which is no TCB status"
            root.wrong("accept_tcb", why, near(text, known))
    return frozenset(found)


def _assertions(table: Table) -> dict[str, str]:
    found = {name: table.text(name) for name in table.names()}
    for name, expression in found.items():
        problem = assertions.problem_with(expression) if expression else None
        if problem is not None:
            table.wrong(name, f"assertion {name!r:.80} is no CEL expression: {problem}")
    table.close()
    return found


def _reference(tee: str, table: Table) -> Reference:
    sizes, signer_sizes = _SIZES.get(tee, (_ANY_SIZE, _ANY_SIZE))
    common: dict[str, Any] = {
        "measurements": _hexes(table, "measurements", sizes),
        "allow_any_measurement": table.flag("allow_any_measurement"),
    }
    if signer_sizes:
        common["signers"] = _hexes(table, "signers", signer_sizes)
    make = _MAKERS.get(tee, _plain)
    reference = make(table, common)
    table.close()
    if not reference.measurements and not reference.named_by():
        names = [name for name in _IDENTIFYING if hasattr(reference, name)]
        if not signer_sizes:
            names.remove("signers")
        if isinstance(reference, CcaReference):
            names.remove("firmware")
        problem = f"{table} does not say which code it accepts"
        hint = f"add {' or '.join(names)}"
        table.problems.add(table.keys, problem, hint=hint, missing_in=table.keys)
    return reference


_IDENTIFYING: Final = ("measurements", "signers", "firmware", "pcrs")


def _hexes(table: Table, key: str, sizes: tuple[int, ...]) -> frozenset[bytes]:
    return frozenset(_hex(table, key, text, sizes) for text in table.texts(key))


def _hex(table: Table, key: str, text: str, sizes: tuple[int, ...]) -> bytes:
    if not _HEX.fullmatch(text):
        table.wrong(key, f"{key} holds {text!r:.80}, expected bytes in hex")
        return b""
    value = bytes.fromhex(text)
    if len(value) not in sizes:
        wanted = " or ".join(map(str, sizes)) if len(sizes) < 4 else f"1 to {sizes[-1]}"
        table.wrong(key, f"{key} holds {len(value)} bytes, expected {wanted}")
    return value


def _registers(table: Table, sizes: tuple[int, ...], last: int) -> Registers:
    """``INDEX = ["hex", ...]`` for indices from 0 to ``last``."""
    found: dict[int, frozenset[bytes]] = {}
    for name in table.names():
        values = table.texts(name, is_required=True)
        if not _INDEX.fullmatch(name):
            table.wrong(name, f"{name!r:.40} is no number of a register")
        elif int(name) > last:
            table.wrong(name, f"register {name}, expected 0 to {last}")
        else:
            found[int(name)] = frozenset(_hex(table, name, text, sizes) for text in values)
    table.close()
    return MappingProxyType(found)


def _names(table: Table, key: str, known: tuple[str, ...]) -> frozenset[str]:
    values = table.texts(key)
    for value in values:
        if value not in known:
            table.wrong(key, f"{key} holds {value!r:.80}, which is not known", near(value, known))
    return frozenset(values)


def _plain(table: Table, common: dict[str, Any]) -> Reference:
    return Reference(**common)


def _intel(table: Table, powers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "min_tcb_evaluation": table.integer("min_tcb_evaluation", 0, 0, 2**32 - 1),
        "ppids": _hexes(table, "ppids", (16,)),
        "allow_attributes": _names(table, "allow_attributes", powers),
    }


def _sgx(table: Table, common: dict[str, Any]) -> Reference:
    from broch.attest.rules_intel import SGX_POWERS

    has_version = table.has("min_version")
    reference = SgxReference(
        **common,
        product_ids=frozenset(table.integers("product_ids", 0, 2**16 - 1)),
        min_version=table.integer("min_version", 0, 0, 2**16 - 1),
        **_intel(table, tuple(SGX_POWERS)),
    )
    wanted = (("product_ids", bool(reference.product_ids)), ("min_version", has_version))
    _check_signed(table, reference, wanted)
    return reference


def _check_signed(table: Table, reference: Reference, wanted: Iterable[tuple[str, bool]]) -> None:
    """A signer alone stands for all that he ever signed, the oldest and worst too."""
    if not reference.signers or reference.measurements:
        return
    for name, is_there in wanted:
        if not is_there:
            problem = f"{table} knows the code by its signer, and has no {name}"
            hint = f"add {name} = {'[0]' if name == 'product_ids' else '1'}"
            table.problems.add(table.keys, problem, hint=hint, missing_in=table.keys)


def _tdx(table: Table, common: dict[str, Any]) -> Reference:
    from broch.attest.rules_intel import TD_POWERS

    return TdxReference(
        **common,
        rtmrs=_registers(table.table("rtmrs"), (48,), 3),
        mr_seams=_hexes(table, "mr_seams", (48,)),
        service_tds=_hexes(table, "service_tds", (48,)),
        allow_sept_ve=table.flag("allow_sept_ve"),
        **_intel(table, tuple(TD_POWERS)),
    )


def _snp(table: Table, common: dict[str, Any]) -> Reference:
    from broch.attest.rules_amd import PLATFORM_BITS, POLICY_BITS

    lines = [product.value for product in Product]
    products = frozenset(
        Product(name) for name in _names(table, "products", tuple(lines)) if name in lines
    )
    if not products:
        problem = f"{table} names no product lines"
        hint = 'add products = ["Genoa", "Turin"]'
        table.problems.add(table.keys, problem, hint=hint, missing_in=table.keys)
    allow_any_tcb = table.flag("allow_any_tcb")
    minimum = _min_tcb(table.table("min_tcb"))
    for product in sorted(products - minimum.keys()):
        if not allow_any_tcb:
            problem = f"{table} has no minimum TCB for {product}"
            hint = f"add [snp.min_tcb.{product}]"
            table.problems.add(table.keys, problem, hint=hint, missing_in=table.keys)
    vmpls = table.integers("vmpls", 0, 3) if table.has("vmpls") else (0,)
    has_version = table.has("min_version")
    reference = SnpReference(
        **common,
        products=products,
        min_tcb=minimum,
        allow_any_tcb=allow_any_tcb,
        vmpls=frozenset(vmpls),
        min_version=table.integer("min_version", 0, 0, 2**32 - 1),
        chip_ids=_hexes(table, "chip_ids", (64,)),
        host_data=_hexes(table, "host_data", (32,)),
        require_platform=_names(table, "require_platform", tuple(PLATFORM_BITS)),
        allow_migration_agent=table.flag("allow_migration_agent"),
        forbid_smt=table.flag("forbid_smt"),
        forbid_cxl=table.flag("forbid_cxl"),
        require_policy=_names(table, "require_policy", tuple(POLICY_BITS)),
        min_abi=_min_abi(table),
        author_keys=_hexes(table, "author_keys", (48,)),
    )
    _check_signed(table, reference, [("min_version", has_version)])
    return reference


def _min_abi(table: Table) -> tuple[int, int]:
    if not table.has("min_abi"):
        return 0, 0
    text = table.text("min_abi")
    match = _ABI.fullmatch(text)
    if match is None or max(map(int, match.groups())) > _MAX_BYTE:
        table.wrong("min_abi", f"min_abi is {text!r:.80}, which is no version", 'like "1.55"')
        return 0, 0
    return int(match[1]), int(match[2])


def _min_tcb(table: Table) -> Mapping[Product, Tcb]:
    found: dict[Product, Tcb] = {}
    for product, names in _TCB_FIELDS.items():
        if table.has(product.value):
            inner = table.table(product.value)
            for name in names:
                if name not in inner.names():
                    problem = f"missing key {name!r} in {inner}"
                    hint = f"add {name} = 0 or more"
                    table.problems.add(inner.keys, problem, hint=hint, missing_in=inner.keys)
            found[product] = Tcb(**{name: inner.integer(name, 0, 0, 255) for name in names})
            inner.close()
    table.close()
    return MappingProxyType(found)


def _nitro(table: Table, common: dict[str, Any]) -> Reference:
    return NitroReference(
        **common,
        pcrs=_registers(table.table("pcrs"), (48,), 31),
        max_age_seconds=table.integer("max_age_seconds", 0, 1, MAX_AGE),
    )


def _psa(table: Table, common: dict[str, Any]) -> Reference:
    return PsaReference(
        **common,
        firmware=_hexes(table, "firmware", _HASHES),
        allow_mac=table.flag("allow_mac"),
        client_ids=frozenset(table.integers("client_ids", -(2**31), 2**31 - 1)),
    )


def _cca(table: Table, common: dict[str, Any]) -> Reference:
    reference = CcaReference(
        **common,
        firmware=_hexes(table, "firmware", _HASHES),
        allow_any_firmware=table.flag("allow_any_firmware"),
        rems=_registers(table.table("rems"), _HASHES, 3),
    )
    if not reference.firmware and not reference.allow_any_firmware:
        problem = f"{table} does not say which platform firmware it accepts"
        table.problems.add(table.keys, problem, hint="add firmware", missing_in=table.keys)
    return reference


def _tpm(table: Table, common: dict[str, Any]) -> Reference:
    banks = table.table("pcrs")
    sizes = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
    pcrs = {
        bank: _registers(banks.table(bank), (size,), 31)
        for bank, size in sizes.items()
        if banks.has(bank)
    }
    banks.close()
    return TpmReference(
        **common,
        pcrs=MappingProxyType(pcrs),
        allow_unproved_key=table.flag("allow_unproved_key"),
        allow_unsafe_clock=table.flag("allow_unsafe_clock"),
        require_event_log=table.flag("require_event_log"),
        require_secure_boot=table.flag("require_secure_boot"),
    )


_MAKERS: Final[Mapping[str, Callable[[Table, dict[str, Any]], Reference]]] = MappingProxyType(
    {
        "sgx": _sgx,
        "tdx": _tdx,
        "snp": _snp,
        "nitro": _nitro,
        "psa": _psa,
        "cca": _cca,
        "tpm": _tpm,
    }
)
