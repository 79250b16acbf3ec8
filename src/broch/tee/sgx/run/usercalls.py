"""What an enclave asks of its host, number by number (Fortanix SGX ABI).

:class:`Usercalls` is an honest host. A test makes a hostile one by overriding a method: each takes
the :class:`Call` and returns what the enclave finds in RSI and RDX, and nothing is checked on the
way. ``self.memory`` is user memory, which the host may change at any time.

    class Liar(Usercalls):
        def write(self, call):
            return Result.SUCCESS, 2**64 - 1      # "more bytes were written than there are"
"""

import errno
import itertools
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Final, NamedTuple, Protocol

from broch.errors import UsageError
from broch.tee.sgx.run import abi, streams
from broch.tee.sgx.run.abi import BYTE_BUFFER, Number, Result, result_of
from broch.tee.sgx.run.ends import EnclaveFaultError
from broch.tee.sgx.run.streams import FileStream, Listener, SocketStream, Stream
from broch.tee.sgx.run.user_memory import UserMemory
from broch.tee.sgx.run.waiting import Answer, Blocking, Interrupt

# What an ocall returns to the enclave: nothing, a number (32 bits), a reply, or both.
OcallResult = None | int | bytes | tuple[int, bytes]
Ocall = Callable[[bytes], OcallResult]
Service = Callable[[socket.socket], None]  # the host's end of a connection; in a thread of its own

_READ_ALLOC: Final = 8192  # bytes at most
_MAX_ADDRESS: Final = 4096  # bytes of the name of a host
_MASK64: Final = 2**64 - 1
_OCALL_HINT: Final = (
    "a usercall of a library is served by a function: broch.sgx.Enclave(ocalls=...)"
)
_NUMBERS: Final = frozenset(int(number) for number in Number)
_ZEROS: Final = tuple((0,) * (4 - used) for used in range(5))  # of registers that are not used
_OK: Final = (int(Result.SUCCESS), 0)


class Call(NamedTuple):
    """One usercall."""

    thread: int
    number: int
    p1: int  # RSI
    p2: int  # RDX
    p3: int  # R8
    p4: int  # R9


@dataclass(frozen=True, slots=True)
class Waiting:
    """The thread waits for an event; the runner knows when."""

    mask: int
    timeout: int | None  # nanoseconds; None: for ever


class ExitedError(Exception):
    """The enclave asked to be ended."""

    def __init__(self, thread: int, panic: bool) -> None:
        super().__init__(thread, panic)
        self.thread = thread
        self.panic = panic


class Host(Protocol):
    """What usercalls need of the runner. Only for the thread that runs the enclave."""

    memory: UserMemory

    def launch_thread(self) -> Result: ...
    def send(self, event_set: int, tcs: int) -> Result: ...
    def take_event(self, thread: int, mask: int) -> int | None: ...
    def start_queues(self, usercall: int, returns: int, cancel: int) -> bool: ...


