"""Enclaves that run without SGX: speed of their code, of a usercall, and of loading.

native_speed         SHA-256 of a small message, over and over: ``broch run``'s native engine
                     over the same object code in an ordinary process
usercall_native_us   one usercall (insecure_time), round trip
usercall_unicorn_us  the same on the unicorn engine
load_1mb_ms          an enclave of 1 MB, from its file to its first usercall, in a process that
                     has done it before
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Figure, run

from broch.app.home import Home
from broch.image.toolchain import find
from broch.sgx import Program, dummy_key, find_signature
from broch.tee.sgx import compiling, convert
from broch.tee.sgx.run.usercalls import Call, Usercalls, Waiting
from broch.tee.sgx.run.waiting import Answer, Blocking

ROUNDS = 8_000  # of SHA-256's compression function a turn: some 2 ms, so that few are interrupted
WORKS = 400  # turns
CALLS = 50  # a turn
TURNS = 400
REPEATS = 3
LOADS = 20

SHA256 = r"""
#include <stdint.h>
static const uint32_t K[64] = {CONSTANTS};
#define R(x, n) ((x) >> (n) | (x) << (32 - (n)))
/* There is no canary in an ordinary process without a libc, so there is to be none in both. */
__attribute__((no_stack_protector)) static void compress(uint32_t h[8], const uint32_t m[16]) {
    uint32_t w[64], a[8];
    for (int i = 0; i < 16; i++) w[i] = m[i];
    for (int i = 16; i < 64; i++) {
        uint32_t p = w[i - 15], q = w[i - 2];
        w[i] = w[i - 16] + (R(p, 7) ^ R(p, 18) ^ p >> 3) + w[i - 7]
             + (R(q, 17) ^ R(q, 19) ^ q >> 10);
    }
    for (int i = 0; i < 8; i++) a[i] = h[i];
    for (int i = 0; i < 64; i++) {
        uint32_t t = a[7] + (R(a[4], 6) ^ R(a[4], 11) ^ R(a[4], 25))
                   + ((a[4] & a[5]) ^ (~a[4] & a[6])) + K[i] + w[i];
        uint32_t u = (R(a[0], 2) ^ R(a[0], 13) ^ R(a[0], 22))
                   + ((a[0] & a[1]) ^ (a[0] & a[2]) ^ (a[1] & a[2]));
        a[7] = a[6]; a[6] = a[5]; a[5] = a[4]; a[4] = a[3] + t;
        a[3] = a[2]; a[2] = a[1]; a[1] = a[0]; a[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += a[i];
}
__attribute__((no_stack_protector)) uint32_t work(uint32_t rounds) {
    uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8}, m[16] = {0};
    while (rounds--) {
        for (int i = 0; i < 8; i++) m[i] = h[i];
        compress(h, m);
    }
    return h[0];
}
"""
ENCLAVE = r"""
#include "broch.h"
uint32_t work(uint32_t rounds);
int main(int argc, char **argv) {
    uint64_t least = UINT64_MAX;
    uint32_t value = 0;
    if (!strcmp(argv[argc - 1], "work")) {
        for (int turn = 0; turn < WORKS; turn++) {
            uint64_t begin = __builtin_ia32_rdtsc();
            value = work(ROUNDS);
            uint64_t taken = __builtin_ia32_rdtsc() - begin;
            if (taken < least) least = taken;
        }
    } else {
        for (int turn = 0; turn < TURNS; turn++) {
            uint64_t begin = broch_insecure_time();
            for (uint32_t i = 1; i < CALLS; i++) broch_insecure_time();
            uint64_t taken = broch_insecure_time() - begin;
            if (taken < least) least = taken;
        }
    }
    printf("%u %llu\n", value, (unsigned long long)least);
    return 0;
}
"""
ORDINARY = r"""
#include <stdint.h>
uint32_t work(uint32_t rounds);
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl start\nstart: and $-16, %rsp\n call begin\n ud2");
__attribute__((used)) void begin(void) {
    uint64_t out[2] = {0, UINT64_MAX};
    for (int turn = 0; turn < WORKS; turn++) {
        uint64_t begin = __builtin_ia32_rdtsc();
        out[0] = work(ROUNDS);
        uint64_t taken = __builtin_ia32_rdtsc() - begin;
        if (taken < out[1]) out[1] = taken;
    }
    call(1, 1, (long)out, sizeof out);
    call(231, 0, 0, 0);
}
"""


def constants() -> str:
    """The 64 constants of FIPS 180-4, 4.2.2."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
    return ", ".join(hex(int(_cube_root(p << 96)) & 0xFFFFFFFF) for p in primes[:64])


def _cube_root(value: int) -> int:
    low, high = 0, 1 << 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle)
    return low


