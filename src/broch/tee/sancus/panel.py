"""The operator's panel of a node: what hands and eyes do to pins and the serial line.

    press    PIN            high, and stays so
    release  PIN            low again
    set      PORT  0-255    all eight pins of a port
    send     uart  text     arrives on the serial line
    show                    all ports, the serial line, who owns what

``PIN`` is ``1.0`` to ``6.7``, ``PORT`` 1 to 6. Only what a module owns can be acted upon: nobody
would hear of the rest, or anybody could say that he did.
"""

import time
from typing import Any, Final

from broch.cpu.msp430 import DigitalPort
from broch.errors import PolicyError, UsageError
from broch.tee.sancus.board import Board

MAX_SEND: Final = 256  # bytes at a time
MAX_HEARD: Final = 4096  # bytes of the serial line that are remembered
_UART: Final = "uart"
_PORTS: Final = tuple("123456")
_HINT: Final = "peripherals: pins 1.0 to 6.7, ports 1 to 6, uart"


class Panel:
    """Acts on a board's peripherals from outside."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._heard = bytearray()
        self._changed: dict[int, int] = {}  # port -> when its outputs last changed
        board.uart.sent = self._hear
        for port in board.ports.values():
            port.changed = self._see

    def _hear(self, byte: int) -> None:
        self._heard.append(byte)
        del self._heard[:-MAX_HEARD]

    def _see(self, port: DigitalPort) -> None:
        self._changed[port.number] = time.monotonic_ns()

    def operate(self, action: str, target: str, value: Any) -> dict[str, Any]:
        """Do one thing; see the module's docstring.

        Raises:
            UsageError: no such action, no such peripheral, not such a value.
            PolicyError: no module owns the peripheral.
        """
        if action in ("press", "release"):
            port, pin = self._pin(target)
            port.drive(pin, high=action == "press")
        elif action == "set":
            self._set(target, value)
        elif action == "send":
            self._send(target, value)
        elif action != "show":
            raise UsageError(f"no such action: {action!r:.40}")
        return self.show()

    def show(self) -> dict[str, Any]:
        """All that can be seen from outside."""
        return {
            "ports": [self._port_data(port) for port in self._board.ports.values()],
            "uart": {
                "owner": self._owner(self._board.uart.addresses),
                "said": self._heard.decode("latin-1"),
            },
            "modules": [loaded.file.module.name for loaded in self._board.loaded],
        }

    def _port_data(self, port: DigitalPort) -> dict[str, Any]:
        return {
            "port": port.number,
            "owner": self._owner(port.addresses),
            "in": port.input,
            "out": port.output,
            "outputs": port.driven,
            "changed_ns": self._changed.get(port.number),  # by the machine's monotonic clock
        }

    def _set(self, target: str, value: Any) -> None:
        port = self._port(target)
        if type(value) is not int or not 0 <= value <= 255:
            raise UsageError(f"port {target} has eight pins: expected 0 to 255, got {value!r:.40}")
        for pin in range(8):
            port.drive(pin, high=bool(value >> pin & 1))

    def _send(self, target: str, value: Any) -> None:
        if target != _UART:
            raise _unknown(target, _UART)
        if not isinstance(value, str) or not 0 < len(value.encode()) <= MAX_SEND:
            raise UsageError(f"expected 1 to {MAX_SEND} bytes of text to send")
        self._check_owned(_UART, self._board.uart.addresses)
        self._board.uart.receive(value.encode())

    def _pin(self, target: str) -> tuple[DigitalPort, int]:
        number, dot, pin = target.partition(".")
        if not dot or number not in _PORTS or pin not in tuple("01234567"):
            raise _unknown(target, "a pin")
        return self._port(number), int(pin)

    def _port(self, number: str) -> DigitalPort:
        if number not in _PORTS:
            raise _unknown(number, "a port")
        port = self._board.ports[int(number)]
        self._check_owned(f"port {number}", port.addresses)
        return port

    def _check_owned(self, what: str, addresses: tuple[range, ...]) -> None:
        if self._owner(addresses) is None:
            raise PolicyError(
                f"no driver owns {what}",
                hint="a module with a driver for it must be loaded on this node",
            )

    def _owner(self, addresses: tuple[range, ...]) -> str | None:
        """The module whose driver owns all of these addresses."""
        for loaded in self._board.loaded:
            for driver in loaded.file.drivers:
                secret = driver.layout.secret
                if all(part[0] in secret and part[-1] in secret for part in addresses):
                    return loaded.file.module.name
        return None


def _unknown(target: str, expected: str) -> UsageError:
    return UsageError(f"unknown peripheral {target!r:.40}, expected {expected}", hint=_HINT)
