"""``broch new``: a folder with a small application that works, to change from there."""

import shutil
from pathlib import Path
from typing import Final

from broch.cli import output
from broch.errors import UsageError
from broch.image import NAME_RULE, is_name

_DESCRIPTOR: Final = """\
[app]
name = "{name}"
description = "A sensor, a controller and a fan that trust each other and nothing else"

[nodes.room]
tee = "trustzone"
device = "emulated"

[nodes.cloud]
tee = "sgx"
device = "emulated"

[modules.sensor]
node = "room"
source = "modules/sensor.py"
files = ["modules/messages.py"]
[modules.sensor.ocalls]
measure = "room.py:measure"

[modules.controller]
node = "cloud"
source = "modules/controller.py"
files = ["modules/messages.py"]

[modules.fan]
node = "room"
source = "modules/fan.py"
files = ["modules/messages.py"]
[modules.fan.ocalls]
turn = "room.py:turn"

[[connections]]
from = "sensor.reading"
to = "controller.reading"

[[connections]]
from = "controller.fan"
to = "fan.switch"

[[connections]]
from = "operator"
to = "controller.set_limit"

[[connections]]
from = "fan.switched"
to = "operator"

[policy]
emulated = true  # no real hardware yet: fine to learn with, not to trust

[report]
title = "{name}"
summary = "controller.summary"
"""

_MESSAGES: Final = '''\
"""What the modules say to each other."""

from broch import Struct


class Reading(Struct):
    celsius: float


class Fan(Struct):
    on: bool


class Summary(Struct):
    readings: int
    switched: int
    limit: float
'''

_SENSOR: Final = '''\
"""Measures four times a second, and tells the controller."""

from broch import Module

from .messages import Reading

module = Module("sensor")
reading = module.output("reading", Reading)
measure = module.ocall("measure", None, float)  # the host answers: its value is not to be trusted


@module.every(0.25)
def tick() -> None:
    celsius = measure(None)
    if -50 <= celsius <= 100:  # a sensor may break
        reading.emit(Reading(celsius=celsius))
'''

_CONTROLLER: Final = '''\
"""Switches the fan on above a limit, which only the operator can set."""

from broch import Module

from .messages import Fan, Reading, Summary

module = Module("controller")
fan = module.output("fan", Fan)


class State:
    on = False
    readings = 0
    switched = 0


@module.input
def reading(value: Reading) -> None:
    State.readings += 1
    on = value.celsius > limit()
    if on != State.on:
        State.on = on
        State.switched += 1
        fan.emit(Fan(on=on))


@module.input
def set_limit(wanted: Reading) -> None:
    module.store["limit"] = wanted.celsius  # sealed: it survives a restart


@module.entry
def limit() -> float:
    return module.store.get("limit", 27.0)


@module.entry
def summary() -> Summary:
    return Summary(readings=State.readings, switched=State.switched, limit=limit())
'''

_FAN: Final = '''\
"""Turns as the controller says, and reports to the operator."""

from broch import Module

from .messages import Fan

module = Module("fan")
switched = module.output("switched", Fan)
turn = module.ocall("turn", bool, None)


@module.input
def switch(order: Fan) -> None:
    turn(order.on)
    switched.emit(order)
'''

_ROOM: Final = '''\
"""The room, outside all enclaves: what the sensor measures, and the fan's motor."""

import math
import time


def measure(_: None) -> float:
    return 25 + 5 * math.sin(time.monotonic())


def turn(on: bool) -> None:
    """Nothing to turn yet."""
'''

_README: Final = """\
# {name}

A sensor and a fan in a room (TrustZone), a controller in the cloud (SGX). All are attested before
they get the keys that they share; whoever stands in between can stop their events, and do nothing
else.

    broch up app.toml --for 20      # build, measure, load, attest, connect, run

In a second terminal, in this folder:

    broch status
    broch events --follow
    broch emit controller.set_limit '{{"celsius": 20}}'
    broch call controller.limit
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
    "modules/sensor.py": _SENSOR,
    "modules/controller.py": _CONTROLLER,
    "modules/fan.py": _FAN,
}
_FILLED: Final = ("app.toml", "README.md")  # where {name} is put in


def new(name: str, *, as_json: bool) -> int:
    """Write the files; all of them or, where the folder is there already, none."""
    if not is_name(name):
        raise UsageError(
            "not a name",
            place=name,
            hint=NAME_RULE,
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
        output.note(f"hint: run it with: broch up {name}/app.toml --for 20")
    return 0
