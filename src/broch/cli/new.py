"""``broch new``: a folder with a small application that works, to change from there."""

import shutil
from pathlib import Path
from typing import Final

from broch.cli import output
from broch.errors import UsageError
from broch.image import is_name

_DESCRIPTOR: Final = """\
[app]
name = "{name}"
description = "A thermometer and a fan that share a key"

[nodes.room]
tee = "trustzone"
device = "emulated"

[nodes.cloud]
tee = "sgx"
device = "emulated"

[modules.thermometer]
node = "room"
source = "modules/thermometer.py"
files = ["modules/messages.py"]
[modules.thermometer.ocalls]
measure = "room.py:measure"

[modules.fan]
node = "cloud"
source = "modules/fan.py"
files = ["modules/messages.py"]

[[connections]]
from = "thermometer.temperature"
to = "fan.temperature"

[[connections]]
from = "operator"
to = "fan.limit"

[[connections]]
from = "fan.switched"
to = "operator"

[policy]
emulated = true  # no real hardware yet: fine to learn with, not to trust

[report]
title = "{name}"
summary = "fan.summary"
"""

_MESSAGES: Final = '''\
"""What the modules say to each other."""

from broch import Struct


class Temperature(Struct):
    celsius: float


class Limit(Struct):
    celsius: float


class Switched(Struct):
    on: bool
    celsius: float


class Summary(Struct):
    readings: int
    limit: float
    on: bool
'''

_THERMOMETER: Final = '''\
"""Measures four times a second, and tells the fan."""

from broch import Module

from .messages import Temperature

module = Module("thermometer")
temperature = module.output("temperature", Temperature)
measure = module.ocall("measure", None, float)  # the host answers: its value is not to be trusted


@module.every(0.25)
def tick() -> None:
    celsius = measure(None)
    if -50 <= celsius <= 100:  # a sensor may break
        temperature.emit(Temperature(celsius=celsius))
'''

_FAN: Final = '''\
"""Goes on above a limit that only the operator can set."""

from broch import Module

from .messages import Limit, Summary, Switched, Temperature

module = Module("fan")
switched = module.output("switched", Switched)


class State:
    on = False
    readings = 0


@module.input
def temperature(reading: Temperature) -> None:
    State.readings += 1
    on = reading.celsius > module.store.get("limit", 25.0)
    if on != State.on:
        State.on = on
        switched.emit(Switched(on=on, celsius=reading.celsius))


@module.input
def limit(wanted: Limit) -> None:
    module.store["limit"] = wanted.celsius  # sealed: it survives a restart


@module.entry
def summary() -> Summary:
    return Summary(readings=State.readings, limit=module.store.get("limit", 25.0), on=State.on)
'''

_ROOM: Final = '''\
"""The room, outside all enclaves: the device side of the thermometer."""

import math
import time


def measure(_: None) -> float:
    return 22 + 6 * math.sin(time.monotonic())
'''

_README: Final = """\
# {name}

A thermometer (TrustZone) tells a fan (SGX) how warm it is. Both are attested before they get the
key that they share; whoever stands in between can stop their events, and nothing else.

    broch up app.toml --for 10      # build, measure, load, attest, connect, run

In a second terminal, in this folder:

    broch status
    broch events --follow
    broch emit fan.limit '{{"celsius": 20}}'
    broch call fan.summary
    broch down

`app.toml` says what runs where and who talks to whom, `modules/` is what runs in enclaves, and
`room.py` is the outside world. The TEEs are emulated: nothing here protects from this machine's
owner, until `device = "native"` runs on the real hardware.
"""

_FILES: Final = {
    "app.toml": _DESCRIPTOR,
    "README.md": _README,
    "room.py": _ROOM,
    "modules/messages.py": _MESSAGES,
    "modules/thermometer.py": _THERMOMETER,
    "modules/fan.py": _FAN,
}
_FILLED: Final = ("app.toml", "README.md")  # where {name} is put in


def new(name: str, *, as_json: bool) -> int:
    """Write the files; all of them or, where the folder is there already, none."""
    if not is_name(name):
        raise UsageError(
            "not a name",
            place=name,
            hint="a name begins with a-z and goes on with a-z, 0-9, - or _, at most 64 in all",
        )
    folder = Path(name)
    try:
        folder.mkdir()
        for path, text in _FILES.items():
            file = folder / path
            file.parent.mkdir(exist_ok=True)
            filled = text.format(name=name) if path in _FILLED else text
            file.write_text(filled, encoding="utf-8")
    except FileExistsError:
        raise UsageError(
            "is there already; nothing was written", place=name, hint="choose another name"
        ) from None
    except OSError as exc:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"cannot be written: {exc.strerror}", place=name) from None
    if as_json:
        output.print_json({"app": name, "folder": str(folder.absolute()), "files": list(_FILES)})
    else:
        output.say(f"made {name}/ with {', '.join(_FILES)}")
        output.note(f"hint: run it with: broch up {name}/app.toml --for 10")
    return 0
