"""The trustworthiness vector of AR4SI (draft-ietf-rats-ar4si-10, section 2.3).

Eight components, each from -128 to 127: 2 to 31 affirming, 32 to 95 a warning, 96 to 127
contraindicated, 0 no claim. How evidence maps onto them is in docs/verify.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from broch.attest.checks import Outcome
from broch.attest.policy import Policy
from broch.errors import MalformedError, UntrustedError
from broch.tee.contract import Claims
from broch.tee.dcap.tcb import TcbStatus

if TYPE_CHECKING:
    from broch.attest.result import Part

NONE, AFFIRMING, WARNING, CONTRAINDICATED = 0, 2, 32, 96  # the tiers (section 2.3.2)
TIERS: Final = {
    NONE: "none",
    AFFIRMING: "affirming",
    WARNING: "warning",
    CONTRAINDICATED: "contraindicated",
}
_CRYPTO_FAILED: Final = 99
_UNEXPECTED: Final = 1
_RECOGNIZED, _NOT_TRUSTED, _NOT_RECOGNIZED = 2, 96, 97  # instance identity
_APPROVED, _UNSAFE, _UNSUPPORTABLE = 2, 32, 96  # configuration
_CODE_APPROVED, _CODE_UNRECOGNIZED = 3, 33  # executables: 3 at boot time only
_GENUINE, _KNOWN_HOLES, _BAD_HARDWARE, _UNKNOWN_HARDWARE = 2, 32, 96, 97
_ENCRYPTED, _ISOLATED, _VISIBLE = 2, 32, 96  # run-time memory
_ENCRYPTING: Final = frozenset({"sgx", "tdx", "snp", "cca"})
_HAS_MEMORY: Final = frozenset({"nitro", "trustzone", "keystone", "sancus"})
_KNOWN_BY: Final = frozenset({"measurement", "signer", "firmware"})
_CODE_RULES: Final = _KNOWN_BY | {"kind", "product", "version"}
_REGISTERS: Final = ("rtmr", "pcr", "rem")  # prefixes: what was loaded after the first code
_BESIDES: Final = ("mr_seam", "host_data")
_CONFIGURATION_RULES: Final = (
    "attributes",
    "sept_ve_disable",
    "mr_service_td",
    "migration",
    "smt",
    "vmpl",
    "clock",
    "firmware_log",
    "secure_boot",
    "authentication",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """In the order of their CBOR keys, 0 to 7."""

    instance_identity: int = 0
    configuration: int = 0
    executables: int = 0
    file_system: int = 0
    hardware: int = 0
    runtime_opaque: int = 0
    storage_opaque: int = 0
    sourced_data: int = 0

    def names(self) -> dict[str, int]:
        """By the names that JSON uses; those without a claim are left out."""
        return {
            item.name.replace("_", "-"): getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name)
        }

    def numbers(self) -> dict[int, int]:
        """By the keys that CBOR uses; those without a claim are left out."""
        values = [getattr(self, item.name) for item in fields(self)]
        return {key: value for key, value in enumerate(values) if value}

    def status(self) -> int:
        """The tier of the worst claim; none (0) if there is no claim."""
        return max((tier(value) for value in self.numbers().values()), default=NONE)


def tier(value: int) -> int:
    """The tier of one claim. Negative values are a verifier's own, of the same tiers."""
    if -1 <= value <= 1:
        return NONE  # no claim, unexpected evidence, malfunction
    size = -value if value < 0 else value + 1
    return AFFIRMING if size <= 32 else WARNING if size <= 96 else CONTRAINDICATED


def vector(part: "Part", policy: Policy) -> Vector:
    """What a part of a result comes to."""
    claims = part.claims
    if claims is None:
        return _not_authentic(part)
    failed = {item.rule for item in part.checks if item.outcome is Outcome.FAILED}
    outcomes = {item.rule: item.outcome for item in part.checks}
    return Vector(
        instance_identity=_identity(failed, outcomes),
        configuration=_configuration(claims, failed),
        executables=_executables(failed, outcomes),
        hardware=_hardware(claims, failed),
        runtime_opaque=_runtime(claims),
    )


_ALL_BAD: Final = {UntrustedError: _CRYPTO_FAILED, MalformedError: _UNEXPECTED}


def _not_authentic(part: "Part") -> Vector:
    """99 wherever cryptography failed, 1 for what is no evidence; undecided claims nothing."""
    bad = (value for kind, value in _ALL_BAD.items() if isinstance(part.error, kind))
    value = next(bad, NONE)
    return Vector(
        instance_identity=value,
        configuration=value,
        executables=value,
        hardware=value,
        runtime_opaque=value,
    )


def _identity(failed: set[str], outcomes: dict[str, Outcome]) -> int:
    """Which instance answers: one that is named, and fresh."""
    if "nonce" in failed:
        return _NOT_TRUSTED
    if "platform" in failed:
        return _NOT_RECOGNIZED
    known = outcomes.get("platform") is Outcome.PASSED or outcomes.get("device") is Outcome.PASSED
    return _RECOGNIZED if known else NONE


def _configuration(claims: Claims, failed: set[str]) -> int:
    if claims.debug or _any(failed, _CONFIGURATION_RULES) or _assertions(failed):
        return _UNSUPPORTABLE
    if "Configuration" in claims.details.get("tcb_status", ""):
        return _UNSAFE
    return _APPROVED


def _executables(failed: set[str], outcomes: dict[str, Outcome]) -> int:
    if failed & _CODE_RULES or _any(failed, (*_REGISTERS, *_BESIDES)):
        return _CODE_UNRECOGNIZED
    good = {rule for rule, outcome in outcomes.items() if outcome is Outcome.PASSED}
    known = good & _KNOWN_BY or _any(good, _REGISTERS)
    return _CODE_APPROVED if known else _CODE_UNRECOGNIZED


def _hardware(claims: Claims, failed: set[str]) -> int:
    status = claims.details.get("tcb_status")
    if status == TcbStatus.REVOKED:
        return _BAD_HARDWARE
    if status == TcbStatus.NOT_SUPPORTED or "emulated" in failed:
        return _UNKNOWN_HARDWARE
    if "product_line" in failed:
        return _BAD_HARDWARE
    old = status is not None and status.startswith(("OutOfDate", "TDRelaunch"))
    hardening = status is not None and "SWHardening" in status
    holes = {"min_tcb", "advisories", "tcb_evaluation", "tcb_status", "revocation"}
    if old or hardening or claims.emulated or claims.tee == "sancus" or failed & holes:
        return _KNOWN_HOLES
    return _GENUINE


def _runtime(claims: Claims) -> int:
    if claims.debug:
        return _VISIBLE
    if claims.tee in _ENCRYPTING and not claims.emulated:
        return _ENCRYPTED
    return _ISOLATED if claims.tee in _ENCRYPTING | _HAS_MEMORY else NONE


def _any(rules: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(rule.startswith(prefixes) for rule in rules)


def _assertions(failed: set[str]) -> bool:
    return any(rule.startswith("assertion ") for rule in failed)
