"""The control socket of a running application: JSON, one line a message.

    {"do": "status"}                                              -> {"ok": status}
    {"do": "call", "module": m, "name": entry, "value": json}     -> {"ok": result}
    {"do": "emit", "module": m, "name": input, "value": json}     -> {"ok": null}
    {"do": "update", "module": m}                                 -> {"ok": what it did}
    {"do": "device", "module": node, "name": action, "target": peripheral, "value": json}
                                                                  -> {"ok": what can be seen}
    {"do": "events", "follow": bool}                              -> {"event": {...}}, ...
    {"do": "down"}                                                -> {"ok": null}, once all is down

A client begins with the line in ``control.token`` (:meth:`broch.app.home.AppFolder.listen`). What
goes wrong is ``{"error": {"code", "message", "place", "hint"}}``. Only processes of the same
user are heard.
"""

import asyncio
import contextlib
import hmac
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec

from broch.app.home import AppFolder
from broch.app.reports import error_to_data
from broch.errors import BrochError, MalformedError, UntrustedError, UsageError

if TYPE_CHECKING:
    from broch.app.supervisor import Supervisor

MAX_LINE: Final = 4 * 1024 * 1024  # bytes
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a client's."""

    do: str
    module: str = ""
    name: str = ""
    target: str = ""
    value: Any = None
    follow: bool = False


_question: Final = msgspec.json.Decoder(Question)


class ControlServer:
    """Answers clients on the control socket."""

    def __init__(self, supervisor: "Supervisor", folder: AppFolder) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._token = b""
        self._clients: set[asyncio.Task[None]] = set()
        self._downs: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        """Listen."""
        sock = self._folder.listen()
        self._token = self._folder.token()
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_LINE)

    def close(self) -> None:
        """Listen no more, and leave no socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._folder.remove_socket()

    async def stop(self) -> None:
        """Say to those who asked for the end that it has come; hang up on all."""
        self.close()
        for writer in self._downs:
            with contextlib.suppress(OSError):
                writer.write(_line({"ok": None}))
                await writer.drain()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            check_same_user(writer.get_extra_info("socket"))
            if not hmac.compare_digest(await reader.readline(), self._token):
                raise UntrustedError("only who can read control.token may control the application")
            while line := await reader.readline():
                await self._answer(line, writer)
        except BrochError as exc:
            writer.write(_line({"error": error_to_data(exc)}))
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # hung up, a line too long, or the end
        finally:
            self._clients.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            question = _question.decode(line)
            if question.do == "events":
                await self._stream(writer, follow=question.follow)
            elif question.do == "down":
                self._downs.append(writer)
                self._supervisor.end()
            else:
                writer.write(_line({"ok": await self._do(question)}))
        except msgspec.MsgspecError as exc:
            writer.write(_line({"error": error_to_data(MalformedError(f"not a question: {exc}"))}))
        except BrochError as exc:
            writer.write(_line({"error": error_to_data(exc)}))
        await writer.drain()

    async def _do(self, question: Question) -> Any:
        supervisor = self._supervisor
        if question.do == "status":
            await supervisor.refresh()
            return supervisor.status()
        if question.do == "call":
            return await supervisor.call(question.module, question.name, question.value)
        if question.do == "emit":
            return await supervisor.emit(question.module, question.name, question.value)
        if question.do == "update":
            return await supervisor.update(question.module)
        if question.do == "device":
            return await supervisor.operate(
                question.module, question.name, question.target, question.value
            )
        raise UsageError(f"no such question: {question.do!r:.40}")

    async def _stream(self, writer: asyncio.StreamWriter, *, follow: bool) -> None:
        """The last events, then those to come; one that is not followed is hung up on."""
        writer.write(_line({"ok": None}))
        for event in self._supervisor.past():
            writer.write(_line({"event": event}))
        if not follow:
            writer.close()
            return
        queue = self._supervisor.subscribe()
        try:
            while True:
                writer.write(_line({"event": await queue.get()}))
                await writer.drain()
        finally:
            self._supervisor.unsubscribe(queue)


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def check_same_user(sock: socket.socket) -> None:
    """Raise :class:`UntrustedError` unless the peer is a process of this user."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(data)
    if user != os.geteuid():
        raise UntrustedError(f"user {user} may not control an application of user {os.geteuid()}")