def build(folder: Path) -> tuple[Path, Path]:
    """(The enclave, the ordinary program), with the same code for the work."""
    (folder / "work.c").write_text(SHA256.replace("CONSTANTS", constants()))
    numbers = f"enum {{ ROUNDS = {ROUNDS}, WORKS = {WORKS}, CALLS = {CALLS}, TURNS = {TURNS} }};\n"
    (folder / "main.c").write_text(numbers + ENCLAVE)
    (folder / "start.c").write_text(numbers + ORDINARY)
    elf = compiling.compile_and_link([folder / "main.c", folder / "work.c"], library=False)
    options = convert.Options(heap_size=0x10000, stack_size=0x10000, debug=True)
    enclave = folder / "bench.sgxs"
    enclave.write_bytes(b"".join(convert.convert(elf, options)))
    tools = find("x86_64")
    flags = [*compiling.COMPILE, "-fno-stack-protector", "-c"]
    for name in ("work", "start"):
        tools.compile([*flags, f"{name}.c", "-o", f"{folder}/{name}.o"], cwd=folder)
    tools.link(["-e", "start", "start.o", "work.o", "-o", "ordinary"], cwd=folder)
    (folder / "ordinary").chmod(0o755)
    return enclave, folder / "ordinary"


def in_enclave(home: Home, enclave: Path, engine: str, what: str) -> tuple[int, int]:
    """(What the work came to, ticks or nanoseconds of the fastest turn) in an enclave."""
    reader, writer = os.pipe()
    calls = Usercalls(stdout=writer)
    with Program(enclave, engine=engine, sgx2=True, home=home, usercalls=calls) as program:
        program.run([what])
    os.close(writer)
    with os.fdopen(reader) as output:
        value, least = output.read().split()
    return int(value), int(least)


def native_speed(home: Home, enclave: Path, ordinary: Path) -> float:
    """How much of an ordinary process' speed the native engine has.

    The fastest of many turns counts, of both: what else the machine does only ever slows one.
    """
    ours, theirs = [], []
    for _ in range(REPEATS):
        done = subprocess.run([ordinary], stdout=subprocess.PIPE, check=True)
        expected, least = (int.from_bytes(done.stdout[i : i + 8], "little") for i in (0, 8))
        theirs.append(least)
        value, least = in_enclave(home, enclave, "native", "work")
        assert value == expected, "the two did not do the same work"
        ours.append(least)
    return min(theirs) / min(ours)


def usercall_us(home: Home, enclave: Path, engine: str) -> float:
    """One usercall in the fastest of many turns."""
    turns = [in_enclave(home, enclave, engine, "calls")[1] for _ in range(REPEATS)]
    return min(turns) / CALLS / 1000


class _FirstCall(Usercalls):
    """Notes when it is first called."""

    first = 0.0

    def dispatch(self, call: Call) -> Answer | Blocking | Waiting:
        """Serve a call."""
        self.first = self.first or time.perf_counter()
        return super().dispatch(call)


def load_ms(home: Home, folder: Path) -> float:
    """The fastest of several loads of an enclave with 1 MB of measured pages."""
    source = folder / "large.c"
    source.write_text(
        '#include "broch.h"\nstatic volatile const char data[1 << 20] = {1};\n'
        "int main(int argc, char **argv) { (void)argc, (void)argv; return data[0] - 1; }\n"
    )
    elf = compiling.compile_and_link([source], library=False)
    options = convert.Options(heap_size=0x10000, stack_size=0x10000, debug=True)
    path = folder / "large.sgxs"
    path.write_bytes(b"".join(convert.convert(elf, options)))
    stream = path.read_bytes()
    assert len(stream) > 1 << 20
    path.with_suffix(".sig").write_bytes(find_signature(path, stream, "dummy", home))
    taken = []
    reader, writer = os.pipe()
    for _ in range(LOADS):
        calls = _FirstCall(stdout=writer)
        begin = time.perf_counter()
        with Program(path, engine="native", home=home, usercalls=calls) as program:
            program.run()
        taken.append(calls.first - begin)
    os.close(reader)
    os.close(writer)
    return min(taken[2:]) * 1000


def figures() -> list[Figure]:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="broch-bench-") as name:
        folder = Path(name)
        home = Home(folder / "home")
        dummy_key(home)
        print("building", file=sys.stderr)
        enclave, ordinary = build(folder)
        return [
            Figure(
                name="native_speed",
                value=native_speed(home, enclave, ordinary),
                unit="x",
                bar=">= 0.95",
            ),
            Figure(
                name="usercall_native_us",
                value=usercall_us(home, enclave, "native"),
                unit="us",
                bar="<= 40",
            ),
            Figure(
                name="usercall_unicorn_us",
                value=usercall_us(home, enclave, "unicorn"),
                unit="us",
                bar="<= 8",
            ),
            Figure(name="load_1mb_ms", value=load_ms(home, folder), unit="ms", bar="<= 60"),
        ]


if __name__ == "__main__":
    run(figures)
