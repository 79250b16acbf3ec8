"""From a press on an emulated pin to the LED on another, through three TEEs.

    press 1.0 -> button (Sancus) -> gateway (TrustZone) -> led (Sancus) -> pin 2.0 high

The whole application runs as `broch up` runs it, each node with its own processes. A press is an
order to the first node's device; the end is the moment at which the second node's device sees its
output pin change, told by the same clock. Where the time goes: the work of each part alone,
measured in this process on the same modules; what is left is processes, sockets and rings between
them.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from common import Figure, run

from broch.app.descriptor import load
from broch.app.home import Home
from broch.app.supervisor import Supervisor
from broch.crypto.channel import Direction, Opener, Sealer
from broch.enclave.hosted import HostedEnclave
from broch.enclave.join import Connection
from broch.enclave.keyed_join import KeyedGrants
from broch.enclave.messages import SEALED, Kind
from broch.tee.contract import CompileSettings, DeviceSettings
from broch.tee.sancus import TEE
from broch.tee.sancus.device import SancusDevice

PRESSES = 60
WARM = 40
APP = """
[app]
name = "bench-button"
[nodes.hall]
tee = "sancus"
device = "emulated"
[nodes.edge]
tee = "trustzone"
device = "emulated"
[nodes.lamp]
tee = "sancus"
device = "emulated"
[modules.button]
node = "hall"
source = "button.c"
[modules.gateway]
node = "edge"
source = "gateway.py"
[modules.led]
node = "lamp"
source = "led.c"
[[connections]]
from = "button.pressed"
to = "gateway.pressed"
cipher = "spongent-128"
[[connections]]
from = "gateway.light"
to = "led.set"
cipher = "spongent-128"
[policy]
emulated = true
"""
BUTTON = """
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
LED = """
#include "broch.h"

BROCH_DRIVER(leds, 0x28, 0x30);
BROCH_STRUCT(Light, (bool, on));

BROCH_START
{
    broch_write(leds, BROCH_P2DIR, 1);
}

BROCH_INPUT(set, Light, light)
{
    if (light->on)
        broch_set(leds, BROCH_P2OUT, 1);
    else
        broch_clear(leds, BROCH_P2OUT, 1);
}
"""
GATEWAY = """
from broch import Module, Struct

class Press(Struct):
    count: int

class Light(Struct):
    on: bool

module = Module("gateway")
light = module.output("light", Light)

@module.input
def pressed(press: Press) -> None:
    light.emit(Light(on=press.count % 2 == 1))
"""


def _write(folder: Path) -> Path:
    files = {"app.toml": APP, "button.c": BUTTON, "led.c": LED, "gateway.py": GATEWAY}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder / "app.toml"


async def _whole(folder: Path) -> list[float]:
    """Milliseconds from the order of each press to the LED's change."""
    supervisor = Supervisor(load(_write(folder)), Home(folder / "home"))
    times = []
    try:
        await supervisor.start()
        for number in range(1, WARM + PRESSES + 1):
            begin = time.monotonic_ns()
            await supervisor.operate("hall", "press", "1.0", None)
            await asyncio.sleep(0.02)  # looking takes time of the node that is measured
            seen = await supervisor.operate("lamp", "show", "", None)
            deadline = time.monotonic() + 30
            while bool(seen["ports"][1]["out"] & 1) != bool(number % 2):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"press {number} does not light the LED")
                await asyncio.sleep(0.01)
                seen = await supervisor.operate("lamp", "show", "", None)
            times.append((seen["ports"][1]["changed_ns"] - begin) / 1e6)
            await supervisor.operate("hall", "release", "1.0", None)
    finally:
        await supervisor.stop()
    return times[WARM:]


class NoMemory:
    """A microcontroller remembers nothing."""

    def get(self, name: str) -> bytes | None:
        """Nothing, whatever it is called."""
        del name
        return None

    def put(self, name: str, value: bytes) -> None:
        """Nothing is kept."""


class Part:
    """One module with its device in this process, joined by one connection."""

    def __init__(self, folder: Path, name: str, port: str, role: str, connection: int) -> None:
        now = datetime.now(UTC)
        self.device = SancusDevice(
            DeviceSettings(name=name, secret=os.urandom(32), nv=NoMemory(), now=now)
        )
        endorsements = self.device.endorsements()
        packed = TEE.compile(folder / f"{name}.c", CompileSettings(name=name), None).packed
        word = TEE.authorise(packed, endorsements)
        self.enclave = HostedEnclave(self.device.install(replace(packed, signature=word)))
        self.enclave.start()
        (evidence,) = self.enclave.take(bytes([Kind.CHALLENGE]) + bytes(32))
        grants = KeyedGrants(TEE.module_key(packed, endorsements), TEE.module_nonce(evidence[1:]))
        granted = Connection(connection, role, port, "", "spongent-128", bytes(16), 1)  # type: ignore[arg-type]
        sealed, confirm = grants.grant(granted, TEE.numbers(packed)[port])
        assert self.enclave.take(bytes([Kind.GRANT]) + sealed) == [bytes([Kind.CONFIRM]) + confirm]


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def _parts(folder: Path) -> dict[str, float]:
    """Milliseconds (p50) of each part's own work."""
    button = Part(folder, "button", "pressed", "output", 1)
    led = Part(folder, "led", "set", "input", 2)
    opener = Opener("spongent-128", bytes(16), connection=1, direction=Direction.FORWARD, epoch=1)
    sealer = Sealer("spongent-128", bytes(16), connection=2, direction=Direction.FORWARD, epoch=1)
    times: dict[str, list[float]] = {name: [] for name in ("button", "open", "seal", "led")}
    for number in range(WARM + PRESSES):
        said: list[bytes] = []

        def press(said: list[bytes] = said) -> None:
            button.device.operate("press", "1.0", None)
            for vector in button.device.interrupts():
                said += button.enclave.interrupted(vector)

        times["button"].append(_timed(press))
        button.device.operate("release", "1.0", None)
        _, _, _, counter = SEALED.unpack_from(said[0])
        times["open"].append(_timed(lambda: opener.open(counter, said[0][SEALED.size :])))  # noqa: B023
        plain = b"\x81\xa2on" + (b"\xc3" if number % 2 == 0 else b"\xc2")
        sealed: list[bytes] = []

        def seal(plain: bytes = plain, sealed: list[bytes] = sealed) -> None:
            count, cipher = sealer.seal(plain)
            sealed.append(SEALED.pack(Kind.EVENT, 2, 1, count) + cipher)

        times["seal"].append(_timed(seal))
        times["led"].append(_timed(lambda: led.enclave.take(sealed[0])))  # noqa: B023
        assert bool(led.device.board.ports[2].output & 1) == (number % 2 == 0)
    return {name: statistics.median(found[WARM:]) for name, found in times.items()}


def figures() -> list[Figure]:
    """Measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = statistics.median(asyncio.run(_whole(folder)))
        parts = _parts(folder)
    named = {
        "button_ms": parts["button"],
        "gateway_open_ms": parts["open"],
        "gateway_seal_ms": parts["seal"],
        "led_ms": parts["led"],
    }
    rest = whole - sum(named.values())
    return [
        Figure(name="press_to_led_ms", value=whole, unit="ms", bar="<= 50"),
        *(Figure(name=name, value=value, unit="ms") for name, value in named.items()),
        Figure(name="processes_and_sockets_ms", value=rest, unit="ms"),
    ]


if __name__ == "__main__":
    run(figures)
