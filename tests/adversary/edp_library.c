/* A library enclave with one of everything, for test_edp.py. */
#include "broch.h"

#define SECRET 0x5ec4e7c0ffee5ec4u
#define ROOM 64
#define HEAP_SIZE 0x10000 /* as the test converts it */

enum {
    ECHO = 1,
    OCALL,
    REPORT,
    SEAL_KEY,
    RANDOM,
    READ,
    WRITE,
    HEAP,
    FREE_TWICE,
    SECRETS,
    SMASH,
    PRINTF,
    NAMES,
    ILLEGAL,
    WHERE,
    CONNECT,
    TIME,
    STATE,
    TARGETINFO,
    SHORT_REPLY,
    FREE_STACK,
    STACK,
    OCALL_NUMBER,
    QUOTE,
};

/* Pointers in data: they are right only after relocation. */
static const char *const names[] = {"zero", "one", "two"};
static const char *volatile current = "static";

static int32_t echo(const void *data, size_t size) {
    broch_reply(data, size);
    return (int32_t)size;
}

static int32_t ocall(const void *data, size_t size) {
    uint8_t out[ROOM];
    size_t room = sizeof out;
    const int32_t value = broch_ocall(7, data, size, out, &room);
    broch_reply(out, room);
    return value;
}

static int32_t report(const uint8_t *data, size_t size) {
    uint8_t out[BROCH_REPORT_SIZE];
    broch_report(size > 64 ? data + 64 : NULL, data, out);
    broch_reply(out, sizeof out);
    return 0;
}

/* binding, label, and perhaps a version */
static int32_t seal_key(const uint8_t *data, size_t size) {
    uint8_t key[BROCH_SEAL_KEY_SIZE];
    struct broch_seal_version version;
    if (size > 33) {
        memcpy(version.cpu_svn, data + 33, 16);
        memcpy(&version.isv_svn, data + 49, 2);
    }
    if (!broch_seal_key(data[0], data + 1, size > 33 ? &version : NULL, key))
        return -1;
    broch_reply(key, sizeof key);
    return 0;
}

static int32_t read_some(void) {
    uint8_t out[ROOM];
    const int64_t done = broch_read(0, out, sizeof out);
    if (done > 0)
        broch_reply(out, (size_t)done);
    return (int32_t)done;
}

/* Blocks of changing sizes; the number of bytes that were not what was written. */
static int32_t heap(void) {
    uint8_t *blocks[32] = {0};
    size_t sizes[32] = {0};
    uint32_t random = 1;
    int32_t wrong = 0;
    for (int round = 0; round < 600; round++) {
        random = random * 1664525 + 1013904223;
        const unsigned i = random >> 27;
        for (size_t at = 0; at < sizes[i]; at++)
            wrong += blocks[i][at] != (uint8_t)(i + at);
        const size_t size = random >> 8 & 0x1ff;
        if (round % 3 == 0) {
            free(blocks[i]);
            blocks[i] = malloc(size);
        } else {
            const size_t kept = size < sizes[i] ? size : sizes[i];
            blocks[i] = realloc(blocks[i], size);
            for (size_t at = 0; at < kept; at++)
                wrong += blocks[i][at] != (uint8_t)(i + at);
        }
        sizes[i] = size;
        wrong += (uintptr_t)blocks[i] % 16 != 0 || !broch_is_inside(blocks[i], size);
        for (size_t at = 0; at < size; at++)
            blocks[i][at] = (uint8_t)(i + at);
    }
    for (int i = 0; i < 32; i++)
        free(blocks[i]);
    void *all = malloc(HEAP_SIZE - 1024); /* what was freed is one block again */
    wrong += all == NULL;
    free(all);
    wrong += malloc(SIZE_MAX) != NULL;
    wrong += malloc(HEAP_SIZE) != NULL;
    wrong += calloc(SIZE_MAX / 2, 4) != NULL;
    return wrong;
}

/* Leave secrets in every register that a function may leave something in, and on stack and heap. */
static int32_t secrets(void) {
    volatile uint64_t stack[64];
    uint64_t *block = malloc(256);
    for (int i = 0; i < 64; i++)
        stack[i] = SECRET;
    for (int i = 0; i < 32; i++)
        block[i] = SECRET;
    free(block);
    __asm__ volatile("movq %0, %%xmm0; punpcklqdq %%xmm0, %%xmm0;"
                     "movdqa %%xmm0, %%xmm5; movdqa %%xmm0, %%xmm15;"
                     "mov %0, %%rcx; mov %0, %%r8; mov %0, %%r9; mov %0, %%r10; mov %0, %%r11;"
                     "mov %0, %%rdi; mov %0, %%rsi" ::"a"(SECRET)
                     : "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm5", "xmm15");
    return 1;
}

__attribute__((noinline)) static int32_t smash(const uint8_t *data, size_t size) {
    volatile uint8_t small[8];
    volatile uint8_t *at = small;
    for (size_t i = 0; i < size; i++)
        at[i] = data[i];
    return small[0];
}

