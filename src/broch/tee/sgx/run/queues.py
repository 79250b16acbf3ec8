"""Asynchronous usercalls: three queues in user memory (fortanix-sgx-abi, module ``async``).

    FifoDescriptor   u64 address of the elements, u64 how many (a power of two), u64 address of
                     the offsets: u32 read, u32 write; each counts to twice the length
    element          u64 id, 0 while it is not there; then
                     usercall: RDI RSI RDX R8 R9; return: RSI RDX; cancel: nothing

The enclave submits usercalls, and gets returns, without leaving. It makes a synchronous usercall
when a queue that it writes was empty, so the queues are looked at after each of those. Everything
here happens in the thread that runs the enclave.
"""

import ctypes
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from broch.tee.sgx.run import abi
from broch.tee.sgx.run.abi import Number, Result
from broch.tee.sgx.run.ends import EnclaveFaultError
from broch.tee.sgx.run.user_memory import BASE, UserMemory
from broch.tee.sgx.run.usercalls import Call, Waiting
from broch.tee.sgx.run.waiting import (
    Answer,
    Blocking,
    Interrupt,
    InterruptedCallError,
    Workers,
)

USERCALLS: Final = 16  # elements
RETURNS: Final = 1024
CANCELS: Final = 32
_DESCRIPTOR: Final = struct.Struct("<QQQ")
FIFO_DESCRIPTOR: Final = _DESCRIPTOR.size  # bytes
_CALL: Final = struct.Struct("=QQQQQ")
_RETURN: Final = struct.Struct("=QQ")
_ID: Final = 8  # bytes
_MAIN: Final = 0  # the thread in whose name calls are made


class Fifo:
    """One queue. Offsets and ids are written whole, as the other side reads them."""

    def __init__(self, memory: UserMemory, length: int, content: int) -> None:
        """Make an empty one for elements with ``content`` bytes after their id.

        Raises:
            EnclaveFaultError: user memory is used up.
        """
        self._memory = memory
        self._length = length
        self._size = _ID + content
        data, offsets = memory.alloc(length * self._size, 8), memory.alloc(8, 8)
        if data is None or offsets is None:
            raise EnclaveFaultError("user memory is used up: no room for queues")
        memory.write(data, bytes(length * self._size))
        memory.write(offsets, bytes(8))
        self._data = data
        self.descriptor: Final = _DESCRIPTOR.pack(data, length, offsets)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory.memory.view)) - BASE
        self._ids = start + data
        self._read = ctypes.c_uint32.from_address(start + offsets)
        self._write = ctypes.c_uint32.from_address(start + offsets + 4)
        self._mask = 2 * length - 1

    def pop(self) -> tuple[int, bytes, bool] | None:
        """(Id, content, whether the queue had been full), or None if nothing is there yet.

        Raises:
            EnclaveFaultError: the offsets are none that a queue can have.
        """
        read, write = self._read.value, self._write.value
        self._check(read, write)
        if read == write:
            return None
        at = (read + 1 & self._mask) % self._length * self._size
        number = ctypes.c_uint64.from_address(self._ids + at)
        ident = number.value
        if not ident:
            return None  # announced, and not written yet
        content = self._memory.read(self._data + at + _ID, self._size - _ID)
        number.value = 0
        self._read.value = read + 1 & self._mask
        return ident, content, read ^ write == self._length

    def push(self, ident: int, content: bytes) -> bool | None:
        """Whether the queue had been empty; None if it is full."""
        read, write = self._read.value, self._write.value
        self._check(read, write)
        if read ^ write == self._length:
            return None
        at = (write + 1 & self._mask) % self._length * self._size
        self._memory.write(self._data + at + _ID, content)
        ctypes.c_uint64.from_address(self._ids + at).value = ident
        self._write.value = write + 1 & self._mask
        return read == write

    def _check(self, read: int, write: int) -> None:
        if (read | write) & ~self._mask or (write - read & self._mask) > self._length:
            raise EnclaveFaultError(
                f"the offsets {read} and {write} of a queue for asynchronous usercalls are "
                f"impossible: it has {self._length} elements"
            )


class Queues:
    """The three queues of an enclave, and the calls that came through them."""

    def __init__(
        self,
        memory: UserMemory,
        workers: Workers,
        dispatch: Callable[[Call], Answer | Blocking | Waiting],
        send: Callable[[int, int], Result],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        """Make them.

        Args:
            memory: where they are.
            workers: who waits for calls that wait.
            dispatch: serves a call.
            send: queues an event for all threads (TCS 0).
            post: does something in the thread that runs the enclave.
        """
        self._workers = workers
        self._dispatch = dispatch
        self._send = send
        self._post = post
        self.usercalls: Final = Fifo(memory, USERCALLS, _CALL.size)
        self.returns: Final = Fifo(memory, RETURNS, _RETURN.size)
        self.cancels: Final = Fifo(memory, CANCELS, 0)
        self._running: dict[int, Interrupt] = {}
        self._held: deque[tuple[int, Answer]] = deque()  # until there is room

    def serve(self) -> None:
        """Take in what is there, and hand out what was held."""
        self._hand_out()
        for ident, content in self._drain(self.usercalls, abi.EV_USERCALLQ_NOT_FULL):
            self._begin(ident, Call(_MAIN, *_CALL.unpack(content)))
        for ident, _ in self._drain(self.cancels, abi.EV_CANCELQ_NOT_FULL):
            interrupt = self._running.get(ident)
            if interrupt is not None:
                interrupt.set()

    def _drain(self, queue: Fifo, event: int) -> Iterator[tuple[int, bytes]]:
        while (found := queue.pop()) is not None:
            ident, content, was_full = found
            if was_full:
                self._send(event, 0)
            yield ident, content

    def _begin(self, ident: int, call: Call) -> None:
        if call.number == Number.WAIT:  # only threads can wait
            self._end(ident, (int(Result.INVALID_INPUT), 0))
            return
        answer = self._dispatch(call)
        if isinstance(answer, Blocking):
            self._running[ident] = self._workers.submit(
                answer, lambda result: self._post(lambda: self._done(ident, result))
            )
        else:
            assert isinstance(answer, tuple)
            self._end(ident, answer)

    def _done(self, ident: int, result: Answer | BaseException) -> None:
        self._running.pop(ident, None)
        if isinstance(result, InterruptedCallError):
            result = (int(Result.INTERRUPTED), 0)
        if isinstance(result, BaseException):
            raise result
        self._end(ident, result)

    def _end(self, ident: int, answer: Answer) -> None:
        self._held.append((ident, answer))
        self._hand_out()

    def _hand_out(self) -> None:
        while self._held:
            ident, answer = self._held[0]
            was_empty = self.returns.push(ident, _RETURN.pack(*answer))
            if was_empty is None:
                return
            self._held.popleft()
            if was_empty:
                self._send(abi.EV_RETURNQ_NOT_EMPTY, 0)
