"""What a relying party accepts. Absent is never "anything": the defaults are the strict ones.

A policy has reference values for each kind of hardware (:mod:`.reference`); evidence of a kind that
it does not mention is refused. What it relaxes, it relaxes by name, and each use of a relaxation is
in the result. :func:`.policy_file.load` reads one from TOML.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

from broch.attest.reference import Reference, reference_type
from broch.tee.contract import Measurement
from broch.tee.dcap.tcb import TcbStatus

#: Statuses that no policy can accept: keys are compromised, or nobody has rated the platform.
NEVER: Final = frozenset({TcbStatus.REVOKED, TcbStatus.NOT_SUPPORTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is accepted."""

    name: str = "unnamed"  # an identifier for results: a URI or any text
    emulated: bool = False  # devices that only pretend to be hardware
    allow_debug: bool = False  # enclaves whose memory their host can read
    accept_tcb: frozenset[TcbStatus] = frozenset()  # besides UpToDate; never one of NEVER
    grace_days: int = 0  # OutOfDate is accepted for so long after the date of the platform's level
    reject_advisories: frozenset[str] = frozenset()  # "INTEL-SA-00615"
    allow_no_nonce: bool = False  # evidence that may be a recording
    allow_no_revocation: bool = False  # certificates that may have been revoked
    references: Mapping[str, Reference] = field(default_factory=lambda: MappingProxyType({}))
    assertions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # CEL

    def for_image(self, expected: Measurement) -> Self:
        """The same policy for exactly one image: its measurement, and its signer if it has one."""
        values = reference_type(expected.tee)(
            measurements=frozenset({expected.value}),
            signers=frozenset() if expected.signer is None else frozenset({expected.signer}),
        )
        return replace(self, references=MappingProxyType({expected.tee: values}))

    def relaxations(self) -> Iterator[str]:
        """The names of what is relaxed."""
        for name in ("emulated", "allow_debug", "allow_no_nonce", "allow_no_revocation"):
            if getattr(self, name):
                yield name
        if self.accept_tcb:
            yield f"accept_tcb = {sorted(map(str, self.accept_tcb))}"
        if self.grace_days:
            yield f"grace_days = {self.grace_days}"
        for tee, reference in self.references.items():
            for name in reference.__dataclass_fields__:
                value = getattr(reference, name)
                if name.startswith("allow_") and value:
                    shown = "" if value is True else f" = {sorted(value)}"
                    yield f"{tee}.{name}{shown}"
