"""The database: how many presses there were, kept sealed, so that they survive a restart."""

from broch import Module, Struct

module = Module("database")


class Press(Struct):
    number: int


class Summary(Struct):
    presses: int


@module.input
def count(press: Press) -> None:
    module.store["presses"] = module.store.get("presses", 0) + 1


@module.entry
def summary() -> Summary:
    """For the page, and for whoever else asks: a number of presses is no secret."""
    return Summary(presses=module.store.get("presses", 0))
