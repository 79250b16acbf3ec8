"""One emulated x86-64 CPU, and the few calls of unicorn that must be quick.

The Python binding makes an object of every register; here all of them are read and written at once,
into the structure that :class:`~broch.cpu.x86_64.Registers` is.
"""

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from broch.cpu.x86_64 import EXECUTE, READ, WRITE, Region, Registers, StopKind
from broch.errors import InternalError

# Its types are wrong for Python 3, so as far as types go it has none.
unicorn: Final[Any] = importlib.import_module("unicorn")
x86_const: Final[Any] = importlib.import_module("unicorn.x86_const")

_REGISTERS: Final = {
    **{
        name: getattr(x86_const, f"UC_X86_REG_{name.upper()}")
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx"),
            *("rdx", "rsi", "rdi", "rip", "rsp", "fs_base", "gs_base"),
        )
    },
    "eflags": x86_const.UC_X86_REG_RFLAGS,
}
_CR4: Final = 1 << 9 | 1 << 10 | 1 << 18  # OSFXSR, OSXMMEXCPT, OSXSAVE, as an operating system sets
_ERRORS: Final = {
    unicorn.UC_ERR_INSN_INVALID: StopKind.ILLEGAL,
    **dict.fromkeys(
        (
            *(unicorn.UC_ERR_READ_UNMAPPED, unicorn.UC_ERR_WRITE_UNMAPPED),
            *(unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_READ_PROT),
            *(unicorn.UC_ERR_WRITE_PROT, unicorn.UC_ERR_FETCH_PROT, unicorn.UC_ERR_EXCEPTION),
            *(unicorn.UC_ERR_READ_UNALIGNED, unicorn.UC_ERR_WRITE_UNALIGNED),
            unicorn.UC_ERR_FETCH_UNALIGNED,
        ),
        StopKind.FAULT,
    ),
}
_INTERRUPTS: Final = {
    0: StopKind.DIVIDE,
    1: StopKind.TRAP,
    3: StopKind.TRAP,
    6: StopKind.ILLEGAL,
    16: StopKind.DIVIDE,  # x87
    19: StopKind.DIVIDE,  # SSE
    0x80: StopKind.SYSCALL,
}
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

# Called for every stop, so with arguments that are converted once. Only the first gives up Python's
# lock: the others return at once.
_library: Final = unicorn.unicorn_py3.unicorn.uclib
_emu_start: Final = ctypes.CDLL(_library._name).uc_emu_start
_read: Final = ctypes.PyDLL(_library._name).uc_reg_read_batch
_write: Final = ctypes.PyDLL(_library._name).uc_reg_write_batch


