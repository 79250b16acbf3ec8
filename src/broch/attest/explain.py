"""Why, in sentences: which version is short, what would do, since when, and what comes next.

For Intel's hardware the platform is compared with the lowest level of the TCB info that the policy
accepts, component by component. The TCB info may name its components ("BIOS", "Early Microcode
Update"); where it does, so do we. A TCB info that is given for a look ahead is read and compared;
its signature is not asked for, since nothing is decided by it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broch.attest.checks import Outcome
from broch.attest.policy import Policy
from broch.attest.result import Part, Result
from broch.errors import DecodeError
from broch.tee.dcap.pckext import PckExtension
from broch.tee.dcap.tcb import IsvLevel, TcbInfo, TcbLevel, TcbStatus
from broch.wire import strict_json

_W: Final = "next TCB info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the levels of a TCB info are compared with."""

    pck: PckExtension
    tee_tcb_svn: bytes | None = None  # TDX: 16

    def level(self, info: TcbInfo) -> TcbLevel | None:
        """The highest level that it reaches."""
        return next((level for level in info.levels if not list(self.short_of(level, info))), None)

    def short_of(self, level: TcbLevel, info: TcbInfo) -> Iterator[str]:
        """What is too low for ``level``: one text for each."""
        for index, (own, wanted) in enumerate(zip(self.pck.components, level.sgx, strict=True)):
            if own < wanted:
                yield f"{_name(info, level, 'sgx', index)} has SVN {own}, {wanted} is needed"
        if self.pck.pcesvn < level.pcesvn:
            yield f"PCE has SVN {self.pck.pcesvn}, {level.pcesvn} is needed"
        if self.tee_tcb_svn is None:
            return
        if not level.tdx:
            yield "the level is not for TDX"
        # The first two are the module's, which has levels of its own once it has a version.
        first = 2 if self.tee_tcb_svn[1] else 0
        for index in range(first, len(level.tdx)):
            own, wanted = self.tee_tcb_svn[index], level.tdx[index]
            if own < wanted:
                yield f"{_name(info, level, 'tdx', index)} has SVN {own}, {wanted} is needed"


def explain(result: Result, next_info: TcbInfo | None = None) -> Iterator[str]:
    """Sentences for people. The text is no interface; ``checks`` is."""
    for part in result.parts:
        for item in part.checks:
            if item.outcome is Outcome.FAILED:
                yield f"{item.rule}: {item.why}."
                if item.hint:
                    yield f"  To do: {item.hint}."
        yield from _of_part(part, result.policy, next_info)


def _of_part(part: Part, policy: Policy, next_info: TcbInfo | None) -> Iterator[str]:
    claims: Any = part.claims
    if part.tee in ("sgx", "tdx") and hasattr(claims, "tcb"):
        info = claims.tcb_info if part.tee == "sgx" else claims.platform.tcb_info
        pck = claims.pck if part.tee == "sgx" else claims.platform.pck
        svn = claims.report.tee_tcb_svn if part.tee == "tdx" else None
        platform = Platform(pck=pck, tee_tcb_svn=svn)
        yield from _intel(claims.tcb, info, platform, policy)
        if part.tee == "tdx":
            yield from _module(claims.module, claims.report.tee_tcb_svn[0], info)
        yield from _qe(claims, part.tee)
        yield (
            f"TCB info of evaluation {info.evaluation_number}, issued {info.issue_date:%Y-%m-%d}, "
            f"valid until {info.next_update:%Y-%m-%d}."
        )
        if next_info is not None:
            yield from _ahead(claims.tcb.platform, platform, info, next_info, policy)
    elif part.tee == "snp" and hasattr(claims, "reported_tcb"):
        yield from _amd(claims, policy)


def _good(policy: Policy) -> frozenset[TcbStatus]:
    return policy.accept_tcb | {TcbStatus.UP_TO_DATE}


def _intel(verdict: Any, info: TcbInfo, platform: Platform, policy: Policy) -> Iterator[str]:
    level = verdict.level
    if level is None:
        yield "The platform is below every level that Intel rates."
    else:
        why = f" because of {', '.join(level.advisories)}" if level.advisories else ""
        yield f"The platform is at the level of {level.date:%Y-%m-%d}: {level.status}{why}."
    yield from _lacks(verdict.platform, info, platform, policy)


def _lacks(status: TcbStatus, info: TcbInfo, platform: Platform, policy: Policy) -> Iterator[str]:
    """What separates a platform from the lowest level that is good enough."""
    good = _good(policy)
    if status in good:
        return
    target = next((level for level in reversed(info.levels) if level.status in good), None)
    if target is None:
        yield f"No level of this TCB info is {' or '.join(sorted(good))}."
        yield from _to_configure(status)
        return
    short = list(platform.short_of(target, info))
    yield f"The level of {target.date:%Y-%m-%d} would do ({target.status}). For it:"
    yield from (f"  {text}." for text in short)