class Usercalls:
    """An honest host."""

    memory: UserMemory

    def __init__(
        self,
        *,
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
        ocalls: Mapping[int, Ocall] | None = None,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        """Take the descriptors of the standard streams.

        Args:
            stdin: to read from.
            stdout: to write to.
            stderr: to write to.
            ocalls: what user-defined usercalls do, by their number without the top bit.
            services: connections to these names end in the host itself.
        """
        self.streams: dict[int, Stream | Listener] = {
            abi.STDIN: FileStream(stdin, readable=True),
            abi.STDOUT: FileStream(stdout, readable=False),
            abi.STDERR: FileStream(stderr, readable=False),
        }
        self.count = 0  # usercalls so far
        self._next = itertools.count(abi.STDERR + 1)
        self._ocalls = dict(ocalls or {})
        self.services = dict(services or {})
        self._host: Host
        self._table = {
            int(number): (getattr(self, number.name.lower()), abi.PARAMETERS[number])
            for number in Number
        }

    def attach(self, host: Host) -> None:
        """Serve this runner's enclave from now on."""
        self._host = host
        self.memory = host.memory

    def shut_down(self) -> None:
        """Close what the enclave left open."""
        while self.streams:
            self.streams.popitem()[1].close()

    def dispatch(self, call: Call) -> Answer | Blocking | Waiting:
        """Serve one call.

        Raises:
            BadPointerError: an address is not user memory.
            EnclaveFaultError: there is no such usercall, or it has fewer parameters.
            ExitedError: it was ``exit``.
        """
        self.count += 1
        found = self._table.get(call.number)
        if found is None:
            return self._ocall(call)
        method, parameters = found
        if call[2 + parameters :] != _ZEROS[parameters]:
            raise EnclaveFaultError(
                f"usercall {name(call.number)} with a parameter too many: registers that it does "
                "not use must be zero"
            )
        try:
            answer: Answer | Blocking | Waiting = method(call)
        except OSError as exc:
            return int(result_of(exc)), 0
        return answer

    # Streams

    def read(self, call: Call) -> Answer | Blocking:
        """(fd, buffer, length) -> (Result, bytes read; 0 at the end)."""
        stream, address, size = self._stream(call.p1), call.p2, call.p3
        self.memory.check(address, size)

        def attempt() -> Answer | None:
            data = stream.try_read(size)
            if data is None:
                return None
            self.memory.write(address, data)
            return int(Result.SUCCESS), len(data)

        return _now_or_later(stream, select.POLLIN, attempt)

    def read_alloc(self, call: Call) -> Answer | Blocking:
        """(fd, *ByteBuffer) -> Result; the host allocates."""
        stream, place = self._stream(call.p1), call.p2
        if BYTE_BUFFER.unpack(self.memory.read(place, BYTE_BUFFER.size))[0]:
            return Result.INVALID_INPUT, 0

        def attempt() -> Answer | None:
            data = stream.try_read(_READ_ALLOC)
            if data is None:
                return None
            return int(self._give(place, data)), 0

        return _now_or_later(stream, select.POLLIN, attempt)

    def write(self, call: Call) -> Answer | Blocking:
        """(fd, buffer, length) -> (Result, bytes written)."""
        stream = self._stream(call.p1)
        self.memory.check(call.p2, call.p3)
        data = self.memory.read(call.p2, min(call.p3, streams.CHUNK))

        def attempt() -> Answer | None:
            written = stream.try_write(data)
            return None if written is None else (int(Result.SUCCESS), written)

        return _now_or_later(stream, select.POLLOUT, attempt)

    def flush(self, call: Call) -> Answer:
        """(fd) -> Result. Nothing is held back here."""
        self._stream(call.p1)
        return _OK

    def close(self, call: Call) -> Answer:
        """(fd) -> nothing."""
        stream = self.streams.pop(call.p1, None)
        if stream is not None:
            stream.close()
        return _OK

    def bind_stream(self, call: Call) -> Answer | Blocking:
        """(address, length, *local) -> (Result, fd)."""
        address = self._address(call)

        def work(_: Interrupt) -> Answer:
            listener = streams.listen(address)
            return self._open(listener, (call.p3, listener.local))

        return Blocking(_failing_softly(work))

    def accept_stream(self, call: Call) -> Answer | Blocking:
        """(fd, *local, *peer) -> (Result, fd)."""
        listener = self.streams.get(call.p1)
        if not isinstance(listener, Listener):
            raise BrokenPipeError(errno.EPIPE, "not a listener")

        def attempt() -> Answer | None:
            stream = listener.try_accept()
            if stream is None:
                return None
            return self._open(stream, (call.p2, stream.local), (call.p3, stream.peer))

        return _now_or_later(listener, select.POLLIN, attempt)

    def connect_stream(self, call: Call) -> Answer | Blocking:
        """(address, length, *local, *peer) -> (Result, fd)."""
        address = self._address(call)
        service = self.services.get(address.partition(":")[0])
        if service is not None:
            ours, theirs = socket.socketpair()
            Thread(target=_serve, args=(service, ours), daemon=True).start()
            return self._open(SocketStream(theirs), (call.p3, "broch"), (call.p4, address))

        def work(interrupt: Interrupt) -> Answer:
            stream = streams.connect(address, interrupt)
            return self._open(stream, (call.p3, stream.local), (call.p4, stream.peer))

        return Blocking(_failing_softly(work))

    # Threads and events

    def launch_thread(self, _: Call) -> Answer:
        """() -> Result."""
        return int(self._host.launch_thread()), 0

    def exit(self, call: Call) -> Answer:
        """(panic) -> never."""
        raise ExitedError(call.thread, bool(call.p1 & 0xFF))

    def wait(self, call: Call) -> Answer | Waiting:
        """(event mask, timeout in ns) -> (Result, events)."""
        mask, timeout = call.p1, call.p2
        if mask & ~abi.EV_ALL:
            return Result.INVALID_INPUT, 0
        event = self._host.take_event(call.thread, mask)
        if event is not None:
            return Result.SUCCESS, event
        if timeout == abi.WAIT_NO:
            return Result.WOULD_BLOCK, 0
        return Waiting(mask, None if timeout == abi.WAIT_INDEFINITE else timeout)

    def send(self, call: Call) -> Answer:
        """(event set, TCS or 0 for all) -> Result."""
        if not call.p1 or call.p1 & ~abi.EV_ALL:
            return Result.INVALID_INPUT, 0
        return int(self._host.send(call.p1, call.p2)), 0

    # Time and memory

    def insecure_time(self, _: Call) -> Answer:
        """() -> (nanoseconds since 1970, *InsecureTimeInfo or 0)."""
        return time.time_ns(), 0

    def alloc(self, call: Call) -> Answer:
        """(size, alignment) -> (Result, address)."""
        size, align = call.p1, call.p2
        if not size or not align or align & (align - 1):
            return Result.INVALID_INPUT, 0
        address = self.memory.alloc(size, align)
        return (Result.OTHER, 0) if address is None else (Result.SUCCESS, address)

    def free(self, call: Call) -> Answer:
        """(address, size, alignment) -> nothing."""
        address, size, align = call.p1, call.p2, call.p3
        if size and align and not align & (align - 1):
            self.memory.free(address, size, align)
        return _OK

    def async_queues(self, call: Call) -> Answer:
        """(*usercall queue, *return queue, *cancel queue or 0) -> Result."""
        if not self._host.start_queues(call.p1, call.p2, call.p3):
            raise ExitedError(call.thread, True)
        return _OK

    # What these share

    def _stream(self, descriptor: int) -> Stream | Listener:
        stream = self.streams.get(descriptor)
        if stream is None:
            raise BrokenPipeError(errno.EPIPE, "no such descriptor")
        return stream

    def _open(self, stream: Stream | Listener, *told: tuple[int, str]) -> Answer:
        """A new descriptor for ``stream``; ``told`` is (where the enclave wants it, address)."""
        for place, text in told:
            if place and self._give(place, text.encode()) is not Result.SUCCESS:
                stream.close()
                return Result.OTHER, 0
        descriptor = next(self._next)
        self.streams[descriptor] = stream
        return int(Result.SUCCESS), descriptor

    def _give(self, place: int, data: bytes) -> Result:
        """Fill the ByteBuffer at ``place`` with memory of its own that holds ``data``."""
        address: int | None = 0
        if data:
            address = self.memory.place(data)
        if address is None:
            return Result.OTHER
        self.memory.write(place, BYTE_BUFFER.pack(address, len(data)))
        return Result.SUCCESS

    def _address(self, call: Call) -> str:
        self.memory.check(call.p1, call.p2)
        if call.p2 > _MAX_ADDRESS:
            raise OSError(errno.EINVAL, "too long for an address")
        try:
            return self.memory.read(call.p1, call.p2).decode()
        except UnicodeDecodeError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "not an address") from None

    def _ocall(self, call: Call) -> Blocking:
        """A user-defined call: (data, length, *ByteBuffer for a reply) -> value of the function."""
        function = None
        if call.number & abi.USER_DEFINED and call.number < 2 * abi.USER_DEFINED:
            function = self._ocalls.get(call.number ^ abi.USER_DEFINED)
        if function is None:
            raise EnclaveFaultError(
                f"The enclave performed an invalid usercall 0x{call.number:x}",
                hint=_OCALL_HINT if call.number & abi.USER_DEFINED else None,
            )
        data = self.memory.read(call.p1, call.p2) if call.p2 else b""
        self.memory.check(call.p3, BYTE_BUFFER.size)
        serve = function

        def work(_: Interrupt) -> Answer:
            value, reply = _value_and_reply(serve(data))
            if reply and self._give(call.p3, reply) is not Result.SUCCESS:
                raise EnclaveFaultError("user memory is used up: no room for the reply of an ocall")
            return value & _MASK64, 0

        return Blocking(work)


