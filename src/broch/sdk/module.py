"""How an author declares a module: one object, whose calls and decorators name every way in or out.

>>> from broch import Module, Struct
>>> class Moisture(Struct):
...     percent: float
>>> module = Module("controller")
>>> @module.input
... def moisture(reading: Moisture) -> None: ...
>>> [port.name for port in module.interface().ports]
['moisture']
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from broch.image import Interface, PortKind
from broch.image.interface import MAX_PORTS
from broch.sdk import declare
from broch.sdk.declare import DeclarationError, Declared
from broch.sdk.host import Host, ModuleIdentity, Refused
from broch.sdk.store import Store

_MAX_LABEL: Final = 48  # bytes of a key's label, so that it fits a device's
_RESERVED: Final = b"broch/"  # how everything begins that Broch itself signs

T = TypeVar("T")
R = TypeVar("R")
Function = TypeVar("Function", bound=Callable[..., Any])


class Output(Generic[T]):
    """An end from which events go out."""

    def __init__(self, module: "Module", number: int) -> None:
        self._module = module
        self._number = number

    def emit(self, value: T) -> None:
        """Send ``value`` over every connection of this output; nowhere if there is none."""
        self._module._running().emit(self._number, value)


class Request(Generic[T, R]):
    """A question to another module's handler."""

    def __init__(self, module: "Module", number: int) -> None:
        self._module = module
        self._number = number

    def __call__(self, value: T) -> R:
        """Ask, and wait for the answer.

        Raises:
            RequestFailed: the peer is gone, said no, or took too long.
        """
        result: R = self._module._running().request(self._number, value)
        return result


class Ocall(Generic[T, R]):
    """A question to the untrusted host. Its answer is well typed, and otherwise anything."""

    def __init__(self, module: "Module", number: int) -> None:
        self._module = module
        self._number = number

    def __call__(self, value: T) -> R:
        """Ask, and wait for the answer.

        Raises:
            OcallFailed: the host has none.
        """
        result: R = self._module._running().ocall(self._number, value)
        return result


class Module:
    """A program that runs in one enclave.

    Args:
        name: what the module is called, for people; the descriptor's name is what counts.
    """

    def __init__(self, name: str) -> None:
        self.name = declare.check_name(name, declare.caller_place())
        self.store = Store()
        self._declared: list[Declared] = []
        self._export: Callable[[], Any] | None = None
        self._import: Callable[[Any], None] | None = None
        self._host: Host | None = None

    # What the module declares.

    def input(self, function: Function) -> Function:
        """Declare a function of one typed parameter as an input."""
        self._declare(declare.one_argument(PortKind.INPUT, function))
        return function

    def handler(self, function: Function) -> Function:
        """Declare a function of one typed parameter that answers requests."""
        self._declare(declare.one_argument(PortKind.HANDLER, function))
        return function

    def entry(self, function: Function) -> Function:
        """Declare a function that anyone may call, the untrusted host included."""
        self._declare(declare.entry(function))
        return function

    def every(self, seconds: float) -> Callable[[Function], Function]:
        """Declare a function that the host calls again and again; its clock is untrusted."""
        declare.check_period(seconds)

        def decorate(function: Function) -> Function:
            self._declare(declare.periodic(function, seconds))
            return function

        return decorate

    def output(self, name: str, kind: type[T]) -> Output[T]:
        """Declare an output of events of this type."""
        return Output(self, self._declare(declare.bare(PortKind.OUTPUT, name, kind)))

    def request(self, name: str, ask: type[T], reply: type[R]) -> Request[T, R]:
        """Declare a request to another module's handler."""
        return Request(self, self._declare(declare.bare(PortKind.REQUEST, name, ask, reply)))

    def ocall(self, name: str, argument: type[T], result: type[R]) -> Ocall[T, R]:
        """Declare a call to the untrusted host."""
        return Ocall(self, self._declare(declare.bare(PortKind.OCALL, name, argument, result)))

    def export_state(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Declare the function that gives the state a successor takes over (plain values)."""
        declare.check_state_function(function, 0)
        self._set_once("_export", function)
        return function

    def import_state(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """Declare the function that takes over a predecessor's state."""
        declare.check_state_function(function, 1)
        self._set_once("_import", function)
        return function

    def interface(self) -> Interface:
        """All that was declared, in order."""
        return Interface(tuple(declared.port for declared in self._declared))

    # What the module may use while it runs.

    @property
    def identity(self) -> ModuleIdentity:
        """Who this module is, as its device knows it."""
        return self._running().identity()

    def derive_key(self, label: str) -> bytes:
        """A 32-byte secret of this module on this device, the same after every restart.

        Raises:
            ValueError: ``label`` has not 1 to 48 bytes in UTF-8.
        """
        size = len(label.encode())
        if not 0 < size <= _MAX_LABEL:
            raise ValueError(f"a label has 1 to {_MAX_LABEL} bytes, this one {size}")
        return self._running().derive_key(label)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature (64 bytes) under the key that ``identity.signing_key`` verifies.

        Raises:
            Refused: ``data`` begins with ``broch/``, as messages do that Broch signs with this key.
        """
        if data[: len(_RESERVED)] == _RESERVED:
            raise Refused("what begins with broch/ is not signed")
        return self._running().sign(data)

    # What the runtime uses.

    def _declare(self, declared: Declared) -> int:
        if self._host is not None:
            raise DeclarationError(
                f"{declared.port.name} is declared while the module runs", place=declared.place
            )
        if len(self._declared) >= MAX_PORTS:
            raise DeclarationError(f"more than {MAX_PORTS} ports", place=declared.place)
        for other in self._declared:
            if other.port.name == declared.port.name:
                raise DeclarationError(
                    f"{declared.port.kind} {declared.port.name} is declared already, as "
                    f"{other.port.kind} at {other.place}",
                    place=declared.place,
                )
        self._declared.append(declared)
        return len(self._declared) - 1

    def _set_once(self, attribute: str, function: Callable[..., Any]) -> None:
        if getattr(self, attribute) is not None:
            raise DeclarationError(
                f"a second {attribute.strip('_')}_state", place=declare.function_place(function)
            )
        setattr(self, attribute, function)

    def _attach(self, host: Host) -> None:
        self._host = host
        self.store._attach(host)

    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeError(f"module {self.name} is not running: ports work in functions only")
        return self._host