def _to_configure(status: TcbStatus) -> Iterator[str]:
    if "Configuration" in status:
        yield (
            "No version is short for that: the platform's configuration is (such as "
            "hyper-threading, or BIOS settings that the advisories name)."
        )
    if "SWHardening" in status:
        yield "The enclave's code has to be hardened as the advisories say; no version shows it."


def _module(rated: Any, svn: int, info: TcbInfo) -> Iterator[str]:
    if rated.status is TcbStatus.UP_TO_DATE:
        return
    from broch.tee.tdx import module

    version = 0 if rated.name == "tdxModule" else int(rated.name.removeprefix("TDX_"), 16)
    levels = module.find(info, version).levels
    yield f"TDX module {rated.name} has SVN {svn}: {rated.status}{_isv_target(levels)}."


def _qe(claims: Any, tee: str) -> Iterator[str]:
    identity = claims.qe_identity if tee == "sgx" else claims.platform.qe_identity
    verdict = claims.tcb
    if verdict.qe is not TcbStatus.UP_TO_DATE:
        reached = verdict.qe_level.isvsvn if verdict.qe_level else "no known"
        text = f"The quoting enclave reaches {reached} ISVSVN: {verdict.qe}"
        yield f"{text}{_isv_target(identity.levels)}."


def _isv_target(levels: Sequence[IsvLevel]) -> str:
    good = [level for level in levels if level.status is TcbStatus.UP_TO_DATE]
    if not good:
        return "; no SVN is UpToDate"
    target = min(good, key=lambda level: level.isvsvn)
    return f"; SVN {target.isvsvn} of {target.date:%Y-%m-%d} would be UpToDate"


def _ahead(
    now: TcbStatus, platform: Platform, info: TcbInfo, coming: TcbInfo, policy: Policy
) -> Iterator[str]:
    """What the other TCB info would change for the platform (not its module, not its QE)."""
    if (coming.id, coming.fmspc, coming.pceid) != (info.id, info.fmspc, info.pceid):
        yield (
            f"The next TCB info is for {coming.id} {coming.fmspc.hex()}, and this platform is "
            f"{info.id} {info.fmspc.hex()}: it says nothing of it."
        )
        return
    level = platform.level(coming)
    status = level.status if level is not None else TcbStatus.NOT_SUPPORTED
    what = f"TCB info of evaluation {coming.evaluation_number} ({coming.issue_date:%Y-%m-%d})"
    if status is now:
        yield f"Under the {what} the platform stays {now}."
    else:
        yield f"Under the {what} the platform goes from {now} to {status}."
    if level is not None:
        before = platform.level(info)
        known = set(before.advisories) if before is not None else set()
        fresh = sorted(set(level.advisories) - known)
        if fresh:
            yield f"  New advisories: {', '.join(fresh)}."
    yield from (f"  {text}" for text in _lacks(status, coming, platform, policy))


def _amd(claims: Any, policy: Policy) -> Iterator[str]:
    reference = policy.references.get("snp")
    wanted = getattr(reference, "min_tcb", {}).get(claims.product)
    if wanted is None or claims.reported_tcb.reaches(wanted):
        return
    for name in wanted.__slots__:
        own, current = getattr(claims.reported_tcb, name), getattr(claims.current_tcb, name)
        least = getattr(wanted, name)
        if own < least:
            ready = current >= least
            more = " (it runs already: the host has to commit it and report it)" if ready else ""
            yield f"  {name} reports SVN {own}, {least} is needed{more}."


def _name(info: TcbInfo, level: TcbLevel, kind: str, index: int) -> str:
    """What Intel calls a component, where the document says."""
    plain = f"{kind.upper()} component {index + 1}"
    try:
        for item in strict_json.objects(info.document, "tcbLevels", _W):
            parts = item.get("tcb", {}).get(f"{kind}tcbcomponents", [])
            svns = tuple(part.get("svn") for part in parts)
            if svns == getattr(level, kind):
                labels = (parts[index].get("category"), parts[index].get("type"))
                named = ", ".join(label for label in labels if isinstance(label, str) and label)
                return f"{plain} ({named})" if named else plain
    except (DecodeError, AttributeError, IndexError):
        pass
    return plain


def read_next(data: bytes) -> TcbInfo:
    """TCB info for a look ahead: the signed object, or Intel's whole reply.

    Raises:
        DecodeError: neither.
    """
    document = strict_json.document(data, _W)
    inner = document.get("tcbInfo")
    if isinstance(inner, Mapping):
        import json

        data = json.dumps(inner).encode()
    return TcbInfo.from_bytes(data)
