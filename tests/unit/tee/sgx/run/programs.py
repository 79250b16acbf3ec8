"""Enclaves that tests run, and how to build them.

The *scripted* enclave does what a list of steps in user memory says, whatever it is: so a test can
make any usercall, from any thread, with any registers. It is the start file of Broch's C kit and
nothing else of it.

    step: 7 words of 8 bytes: what, four parameters, and what came back (RSI, RDX)

The *trying* enclave is an ordinary program in C that does one thing, right or wrong, by name.
"""

import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broch.image.toolchain import INCLUDE, find
from broch.tee.sgx import compiling, convert
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.user_memory import UserMemory

STEP: Final = struct.Struct("<7Q")
END: Final = 0x1000  # steps that are not usercalls: no more steps
UNTIL: Final = 0x1001  # (address, value): spin until the word there has the value
STORE: Final = 0x1002  # (address, value): put the value there
COPY: Final = 0x1003  # (address, words): copy user memory into the enclave's buffer
ENCLU: Final = 0x1004  # (leaf, RBX, RCX, RDX); 1 << 63 | n stands for the enclave's buffer + n
SHOW: Final = 0x1005  # (address, words, from): copy the enclave's buffer + from to user memory
CAS: Final = 0x1006  # (address, old, new): atomically
BUFFER: Final = 1 << 63

SCRIPTED: Final = r"""
#include <stdint.h>
struct broch_result { uint64_t first, second; };
struct broch_result broch_usercall(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
struct step { uint64_t what, p1, p2, p3, p4, first, second; };
uint32_t broch_dead;
static struct step *volatile scripts[8];
static uint64_t started;
static _Alignas(4096) uint64_t buffer[1024];

static uint64_t place(uint64_t p) { return p >> 63 ? (uint64_t)buffer + (p << 1 >> 1) : p; }

static void follow(struct step *s) {
    for (; s->what != 0x1000; s++) {
        volatile uint64_t *words = (volatile uint64_t *)s->p1;
        if (s->what == 0x1001) {
            while (*words != s->p2) __builtin_ia32_pause();
        } else if (s->what == 0x1002) {
            *words = s->p2;
        } else if (s->what == 0x1003) {
            for (uint64_t i = 0; i < s->p2; i++) buffer[i] = words[i];
        } else if (s->what == 0x1004) {
            uint64_t leaf = s->p1, zf;
            __asm__ volatile("enclu\n pushfq\n pop %1"
                : "+a"(leaf), "=r"(zf) : "b"(place(s->p2)), "c"(place(s->p3)), "d"(place(s->p4))
                : "memory", "cc");
            s->first = leaf; s->second = zf >> 6 & 1;
        } else if (s->what == 0x1005) {
            for (uint64_t i = 0; i < s->p2; i++) words[i] = buffer[s->p3 / 8 + i];
        } else if (s->what == 0x1006) {
            s->first = __sync_val_compare_and_swap(words, s->p2, s->p3);
        } else {
            struct broch_result r = broch_usercall(s->what, s->p1, s->p2, s->p3, s->p4);
            s->first = r.first; s->second = r.second;
        }
    }
    if (s->p1 == 1) broch_usercall(10, 0, 0, 0, 0);
}

static uint64_t number(const char *text, uint64_t size) {
    uint64_t value = 0;
    for (uint64_t i = 0; i < size; i++) value = value * 10 + (uint64_t)(text[i] - '0');
    return value;
}

struct broch_result broch_enter(uint64_t p1, uint64_t p2, uint64_t p3, uint64_t p4, uint64_t p5) {
    uint64_t index = __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    (void)p3, (void)p4, (void)p5;
    if (p1) { /* the main thread: its arguments are where the scripts are */
        const uint64_t (*arguments)[2] = (void *)p1;
        for (uint64_t i = 1; i < p2; i++)
            scripts[i - 1] = (void *)number((void *)arguments[i][0], arguments[i][1]);
    }
    struct step *s = scripts[index];
    follow(s);
    while (s->what != 0x1000) s++;
    return (struct broch_result){s->p3, s->p4};
}
"""

