"""The gateway: a press becomes a toggle for the LED and a count for the database."""

from broch import Module, Struct

module = Module("gateway")


class Press(Struct):
    number: int  # since the button was started


toggle = module.output("toggle", Press)
count = module.output("count", Press)


@module.input
def pressed(press: Press) -> None:
    toggle.emit(press)
    count.emit(press)
