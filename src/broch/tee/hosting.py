"""The parts of the contract that only a microcontroller has: it runs its modules itself, and has no
asymmetric keys.

A :class:`~broch.tee.contract.Device` that is also a :class:`Microcontroller` needs no process for
each module. A :class:`~broch.tee.contract.Tee` that is also a :class:`SharedKeyTee` joins by the
key that a module shares with whoever deploys it. What crosses is in docs/sancus-abi.md.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

from broch.image import Interface
from broch.tee.contract import Endorsements, Measurement, NonVolatile, Packed


class Function(IntEnum):
    """What a module is entered for (docs/sancus-abi.md)."""

    START = 0
    ATTEST = 1
    GRANT = 2
    INPUT = 3
    ENTRY = 4
    TICK = 5
    INTERRUPT = 6


class CallOutcome(Protocol):
    """How a call into a module came back."""

    @property
    def status(self) -> int: ...
    @property
    def output(self) -> bytes: ...
    @property
    def fault(self) -> str:
        """Why the module cannot go on; empty while it can."""
        ...


class HostedModule(Protocol):
    """A module that is loaded on a microcontroller."""

    @property
    def measurement(self) -> Measurement: ...
    @property
    def interrupts(self) -> frozenset[int]:
        """The vectors that it wants to hear of."""
        ...

    def number(self, port: int) -> int:
        """The module's own number of a port of its interface; raises :class:`IndexError`."""
        ...

    def enter(self, function: int, data: bytes) -> CallOutcome:
        """Call the module; returns when it came back, or never will."""
        ...

    def evidence(self, challenge: bytes, nonce: bytes, tag: bytes) -> bytes:
        """Evidence of what the module answered to a challenge."""
        ...


@runtime_checkable
class Microcontroller(Protocol):
    """A device that runs its modules itself."""

    def install(self, packed: Packed) -> HostedModule:
        """Load a module and protect it.

        Raises:
            DecodeError: not a module for it.
            UntrustedError: it owns peripherals, and its deployer did not say that it may.
            PolicyError: there is no room for it.
        """
        ...

    def remove(self, module: HostedModule) -> None:
        """Wipe a module."""
        ...

    def interrupts(self) -> list[int]:
        """The vectors that peripherals ask for now; each is said once."""
        ...

    def operate(self, action: str, target: str, value: Any) -> dict[str, Any]:
        """The operator's panel: act on a peripheral from outside, or look at all of them.

        Raises:
            UsageError: no such action, no such peripheral, not such a value.
            PolicyError: no module owns the peripheral.
        """
        ...


@runtime_checkable
class SharedKeyTee(Protocol):
    """A TEE whose modules prove themselves by a key that their deployer knows too."""

    @property
    def ciphers(self) -> Sequence[str]:
        """All that its modules speak."""
        ...

    def interface(self, packed: Packed) -> Interface:
        """What a packed module declares.

        Raises:
            MalformedError: not a module.
        """
        ...

    def numbers(self, packed: Packed) -> Mapping[str, int]:
        """The module's own numbers of its ports, by name."""
        ...

    def module_key(
        self, packed: Packed, endorsements: Endorsements, store: NonVolatile | None = None
    ) -> bytes:
        """The key (16 bytes) that this module has on the device that is endorsed.

        Args:
            packed: the module.
            endorsements: of the device.
            store: where keys are kept from one run to the next; it must be private.

        Raises:
            UndecidedError: the endorsement is missing.
        """
        ...

    def module_nonce(self, evidence: bytes) -> bytes:
        """What the module chose when it was attested (16 bytes); raises :class:`DecodeError`."""
        ...

    def authorise(self, packed: Packed, endorsements: Endorsements) -> bytes | None:
        """What lets the device load this module; None where anyone may load it."""
        ...
