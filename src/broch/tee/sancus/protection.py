"""Program-counter-based access control: what code may touch depends on where it is.

    from \\ to     own text   own secret   another's text   another's secret   else
    module         r x        r w          enter            -                  r w x
    unprotected                            enter            -                  r w x

``enter`` is a jump to the first address of the text, and nothing else. This is what the RTL does
(sancus-core b6b53bb3); the tables of the papers are less strict, and let everybody read text.
Whatever is refused raises the violation interrupt, which cannot be masked.

Interrupts. Inside a module the hardware clears all registers before a handler sees them; what the
module was doing is lost. Modules here run with interrupts off, so only a violation does that.

The RTL's two weaknesses are mended unless ``as_rtl``. Here: a new module's secret section may
overlap other modules (their text, their secret section). In :mod:`.instructions`: a failed unwrap
leaves what it decrypted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broch.cpu.msp430 import Access
from broch.tee.sancus.layout import Layout, overlap

if TYPE_CHECKING:
    from broch.cpu.msp430 import Cpu

VIOLATION_VECTOR: Final = 13
INTERRUPT_ID: Final = 0xFFF0  # caller id after interrupt n: this plus n
LAST_ID: Final = INTERRUPT_ID - 1
_INTERRUPT_CYCLES: Final = 6
_VECTORS: Final = 0xFFE0
_MAX_KEPT: Final = 64  # violations that are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A protected module, as the hardware keeps it."""

    id: int  # 1 to 0xffef, never used again until a reset
    layout: Layout
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that was refused; ``access`` is None where a module was not let in."""

    access: Access | None
    address: int
    pc: int


class Protection:
    """All protected modules of a microcontroller; its :class:`~broch.cpu.msp430.AccessPolicy`."""

    def __init__(self, slots: int = 4, *, as_rtl: bool = False) -> None:
        self.modules: dict[int, Module] = {}
        self.violations: list[Violation] = []  # the first ones, until somebody clears them
        self.previous = 0  # id of what ran before the one that runs now
        self.as_rtl = as_rtl
        self._slots = slots
        self._next_id = 1
        self._current = 0
        self._interrupted: int | None = None  # caller id of the handler that is entered next

    def clear(self) -> None:
        """As after power-on: nothing is protected."""
        self.modules.clear()
        self.violations.clear()
        self.previous = self._current = 0
        self._next_id = 1
        self._interrupted = None

    # Modules

    def at(self, address: int) -> Module | None:
        """The module whose text is at ``address``."""
        for module in self.modules.values():
            layout = module.layout
            if layout.public_start <= address < layout.public_end:
                return module
        return None

    @property
    def is_full(self) -> bool:
        """Whether the hardware has no room for another module."""
        return len(self.modules) >= self._slots or self._next_id > LAST_ID

    def collides(self, layout: Layout) -> bool:
        """Whether the hardware refuses this layout for what is there already."""
        text, secret = layout.text, layout.secret
        if not self.as_rtl and overlap(text, secret):
            return True
        for module in self.modules.values():
            other = module.layout
            if overlap(text, other.text):
                return True
            if not self.as_rtl and (
                overlap(text, other.secret)
                or overlap(secret, other.text)
                or overlap(secret, other.secret)
            ):
                return True
        return False

    def add(self, layout: Layout, key: bytes, *, pc: int = 0) -> Module:
        """Protect a module from now on. The caller has checked that there is room."""
        module = Module(id=self._next_id, layout=layout, key=key)
        self._next_id += 1
        self.modules[module.id] = module
        if pc in layout.text:  # it was running, and goes on as a module
            self.previous, self._current = self._current, module.id
        return module

    def remove(self, module: Module) -> None:
        """Protect it no longer."""
        del self.modules[module.id]
        if self._current == module.id:
            self.previous, self._current = module.id, 0

    # What the CPU asks (AccessPolicy)

    def domains(self) -> Iterable[int]:
        """A domain for each module; its number is the module's id."""
        return tuple(self.modules)

    def domain(self, pc: int) -> int:
        """The domain of code at ``pc``."""
        module = self.at(pc)
        return 0 if module is None else module.id

    def span(self, pc: int) -> range:
        """Addresses around ``pc`` that are of one domain."""
        start, stop = 0, 0x10000
        for module in self.modules.values():
            text = module.layout.text
            if pc in text:
                return text
            if text.stop <= pc:
                start = max(start, text.stop)
            else:
                stop = min(stop, text.start)
        return range(start, stop)

    def refused(self, domain: int) -> Iterable[tuple[range, bool, bool]]:
        """What code of ``domain`` may not touch."""
        for number, module in self.modules.items():
            if number == domain:
                yield module.layout.text, False, True
            else:
                yield module.layout.text, True, True
                yield module.layout.secret, True, True

    def enter(self, cpu: "Cpu", source: int, target: int) -> bool:
        """A module is entered at its first address; leaving it is free."""
        del cpu, source
        module = self.at(target)
        if module is not None and target != module.layout.public_start:
            return False
        self.previous = self._current if self._interrupted is None else self._interrupted
        self._interrupted = None
        self._current = 0 if module is None else module.id
        return True

    def violation(self, cpu: "Cpu", access: Access | None, address: int, pc: int) -> None:
        """Ask for the violation interrupt."""
        if len(self.violations) < _MAX_KEPT:
            self.violations.append(Violation(access=access, address=address, pc=pc))
        cpu.request(VIOLATION_VECTOR)

    def interrupt(self, cpu: "Cpu", vector: int, pc: int) -> bool:
        """Hide a module's registers from the handler."""
        here, handler = self.domain(pc), cpu.bus.words[(_VECTORS >> 1) + vector] & 0xFFFE
        if self.domain(handler) == self._current:
            self.previous = INTERRUPT_ID + vector
        else:
            self._interrupted = INTERRUPT_ID + vector
        if not here:
            return False  # the ordinary way: PC and SR go onto the stack
        cpu.registers[:] = [0] * 16
        cpu.registers[0] = handler
        cpu.cycles += _INTERRUPT_CYCLES
        return True