class Core:
    """One CPU with the given memory."""

    def __init__(self, regions: Sequence[Region], *, forbid_tsc: bool) -> None:
        """Make it; its memory is that of ``regions``, not a copy."""
        self.registers = Registers()
        self.fault_address: int | None = None
        self._stopped_by: StopKind | None = None
        self._stopped_at = 0
        self._is_interrupted = False
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._handle: int = self._uc._uch.value
        self._map(regions)
        cr4 = self._uc.reg_read(x86_const.UC_X86_REG_CR4)
        self._uc.reg_write(x86_const.UC_X86_REG_CR4, cr4 | _CR4)
        self._hook(forbid_tsc)
        base = ctypes.addressof(self.registers)
        self._batch = (
            ctypes.c_void_p(self._handle),
            (ctypes.c_int * len(_REGISTERS))(*_REGISTERS.values()),
            (ctypes.c_void_p * len(_REGISTERS))(
                *(base + Registers.offset_of(name) for name in _REGISTERS)
            ),
            ctypes.c_int(len(_REGISTERS)),
        )
        rip = ctypes.c_uint64.from_buffer(self.registers, Registers.offset_of("rip"))
        nowhere, never = ctypes.c_uint64(0), ctypes.c_size_t(0)
        self._timeout = ctypes.c_uint64(0)
        self._microseconds = 0
        self._start = (ctypes.c_void_p(self._handle), rip, nowhere, self._timeout, never)
        _read(*self._batch)

    def run(self, microseconds: int) -> StopKind | None:
        """Run from ``registers`` on until the code stops, then fill ``registers``.

        None if it was only that the time was over (0: never is) or :meth:`interrupt` was called.
        """
        self._stopped_by = self.fault_address = None
        self._is_interrupted = False
        if microseconds != self._microseconds:
            self._timeout.value = self._microseconds = microseconds
        _write(*self._batch)
        error = _emu_start(*self._start)
        _read(*self._batch)
        if (hooked := self._hooked()) is not None:
            self.registers.rip = self._stopped_at
            return hooked
        if error == 0:
            over = microseconds and self._uc.query(unicorn.UC_QUERY_TIMEOUT)
            return None if self._is_interrupted or over else StopKind.HALT
        kind = _ERRORS.get(error)
        if kind is None:
            raise InternalError(f"unicorn: {unicorn.UcError(error)}")
        return kind

    def _hooked(self) -> StopKind | None:
        """What a hook stopped for in the last run."""
        return self._stopped_by

    def interrupt(self) -> None:
        """Make :meth:`run` return, if it runs. From any thread."""
        self._is_interrupted = True
        if (uc := self._uc) is not None:
            uc.emu_stop()

    def close(self) -> None:
        """Give everything back; it must not run."""
        self._uc = None

    def _map(self, regions: Sequence[Region]) -> None:
        for region in regions:
            rights = 0
            for right, same in (
                (READ, unicorn.UC_PROT_READ),
                (WRITE, unicorn.UC_PROT_WRITE),
                (EXECUTE, unicorn.UC_PROT_EXEC),
            ):
                rights |= same if region.rights & right else 0
            # Where it is does not change; whoever made the memory closes it after us.
            place = ctypes.addressof(ctypes.c_char.from_buffer(region.memory.view))
            place += region.offset
            self._uc.mem_map_ptr(region.address, region.size, rights, place)

    def _hook(self, forbid_tsc: bool) -> None:
        add, hook = self._uc.hook_add, unicorn.UC_HOOK_INSN
        add(unicorn.UC_HOOK_MEM_INVALID, self._on_memory)
        add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        for kind, instruction in (
            (StopKind.SYSCALL, x86_const.UC_X86_INS_SYSCALL),
            (StopKind.SYSCALL, x86_const.UC_X86_INS_SYSENTER),
            (StopKind.CPUID, x86_const.UC_X86_INS_CPUID),
            (StopKind.HALT, x86_const.UC_X86_INS_IN),
            (StopKind.HALT, x86_const.UC_X86_INS_OUT),
        ):
            add(hook, self._stopper(kind), aux1=instruction)
        if forbid_tsc:
            self._hook_tsc()

    def _hook_tsc(self) -> None:
        """The library knows hooks of RDTSC and RDTSCP, its Python binding does not."""
        self._on_tsc = _CALLBACK(self._stopper(StopKind.RDTSC))
        for instruction in (x86_const.UC_X86_INS_RDTSC, x86_const.UC_X86_INS_RDTSCP):
            error = _library.uc_hook_add(
                *(ctypes.c_void_p(self._handle), ctypes.byref(ctypes.c_size_t())),
                *(ctypes.c_int(unicorn.UC_HOOK_INSN), self._on_tsc, ctypes.c_void_p(None)),
                *(ctypes.c_uint64(1), ctypes.c_uint64(0), ctypes.c_int(instruction)),
            )
            if error:
                raise InternalError(f"unicorn: {unicorn.UcError(error)}")

    def _stopper(self, kind: StopKind) -> Callable[..., int]:
        def stop(*_: Any) -> int:
            self._stop(kind)
            return 1  # do not execute it

        return stop

    def _stop(self, kind: StopKind) -> None:
        # What follows in the same block of code still runs, so this is where it counts.
        if self._stopped_by is None:
            self._stopped_by = kind
            self._stopped_at = self._uc.reg_read(x86_const.UC_X86_REG_RIP)
        self._uc.emu_stop()

    def _on_memory(self, _: Any, __: int, address: int, *___: Any) -> bool:
        self.fault_address = address
        return False

    def _on_interrupt(self, _: Any, number: int, __: Any) -> None:
        self._stop(_INTERRUPTS.get(number, StopKind.FAULT))
