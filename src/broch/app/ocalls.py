"""The host's side of ocalls and stores: a thread for each module, which keeps their order.

A host function is named ``path.py:function``. It takes the ocall's argument as plain data (a dict
for a struct) and returns plain data. What it raises reaches the module as a failed ocall, with the
exception's type and nothing else.
"""

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import msgspec

from broch.enclave.device_folder import write_private
from broch.enclave.messages import RETURN, Kind
from broch.enclave.ring import MAX_MESSAGE
from broch.errors import UsageError

Answer = Callable[[bytes], None]  # called in the module's thread with a message for the enclave
_imported: dict[str, ModuleType] = {}


class HostWork:
    """What the host does for one module.

    Args:
        name: the module's, for the thread.
        functions: port -> (file, function).
        store: the file of the module's sealed store.
    """

    def __init__(self, name: str, functions: Mapping[int, tuple[str, str]], store: Path) -> None:
        self._name = name
        self._functions = functions
        self._found: dict[int, Callable[[Any], Any]] = {}
        self._store = store
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        """Import the host functions; raises :class:`UsageError`."""
        for port, (path, function) in self._functions.items():
            self._found[port] = find_function(path, function)

    def submit(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the module's thread, after what was submitted before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(work)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def close(self) -> None:
        """Let the thread end once it is idle."""
        self._queue.put(None)

    def call(self, number: int, port: int, argument: bytes, answer: Answer) -> None:
        """Serve an ocall."""
        self.submit(lambda: answer(self._call(number, port, argument)))

    def _call(self, number: int, port: int, argument: bytes) -> bytes:
        try:
            value = self._found[port](msgspec.msgpack.decode(argument))
            result = msgspec.msgpack.encode(value)
            if len(result) > MAX_MESSAGE - RETURN.size:
                raise OverflowError
        except BaseException as exc:  # noqa: BLE001 (host functions are anybody's code)
            text = "no such ocall" if isinstance(exc, KeyError) else type(exc).__name__
            return RETURN.pack(Kind.NORETURN, number) + text.encode()[:200]
        return RETURN.pack(Kind.RETURN, number) + result

    def load(self, answer: Answer) -> None:
        """Read the sealed store; an absent one is empty."""
        self.submit(lambda: answer(bytes([Kind.LOADED]) + self._read()))

    def _read(self) -> bytes:
        try:
            with self._store.open("rb") as file:
                return file.read(MAX_MESSAGE - 1)
        except OSError:
            return b""

    def save(self, blob: bytes, answer: Answer, failed: Callable[[str], None]) -> None:
        """Keep a sealed store, so that it is there whole or not at all."""

        def work() -> None:
            try:
                write_private(self._store, blob)
            except OSError as exc:
                failed(f"its store cannot be kept: {exc.strerror}")
            else:
                answer(bytes([Kind.SAVED]))

        self.submit(work)


def find_function(path: str, function: str) -> Callable[[Any], Any]:
    """The host function of that name; its file is imported once.

    Raises:
        UsageError: the file does not load, or has no such function.
    """
    name = os.path.basename(path)
    if path not in _imported:
        try:
            _imported[path] = _import(path)
        except BaseException as exc:  # noqa: BLE001 (host functions are anybody's code)
            problem = f"cannot be imported: {type(exc).__name__}: {exc}"
            raise UsageError(problem, place=name) from None
    found = getattr(_imported[path], function, None)
    if not callable(found):
        raise UsageError(f"has no function {function}", place=name)
    wanted: Callable[[Any], Any] = found
    return wanted


def _import(path: str) -> ModuleType:
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(f"host_{len(_imported)}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
