"""How an enclave ends, other than well."""

from typing import ClassVar

from broch.errors import BrochError


class EnclaveError(BrochError):
    """The enclave did not end as it should. ``exit_code`` is that of the upstream runner."""

    code: ClassVar[str] = "enclave"
    exit_code: ClassVar[int] = 255


class EnclavePanickedError(EnclaveError):
    """It gave up by itself; the message is what it left in its debug buffer."""


class EnclaveFaultError(EnclaveError):
    """The CPU, or the host, could not go on with it."""


class BadPointerError(Exception):
    """An address that an enclave named is not user memory. For the host alone to see."""

    def __init__(self, address: int, size: int) -> None:
        super().__init__(address, size)
        self.address = address
        self.size = size
