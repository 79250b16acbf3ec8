"""The gardener of the raised bed: it opens the tap when the bed is dry, shuts it when it is moist.

Sensor and valve hang on a microcontroller too small for Python; their modules are in C.
"""

from broch import Module, Struct

DRY = 20  # percent of volume; below, the tap is opened
MOIST = 30  # from here on it is shut

module = Module("gardener")


class Percent(Struct):
    percent: int


class Turn(Struct):
    open: bool


tap = module.output("tap", Turn)


class State:
    open = False


@module.input
def moisture(reading: Percent) -> None:
    wanted = reading.percent < (MOIST if State.open else DRY)
    if wanted != State.open:
        State.open = wanted
        tap.emit(Turn(open=wanted))
