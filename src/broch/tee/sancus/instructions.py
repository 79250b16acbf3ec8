"""The instructions that Sancus adds to an MSP430: opcodes 0x1380 to 0x1389.

    0x1380  unprotect      r15 where to go on; from inside the module only; wipes it
    0x1381  protect        r11 vendor, r12 r13 text, r14 r15 secret (starts and ends) -> r15 id
                           with r10 not 0 the text is decrypted first: r10 nonce, r9 tag's address
    0x1382  verify         r14 address in a module, r15 tag's address -> r15 its id
    0x1383  verify caller  r15 tag's address -> r15 the caller's id
    0x1384  wrap           r9 key's address or 0 for the module's own, r10 r11 associated data,
                           r12 r13 body (starts and ends), r14 where the cipher goes, r15 the tag
                           -> r15 1
    0x1385  unwrap         the same, with cipher in r12 r13, what it opens to in r14 -> r15 1
    0x1386  get-id         r15 address -> r15 id of the module whose text is there
    0x1387  get-caller-id  -> r15 id of what ran before this module
    0x1388  stack guard    r15 lowest address of the stack, 0 for none
    0x1389  clix           r15 cycles without interrupts

What fails gives 0 in r15. A clear zero flag says that the instruction came to its end; here it
always does. Memory is read and written with the rights of the code that asks, but for the text of a
module that is protected, verified or wiped: for these the hardware looks for itself.

Cycles: those measured on the RTL, 93 a block at 64 bits and 173 at 128 (sancus-core b6b53bb3);
between them nobody measured, and it is taken to be in proportion to the permutation's rounds.
"""

from functools import lru_cache
from typing import Final

from broch.cpu.msp430 import Access, Cpu, Instruction
from broch.cpu.msp430.decode import GIE, PC, SP, SR, ZERO
from broch.crypto.spongent import SpongeWrap
from broch.errors import UntrustedError
from broch.tee.contract import NonVolatile
from broch.tee.sancus.keys import identity, recalled_module_key, vendor_key
from broch.tee.sancus.layout import Layout, overlap
from broch.tee.sancus.protection import Module, Protection

UNPROTECT, PROTECT, VERIFY, VERIFY_CALLER, WRAP, UNWRAP = range(0x1380, 0x1386)
GET_ID, GET_CALLER_ID, STACK_GUARD, CLIX = range(0x1386, 0x138A)
MAX_CLIX: Final = 10_000  # cycles; the RTL's bound is set when it is synthesised
_BLOCK_CYCLES: Final = {8: 93, 10: 124, 16: 173}
_CONSTANT_CYCLES: Final = {8: 136, 10: 170, 16: 215}
_NEVER: Final = 1 << 62


