"""Broch: applications whose parts live in trusted execution environments.

>>> from broch import Module, Struct
>>> class Reading(Struct):
...     percent: float
>>> module = Module("sensor")
>>> reading = module.output("reading", Reading)
"""

TYPE_CHECKING = False  # by this name, type checkers know it; importing it takes time
if TYPE_CHECKING:
    from broch.sdk import (
        DeclarationError,
        Module,
        ModuleIdentity,
        Ocall,
        OcallFailed,
        Output,
        Refused,
        Request,
        RequestFailed,
        StoreError,
        Struct,
    )

__all__ = [
    "DeclarationError",
    "Module",
    "ModuleIdentity",
    "Ocall",
    "OcallFailed",
    "Output",
    "Refused",
    "Request",
    "RequestFailed",
    "StoreError",
    "Struct",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """What authors import is loaded when it is asked for: commands begin without it."""
    if not name[:1].isupper():  # a package of ours, which the import system finds
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import broch.sdk as sdk

    return getattr(sdk, name)
