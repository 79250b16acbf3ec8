"""Why an enclave ended, in words, with the option that helps."""

from typing import Final

from broch.cpu.x86_64 import READ, WRITE, Engine, Stop, StopKind
from broch.tee.sgx.run.ends import EnclaveFaultError
from broch.tee.sgx.run.leaves import Leaf
from broch.tee.sgx.run.loading import LoadedEnclave, Tcs
from broch.tee.sgx.sgxs import PAGE

_NEAR: Final = 1 << 16  # bytes below a stack: what convert leaves unmapped
_STACK_HINT: Final = "give it more stack: --stack-size of broch sgx convert or broch image build"
_HEAP_HINT: Final = "give it more heap: --heap-size of broch sgx convert or broch image build"
_THREADS_HINT: Final = "give it more threads, one for main too: broch sgx convert --threads"
_LACKS: Final = (  # what a panic says when something was used up; of Rust and of the C kit
    ("memory allocation of ", _HEAP_HINT),
    ("out of memory", _HEAP_HINT),
    ("failed to spawn thread", _THREADS_HINT),
)
_DEBUG_HINT: Final = "to see why, convert or build it with --debug"
_FORBIDDEN: Final = {
    b"\x0f\x05": "SYSCALL",
    b"\x0f\x34": "SYSENTER",
    b"\xcd\x80": "INT 0x80",
    b"\x0f\xa2": "CPUID",
    b"\x0f\x31": "RDTSC",
    b"\x0f\x01\xf9": "RDTSCP",
    b"\x0f\x0b": "UD2",
}
_BY_KIND: Final = {  # where the instruction cannot be read
    StopKind.CPUID: "CPUID",
    StopKind.RDTSC: "RDTSC",
    StopKind.SYSCALL: "a system call",
}
_MEMORY: Final = (StopKind.FAULT, StopKind.BUS)
_TSC: Final = ("RDTSC", "RDTSCP")
_TSC_HINT: Final = "CPUs with SGX2 allow it: broch run --sgx2"
_ASK_HINT: Final = "an enclave asks its host for what it may not do itself, by a usercall"
_ABORT_HINT: Final = "the program aborted itself: an assertion, or what the compiler proved wrong"


def panic(buffer: bytes) -> tuple[str, str | None]:
    """(Message, hint) for what a panic left in the debug buffer."""
    if not buffer[0]:
        return "Enclave panicked.", _DEBUG_HINT
    text = buffer.partition(b"\0")[0]
    try:
        message = text.decode()
    except UnicodeDecodeError:
        return f"Enclave panicked: {text!r}", None
    hints = (hint for words, hint in _LACKS if words in message.lower())
    return f"Enclave panicked: {message}", next(hints, None)


def leaf(number: int) -> EnclaveFaultError:
    """ENCLU with a leaf that cannot be executed here."""
    names = {int(known): known.name for known in Leaf}
    what = names.get(number, f"leaf {number}")
    if number in (Leaf.EENTER, Leaf.ERESUME):
        return EnclaveFaultError(f"#GP: {what} inside an enclave")
    return EnclaveFaultError(f"#GP: ENCLU {what}: this CPU does not have it")


def fault(enclave: LoadedEnclave, engine: Engine, stop: Stop) -> EnclaveFaultError:
    """What a thread did that ends its enclave."""
    registers = engine.registers(stop.thread)
    where = _where(enclave, registers.rip)
    address = engine.fault_address(stop.thread) if stop.kind in _MEMORY else None
    forbidden = _forbidden(enclave, stop, registers.rip)
    if forbidden is not None and address is None:  # else it was not even read as an instruction
        name, at = forbidden
        return _illegal(name, _where(enclave, at))
    if stop.kind is StopKind.ILLEGAL:
        return EnclaveFaultError(f"#UD: illegal instruction at {where}", hint=_cpu_hint())
    if stop.kind is StopKind.DIVIDE:
        return EnclaveFaultError(f"arithmetic fault (division by zero?) at {where}")
    if stop.kind is StopKind.TRAP:
        return EnclaveFaultError(f"#BP: breakpoint at {where}")
    if stop.kind is StopKind.HALT:
        return EnclaveFaultError(f"#GP: instruction of operating systems at {where}")
    return _memory(enclave, stop, address, registers.rip, registers.rsp)


def _cpu_hint() -> str:
    return "is the program built for features that this CPU, or the unicorn engine, lacks?"


def _forbidden(enclave: LoadedEnclave, stop: Stop, rip: int) -> tuple[str, int] | None:
    """Which instruction that no enclave may execute, and where it is."""
    # A system call has been passed when it stops, an instruction that faults has not.
    starts = (rip - 2, rip) if stop.kind is StopKind.SYSCALL else (rip,)
    for start in starts:
        code = _code(enclave, start)
        for instruction, text in _FORBIDDEN.items():
            if code.startswith(instruction):
                return text, start
    return (_BY_KIND[stop.kind], rip) if stop.kind in _BY_KIND else None


def _illegal(what: str, where: str) -> EnclaveFaultError:
    hint = _TSC_HINT if what in _TSC else _ABORT_HINT if what == "UD2" else _ASK_HINT
    return EnclaveFaultError(
        f"#UD: {what} at {where}" + ("" if what == "UD2" else ", which is illegal in an enclave"),
        hint=hint,
    )


def _memory(
    enclave: LoadedEnclave, stop: Stop, address: int | None, rip: int, rsp: int
) -> EnclaveFaultError:
    where = _where(enclave, rip)
    for number, tcs in enumerate(enclave.threads):
        bottom = _stack_bottom(enclave, tcs)
        if bottom is not None and any(
            bottom - _NEAR <= place < bottom for place in (address, rsp) if place is not None
        ):
            return EnclaveFaultError(
                f"stack overflow in thread {number}, at {where}", hint=_STACK_HINT
            )
    if address is None:
        return EnclaveFaultError(
            f"#GP: a fault without an address at {where}: a privileged instruction, misaligned "
            "data, or an address that no memory can have"
        )
    if address == rip:
        return EnclaveFaultError(f"#PF: 0x{rip:x} cannot be executed: {_what(enclave, address)}")
    return EnclaveFaultError(f"#PF: access to 0x{address:x} at {where}: {_what(enclave, address)}")


def _what(enclave: LoadedEnclave, address: int) -> str:
    if not enclave.base <= address < enclave.base + enclave.secs.size:
        near_null = address < PAGE
        return "a null pointer" if near_null else "neither the enclave's nor user memory"
    rights = enclave.rights(address, 1)
    if not rights:
        return "no page of the enclave is there"
    shown = "".join(c if rights & bit else "-" for c, bit in zip("rwx", (1, 2, 4), strict=True))
    return f"the enclave's page there is {shown}"


def _where(enclave: LoadedEnclave, rip: int) -> str:
    if enclave.base <= rip < enclave.base + enclave.secs.size:
        return f"0x{rip - enclave.base:x}"
    return f"0x{rip:x} (outside the enclave)"


def _code(enclave: LoadedEnclave, address: int) -> bytes:
    size = 3
    while size and not enclave.rights(address, size):
        size -= 1
    return enclave.read(address, size) if size else b""


def _stack_bottom(enclave: LoadedEnclave, tcs: Tcs) -> int | None:
    """Where the stack of a thread begins: the writable pages that end with its thread data."""
    tls = enclave.base + tcs.ofsbase
    for region in enclave.regions:
        if region.address <= tls < region.address + region.size:
            return region.address if region.rights == READ | WRITE else None
    return None
