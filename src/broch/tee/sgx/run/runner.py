"""The threads of one enclave, from stop to stop.

A thread enters by EENTER and runs until ENCLU stops it. EEXIT with RDI 0 is the end of the call;
any other RDI is a usercall, after which the thread enters again. Whatever else stops a thread ends
the enclave: no enclave of this ABI handles exceptions.

All of this happens in one thread of ours, the one that calls :meth:`Runner.run`. Others reach it by
:meth:`Runner.post`.
"""

import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from broch.cpu.x86_64 import EXECUTE, Engine, Region, Registers, Stop, StopKind
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.faults import SgxFaultError
from broch.tee.sgx.run import abi, explain, leaves
from broch.tee.sgx.run.abi import BYTE_BUFFER, Result
from broch.tee.sgx.run.ends import (
    BadPointerError,
    EnclaveError,
    EnclaveFaultError,
    EnclavePanickedError,
)
from broch.tee.sgx.run.leaves import Leaf
from broch.tee.sgx.run.loading import LoadedEnclave
from broch.tee.sgx.run.queues import FIFO_DESCRIPTOR, Queues
from broch.tee.sgx.run.user_memory import UserMemory
from broch.tee.sgx.run.usercalls import Call, ExitedError, Usercalls, Waiting, name
from broch.tee.sgx.run.waiting import (
    Answer,
    Blocking,
    Interrupt,
    InterruptedCallError,
    Workers,
)

RETURN: Final = 0x10_0000  # where EEXIT is to go: an address of the host, where nothing is
_ARGV0: Final = b"enclave"
_ENCLU: Final = leaves.INSTRUCTION
_EEXIT: Final = int(Leaf.EEXIT)
_ILLEGAL: Final = StopKind.ILLEGAL
_GRACE: Final = 0.1  # seconds for a thread to say that it panicked, after another has exited
_CSSA: Final = 0  # SSA frames in use
_RFLAGS: Final = 0x202  # interrupts enabled, all else clear
_NO_SYSCALL: Final = 2**64 - 1
# RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI, (of Linux), RIP, which lie side by side
_ENTRY_REGISTERS: Final = struct.Struct("=12Q")
_ENTRY_OFFSET: Final = Registers.offset_of("rbx")

Returned = Callable[[Answer], None]


class _State(Enum):
    FREE = auto()
    RUNNING = auto()
    CALLING = auto()  # a worker serves its usercall
    WAITING = auto()  # for an event


_RUNNING: Final = _State.RUNNING


@dataclass(slots=True)
class _Thread:
    """A TCS, and what happens in it."""

    tcs: int  # address
    entry: int
    fs: int
    gs: int
    debug_buffer: int
    registers: Registers = field(default_factory=Registers)  # the engine's, once it was entered
    state: _State = _State.FREE
    returned: Returned | None = None  # whom the value that it returns is for
    mask: int = 0  # while it waits
    sleeper: Interrupt | None = None  # while it waits, and not for ever
    ticket: int = 0  # a new one each time it waits
    events: list[int] = field(default_factory=lambda: [0] * (abi.EV_ALL + 1))