class Sancus:
    """Gives a CPU these instructions, and a node key.

    Args:
        cpu: its policy is ``protection``.
        protection: the modules.
        node_key: 8, 10 or 16 bytes, which is the security of everything here.
        store: where the emulator keeps module keys, so that each is computed once.
    """

    name = "Sancus"
    addresses: tuple[range, ...] = ()

    def __init__(
        self,
        cpu: Cpu,
        protection: Protection,
        node_key: bytes,
        store: NonVolatile | None = None,
    ) -> None:
        self._cpu = cpu
        self._protection = protection
        self._node_key = node_key
        self._store = store
        self._size = len(node_key)
        self._quiet_until = _NEVER  # the end of a clix
        self._was_enabled = False  # whether interrupts were, before it
        self._guard = 0
        cpu.unmaskable |= 1 << 13
        cpu.extensions.update(
            {
                UNPROTECT: self._unprotect,
                PROTECT: self._protect,
                VERIFY: self._verify,
                VERIFY_CALLER: self._verify_caller,
                WRAP: self._wrap,
                UNWRAP: self._unwrap,
                GET_ID: self._get_id,
                GET_CALLER_ID: self._get_caller_id,
                STACK_GUARD: self._stack_guard,
                CLIX: self._clix,
            }
        )
        cpu.bus.attach(self)

    # Modules

    def _protect(self, cpu: Cpu) -> None:
        registers = cpu.registers
        layout = Layout(
            public_start=registers[12],
            public_end=registers[13],
            secret_start=registers[14],
            secret_end=registers[15],
        )
        self._done(self._protected(cpu, layout, vendor=registers[11]))

    def _protected(self, cpu: Cpu, layout: Layout, *, vendor: int) -> int:
        protection = self._protection
        if not layout.valid or protection.is_full:
            return 0
        if protection.collides(layout):
            protection.violation(cpu, None, layout.public_start, cpu.registers[PC])
            return 0
        text = self._text(cpu, layout)
        if text is None:
            return 0
        key = vendor_key(self._node_key, vendor)
        self._spend(1)
        nonce = cpu.registers[10]
        if nonce:
            opened = self._opened(cpu, key, text, nonce)
            if opened is None:
                return 0
            text = opened
            cpu.bus.load(layout.public_start, text)
        self._spend(len(text) // 2 + 4)
        at = cpu.registers[PC] - 2 & 0xFFFF
        module = protection.add(layout, self._module_key(key, text, layout), pc=at)
        cpu.policy_changed()
        return module.id

    def _module_key(self, vendor: bytes, text: bytes, layout: Layout) -> bytes:
        return recalled_module_key(vendor, text, layout, self._store)

    def _text(self, cpu: Cpu, layout: Layout) -> bytes | None:
        """The text of a new module; others' memory cannot be made text."""
        for module in self._protection.modules.values():
            for taken in (module.layout.text, module.layout.secret):
                if overlap(layout.text, taken):
                    first = max(layout.text.start, taken.start)
                    self._protection.violation(cpu, Access.READ, first, cpu.registers[PC])
                    return None
        return bytes(cpu.bus.memory[layout.public_start : layout.public_end])

    def _opened(self, cpu: Cpu, key: bytes, text: bytes, nonce: int) -> bytes | None:
        """Confidential loading: the text that its vendor wrapped."""
        tag = self._read(cpu, cpu.registers[9], cpu.registers[9] + self._size)
        self._spend(1 + len(text) // 2)
        try:
            return SpongeWrap(key).unwrap(nonce.to_bytes(2, "little"), text, tag or b"")
        except UntrustedError:
            return None

    def _unprotect(self, cpu: Cpu) -> None:
        module = self._protection.at(cpu.registers[PC] - 2 & 0xFFFF)
        if module is None:
            self._done(0)
            return
        continuation = cpu.registers[15]
        wipe(cpu, module)
        self._protection.remove(module)
        cpu.policy_changed()
        cpu.cycles += len(module.layout.text) // 2 + len(module.layout.secret) // 2
        cpu.registers[PC] = continuation & 0xFFFE
        cpu.registers[SR] &= ~ZERO

    def _verify(self, cpu: Cpu) -> None:
        self._check(cpu, self._protection.at(cpu.registers[14]))

    def _verify_caller(self, cpu: Cpu) -> None:
        self._check(cpu, self._protection.modules.get(self._protection.previous))

    def _check(self, cpu: Cpu, module: Module | None) -> None:
        if module is None:
            self._done(0)
            return
        layout = module.layout
        text = bytes(cpu.bus.memory[layout.public_start : layout.public_end])
        tag = self._read(cpu, cpu.registers[15], cpu.registers[15] + self._size)
        self._spend(len(text) // 2 + 4 + self._size // 2)
        self._done(module.id if tag == identity(text, layout, self._size) else 0)

    def _get_id(self, cpu: Cpu) -> None:
        module = self._protection.at(cpu.registers[15])
        self._done(0 if module is None else module.id)

    def _get_caller_id(self, cpu: Cpu) -> None:
        del cpu
        self._done(self._protection.previous)

    # Cryptography

    def _wrap(self, cpu: Cpu) -> None:
        found = self._inputs(cpu)
        if found is None:
            self._done(0)
            return
        key, data, body = found
        cipher, tag = _keyed(key).wrap(data, body) if body else (b"", _mac(key, data))
        registers = cpu.registers
        written = self._write(cpu, registers[14], cipher) and self._write(cpu, registers[15], tag)
        self._done(int(written))

    def _unwrap(self, cpu: Cpu) -> None:
        found = self._inputs(cpu)
        registers = cpu.registers
        tag = self._read(cpu, registers[15], registers[15] + self._size)
        if found is None or tag is None:
            self._done(0)
            return
        key, data, cipher = found
        wrap = _keyed(key)
        try:
            body = wrap.unwrap(data, cipher, tag)
        except UntrustedError:
            if self._protection.as_rtl:
                self._write(cpu, registers[14], wrap.decrypt_unverified(data, cipher)[0])
            self._done(0)
            return
        self._done(int(self._write(cpu, registers[14], body)))

    def _inputs(self, cpu: Cpu) -> tuple[bytes, bytes, bytes] | None:
        """Key, associated data, body; None if one of them cannot be had."""
        registers = cpu.registers
        key: bytes | None
        if registers[9]:
            key = self._read(cpu, registers[9], registers[9] + self._size)
        else:
            module = self._protection.at(registers[PC] - 2 & 0xFFFF)
            key = None if module is None else module.key
        data = self._read(cpu, registers[10], registers[11])
        body = self._read(cpu, registers[12], registers[13])
        if key is None or data is None or body is None:
            return None
        self._spend(max(1, len(data) // 2) + max(1, len(body) // 2) + self._size // 2)
        return key, data, body

    def _read(self, cpu: Cpu, start: int, end: int) -> bytes | None:
        """Words from ``start`` to ``end`` as the running code may see them; None if it may not."""
        words = []
        for address in range(start & 0xFFFE, end, 2):
            if self._is_refused(cpu, Access.READ, address):
                return None
            words.append(cpu.read(address & 0xFFFF, byte=False).to_bytes(2, "little"))
        return b"".join(words)

    def _write(self, cpu: Cpu, start: int, data: bytes) -> bool:
        """Write words as the running code may; false if it may not."""
        for at in range(0, len(data), 2):
            address = (start & 0xFFFE) + at & 0xFFFF
            if self._is_refused(cpu, Access.WRITE, address):
                return False
            cpu.write(address, int.from_bytes(data[at : at + 2], "little"), byte=False)
        return True

    def _is_refused(self, cpu: Cpu, access: Access, address: int) -> bool:
        here = self._protection.domain(cpu.registers[PC] - 2 & 0xFFFF)
        for addresses, reads, writes in self._protection.refused(here):
            if address & 0xFFFF in addresses and (reads if access is Access.READ else writes):
                self._protection.violation(cpu, access, address & 0xFFFF, cpu.registers[PC])
                return True
        return False

    def _spend(self, blocks: int) -> None:
        """The time of so many blocks after those of the key."""
        blocks += self._size // 2
        self._cpu.cycles += _CONSTANT_CYCLES[self._size] + blocks * _BLOCK_CYCLES[self._size]

    def _done(self, result: int) -> None:
        self._cpu.registers[15] = result
        self._cpu.registers[SR] &= ~ZERO

    # Stack guard and clix

    def _stack_guard(self, cpu: Cpu) -> None:
        self._guard = cpu.registers[15] & 0xFFFE
        cpu.trace = self._look_at_stack if self._guard else None
        cpu.registers[SR] &= ~ZERO

    def _look_at_stack(self, instruction: Instruction, cpu: Cpu) -> None:
        if cpu.registers[SP] < self._guard:
            self._protection.violation(cpu, Access.WRITE, cpu.registers[SP], instruction.address)

    def _clix(self, cpu: Cpu) -> None:
        length = cpu.registers[15]
        cpu.registers[SR] &= ~ZERO
        if self._is_quiet or length > MAX_CLIX:
            self._protection.violation(cpu, None, cpu.registers[PC], cpu.registers[PC] - 2 & 0xFFFF)
            return
        self._was_enabled = bool(cpu.registers[SR] & GIE)
        cpu.registers[SR] &= ~GIE
        self._quiet_until = cpu.cycles + length
        cpu.peripherals_changed()

    @property
    def _is_quiet(self) -> bool:
        """Whether a clix lasts: code that enables interrupts ends it early."""
        is_over = self._cpu.cycles >= self._quiet_until
        return self._quiet_until != _NEVER and not (is_over or self._cpu.registers[SR] & GIE)

    # As a peripheral without addresses: time passes.

    def advance(self, now: int) -> int | None:
        """Let interrupts in again when a clix is over."""
        if self._quiet_until == _NEVER:
            return None
        if self._cpu.registers[SR] & GIE or now >= self._quiet_until:
            self._quiet_until = _NEVER
            if self._was_enabled:
                self._cpu.registers[SR] |= GIE
            return None
        return self._quiet_until

    def read(self, address: int, *, byte: bool) -> int:
        """It has no registers."""
        del address, byte
        return 0

    def write(self, address: int, value: int, *, byte: bool) -> None:
        """It has no registers."""

    def accepted(self, vector: int) -> None:
        """It asks for none but the violation interrupt, which needs no answer."""

    def reset(self) -> None:
        """Nothing is protected after power-on."""
        self._quiet_until = _NEVER
        self._guard = 0
        if self._cpu.trace == self._look_at_stack:
            self._cpu.trace = None
        self._protection.clear()
        self._cpu.policy_changed()


# What the hardware computes anew each time, at its own speed, is kept here: same key, same state.


@lru_cache(maxsize=64)
def _keyed(key: bytes) -> SpongeWrap:
    return SpongeWrap(key)


@lru_cache(maxsize=64)
def _mac(key: bytes, data: bytes) -> bytes:
    return _keyed(key).mac(data)


def wipe(cpu: Cpu, module: Module) -> None:
    """Zero a module's text and secret section, peripherals' registers too."""
    for addresses in (module.layout.text, module.layout.secret):
        if addresses.stop <= 0x0200:
            for address in range(addresses.start, addresses.stop, 2):
                cpu.bus.write_plain(address, 0, byte=False)
        else:
            cpu.bus.load(addresses.start, bytes(len(addresses)))
