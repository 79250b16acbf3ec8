"""What peripherals share: the wires to the CPU, and registers of eight bits."""

from abc import ABC, abstractmethod
from typing import Final, Protocol

# Interrupts of an openMSP430 system on chip; vector n is at 0xffe0 + 2n.
PORT1_VECTOR: Final = 2
PORT2_VECTOR: Final = 3
UART_TX_VECTOR: Final = 6
UART_RX_VECTOR: Final = 7
TIMER_A1_VECTOR: Final = 8
TIMER_A0_VECTOR: Final = 9


class Wires(Protocol):
    """What a peripheral sees of the CPU."""

    cycles: int  # since power-on

    def request(self, vector: int) -> None:
        """Ask for an interrupt."""
        ...

    def withdraw(self, vector: int) -> None:
        """Take that back."""
        ...

    def peripherals_changed(self) -> None:
        """Something is due sooner than was said: ``advance`` must be called again."""
        ...


class ByteRegisters(ABC):
    """A peripheral whose registers have eight bits; a word is two of them."""

    @abstractmethod
    def get(self, address: int) -> int:
        """Read one register."""

    @abstractmethod
    def put(self, address: int, value: int) -> None:
        """Write one register."""

    def read(self, address: int, *, byte: bool) -> int:
        """A program reads."""
        low = self.get(address)
        return low if byte else low | self.get(address + 1) << 8

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """A program writes."""
        self.put(address, value & 0xFF)
        if not byte:
            self.put(address + 1, value >> 8)
