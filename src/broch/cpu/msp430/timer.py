"""Timer A (SLAU049F, chapter 11): a 16-bit counter and three registers to compare it with.

    0x012e   TAIV          which of CCR1, CCR2, overflow asks; reading clears the first
    0x0160   TACTL         clock (SSEL), divider (ID), mode (MC), clear, overflow IE and IFG
    0x0162   TACCTL0-2     IE (bit 4), IFG (bit 0)
    0x0170   TAR           the counter
    0x0172   TACCR0-2      what it is compared with

SMCLK is the CPU's clock; ACLK is that divided by ``aclk_divider``. The two external clocks never
tick. Capture and the output units have no pins here and do nothing.
"""

from typing import Final

from broch.cpu.msp430.wires import TIMER_A0_VECTOR, TIMER_A1_VECTOR, Wires

_TAIV: Final = 0x012E
_TACTL: Final = 0x0160
_TACCTL: Final = 0x0162
_TAR: Final = 0x0170
_TACCR: Final = 0x0172

_IFG: Final = 0x0001
_OVERFLOW_IE: Final = 0x0002
_CLEAR: Final = 0x0004
_IE: Final = 0x0010
_STOP, _UP, _CONTINUOUS, _UP_DOWN = range(4)
_CHANNELS: Final = range(3)


class TimerA:
    """Timer A with three compare channels."""

    name = "timer A"
    addresses: tuple[range, ...] = (
        range(_TAIV, _TAIV + 2),
        range(_TACTL, _TACCTL + 6),
        range(_TAR, _TACCR + 6),
    )

    def __init__(self, wires: Wires, *, aclk_divider: int = 32) -> None:
        self._wires = wires
        self._aclk_divider = aclk_divider
        self._clear_all()

    def _clear_all(self) -> None:
        self._control = 0
        self._channel_control = [0, 0, 0]
        self._compare = [0, 0, 0]
        self._phase = 0  # ticks since the counter was last 0 and counting up
        self._since = 0  # cycles at that phase

    # Time

    @property
    def _mode(self) -> int:
        mode = self._control >> 4 & 3
        return _STOP if mode in (_UP, _UP_DOWN) and not self._compare[0] else mode

    @property
    def _period(self) -> int:
        """Ticks until the counter comes round."""
        if self._mode == _UP:
            return self._compare[0] + 1
        return 2 * self._compare[0] if self._mode == _UP_DOWN else 0x10000

    @property
    def _cycles_a_tick(self) -> int:
        """Zero: it does not tick."""
        clock = (0, self._aclk_divider, 1, 0)[self._control >> 8 & 3]
        return 0 if self._mode == _STOP else clock << (self._control >> 6 & 3)

    @property
    def _counter(self) -> int:
        if self._mode == _UP_DOWN and self._phase > self._compare[0]:
            return 2 * self._compare[0] - self._phase
        return self._phase

    def _moments(self, channel: int) -> list[int]:
        """Phases at which the counter reaches what a channel compares with."""
        value = self._compare[channel]
        if self._mode == _UP_DOWN:
            top = self._compare[0]
            return [value, 2 * top - value] if 0 < value < top else [value] if value <= top else []
        return [value] if value < self._period else []

    def _catch_up(self) -> None:
        """Move the counter to now, and set the flags of what happened on the way."""
        tick = self._cycles_a_tick
        if not tick:
            self._since = self._wires.cycles
            return
        ticks = (self._wires.cycles - self._since) // tick
        self._since += ticks * tick
        period = self._period
        if self._passed(0, ticks):
            self._control |= _IFG
        for channel in _CHANNELS:
            if any(self._passed(moment, ticks) for moment in self._moments(channel)):
                self._channel_control[channel] |= _IFG
        self._phase = (self._phase + ticks) % period

    def _passed(self, moment: int, ticks: int) -> bool:
        return (moment - self._phase - 1) % self._period < ticks

    def advance(self, now: int) -> int | None:
        """Ask for what interrupts are due; the next is at the cycle that is returned."""
        del now
        self._catch_up()
        self._ask()
        tick = self._cycles_a_tick
        if not tick:
            return None
        moments = [
            moment
            for channel in _CHANNELS
            if self._channel_control[channel] & (_IE | _IFG) == _IE
            for moment in self._moments(channel)
        ]
        if self._control & (_OVERFLOW_IE | _IFG) == _OVERFLOW_IE:
            moments.append(0)
        if not moments:
            return None
        period = self._period
        return self._since + tick * min((m - self._phase - 1) % period + 1 for m in moments)

    # Interrupts

    def _ask(self) -> None:
        self._line(TIMER_A0_VECTOR, asks=self._channel_control[0] & (_IE | _IFG) == _IE | _IFG)
        self._line(TIMER_A1_VECTOR, asks=bool(self._first()))

    def _line(self, vector: int, *, asks: bool) -> None:
        if asks:
            self._wires.request(vector)
        else:
            self._wires.withdraw(vector)

    def _first(self) -> int:
        """What TAIV shows: 2 for CCR1, 4 for CCR2, 10 for overflow, 0 for nothing."""
        for channel in (1, 2):
            if self._channel_control[channel] & (_IE | _IFG) == _IE | _IFG:
                return 2 * channel
        overflow = _OVERFLOW_IE | _IFG
        return 10 if self._control & overflow == overflow else 0

    def _clear_first(self) -> None:
        first = self._first()
        if first == 10:
            self._control &= ~_IFG
        elif first:
            self._channel_control[first // 2] &= ~_IFG

    def accepted(self, vector: int) -> None:
        """Taking its interrupt clears the flag of CCR0; the others are cleared by software."""
        if vector == TIMER_A0_VECTOR:
            self._channel_control[0] &= ~_IFG
        self._ask()

    def reset(self) -> None:
        """Stopped at zero."""
        self._clear_all()
        self._since = self._wires.cycles
        self._ask()

    # Registers

    def read(self, address: int, *, byte: bool) -> int:
        """A program reads; a byte is half of the word."""
        self._catch_up()
        value = self._register(address & ~1)
        if address & ~1 == _TAIV:
            self._clear_first()
        self._ask()
        return value >> 8 * (address & 1) & 0xFF if byte else value

    def _register(self, address: int) -> int:
        if address == _TAIV:
            return self._first()
        if address == _TACTL:
            return self._control
        if address == _TAR:
            return self._counter
        if address >= _TACCR:
            return self._compare[(address - _TACCR) // 2]
        return self._channel_control[(address - _TACCTL) // 2]

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """A program writes; a byte goes to half of the word, and the other half stays."""
        self._catch_up()
        at = address & ~1
        if byte:
            shift = 8 * (address & 1)
            value = self._register(at) & ~(0xFF << shift) | value << shift
        counter = self._counter
        if at == _TACTL:
            self._control = value & 0x03F3
            counter = 0 if value & _CLEAR else counter
        elif at == _TAR:
            counter = value
        elif at >= _TACCR:
            self._compare[(at - _TACCR) // 2] = value
        elif at >= _TACCTL:
            self._channel_control[(at - _TACCTL) // 2] = value
        self._phase = counter % self._period
        if value & _CLEAR and at == _TACTL:
            self._since = self._wires.cycles
        self._ask()
        self._wires.peripherals_changed()
