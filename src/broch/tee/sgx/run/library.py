"""Call a library enclave from any thread of Python.

The enclave runs in a thread of its own, which alone may drive an engine. A call waits for a TCS
that is free, is posted to that thread, and waits for its answer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from broch.errors import UsageError
from broch.tee.sgx.run.abi import BYTE_BUFFER
from broch.tee.sgx.run.ends import BadPointerError, EnclaveError, EnclaveFaultError
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.user_memory import UserMemory
from broch.tee.sgx.run.waiting import Answer

_WORD = 8  # bytes
_PARAMETERS = 5  # of EENTER


class Reply(NamedTuple):
    """What a call returns."""

    value: int  # of the function, 32 bits with a sign
    data: bytes  # what it replied besides


class _StoppedError(Exception):
    """The host wants no more."""


class Library:
    """An enclave that waits for calls."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        """Start its thread; ``make`` is called there.

        Raises:
            BrochError: what ``make`` raised.
        """
        self._made: Future[Runner] = Future()
        self._calls: set[Future[Answer]] = set()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(make,), name="broch-enclave", daemon=True
        )
        self._thread.start()
        self._runner = self._made.result()
        self._free = threading.Semaphore(len(self._runner.enclave.threads))

    @property
    def engine(self) -> str:
        """The name of its engine."""
        return self._runner.engine.name

    @property
    def memory(self) -> UserMemory:
        """What it shares with its host."""
        return self._runner.memory

    def enter(self, *parameters: int) -> Answer:
        """EENTER with up to five numbers; RSI and RDX of the return.

        Raises:
            UsageError: more than five.
            EnclaveError: the enclave ended, now or earlier.
        """
        if len(parameters) > _PARAMETERS:
            raise UsageError(f"EENTER with {len(parameters)} numbers; it has {_PARAMETERS} at most")
        values = [value & 2**64 - 1 for value in parameters]
        values += [0] * (_PARAMETERS - len(values))
        future: Future[Answer] = Future()
        with self._free:
            with self._lock:
                if self._error is not None:
                    raise self._error
                self._calls.add(future)
            self._runner.post(lambda: self._enter(values, future))
            return future.result()

    def call(self, number: int, data: bytes = b"") -> Reply:
        """Call the function of that number in an enclave of Broch's C kit (``broch_call``).

        Raises:
            EnclaveError: the enclave ended, or what it answered cannot be true.
        """
        if self._error is not None:
            raise self._error
        memory = self.memory
        size = max(len(data), 1)
        place, out = memory.alloc(size, _WORD), memory.alloc(BYTE_BUFFER.size, _WORD)
        if place is None or out is None:
            raise EnclaveFaultError("user memory is used up: no room for the data of a call")
        try:
            memory.write(place, data)
            memory.write(out, bytes(BYTE_BUFFER.size))
            value, _ = self.enter(number, place if data else 0, len(data), out)
            return Reply(_signed(value), self._take(out))
        finally:
            memory.free(place, size, _WORD)
            memory.free(out, BYTE_BUFFER.size, _WORD)

    def _take(self, out: int) -> bytes:
        """The reply that the enclave left, whose memory is ours to release."""
        address, size = BYTE_BUFFER.unpack(self.memory.read(out, BYTE_BUFFER.size))
        if not size:
            return b""
        try:
            data = self.memory.read(address, size)
        except BadPointerError:
            raise EnclaveFaultError(
                f"the enclave says that its reply is {size} bytes at 0x{address:x}, which is not "
                "user memory"
            ) from None
        self.memory.free(address, -(-size // _WORD) * _WORD, _WORD)
        return data

    def close(self) -> None:
        """End it; calls that wait for it fail."""
        if self._thread.is_alive():
            self._runner.post(_stop)
            self._thread.join()
        self.memory.close()

    def _run(self, make: Callable[[], Runner]) -> None:
        try:
            runner = make()
        except BaseException as exc:  # noqa: BLE001 (the caller's thread raises it)
            self._made.set_exception(exc)
            return
        error: BaseException = EnclaveError("the enclave has exited")
        try:
            self._made.set_result(runner)
            runner.serve()
        except _StoppedError:
            error = EnclaveError("the enclave was closed")
        except BaseException as exc:  # noqa: BLE001 (likewise)
            error = exc
        with self._lock:
            self._error = error
            calls, self._calls = self._calls, set()
        runner.stop()
        for call in calls:
            call.set_exception(error)

    def _enter(self, values: list[int], future: "Future[Answer]") -> None:
        """In the enclave's thread."""
        thread = self._runner.free_thread()
        assert thread is not None, "as many calls at a time as there are threads"

        def returned(answer: Answer) -> None:
            with self._lock:
                self._calls.discard(future)
            future.set_result(answer)

        self._runner.enter(thread, values, returned)


def _stop() -> None:
    raise _StoppedError


def _signed(value: int) -> int:
    """32 bits with a sign, of a register.

    Raises:
        EnclaveFaultError: it holds more.
    """
    number = value - (1 << 64) if value >> 63 else value
    if not -(2**31) <= number < 2**31:
        raise EnclaveFaultError(f"the enclave returned 0x{value:x}, which has more than 32 bits")
    return number
