"""The UART of openMSP430 systems: eight bits, no parity, one stop bit, a byte ahead in sending.

0x0080  CTL    enable (0x01); interrupts: received 0x10, overflow 0x20, sent 0x40, empty 0x80
0x0081  STAT   0x10 received, 0x20 overflow, 0x40 sent, 0x80 empty: cleared by writing ones;
               0x01 receiving, 0x04 sending, 0x08 no room to send
0x0082  BAUD   cycles a bit, less one (16 bits)
0x0084  TXD    sends
0x0085  RXD    what was received last
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from broch.cpu.msp430.wires import UART_RX_VECTOR, UART_TX_VECTOR, ByteRegisters, Wires

_CTL, _STAT, _BAUD_LOW, _BAUD_HIGH, _TXD, _RXD = range(0x80, 0x86)
_ENABLED: Final = 0x01
_RECEIVED: Final = 0x10
_OVERFLOW: Final = 0x20
_SENT: Final = 0x40
_EMPTY: Final = 0x80
_PENDING: Final = _RECEIVED | _OVERFLOW | _SENT | _EMPTY
_RECEIVING: Final = 0x01
_SENDING: Final = 0x04
_FULL: Final = 0x08
_FRAME: Final = 10  # bits: start, eight of data, stop


class Uart(ByteRegisters):
    """One serial line."""

    name = "UART"
    addresses: tuple[range, ...] = (range(_CTL, _RXD + 1),)

    def __init__(self, wires: Wires) -> None:
        self.sent: Callable[[int], None] | None = None  # called with each byte that went out
        self._wires = wires
        self._incoming: deque[int] = deque()
        self._clear()

    def _clear(self) -> None:
        self._control = 0
        self._status = 0
        self._baud = 0
        self._received = 0
        self._sending: int | None = None
        self._waiting: int | None = None
        self._sent_at = 0
        self._received_at: int | None = None

    def receive(self, data: bytes) -> None:
        """Let ``data`` arrive on the line, at its speed. What comes while it is off is lost."""
        self._incoming.extend(data)
        if self._received_at is None:
            self._received_at = self._wires.cycles + self._frame
        self._wires.peripherals_changed()

    @property
    def _frame(self) -> int:
        return _FRAME * (self._baud + 1)

    def advance(self, now: int) -> int | None:
        """Send and receive what is due."""
        while self._sending is not None and self._sent_at <= now:
            self._send_done()
        while self._received_at is not None and self._received_at <= now:
            self._receive_done(self._received_at)
        self._ask()
        due = [self._sent_at] if self._sending is not None else []
        return min(
            [*due, self._received_at] if self._received_at is not None else due, default=None
        )

    def _send_done(self) -> None:
        if self.sent is not None and self._sending is not None:
            self.sent(self._sending)
        self._status |= _SENT
        self._sending, self._waiting = self._waiting, None
        if self._sending is None:
            self._status |= _EMPTY
        else:
            self._sent_at += self._frame

    def _receive_done(self, at: int) -> None:
        value = self._incoming.popleft()
        if self._control & _ENABLED:
            if self._status & _RECEIVED:
                self._status |= _OVERFLOW
            self._received = value
            self._status |= _RECEIVED
        self._received_at = at + self._frame if self._incoming else None

    def _ask(self) -> None:
        asks = self._control & self._status & _PENDING
        for vector, bits in (
            (UART_RX_VECTOR, _RECEIVED | _OVERFLOW),
            (UART_TX_VECTOR, _SENT | _EMPTY),
        ):
            if asks & bits:
                self._wires.request(vector)
            else:
                self._wires.withdraw(vector)

    def accepted(self, vector: int) -> None:
        """Flags are cleared by software: while one is set, the request stands."""
        if vector in (UART_RX_VECTOR, UART_TX_VECTOR):
            self._ask()

    def reset(self) -> None:
        """Off and silent; what is on its way here still comes."""
        self._clear()
        if self._incoming:
            self._received_at = self._wires.cycles + self._frame
        self._ask()

    def get(self, address: int) -> int:
        """Read one register."""
        self.advance(self._wires.cycles)
        if address == _CTL:
            return self._control
        if address == _STAT:
            busy = _SENDING if self._sending is not None else 0
            full = _FULL if self._waiting is not None else 0
            return self._status | busy | full | (_RECEIVING if self._incoming else 0)
        if address in (_BAUD_LOW, _BAUD_HIGH):
            return self._baud >> 8 * (address - _BAUD_LOW) & 0xFF
        return self._received if address == _RXD else 0

    def put(self, address: int, value: int) -> None:
        """Write one register."""
        self.advance(self._wires.cycles)
        if address == _CTL:
            self._control = value & (_PENDING | _ENABLED | 0x02)
        elif address == _STAT:
            self._status &= ~(value & _PENDING)
        elif address == _BAUD_LOW:
            self._baud = self._baud & 0xFF00 | value
        elif address == _BAUD_HIGH:
            self._baud = self._baud & 0x00FF | value << 8
        elif address == _TXD and self._control & _ENABLED:
            self._send(value)
        self._ask()
        self._wires.peripherals_changed()

    def _send(self, value: int) -> None:
        if self._sending is None:
            self._sending = value
            self._sent_at = self._wires.cycles + self._frame
        elif self._waiting is None:
            self._waiting = value  # with no room, it is lost
