"""What module authors import; :mod:`broch` re-exports all of it."""

from broch.sdk.declare import DeclarationError
from broch.sdk.host import ModuleIdentity, OcallFailed, Refused, RequestFailed, StoreError
from broch.sdk.module import Module, Ocall, Output, Request
from broch.sdk.shapes import Struct

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