TRYING: Final = r"""
#include "broch.h"
static int is(const char *a, const char *b) { return strcmp(a, b) == 0; }
__attribute__((noinline)) static int deep(volatile int n) {
    volatile char frame[1000];
    frame[0] = (char)n;
    return n ? deep(n - 1) + frame[0] : 0;
}
int main(int argc, char **argv) {
    static const char constant[] = "constant";
    volatile int zero = 0;
    const char *what = argc > 1 ? argv[1] : "";
    uint8_t key[16], label[32] = {0};
    if (is(what, "arguments")) for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
    else if (is(what, "echo")) {
        char data[64];
        for (int64_t n; (n = broch_read(0, data, sizeof data)) > 0;)
            broch_write(1, data, (size_t)n);
        broch_write(2, "end", 3);
    } else if (is(what, "exit")) return 7;
    else if (is(what, "abort")) broch_abort("asked to");
    else if (is(what, "stack")) return deep(1 << 20);
    else if (is(what, "heap")) { if (!malloc(64 << 20)) broch_abort("out of memory"); }
    else if (is(what, "null")) *(volatile int *)0 = 1;
    else if (is(what, "outside")) *(volatile int *)0x12345678 = 1;
    else if (is(what, "constant")) *(volatile char *)constant = 1;
    else if (is(what, "jump")) ((void (*)(void))0x300000000000)();
    else if (is(what, "data")) {
        static uint8_t code[4] = {0x0f, 0x01, 0xd7};
        code[3] = (uint8_t)argc;
        __asm__ volatile("jmp *%2" ::"a"(4), "b"(0x100000), "r"(code), "D"(10), "S"(0));
    } else if (is(what, "divide")) __asm__ volatile("div %0" :: "r"(zero), "a"(1), "d"(0));
    else if (is(what, "ud2")) __builtin_trap();
    else if (is(what, "int3")) __asm__ volatile("int3");
    else if (is(what, "syscall")) __asm__ volatile("syscall" :: "a"(231), "D"(0) : "rcx", "r11");
    else if (is(what, "int80")) __asm__ volatile("int $0x80" :: "a"(1), "b"(0));
    else if (is(what, "cpuid")) __asm__ volatile("cpuid" ::"a"(0) : "ebx", "ecx", "edx");
    else if (is(what, "rdtsc")) __builtin_ia32_rdtsc();
    else if (is(what, "rdtscp")) { unsigned a; __builtin_ia32_rdtscp(&a); }
    else if (is(what, "eenter")) __asm__ volatile("enclu" ::"a"(2));
    else if (is(what, "eaccept")) __asm__ volatile("enclu" ::"a"(5));
    else if (is(what, "elsewhere")) __asm__ volatile("enclu" ::"a"(4), "b"(0x1234));
    else if (is(what, "forever")) { broch_print("here"); for (;;) __builtin_ia32_pause(); }
    else if (is(what, "key")) {
        broch_seal_key(argc > 2 ? BROCH_SEAL_TO_SIGNER : BROCH_SEAL_TO_CODE, label, 0, key);
        for (int i = 0; i < 16; i++) printf("%02x", key[i]);
    } else broch_print("hello");
    return 0;
}
"""

LIBRARY: Final = r"""
#include "broch.h"
static uint32_t calls;
int32_t broch_call(uint32_t number, const void *data, size_t size) {
    char out[256];
    size_t room = sizeof out;
    uint8_t report[BROCH_REPORT_SIZE];
    int32_t value = 0;
    const uint32_t before = __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
    switch (number) {
    case 1: broch_reply(data, size); return (int32_t)size;
    case 2:
        value = broch_ocall(5, data, size, out, &room);
        broch_reply(out, room);
        return value;
    case 3: broch_abort("three");
    case 4: for (;;) __builtin_ia32_pause();
    case 5:
        broch_report(data, (const uint8_t *)data + 512, report);
        broch_reply(report, sizeof report);
        return 0;
    case 6: /* until the next call has come */
        while (__atomic_load_n(&calls, __ATOMIC_SEQ_CST) == before + 1) __builtin_ia32_pause();
        return 66;
    case 7: broch_exit(0);
    default: return -1;
    }
}
"""


def compiled(source: str, *, library: bool = False) -> bytes:
    """The ELF file of a program written for the C kit."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "program.c"
        path.write_text(source)
        return compiling.compile_and_link([path], library=library)


def kit(source: str, *, library: bool = False, **options: int | bool) -> bytes:
    """The stream of a program written for the C kit."""
    return stream(compiled(source, library=library), library=library, **options)


def scripted(**options: int | bool) -> bytes:
    """The stream of the scripted enclave."""
    tools = find("x86_64")
    flags = [*compiling.COMPILE, "-fno-stack-protector", "-I", str(INCLUDE), "-c"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("entry.S", compiling.EXPORTS):
            shutil.copyfile(compiling.KIT / file, folder / file)
        (folder / "script.c").write_text(SCRIPTED)
        tools.compile([*flags, "entry.S", "script.c"], cwd=folder)
        tools.link([*compiling.LINK, "entry.o", "script.o", "-o", "module.elf"], cwd=folder)
        return stream((folder / "module.elf").read_bytes(), **{"threads": 4, **options})


def stream(elf: bytes, **options: int | bool) -> bytes:
    """Convert with small sizes and DEBUG, unless ``options`` say otherwise."""
    sizes = {"heap_size": 0x40000, "stack_size": 0x10000, "debug": True, **options}
    return b"".join(convert.convert(elf, convert.Options(**sizes)))  # type: ignore[arg-type]


def script(memory: UserMemory, steps: Sequence[Sequence[int]], *, exits: bool = True) -> int:
    """Put steps into user memory; their address. After the last the enclave exits, or returns."""
    data = b"".join(STEP.pack(*step, *[0] * (7 - len(step))) for step in steps)
    data += STEP.pack(END, int(exits), 0, 0, 0, 0, 0)
    address = memory.alloc(len(data), 8)
    assert address is not None
    memory.write(address, data)
    return address


def answers(memory: UserMemory, address: int, count: int) -> list[tuple[int, int]]:
    """(RSI, RDX) of the first ``count`` steps of a script."""
    data = memory.read(address, count * STEP.size)
    return [values[5:] for values in STEP.iter_unpack(data)]


def follow(runner: Runner, *scripts: int) -> None:
    """Run the scripted enclave: the first script is the main thread's."""
    runner.run_program([str(address) for address in scripts])
