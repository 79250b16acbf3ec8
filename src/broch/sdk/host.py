"""What a declared module needs from whatever runs it: the runtime in an enclave, or a test."""

from dataclasses import dataclass
from typing import Any, Protocol


class Refused(Exception):  # noqa: N818 (authors read it as a verb: raise Refused("..."))
    """Raised by an entry or a handler to say no; its text goes to the caller, nothing else does.

    Any other exception ends the enclave: its state may be half done.
    """


class RequestFailed(Exception):  # noqa: N818
    """A request got no answer: the peer is gone, said no, or took too long."""


class OcallFailed(Exception):  # noqa: N818
    """The untrusted host did not answer an ocall."""


class StoreError(Exception):
    """The sealed store cannot be read: it was altered, or an older one was put in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """Who a running module is."""

    app: str
    module: str
    tee: str
    emulated: bool
    measurement: bytes
    signer: bytes | None
    signing_key: bytes  # Ed25519 public key, 32 bytes, of `Module.sign`


class Host(Protocol):
    """The services under a module; ports go by their numbers, values are Python objects."""

    def emit(self, port: int, value: Any) -> None: ...
    def request(self, port: int, value: Any) -> Any: ...
    def ocall(self, port: int, value: Any) -> Any: ...
    def load_store(self) -> dict[str, Any]: ...
    def store_changed(self) -> None: ...
    def derive_key(self, label: str) -> bytes: ...
    def sign(self, data: bytes) -> bytes: ...
    def identity(self) -> ModuleIdentity: ...
