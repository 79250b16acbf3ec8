"""Sources to fill in: modules with the ports that an imported descriptor tells of, and no code.

They build, load and join as they are, and refuse everything that they are sent: until somebody has
written what a module does, it does nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from keyword import kwlist
from typing import Final

from broch.image import PortKind

#: Words that cannot name a function in Python or C, and names that the sources below use.
RESERVED: Final = frozenset(
    [
        *map(str.lower, kwlist),
        *"auto break case char const continue default do double else enum extern float".split(),
        *"for goto if inline int long register restrict return short signed sizeof".split(),
        *"static struct switch typedef union unsigned void volatile while".split(),
        *"bytes data module size".split(),
    ]
)


@dataclass(slots=True, kw_only=True)
class Port:
    """A port, and what it was called in the descriptor."""

    kind: PortKind
    was: str | int
    is_number: bool = False  # what crosses is a number; else it is bytes


@dataclass(slots=True, kw_only=True)
class Skeleton:
    """A module to fill in."""

    name: str
    in_c: bool
    ports: dict[str, Port] = field(default_factory=dict)
    periods: dict[str, float] = field(default_factory=dict)  # seconds, of ports called by the clock

    @property
    def path(self) -> str:
        """Where its source goes, in the application's folder."""
        return f"modules/{self.name}.{'c' if self.in_c else 'py'}"

    def text(self) -> str:
        """Its source."""
        if self.in_c:
            return "\n\n".join(_c_parts(self)) + "\n"
        return "\n\n\n".join(_python_parts(self)) + "\n"


_TO_DO = "made from a descriptor, which does not say what it does: fill it in."


def _python_parts(skeleton: Skeleton) -> Iterator[str]:
    kinds = {port.kind for port in skeleton.ports.values()}
    refuses = kinds & {PortKind.INPUT, PortKind.HANDLER}
    names = "Module, Refused" if refuses else "Module"
    head = [f'"""{skeleton.name}: {_TO_DO}"""', "", f"from broch import {names}", ""]
    head.append(f'module = Module("{skeleton.name}")')
    for name, port in skeleton.ports.items():
        kind = "int" if port.is_number else "bytes"
        if port.kind is PortKind.OUTPUT:
            head.append(f'{name} = module.output("{name}", {kind})')
        elif port.kind is PortKind.REQUEST:
            head.append(f'{name} = module.request("{name}", {kind}, {kind})')
    yield "\n".join(head)
    for name, port in skeleton.ports.items():
        kind = "int" if port.is_number else "bytes"
        refuse = f'    raise Refused("{name} is to be written")'
        if port.kind is PortKind.INPUT:
            yield f"@module.input\ndef {name}(data: {kind}) -> None:\n{refuse}"
        elif port.kind is PortKind.HANDLER:
            yield f"@module.handler\ndef {name}(data: {kind}) -> {kind}:\n{refuse}"
        elif port.kind is PortKind.EVERY:
            period = f"@module.every({skeleton.periods[name]!r})"
            yield f'{period}\ndef {name}() -> None:\n    """To be written."""'


def _c_parts(skeleton: Skeleton) -> Iterator[str]:
    top = [f"/* {skeleton.name}: {_TO_DO} */", "", '#include "broch.h"']
    outputs = [name for name, port in skeleton.ports.items() if port.kind is PortKind.OUTPUT]
    top += ["", *(f"BROCH_OUTPUT({name}, u16);" for name in outputs)] if outputs else []
    yield "\n".join(top)
    for name, port in skeleton.ports.items():
        if port.kind is PortKind.INPUT:
            body = f'    (void)data;\n    broch_refuse("{name} is to be written");'
            yield f"BROCH_INPUT({name}, u16, data)\n{{\n{body}\n}}"
        elif port.kind is PortKind.EVERY:
            milliseconds = round(1000 * skeleton.periods[name])
            yield f"BROCH_EVERY({name}, {milliseconds})\n{{\n    /* to be written */\n}}"
