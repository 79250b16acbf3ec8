"""The other end of a running application's control socket, for commands."""

import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from broch.app.control_server import MAX_LINE
from broch.app.home import AppFolder, Home
from broch.app.reports import error_from_data
from broch.errors import InternalError, UsageError

_CHUNK: Final = 65536


class ControlClient:
    """Talks to the supervisor of a running application.

    Args:
        home: where the application has its folder.
        app: its name.
    """

    def __init__(self, home: Home, app: str) -> None:
        folder = home.existing_app(app)
        if folder is None:
            known = ", ".join(home.app_names())
            hint = f"apps that ran here: {known}" if known else "start it with: broch up"
            raise UsageError(f"there is no app {app!r}", hint=hint)
        self._folder: AppFolder = folder

    def status(self) -> dict[str, Any]:
        """All that its supervisor knows; see :meth:`broch.app.supervisor.Supervisor.status`."""
        found: dict[str, Any] = self._ask({"do": "status"})
        return found

    def call(self, module: str, entry: str, arguments: Any = None) -> Any:
        """Call an entry with JSON arguments.

        Raises:
            UsageError: no such entry, or not its arguments.
            PolicyError: the module refused.
        """
        return self._ask({"do": "call", "module": module, "name": entry, "value": arguments})

    def emit(self, module: str, name: str, value: Any) -> None:
        """Send a JSON value to an input, over the operator's own connection.

        Raises:
            UsageError: no such input, or not a value of its type.
            PolicyError: the descriptor connects the operator to no such input.
        """
        self._ask({"do": "emit", "module": module, "name": name, "value": value})

    def update(self, module: str) -> dict[str, Any]:
        """Replace a running module by what its source says now; what was done.

        Raises:
            BrochError: it was not; see :meth:`broch.app.updating.Updater.update`.
        """
        done: dict[str, Any] = self._ask({"do": "update", "module": module})
        return done

    def operate(self, node: str, action: str, target: str = "", value: Any = None) -> Any:
        """Act on a node's emulated peripherals, or look at them; what there is to see.

        Raises:
            UsageError: no such node, action or peripheral.
            PolicyError: no module owns the peripheral.
        """
        return self._ask(
            {"do": "device", "module": node, "name": action, "target": target, "value": value}
        )

    def down(self) -> None:
        """End the application; returns when nothing of it is left."""
        self._ask({"do": "down"})

    def events(self, *, follow: bool = True) -> Iterator[dict[str, Any]]:
        """The last that happened; with ``follow`` also what will, until the application ends."""
        with self._folder.connect() as sock:
            lines = _ask(sock, {"do": "events", "follow": follow})
            _result(next(lines, None))
            for line in lines:
                yield line["event"]

    def _ask(self, question: dict[str, Any]) -> Any:
        with self._folder.connect() as sock:
            return _result(next(_ask(sock, question), None))


def _ask(sock: socket.socket, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Send a question; the lines that come back."""
    try:
        line = msgspec.json.encode(question) + b"\n"
    except UnicodeEncodeError as exc:  # of a shell's bytes, or of half a pair in JSON
        raise UsageError(
            f"not text: {exc.object[exc.start : exc.end]!r:.40} is no character",
            hint="write it in UTF-8",
        ) from None
    if len(line) > MAX_LINE:
        raise UsageError(f"{len(line)} bytes are too many for one question")
    rest = b""
    try:
        sock.sendall(line)
        while part := sock.recv(_CHUNK):
            *whole, rest = (rest + part).split(b"\n")
            for answer in whole:
                yield msgspec.json.decode(answer)
    except (ConnectionError, msgspec.MsgspecError):
        return


def _result(answer: dict[str, Any] | None) -> Any:
    if answer is None:
        raise InternalError("the application ended before it answered")
    if "error" in answer:
        raise error_from_data(answer["error"])
    return answer.get("ok")
