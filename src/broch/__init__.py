"""Broch: applications whose parts live in trusted execution environments.

>>> from broch import Module, Struct
>>> class Reading(Struct):
...     percent: float
>>> module = Module("sensor")
>>> reading = module.output("reading", Reading)
"""

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
