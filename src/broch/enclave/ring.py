"""A ring: two one-way queues of messages in shared memory, between an enclave and its host.

One writer and one reader a direction. Each direction is a row of slots; a message takes as many
slots as it needs. Layout of one direction, in 8-byte words of the machine's own byte order:

    word 0        read      how many slots the reader has taken (written by the reader)
    word 8        sleeping  1 while the reader sleeps, or is about to (written by the reader)
    word 16       waiting   1 while the writer waits for room (written by the writer)
    word 20       progress  a number for the other side to watch (written by the writer)
    word 24..     one word a slot: how often the slot was used, this time included, << 13
                  | 0x1000 if the message goes on in the next slot | length in bytes
    then          the slots, SLOT_SIZE bytes each

A slot's word is written last and so publishes the slot. Neither side trusts the other: the reader
reads the word once and copies the slot once, bounds the length before use, and raises
:class:`PoisonedError` on anything that an honest writer cannot have written.

To wait, a side spins for a bounded time, then says that it sleeps, looks again, and sleeps on an
eventfd. Against the writer, who publishes and then looks whether somebody sleeps, that needs a full
memory barrier on both sides; :func:`_full_barrier` is the sleeper's, and on x86-64, which orders
stores among themselves, membarrier(2) makes it do for both. Elsewhere the writer pays for its own.

:meth:`Ring.send` and :meth:`Ring.receive` are closures: looking attributes up would cost as much
again as the transfer (docs/performance.md).
"""

import ctypes
import fcntl
import mmap
import os
import platform
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from broch.errors import BrochError, InternalError

