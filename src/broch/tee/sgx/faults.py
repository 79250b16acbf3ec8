"""How SGX instructions fail, with the hardware's own numbers (SDM 3D, table 40-4).

An instruction either faults (#GP, #PF) or sets ZF and puts an error number into RAX. What the
caller should do about it decides the base class: an image that is not what was signed is untrusted,
one that the hardware's rules refuse is refused by policy, a SIGSTRUCT that is none is malformed.
"""

from enum import IntEnum
from typing import ClassVar

from broch.errors import BrochError, DecodeError, PolicyError, UntrustedError


class SgxNumber(IntEnum):
    """Values of RAX after a failed EINIT or EGETKEY."""

    INVALID_SIG_STRUCT = 1
    INVALID_ATTRIBUTE = 2
    INVALID_MEASUREMENT = 4
    INVALID_SIGNATURE = 8
    INVALID_EINITTOKEN = 16
    INVALID_CPUSVN = 32
    INVALID_ISVSVN = 64
    INVALID_KEYNAME = 256


class SgxError(BrochError):
    """Base of all that an SGX instruction can refuse with."""

    number: int  # RAX, or the vector of the exception
    name: str  # SGX_INVALID_..., #GP or #PF


class InvalidSigStructError(SgxError, DecodeError):
    """EINIT: SGX_INVALID_SIG_STRUCT."""

    number = SgxNumber.INVALID_SIG_STRUCT
    name = "SGX_INVALID_SIG_STRUCT"


class SgxUntrustedError(SgxError, UntrustedError):
    """The signature or the measurement does not hold."""

    def __init__(self, number: SgxNumber, problem: str) -> None:
        self.number, self.name = number, f"SGX_{number.name}"
        super().__init__(f"{self.name} ({int(number)}): {problem}")


class SgxRefusedError(SgxError, PolicyError):
    """The CPU's rules say no."""

    def __init__(self, number: SgxNumber, problem: str) -> None:
        self.number, self.name = number, f"SGX_{number.name}"
        super().__init__(f"{self.name} ({int(number)}): {problem}")


class SgxFaultError(SgxError, PolicyError):
    """An exception of the CPU: the instruction was given what it never accepts."""

    vectors: ClassVar[dict[str, int]] = {"#GP": 13, "#PF": 14}

    def __init__(self, instruction: str, problem: str, *, name: str = "#GP") -> None:
        self.number, self.name = self.vectors[name], name
        super().__init__(f"{name} in {instruction}: {problem}")
