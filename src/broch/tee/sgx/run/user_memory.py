"""Memory outside the enclave: what an enclave shares with its host, and where it is handed out.

Both sides can change it at any time. The enclave must not trust it; neither must the host trust an
address that an enclave names, so all accesses check that they stay inside.
"""

from threading import Lock
from typing import Final

from broch.cpu.x86_64 import PAGE, READ, WRITE, Memory, Region
from broch.tee.sgx.run.ends import BadPointerError

BASE: Final = 0x7000_0000_0000  # above any enclave
SIZE: Final = 1 << 30  # bytes
_SMALLEST: Final = 16  # bytes


class UserMemory:
    """User memory, and its allocator: powers of two, freed to lists by size."""

    def __init__(self, size: int = SIZE) -> None:
        """Make ``size`` bytes, a multiple of the page size; only what is used costs anything."""
        self.memory: Final = Memory(size, "broch-user")
        self.region: Final = Region(
            address=BASE, size=size, rights=READ | WRITE, memory=self.memory, offset=0
        )
        self._size = size
        self._next = PAGE  # so that no address is the first one
        self._free: dict[tuple[int, int], list[int]] = {}
        self._lock = Lock()

    def read(self, address: int, size: int) -> bytes:
        """Copy ``size`` bytes out.

        Raises:
            BadPointerError: not all of them are user memory.
        """
        start = address - BASE
        if not 0 <= start <= start + size <= self._size:
            raise BadPointerError(address, size)
        return self.memory.view[start : start + size]

    def write(self, address: int, data: bytes) -> None:
        """Copy ``data`` in.

        Raises:
            BadPointerError: not all of it would be user memory.
        """
        start = address - BASE
        size = len(data)
        if not 0 <= start <= start + size <= self._size:
            raise BadPointerError(address, size)
        self.memory.view[start : start + size] = data

    def check(self, address: int, size: int) -> None:
        """Raise :class:`BadPointerError` unless these bytes are user memory."""
        if not BASE <= address <= address + size <= BASE + self._size:
            raise BadPointerError(address, size)

    def alloc(self, size: int, align: int = 1) -> int | None:
        """An address for ``size`` bytes, or None if there is no room.

        What was used before is handed out as it was left.
        """
        block = _block(size, align)
        with self._lock:
            free = self._free.get((block, align))
            if free:
                return free.pop()
            start = -(-self._next // align) * align
            if start + block > self._size:
                return None
            self._next = start + block
            return BASE + start

    def free(self, address: int, size: int, align: int = 1) -> None:
        """Take back what :meth:`alloc` gave for the same size and alignment."""
        self.check(address, size)
        with self._lock:
            self._free.setdefault((_block(size, align), align), []).append(address)

    def place(self, data: bytes) -> int | None:
        """Allocate room for ``data`` and copy it there."""
        address = self.alloc(max(len(data), 1))
        if address is not None:
            self.write(address, data)
        return address

    def close(self) -> None:
        """Give it back."""
        self.memory.close()


def _block(size: int, align: int) -> int:
    return max(_SMALLEST, 1 << (size - 1).bit_length(), align)