def _value_and_reply(result: OcallResult) -> tuple[int, bytes]:
    """(32 bits with a sign, bytes) of what a function returned."""
    if result is None:
        return 0, b""
    if isinstance(result, int):
        value, reply = result, b""
    elif isinstance(result, tuple):
        value, reply = result
    else:
        value, reply = 0, result
    if not -(2**31) <= value < 2**31:
        raise UsageError(f"an ocall returned {value}, which has more than 32 bits")
    return value, bytes(reply)


def name(number: int) -> str:
    """A usercall's name, or its number."""
    return Number(number).name.lower() if number in _NUMBERS else f"0x{number:x}"


def _now_or_later(
    stream: Stream | Listener, events: int, attempt: Callable[[], Answer | None]
) -> Answer | Blocking:
    answer = attempt()
    if answer is not None:
        return answer

    def work(interrupt: Interrupt) -> Answer:
        while True:
            stream.wait(events, interrupt)
            found = attempt()
            if found is not None:
                return found

    return Blocking(_failing_softly(work))


def _failing_softly(work: Callable[[Interrupt], Answer]) -> Callable[[Interrupt], Answer]:
    """Errors of the system are answers."""

    def softly(interrupt: Interrupt) -> Answer:
        try:
            return work(interrupt)
        except OSError as exc:
            return int(result_of(exc)), 0

    return softly


def _serve(service: Service, sock: socket.socket) -> None:
    with sock:
        service(sock)
