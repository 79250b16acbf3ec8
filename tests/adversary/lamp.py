"""The application of the papers under attack: a button lights a lamp, through three TEEs.

    operator's panel      hall (Sancus)      edge (TrustZone)     lamp (Sancus)
      press 1.0  ------>  button --1-->      gateway   --2-->     led  ------> pin 2.0
                                                                   +--3--> operator: what it did

The promise: the lamp changes once for each press that was made, in their order, and for nothing
else.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.unit.tee.sancus.c_module import compiled

from .world import Plan, World

_APP: Final = """
[app]
name = "{name}"
[nodes.hall]
tee = "sancus"
device = "emulated"
[nodes.hall.peripherals]
button = "1.0"
[nodes.edge]
tee = "trustzone"
device = "emulated"
[nodes.lamp]
tee = "sancus"
device = "emulated"
[modules.button]
node = "hall"
source = "button.elf"
[modules.gateway]
node = "edge"
source = "gateway.py"
[modules.led]
node = "lamp"
source = "led.elf"
{led}
[[connections]]
from = "button.pressed"
to = "gateway.pressed"
cipher = "spongent-128"
[[connections]]
from = "gateway.light"
to = "led.set"
cipher = "spongent-128"
[[connections]]
from = "led.changed"
to = "operator"
cipher = "spongent-128"
[policy]
emulated = true
"""
BUTTON: Final = """
#include "broch.h"

BROCH_DRIVER(pins, 0x20, 0x28);
BROCH_STRUCT(Press, (u16, count));
BROCH_OUTPUT(pressed, Press);
static u16 count;

BROCH_START
{
    broch_write(pins, BROCH_P1IE, 1);
}

BROCH_INTERRUPT(edge, 2)
{
    if (broch_read(pins, BROCH_P1IFG) & 1) {
        broch_clear(pins, BROCH_P1IFG, 1);
        Press press = {++count};
        pressed(&press);
    }
}
"""
LED: Final = """
#include "broch.h"

BROCH_DRIVER(leds, 0x28, 0x30);
BROCH_STRUCT(Light, (u16, count));
BROCH_OUTPUT(changed, Light);

BROCH_START
{
    broch_write(leds, BROCH_P2DIR, 1);
}

BROCH_INPUT(set, Light, light)
{
    broch_toggle(leds, BROCH_P2OUT, 1);
    changed(light);
}

BROCH_ENTRY(ping, none, ask, u16, reply)
{
    (void)ask;
    *reply = 7;
}
"""
_GATEWAY: Final = """
from broch import Module, Struct

class Press(Struct):
    count: int

class Light(Struct):
    count: int

module = Module("gateway")
light = module.output("light", Light)

@module.input
def pressed(press: Press) -> None:
    light.emit(Light(count=press.count))
"""


@dataclass(slots=True, kw_only=True)
class LampPlan(Plan):
    """The button and its lamp."""

    led: str = ""  # more of [modules.led]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.toml").write_text(_APP.format(name=self.name, led=self.led))
        (folder / "button.elf").write_bytes(compiled(BUTTON, "button"))
        (folder / "led.elf").write_bytes(compiled(LED, "led"))
        (folder / "gateway.py").write_text(_GATEWAY)
        return folder / "app.toml"


class Lamp:
    """A running one, and what was done to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.presses = 0
        self.seen: list[int] = []  # what the lamp reported: which press it changed for

    async def press(self) -> int:
        """Press the button and let it go; the number of the press."""
        for action in ("press", "release"):
            await self.world.supervisor.operate("hall", action, "button", None)
        self.presses += 1
        return self.presses

    async def until(self, press: int) -> None:
        """Read the journal until the lamp changed for this press."""
        while press not in self.seen:
            event = await self.world.next(kind="event", module="led")
            self.seen.append(event["value"]["count"])

    async def is_lit(self) -> bool:
        """Whether pin 2.0 is high, which anybody can see."""
        seen: dict[str, Any] = await self.world.supervisor.operate("lamp", "show", "", None)
        return bool(seen["ports"][1]["out"] & 1)

    async def check(self) -> None:
        """The promise."""
        await asyncio.sleep(0)
        assert self.seen == sorted(set(self.seen)), f"twice or out of order: {self.seen}"
        assert set(self.seen) <= set(range(1, self.presses + 1)), f"nobody pressed: {self.seen}"
        assert await self.is_lit() == bool(len(self.seen) % 2), "the lamp changed for nothing"
