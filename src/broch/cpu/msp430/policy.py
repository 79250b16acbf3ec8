"""Where an access policy, such as Sancus' program-counter-based one, takes hold of the CPU.

A policy divides the address space into domains by program counter: code of a domain has the same
rights everywhere in it. What a domain may not read or write is told once, as ranges, and again
whenever it changes (:meth:`Cpu.policy_changed`), so that checks cost nothing where nothing is
protected. Going from one domain to another is asked each time.
"""

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from broch.cpu.msp430.cpu import Cpu


class Access(Enum):
    """What was refused."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


class AccessPolicy(Protocol):
    """An access policy. Domain 0 is everything that no other domain owns."""

    def domains(self) -> Iterable[int]:
        """The numbers of the domains that there are now, besides 0."""
        ...

    def domain(self, pc: int) -> int:
        """The domain of code at ``pc``."""
        ...

    def span(self, pc: int) -> range:
        """Addresses around ``pc`` that are of one domain; need not be all of them."""
        ...

    def refused(self, domain: int) -> Iterable[tuple[range, bool, bool]]:
        """What code of ``domain`` may not touch: addresses, whether for reads, for writes.

        What is refused for reads must be refused for writes.
        """
        ...

    def enter(self, cpu: "Cpu", source: int, target: int) -> bool:
        """Whether control may go from the instruction at ``source`` to ``target``.

        Called only when the two are in different domains.
        """
        ...

    def violation(self, cpu: "Cpu", access: Access, address: int, pc: int) -> None:
        """Something was refused to the instruction at ``pc``.

        A refused read gives 0 and a refused write is lost, and the instruction completes; a
        refused jump leaves ``pc`` at ``address``. This may ask for an interrupt or reset the CPU.
        """
        ...

    def interrupt(self, cpu: "Cpu", vector: int, pc: int) -> bool:
        """An interrupt is about to be taken at ``pc``; true if the policy has done all of it."""
        ...
