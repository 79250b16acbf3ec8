"""A host for Fortanix enclaves that tells every lie it is asked to tell.

It runs an SGXS stream in Unicorn and leaves everything at the boundary to the test: registers and
flags at EENTER, answers of usercalls, what user memory holds and when it changes. It sees what a
host sees (registers at EEXIT) and what no host sees: every single access to user memory.

It is no part of ``broch run``, which is an honest host; it shares no code with it on purpose.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pytest

from broch.errors import DecodeError
from broch.tee.sgx import sgxs
from broch.tee.sgx.faults import SgxRefusedError
from broch.tee.sgx.keys import Fuses, egetkey, ereport
from broch.tee.sgx.structures import KeyRequest, Secs, TargetInfo

unicorn: Any = pytest.importorskip("unicorn")
x86: Any = pytest.importorskip("unicorn.x86_const")

PAGE: Final = 4096
BASE: Final = 0x1_0000_0000  # where the enclave is
USER: Final = 0x2000_0000  # where the host's memory is
USER_SIZE: Final = 0x100_0000
RETURN: Final = USER + USER_SIZE - PAGE  # what RCX holds at EENTER
DEBUG_BUFFER: Final = USER + USER_SIZE - 2 * PAGE
HOST_RSP: Final = USER + USER_SIZE - 3 * PAGE
HOST_REGISTERS: Final = {"rsp": HOST_RSP, "rbp": 0xB0B, "r12": 12, "r13": 13, "r14": 14, "r15": 15}
GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_TCS: Final = struct.Struct("<8xQQIIQ8xQQ")  # flags, ossa, cssa, nssa, oentry, ofsbase, ogsbase
_ENCLU: Final = b"\x0f\x01\xd7"
_LIMIT: Final = 200_000_000  # instructions until a test is called endless
_CALLS: Final = 10_000  # usercalls until a test is called endless
_ID: Final = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in GENERAL}
MXCSR_DEFAULT: Final = 0x1F80


class Exit(NamedTuple):
    """What the host sees after EEXIT."""

    registers: dict[str, int]
    flags: int
    mxcsr: int
    xmm: tuple[int, ...]

    @property
    def number(self) -> int:
        """0 for a return, else the usercall."""
        return self.registers["rdi"]

    @property
    def values(self) -> tuple[int, int, int, int]:
        """The parameters of a usercall; the first two are results of a return."""
        r = self.registers
        return r["rsi"], r["rdx"], r["r8"], r["r9"]


class Access(NamedTuple):
    """One access of the enclave to user memory."""

    write: bool
    address: int
    size: int
    value: int  # of a write


class FaultError(Exception):
    """The enclave did what the CPU stops: it is dead, cleanly."""


class AbortedError(Exception):
    """The enclave ended itself, by usercall exit(panic = true); the message is its own."""


class ExitedError(Exception):
    """The enclave ended without panic."""


Answer = tuple[int, int]
Handler = Callable[["Host", Exit], Answer]


@dataclass(kw_only=True)
class Host:
    """One enclave and its host. ``handlers`` answer usercalls; without one, an honest answer."""

    stream: bytes
    handlers: dict[int, Handler] = field(default_factory=dict)
    on_read: Callable[["Host", int], None] | None = None  # before the read, with its address
    xmm_poison: int = 0

    def __post_init__(self) -> None:
        self.sgxs = sgxs.Sgxs.from_bytes(self.stream)
        self.accesses: list[Access] = []
        self.calls: list[tuple[int, tuple[int, int, int, int]]] = []
        self.output = b""
        self.allocated: dict[int, int] = {}
        self.faulted: int | None = None  # the address of the last access that there is not
        self._next = USER + PAGE
        self.engine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.engine.reg_write(x86.UC_X86_REG_CR4, 1 << 18 | 1 << 9 | 1 << 10 | 0x20)
        self.tcs: list[tuple[int, ...]] = []
        for page in self.sgxs.pages:
            if page.flags & sgxs.PT_MASK == sgxs.PT_TCS:
                self.tcs.append(_TCS.unpack_from(page.data))
                continue
            self.engine.mem_map(BASE + page.offset, PAGE, page.flags & 7)
            self.engine.mem_write(BASE + page.offset, bytes(page.data))
        self.engine.mem_map(USER, USER_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        end = USER + USER_SIZE
        hooks: list[tuple[int, Any, int, int]] = [
            (unicorn.UC_HOOK_INSN_INVALID, self._stop, 1, 0),
            (unicorn.UC_HOOK_MEM_READ, self._read, USER, end),
            (unicorn.UC_HOOK_MEM_WRITE, self._write, USER, end),
            (unicorn.UC_HOOK_MEM_INVALID, self._fault, 1, 0),
        ]
        for kind, function, first, last in hooks:
            self.engine.hook_add(kind, function, None, first, last)
        self.secs = Secs(
            size=self.sgxs.create.size,
            ssaframesize=self.sgxs.create.ssaframesize,
            flags=5,
            xfrm=3,
            mrenclave=sgxs.measure(self.stream),
            mrsigner=b"S" * 32,
            isvsvn=3,
        )
        self.fuses = Fuses(
            device_key=b"D" * 16,
            seal_fuses=b"F" * 16,
            owner_epoch=b"O" * 16,
            report_keyid=b"K" * 32,
            cpusvn=bytes(range(16)),
        )

    # Memory of the host.

    def place(self, data: bytes) -> int:
        """Put data into user memory; where it is."""
        address = self.reserve(len(data))
        self.engine.mem_write(address, data)
        return address

    def reserve(self, size: int) -> int:
        """Room in user memory, filled with what an enclave must not rely on."""
        address = self._next
        self._next += -(-max(size, 1) // 64) * 64
        assert self._next < USER + USER_SIZE - 4 * PAGE, "the test ran out of user memory"
        self.engine.mem_write(address, b"\xa5" * size)
        return address

    def read(self, address: int, size: int) -> bytes:
        """Bytes of any memory."""
        return bytes(self.engine.mem_read(address, size))

    def arguments(self, *texts: bytes) -> tuple[int, int]:
        """The ByteBuffers of a command line: RDI, RSI."""
        buffers = b"".join(struct.pack("<QQ", self.place(text), len(text)) for text in texts)
        return self.place(buffers), len(texts)

    # The boundary.

    def enter(
        self,
        *values: int,
        thread: int = 0,
        cssa: int = 0,
        flags: int = 2,
        mxcsr: int = MXCSR_DEFAULT,
        **registers: int,
    ) -> Exit:
        """EENTER with RDI, RSI, RDX, R8, R9 as given; until EEXIT.

        Raises:
            FaultError: something that the CPU stops.
        """
        _, _, _, _, oentry, ofsbase, ogsbase = self.tcs[thread]
        state = dict.fromkeys(GENERAL, 0xDEAD) | HOST_REGISTERS
        state |= dict(
            zip(("rdi", "rsi", "rdx", "r8", "r9"), (*values, 0, 0, 0, 0, 0), strict=False)
        )
        state |= {"rax": cssa, "rbx": BASE, "rcx": RETURN, "r10": DEBUG_BUFFER} | registers
        for name, value in state.items():
            self.engine.reg_write(_ID[name], value & 2**64 - 1)
        self.engine.reg_write(x86.UC_X86_REG_FS_BASE, BASE + ofsbase)
        self.engine.reg_write(x86.UC_X86_REG_GS_BASE, BASE + ogsbase)
        self.engine.reg_write(x86.UC_X86_REG_EFLAGS, flags)
        self.engine.reg_write(x86.UC_X86_REG_MXCSR, mxcsr)
        for index in range(16):
            self.engine.reg_write(x86.UC_X86_REG_XMM0 + index, self.xmm_poison)
        return self._run(BASE + oentry)

    def call(self, *values: int, thread: int = 0, **how: int) -> tuple[int, int]:
        """Enter, answer usercalls, until the enclave returns: RSI, RDX.

        Raises:
            AbortedError, ExitedError: it ended instead.
            FaultError: it was stopped.
        """
        out = self.enter(*values, thread=thread, **how)
        while out.number:
            first, second = self.answer(out)
            out = self.enter(0, first, second, thread=thread)
        return out.values[0], out.values[1]

    def answer(self, out: Exit) -> Answer:
        """What the host answers to a usercall."""
        self.calls.append((out.number, out.values))
        assert len(self.calls) < _CALLS, "the enclave never stops asking"
        if out.number == 10 and 10 not in self.handlers:
            if out.values[0]:
                raise AbortedError(self.read(DEBUG_BUFFER, 1024).split(b"\0")[0].decode())
            raise ExitedError
        handler = self.handlers.get(out.number, HONEST.get(out.number))
        assert handler is not None, f"nobody answers usercall {out.number:#x}"
        return handler(self, out)

    def main(self, *arguments: bytes) -> bytes:
        """Run main until the enclave exits; its output."""
        try:
            self.call(*self.arguments(b"enclave", *arguments))
        except ExitedError:
            return self.output
        raise AssertionError("main returned to the host")

    def _run(self, start: int) -> Exit:
        while True:
            try:
                self.engine.emu_start(start, RETURN, count=_LIMIT)
            except unicorn.UcError as exc:
                rip = self.engine.reg_read(x86.UC_X86_REG_RIP) - BASE
                raise FaultError(f"{exc} at +0x{rip:x}") from None
            start = self.engine.reg_read(x86.UC_X86_REG_RIP)
            if bytes(self.engine.mem_read(start, 3)) != _ENCLU:
                raise FaultError(f"ud2 at +0x{start - BASE:x}")
            leaf = self.engine.reg_read(x86.UC_X86_REG_RAX)
            if leaf == 4:
                return self._exit()
            self._leaf(leaf)
            start += len(_ENCLU)

    def _exit(self) -> Exit:
        registers = {name: self.engine.reg_read(_ID[name]) for name in GENERAL}
        return Exit(
            registers=registers,
            flags=self.engine.reg_read(x86.UC_X86_REG_EFLAGS),
            mxcsr=self.engine.reg_read(x86.UC_X86_REG_MXCSR),
            xmm=tuple(self.engine.reg_read(x86.UC_X86_REG_XMM0 + i) for i in range(16)),
        )

    def _leaf(self, leaf: int) -> None:
        rbx, rcx, rdx = (self.engine.reg_read(_ID[name]) for name in ("rbx", "rcx", "rdx"))
        if leaf == 0:
            assert (rbx % 512, rcx % 128, rdx % 512) == (0, 0, 0)
            try:
                target = TargetInfo.from_bytes(self.read(rbx, 512))
            except DecodeError as exc:
                raise FaultError(f"#GP of EREPORT: {exc}") from None
            report = ereport(self.fuses, self.secs, target, self.read(rcx, 64))
            self.engine.mem_write(rdx, report.to_bytes())
            return
        assert (leaf, rbx % 512, rcx % 16) == (1, 0, 0)
        try:
            key = egetkey(self.fuses, self.secs, KeyRequest.from_bytes(self.read(rbx, 512)))
        except SgxRefusedError as exc:
            self.engine.reg_write(_ID["rax"], int(exc.number))
            return
        self.engine.mem_write(rcx, key)
        self.engine.reg_write(_ID["rax"], 0)

    def _stop(self, engine: Any, _: object) -> bool:
        engine.emu_stop()
        return True

    def _fault(self, _e: object, _k: int, address: int, _s: int, _v: int, _u: object) -> bool:
        self.faulted = address
        return False

    def _read(self, _e: object, _k: int, address: int, size: int, _v: int, _u: object) -> None:
        if self.on_read is not None:
            self.on_read(self, address)
        self.accesses.append(Access(False, address, size, 0))

    def _write(self, _e: object, _k: int, address: int, size: int, value: int, _u: object) -> None:
        self.accesses.append(Access(True, address, size, value))


def honest_alloc(host: Host, out: Exit) -> Answer:
    size, align, *_ = out.values
    assert size > 0
    assert align & (align - 1) == 0
    address = host.reserve(size)
    host.allocated[address] = size
    return 0, address


def honest_free(host: Host, out: Exit) -> Answer:
    host.allocated.pop(out.values[0], None)
    return 0, 0


def honest_write(host: Host, out: Exit) -> Answer:
    _, address, size, _ = out.values
    host.output += host.read(address, size)
    return 0, size


HONEST: Final[dict[int, Handler]] = {3: honest_write, 14: honest_alloc, 15: honest_free}