class Runner:
    """Runs one enclave once."""

    def __init__(
        self,
        enclave: LoadedEnclave,
        device: SgxDevice,
        usercalls: Usercalls,
        engine: Callable[[Sequence[Region], int], Engine],
        *,
        library: bool = False,
    ) -> None:
        """Make its address space and its threads; nothing runs yet.

        Args:
            enclave: who.
            device: the CPU that it was loaded on.
            usercalls: its host.
            engine: makes an engine from regions and a number of threads.
            library: it is called by its host, and launches no threads.

        Raises:
            SgxFaultError: a TCS cannot be entered.
            UndecidedError: the engine is not to be had.
        """
        for tcs in enclave.threads:
            leaves.check_eenter(enclave, tcs)
        self.memory = UserMemory()
        self.enclave: Final = enclave
        self._device = device
        self._usercalls = usercalls
        self._is_library = library
        self._workers = Workers()
        self._posted: deque[Callable[[], None]] = deque()
        base = enclave.base
        self._threads = [
            _Thread(
                tcs=base + tcs.offset,
                entry=base + tcs.oentry,
                fs=base + tcs.ofsbase,
                gs=base + tcs.ogsbase,
                debug_buffer=self._debug_buffer(),
            )
            for tcs in enclave.threads
        ]
        self._queues: Queues | None = None
        usercalls.attach(self)
        try:
            self.engine: Final = engine([*enclave.regions, self.memory.region], len(self._threads))
        except BaseException:
            self.memory.close()
            raise

    def _debug_buffer(self) -> int:
        address = self.memory.alloc(abi.DEBUG_BUFFER)
        assert address is not None
        return address

    # From any thread

    def post(self, action: Callable[[], None]) -> None:
        """Do something in the thread that runs the enclave."""
        self._posted.append(action)
        self.engine.wake()

    # From the thread that runs it

    def run_program(self, arguments: Sequence[str] = ()) -> None:
        """Run an executable enclave until it exits; it gets the bytes of arguments as they came.

        Raises:
            EnclavePanickedError: it gave up.
            EnclaveFaultError: it did what it must not.
            InternalError: the process that it runs in was killed.
        """
        words = [argument.encode(errors="surrogateescape") for argument in arguments]
        address, count = self._place_arguments([_ARGV0, *words])
        self.enter(0, (address, count, 0, 0, 0), _returned_from_main)
        self.serve()

    def serve(self) -> None:
        """Run until the enclave exits; what :meth:`post` brings runs in between.

        Raises:
            EnclavePanickedError: it gave up.
            EnclaveFaultError: it did what it must not.
            InternalError: the process that it runs in was killed.
        """
        engine = self.engine
        try:
            while True:
                stop = engine.wait()
                if stop is None:
                    while self._posted:
                        self._posted.popleft()()
                else:
                    self._stopped(stop)
        except ExitedError as exc:
            panicked = exc.thread if exc.panic else self._also_panics(exc.thread)
            if panicked is not None:
                raise self._panic(panicked) from None
        except SgxFaultError as exc:
            raise EnclaveFaultError(exc.message) from None

    def _also_panics(self, ended_by: int) -> int | None:
        """A thread that panics just as another one ends the enclave without a panic.

        When a Rust thread panics, others exit at their next usercall, without a panic, and may be
        quicker than the one that is to blame.
        """
        running = {i for i, t in enumerate(self._threads) if t.state is _RUNNING} - {ended_by}
        if not running:  # nearly always: no thread of ours is started for nothing
            return None
        over = threading.Event()

        def end() -> None:
            over.set()
            self.engine.wake()

        timer = threading.Timer(_GRACE, end)
        timer.daemon = True
        timer.start()
        try:
            while running and not over.is_set():
                stop = self.engine.wait()
                if stop is not None:
                    running.discard(stop.thread)
                    if self._is_panic(stop.thread):
                        return stop.thread
        finally:
            timer.cancel()
        return None

    def _is_panic(self, thread: int) -> bool:
        registers = self._threads[thread].registers
        leaf, panic = registers.rax & 0xFFFFFFFF, registers.rsi & 0xFF
        return leaf == _EEXIT and registers.rdi == abi.Number.EXIT and bool(panic)

    def enter(self, thread: int, parameters: Sequence[int], returned: Returned) -> None:
        """EENTER a TCS that is free; ``returned`` gets what comes back."""
        state = self._threads[thread]
        assert state.state is _State.FREE
        state.returned = returned
        state.registers = self.engine.registers(thread)
        self._eenter(thread, *parameters)

    def free_thread(self) -> int | None:
        """A TCS in which nothing runs."""
        for index, thread in enumerate(self._threads):
            if thread.state is _State.FREE:
                return index
        return None

    def stop(self) -> None:
        """End it, whatever it does. User memory stays."""
        self._workers.close()
        self.engine.close()
        self._usercalls.shut_down()

    def close(self) -> None:
        """End it, whatever it does; nothing is left."""
        self.stop()
        self.memory.close()

    # What usercalls need (:class:`broch.tee.sgx.run.usercalls.Host`)

    def launch_thread(self) -> Result:
        """Enter a free TCS as a secondary thread."""
        if self._is_library:
            return Result.INVALID_INPUT
        index = self.free_thread()
        if index is None:
            return Result.WOULD_BLOCK
        self.enter(index, (0, 0, 0, 0, 0), _returned_from_thread)
        return Result.SUCCESS

    def send(self, event_set: int, tcs: int) -> Result:
        """Queue an event for one TCS (by its address), or for all."""
        targets = [t for t in range(len(self._threads)) if tcs in (0, self._threads[t].tcs)]
        if not targets:
            return Result.INVALID_INPUT
        for target in targets:
            thread = self._threads[target]
            if thread.state is _State.WAITING and thread.mask & event_set:
                self._end_wait(target, (int(Result.SUCCESS), event_set))
            elif not tcs and thread.state is _State.FREE:
                continue  # "all" are those that run
            else:
                thread.events[event_set] += 1
        return Result.SUCCESS

    def take_event(self, thread: int, mask: int) -> int | None:
        """The highest event that is queued and matches."""
        events = self._threads[thread].events
        for event in range(abi.EV_ALL, 0, -1):
            if event & mask and events[event]:
                events[event] -= 1
                return event
        return None

    def start_queues(self, usercall: int, returns: int, cancel: int) -> bool:
        """Serve asynchronous usercalls through queues that these places will tell of."""
        if self._queues is not None:
            return False
        memory, dispatch = self.memory, self._usercalls.dispatch
        for place in (usercall, returns, *([cancel] if cancel else [])):
            memory.check(place, FIFO_DESCRIPTOR)
        queues = Queues(memory, self._workers, dispatch, self.send, self.post)
        memory.write(usercall, queues.usercalls.descriptor)
        memory.write(returns, queues.returns.descriptor)
        if cancel:
            memory.write(cancel, queues.cancels.descriptor)
        self._queues = queues
        return True

    # From stop to stop

    def _stopped(self, stop: Stop) -> None:
        index, kind = stop
        thread = self._threads[index]
        rbx, _, _, r9, r8, rax, _, rdx, rsi, rdi, _, rip = _ENTRY_REGISTERS.unpack_from(
            thread.registers, _ENTRY_OFFSET
        )
        at = rip - self.enclave.base
        if (
            at < 0
            or self.enclave.memory.view[at : at + 3] != _ENCLU
            or not (kind is _ILLEGAL or self._is_refused_enclu(kind, rip))
        ):
            raise explain.fault(self.enclave, self.engine, stop)
        if rax & 0xFFFFFFFF != _EEXIT:
            self._leaf(index, rax & 0xFFFFFFFF)
        elif rbx != RETURN:
            raise EnclaveFaultError(f"EEXIT to 0x{rbx:x}, where its host has no code")
        elif rdi:
            self._usercall(Call(index, rdi, rsi, rdx, r8, r9))
        else:
            self._returned(index, (rsi, rdx))

    def _is_refused_enclu(self, kind: StopKind, rip: int) -> bool:
        """Whether a CPU that has SGX stopped at ENCLU, which to it is outside an enclave (#GP)."""
        return kind is StopKind.FAULT and bool(self.enclave.rights(rip, len(_ENCLU)) & EXECUTE)

    def _leaf(self, index: int, leaf: int) -> None:
        registers = self.engine.registers(index)
        if leaf == Leaf.EREPORT:
            leaves.ereport(self.enclave, self._device, registers)
        elif leaf == Leaf.EGETKEY:
            leaves.egetkey(self.enclave, self._device, registers)
        else:
            raise explain.leaf(leaf)
        registers.rip += len(_ENCLU)
        self.engine.resume(index)

    def _usercall(self, call: Call) -> None:
        try:
            answer = self._usercalls.dispatch(call)
        except BadPointerError as exc:
            raise _bad_pointer(call, exc) from None
        if type(answer) is tuple:
            self._eenter(call.thread, 0, *answer)
        elif isinstance(answer, Blocking):
            self._threads[call.thread].state = _State.CALLING
            self._workers.submit(
                answer, lambda result: self.post(lambda: self._answered(call, result))
            )
        else:
            assert isinstance(answer, Waiting)
            self._wait(call.thread, answer)
        if self._queues is not None:
            self._queues.serve()

    def _answered(self, call: Call, result: Answer | BaseException) -> None:
        """A worker is done with a usercall."""
        if isinstance(result, InterruptedCallError):
            result = (int(Result.INTERRUPTED), 0)
        if isinstance(result, BadPointerError):
            raise _bad_pointer(call, result)
        if isinstance(result, BaseException):
            raise result
        self._eenter(call.thread, 0, *result)

    def _eenter(
        self, index: int, rdi: int, rsi: int = 0, rdx: int = 0, r8: int = 0, r9: int = 0
    ) -> None:
        thread = self._threads[index]
        thread.state = _RUNNING
        registers = thread.registers
        _ENTRY_REGISTERS.pack_into(
            *(registers, _ENTRY_OFFSET, thread.tcs, 0, thread.debug_buffer, r9, r8),
            *(_CSSA, RETURN, rdx, rsi, rdi, _NO_SYSCALL, thread.entry),
        )
        registers.eflags = _RFLAGS
        registers.fs_base, registers.gs_base = thread.fs, thread.gs
        self.engine.resume(index)

    def _returned(self, index: int, value: Answer) -> None:
        thread = self._threads[index]
        thread.state = _State.FREE
        returned, thread.returned = thread.returned, None
        assert returned is not None
        returned(value)
        self._check_deadlock()

    def _wait(self, index: int, waiting: Waiting) -> None:
        thread = self._threads[index]
        thread.state, thread.mask = _State.WAITING, waiting.mask
        thread.ticket += 1
        ticket = thread.ticket
        if waiting.timeout is None:
            self._check_deadlock()
            return
        seconds = waiting.timeout / 1e9

        def work(interrupt: Interrupt) -> Answer:
            interrupt.sleep(seconds)
            return 0, 0

        def done(_: Answer | BaseException) -> None:
            self.post(lambda: self._timed_out(index, ticket))

        thread.sleeper = self._workers.submit(Blocking(work), done)

    def _timed_out(self, index: int, ticket: int) -> None:
        thread = self._threads[index]
        if thread.state is _State.WAITING and thread.ticket == ticket:
            thread.sleeper = None
            self._eenter(index, 0, Result.TIMED_OUT, 0)

    def _end_wait(self, index: int, answer: Answer) -> None:
        thread = self._threads[index]
        sleeper, thread.sleeper = thread.sleeper, None
        if sleeper is not None:
            sleeper.set()
        self._eenter(index, 0, *answer)

    def _check_deadlock(self) -> None:
        """Raise if all threads that there are wait, for ever, for what only another could send."""
        if self._is_library or self._queues is not None:
            return
        busy = [thread for thread in self._threads if thread.state is not _State.FREE]
        if any(thread.state is not _State.WAITING or thread.sleeper for thread in busy):
            return
        raise EnclaveFaultError(
            "All enclave threads are waiting indefinitely without possibility of wakeup",
            hint="a deadlock: each waits for another one",
        )

    def _place_arguments(self, arguments: Sequence[bytes]) -> tuple[int, int]:
        """Argv as ByteBuffers, all of it the enclave's to free."""
        buffers = b""
        for argument in arguments:
            address = self.memory.place(argument) if argument else 0
            buffers += BYTE_BUFFER.pack(address or 0, len(argument))
        place = self.memory.alloc(len(buffers), 8)
        assert place is not None
        self.memory.write(place, buffers)
        return place, len(arguments)

    def _panic(self, index: int) -> EnclaveError:
        buffer = self.memory.read(self._threads[index].debug_buffer, abi.DEBUG_BUFFER)
        message, hint = explain.panic(buffer)
        return EnclavePanickedError(message, hint=hint)


def _bad_pointer(call: Call, error: BadPointerError) -> EnclaveFaultError:
    return EnclaveFaultError(
        f"usercall {name(call.number)}: {error.size} bytes at 0x{error.address:x} are not user "
        "memory",
        hint="copy what the host is to see into memory that the usercall alloc gave",
    )


def _returned_from_main(_: Answer) -> None:
    raise EnclaveFaultError(
        "The enclave returned from the main entrypoint in violation of the specification."
    )


def _returned_from_thread(value: Answer) -> None:
    if value != (0, 0):
        raise EnclaveFaultError(
            "The enclave returned a value from the thread entrypoint in violation of the "
            "specification."
        )