SLOTS: Final = 256  # slots a direction; a power of two
SLOT_SIZE: Final = 2048  # bytes
MAX_MESSAGE: Final = SLOTS * SLOT_SIZE // 2  # bytes
_WORDS: Final = 24
_DIRECTION: Final = (_WORDS + SLOTS) * 8 + SLOTS * SLOT_SIZE
RING_SIZE: Final = -(-2 * _DIRECTION // mmap.PAGESIZE) * mmap.PAGESIZE  # bytes of shared memory
_SPIN: Final = 3000  # looks before sleeping, about 200 us
_STEP: Final = 1 << 13  # words of a slot's successive uses are so far apart
_MORE: Final = 0x1000
_MASK: Final = SLOTS - 1
_CREDIT: Final = 31  # the reader says how far it is once in 32 slots, and before it sleeps
_POLL_MS: Final = 1000  # a sleeper looks up this often, in case its peer died without a word


class PoisonedError(BrochError):
    """The other side of a boundary sent what it cannot honestly have sent."""

    code = "poisoned"
    exit_code = 4


class RingClosedError(BrochError):
    """The other side of the ring is gone."""

    code = "closed"


_ORDERED_STORES: Final = platform.machine() in ("x86_64", "AMD64")
_SYS_MEMBARRIER: Final = 324
_MEMBARRIER_GLOBAL_EXPEDITED: Final = 2
_MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: Final = 4
_lock = threading.Lock()
_syscall = ctypes.CDLL(None, use_errno=True).syscall


def _membarrier(command: int) -> bool:
    return _ORDERED_STORES and int(_syscall(_SYS_MEMBARRIER, command, 0, 0)) == 0


def _lock_barrier() -> None:
    """A full barrier: what is before a release stays before an acquire that comes after it."""
    for _ in range(2):
        _lock.acquire()
        _lock.release()


class _Fenced:
    """Shared memory whose slices are copied after whatever was read before, and whose words are
    written after whatever was written before and before whatever is read after; for processors
    that do not keep that order themselves. Only as much of a mapping as a ring needs.
    """

    def __init__(self, memory: mmap.mmap | memoryview) -> None:
        self._memory = memory

    def __getitem__(self, part: slice) -> bytes:
        _lock_barrier()
        return bytes(self._memory[part])

    def __setitem__(self, word: int, value: int) -> None:
        _lock_barrier()
        self._memory[word] = value
        _lock_barrier()


class Ring:
    """One end of a ring.

    Args:
        memory: the shared mapping, ``RING_SIZE`` bytes.
        host: True for the host's end, False for the enclave's.
        wake: eventfd that wakes the other end.
        wait: eventfd that this end sleeps on, non-blocking.
    """

    #: Put one message (1 to ``MAX_MESSAGE`` bytes) into the ring; waits while there is no room.
    #: Raises InternalError (length) or RingClosedError.
    send: Callable[[bytes], None]
    #: Take the next message out; None when so many seconds went by without one, or without the
    #: next slot of one: what came of it is kept for the next call.
    #: Raises PoisonedError, or RingClosedError when the other side is gone and nothing is left.
    receive: Callable[..., bytes | None]

    def __init__(self, memory: mmap.mmap, *, host: bool, wake: int, wait: int) -> None:
        if len(memory) != RING_SIZE:
            raise InternalError(f"a ring has {RING_SIZE} bytes, this mapping {len(memory)}")
        # Whoever may be raced by a sleeper must be registered for its expedited barrier.
        self._asymmetric = _membarrier(_MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)
        self._memory = memory
        self._view = memoryview(memory)
        self._out_base, self._in_base = (0, _DIRECTION) if host else (_DIRECTION, 0)
        self._views: list[memoryview] = []
        self._out = self._words(self._out_base)
        self._in = self._words(self._in_base)
        self._wake, self._wait = wake, wait
        self._closed = False
        self._sent = self._make_send()
        self._received = self._make_receive()

    def _words(self, base: int) -> memoryview:
        return self._view[base : base + (_WORDS + SLOTS) * 8].cast("Q")

    def _make_send(self) -> Callable[[], int]:
        memory, flags, wake = self._memory, self._out, self._wake
        view = flags[_WORDS:]
        words = view if self._asymmetric else _Fenced(view)
        starts = self._starts(self._out_base)
        find_room, wake_up = self._find_room, _wake_up
        slot, start, stamp, room = 0, starts[0], _STEP, SLOTS
        most = SLOT_SIZE  # a message of one slot may have so many bytes; -1 while there is no room

        def send(message: bytes) -> None:
            nonlocal slot, start, stamp, room, most
            size = len(message)
            if size > most:
                send_slowly(message)
                return
            memory[start : start + size] = message
            words[slot] = stamp + size
            # The other side has it: what follows costs it no time.
            if not size:  # or has nothing: the word of an empty message says "not there yet"
                raise _bad_length(size)
            if flags[8]:
                wake_up(wake)
            slot = (slot + 1) & _MASK
            start = starts[slot]
            if not slot:
                stamp += _STEP
            room -= 1
            if room:
                memory[start] = 0  # the other side had this slot last: bring it here in time
            else:
                most = -1

        def send_slowly(message: bytes) -> None:
            nonlocal stamp, room, most
            if not 0 < len(message) <= MAX_MESSAGE:
                raise _bad_length(len(message))
            for begin in range(0, len(message), SLOT_SIZE):
                if not room:
                    room, most = find_room(sent()), SLOT_SIZE
                more = 0 if begin + SLOT_SIZE >= len(message) else _MORE
                stamp += more
                send(message[begin : begin + SLOT_SIZE])
                stamp -= more

        def sent() -> int:
            return _count(slot, stamp)

        self._views.append(view)
        self.send = send
        return sent

    def _make_receive(self) -> Callable[[], int]:  # noqa: C901 (closures over one counter)
        memory = self._memory if self._asymmetric else _Fenced(self._memory)
        words, starts = self._in[_WORDS:], self._starts(self._in_base)
        wait_for, say_read = self._wait_for, self._say_read
        slot, start, stamp, taken = 0, starts[0], _STEP, 0
        spins, once = (None,) * _SPIN, (None,)
        whole = SLOT_SIZE  # no slot is a whole message while there are parts of one
        parts: list[bytes] = []

        def receive(timeout: float | None = None) -> bytes | None:
            nonlocal slot, start, taken
            if taken:  # the last call left this undone, so that its caller could go on
                slot, taken = (slot + 1) & _MASK, 0
                start = starts[slot]
                if not slot & _CREDIT:
                    credit()
            # Words of the slot's former uses are smaller than its stamp, by whole steps.
            for _ in spins if timeout != 0 else once:
                if (word := words[slot]) > stamp:
                    break
            else:
                word = 0 if timeout == 0 else wait_for(words, slot, stamp, timeout)
                if not word:
                    return None
            size = word - stamp
            if size > whole:
                return receive_parts(size, timeout)
            taken = 1
            return memory[start : start + size]

        def credit() -> None:
            nonlocal stamp
            if not slot:
                stamp += _STEP
            say_read(received())

        def receive_parts(size: int, timeout: float | None) -> bytes | None:
            nonlocal slot, start, whole
            while True:
                more, size = size & _MORE, size & ~_MORE
                if not 0 < size <= SLOT_SIZE or (more and size != SLOT_SIZE):
                    raise PoisonedError(f"a slot of {size} bytes, more to follow: {bool(more)}")
                if (len(parts) + 1) * SLOT_SIZE > MAX_MESSAGE:
                    raise PoisonedError(f"a message longer than {MAX_MESSAGE} bytes")
                parts.append(memory[start : start + size])
                slot = (slot + 1) & _MASK
                start = starts[slot]
                credit()
                if not more:
                    message = b"".join(parts)
                    parts.clear()
                    whole = SLOT_SIZE
                    return message
                whole = 0
                for _ in spins:  # an honest writer is busy with the next one
                    if (word := words[slot]) > stamp:
                        break
                else:
                    # The writer may have died in the middle: never wait longer than asked.
                    word = 0 if timeout == 0 else wait_for(words, slot, stamp, timeout)
                    if not word:
                        return None
                size = word - stamp

        def received() -> int:
            return _count(slot, stamp) + taken

        self._views.append(words)
        self.receive = receive
        return received

    @staticmethod
    def _starts(base: int) -> list[int]:
        """Where each slot of a direction begins."""
        return [base + (_WORDS + SLOTS) * 8 + slot * SLOT_SIZE for slot in range(SLOTS)]

    def _say_read(self, received: int) -> None:
        if not self._asymmetric:
            _lock_barrier()  # the slots were read before they are given back
        self._in[0] = received
        if not self._asymmetric:
            _lock_barrier()
        if self._in[16]:
            _wake_up(self._wake)

    def _say_asleep(self, received: int) -> None:
        """Before the last look at what there is."""
        if not self._asymmetric:
            _lock_barrier()
        self._in[0] = received
        self._in[8] = 1
        self._full_barrier()

    def _full_barrier(self) -> None:
        if not (self._asymmetric and _membarrier(_MEMBARRIER_GLOBAL_EXPEDITED)):
            _lock_barrier()

    def has_room(self, size: int) -> bool:
        """Whether :meth:`send` of ``size`` bytes would not have to wait; asks to be woken if so."""
        needed = -(-size // SLOT_SIZE)
        if needed <= self._room(self._sent()):
            self._out[16] = 0
            return True
        self._out[16] = 1
        self._full_barrier()
        return needed <= self._room(self._sent())

    def _room(self, sent: int) -> int:
        read = int(self._out[0])
        if not sent - SLOTS <= read <= sent:
            raise PoisonedError(f"the reader says that it read {read} slots of {sent}")
        return read + SLOTS - sent

    def _find_room(self, sent: int) -> int:
        """How many slots are free, at least one; waits for it."""
        for _ in range(_SPIN):
            if room := self._room(sent):
                return room
        self._out[16] = 1
        try:
            while True:
                self._full_barrier()
                if room := self._room(sent):
                    self._out[16] = 0
                    return room
                if self._closed:
                    raise RingClosedError("the other side of the ring is gone")
                self._sleep(_POLL_MS)
        finally:
            if self._in[8]:  # an event loop watches the eventfd that was emptied here
                _wake_up(self._wait)

    def _wait_for(self, words: memoryview, slot: int, stamp: int, timeout: float | None) -> int:
        """Sleep until the slot's word is of this stamp, give it; 0 when the time is over."""
        end = None if timeout is None else time.monotonic() + timeout
        flags = self._in
        try:
            while True:
                self._say_asleep(_count(slot, stamp))
                word = int(words[slot])
                if word > stamp:
                    return word
                if flags[16]:
                    _wake_up(self._wake)
                if self._closed:
                    raise RingClosedError("the other side of the ring is gone")
                left = _POLL_MS if end is None else int((end - time.monotonic()) * 1000)
                if left <= 0:
                    return 0
                self._sleep(min(left, _POLL_MS))
        finally:
            flags[8] = 0

    @property
    def progress(self) -> int:
        """The number that the other side last gave to :meth:`tell_progress`."""
        return int(self._in[20])

    def tell_progress(self, number: int) -> None:
        """Let the other side see that something was done; costs no message."""
        self._out[20] = number

    def fileno(self) -> int:
        """The eventfd that this end sleeps on, for event loops."""
        return self._wait

    def prepare_sleep(self) -> bool:
        """Say that this end sleeps on its eventfd; False when a message came meanwhile.

        For event loops, which watch the eventfd themselves: :meth:`wakened` when it is readable.
        """
        received = self._received()
        self._say_asleep(received)
        if self._in[_WORDS + (received & _MASK)] > (received // SLOTS + 1) * _STEP:
            self._in[8] = 0
            return False
        if self._in[16]:
            _wake_up(self._wake)
        return True

    def wakened(self) -> None:
        """Take back :meth:`prepare_sleep` and empty the eventfd."""
        self._in[8] = 0
        _drain(self._wait)

    def _sleep(self, milliseconds: int) -> None:
        poller = select.poll()
        poller.register(self._wait, select.POLLIN)
        if poller.poll(milliseconds):
            _drain(self._wait)

    def shut(self) -> None:
        """The other side is known to be gone: what is left can be read, and nothing else done."""
        self._closed = True

    def close(self) -> None:
        """Let go of the memory and the eventfds."""
        self._closed = True
        for view in (*self._views, self._out, self._in, self._view):
            view.release()
        self._memory.close()  # and with it the copy of the descriptor that a mapping keeps
        for descriptor in (self._wake, self._wait):
            os.close(descriptor)


def _bad_length(size: int) -> InternalError:
    return InternalError(f"a message has 1 to {MAX_MESSAGE} bytes, not {size}")


def _count(slot: int, stamp: int) -> int:
    """Slots since the beginning, from the next one's place and stamp."""
    return (stamp // _STEP - 1) * SLOTS + slot


def _drain(descriptor: int) -> None:
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return


def _wake_up(descriptor: int) -> None:
    """Make an eventfd readable; the other side may have counted it up as far as it goes."""
    try:
        os.eventfd_write(descriptor, 1)
    except BlockingIOError:
        return


def make_ring() -> tuple[int, int, int]:
    """Make a ring's memory and eventfds: (memfd, eventfd to the host, eventfd to the enclave).

    The memory is sealed against shrinking, so that neither side can make the other fault on it.
    """
    memory = os.memfd_create("broch-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, RING_SIZE)
    fcntl.fcntl(
        memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    return memory, os.eventfd(0, flags), os.eventfd(0, flags)


def open_ring(memory: int, to_host: int, to_enclave: int, *, host: bool) -> Ring:
    """Open one end of a ring; closes ``memory``, keeps the eventfds until :meth:`Ring.close`."""
    if os.fstat(memory).st_size != RING_SIZE:
        raise InternalError("the ring's memory has the wrong size")
    mapping = mmap.mmap(memory, RING_SIZE)
    os.close(memory)
    wake, wait = (to_enclave, to_host) if host else (to_host, to_enclave)
    return Ring(mapping, host=host, wake=wake, wait=wait)