static int32_t all_of_printf(void) {
    char out[512];
    int made = snprintf(out, sizeof out, "%d|%i|%5d|%-5d|%05d|%u|%x|%X|%08x", -1, 2, 3, 4, -5,
                        4000000000u, 0xbeef, 0xbeef, 0x12ab);
    made += snprintf(out + made, sizeof out - (size_t)made, "|%ld|%llu|%zu|%hd|%hhu|%lx|%ld",
                     -5000000000L, 18446744073709551615ull, (size_t)7, (short)-2, (unsigned char)200,
                     0xfedcba9876543210ul, INT64_MIN);
    made += snprintf(out + made, sizeof out - (size_t)made, "|%s|%8s|%-8s|%.3s|%.*s|%c|%p|%%", "abc",
                     "abc", "abc", "abcdef", 2, "abcdef", 'z', (void *)0x10);
    char small[4];
    const int all = snprintf(small, sizeof small, "%s", "longer");
    made += snprintf(out + made, sizeof out - (size_t)made, "|%s|%d", small, all);
    broch_reply(out, (size_t)made);
    return made;
}

/* Pairs of address and size; for each a byte: 1 outside, 2 inside. */
static int32_t where(const uint64_t *data, size_t size) {
    uint8_t out[ROOM];
    size_t count = size / 16;
    for (size_t i = 0; i < count; i++) {
        const void *at = (const void *)data[2 * i];
        out[i] = (uint8_t)(broch_is_outside(at, data[2 * i + 1]) +
                           2 * broch_is_inside(at, data[2 * i + 1]));
    }
    broch_reply(out, count);
    return 0;
}

static int32_t state(void) {
    struct {
        uint64_t flags;
        uint32_t mxcsr;
        uint16_t fcw, zero;
    } out = {0};
    uint8_t bytes[16] = {0};
    /* Faults if AC is still set. */
    __asm__ volatile("movl 1(%0), %%eax" ::"r"((uintptr_t)bytes & ~(uintptr_t)7) : "eax");
    __asm__ volatile("pushfq; pop %0" : "=r"(out.flags));
    __asm__ volatile("stmxcsr %0" : "=m"(out.mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(out.fcw));
    broch_reply(&out, sizeof out);
    return 0;
}

static int32_t short_reply(size_t size) {
    struct {
        uint64_t words[16];
    } noise;
    memset(&noise, 0xc5, sizeof noise);
    broch_reply(&noise, size);
    return 0;
}

__attribute__((noinline)) static uint64_t recurse(uint64_t depth) {
    volatile uint8_t frame[1024];
    frame[depth % sizeof frame] = 1;
    return depth == 0 ? frame[0] : recurse(depth - 1) + frame[1];
}

/* Report data, and perhaps how much room there is. */
static int32_t quote(const uint8_t *data, size_t size) {
    static uint8_t out[BROCH_QUOTE_ROOM];
    const int64_t got = broch_quote(data, out, size > 64 ? data[64] : sizeof out);
    if (got > 0)
        broch_reply(out, (size_t)got);
    return (int32_t)got;
}

int32_t broch_call(uint32_t number, const void *data, size_t size) {
    uint8_t buffer[BROCH_TARGETINFO_SIZE];
    switch (number) {
    case ECHO:
        return echo(data, size);
    case OCALL:
        return ocall(data, size);
    case REPORT:
        return report(data, size);
    case SEAL_KEY:
        return seal_key(data, size);
    case RANDOM:
        broch_random(buffer, ROOM);
        broch_reply(buffer, ROOM);
        return 0;
    case READ:
        return read_some();
    case WRITE:
        return (int32_t)broch_write(1, data, size);
    case HEAP:
        return heap();
    case FREE_TWICE: {
        void *block = malloc(8);
        free(block);
        free(block);
        return 0;
    }
    case SECRETS:
        return secrets();
    case SMASH:
        return smash(data, size);
    case PRINTF:
        return all_of_printf();
    case NAMES:
        broch_reply(names[size], strlen(names[size]));
        return strcmp(current, "static");
    case ILLEGAL:
        __asm__ volatile("ud2");
        return 0;
    case WHERE:
        return where(data, size);
    case CONNECT:
        return (int32_t)broch_connect("example:80");
    case TIME:
        return (int32_t)(broch_insecure_time() / 1000000000);
    case STATE:
        return state();
    case TARGETINFO:
        broch_targetinfo(buffer);
        broch_reply(buffer, sizeof buffer);
        return 0;
    case SHORT_REPLY:
        return short_reply(size);
    case FREE_STACK:
        free(buffer);
        return 0;
    case STACK:
        return (int32_t)recurse(1000000);
    case QUOTE:
        return quote(data, size);
    case OCALL_NUMBER:
        return broch_ocall(0x80000000u, NULL, 0, NULL, NULL);
    default:
        return -EDP_INVALID_INPUT;
    }
}
