/* Broch for SGX: what a module in C may call inside an enclave. Freestanding C11; no libc.
 *
 * An executable enclave has main, and is run:       broch run hello.sgxs -- arguments
 * A library enclave has broch_call, and is called:  with broch.sgx.Enclave("hello.sgxs") as e:
 *                                                       e.call(1, b"data")
 *
 * The host is the adversary. Everything here copies what the host gives into enclave memory once,
 * then checks it, then uses it; what cannot be true ends the enclave (broch_abort). What the host
 * says is still only what the host says: text that was read, a reply of an ocall, the time.
 *
 *
 * The ABI, for those who write a runner (it is that of Fortanix EDP, FORTANIX-SGX-ABI.md)
 *
 *   ByteBuffer is {u64 address, u64 length} in user memory. Registers in, and RSI, RDX out:
 *
 *                     RDI           RSI           RDX       R8            R9   out
 *   EENTER, main      ByteBuffer[]  how many      0         0             0    (usercall exit)
 *   EENTER, library   number        data or 0     length    *ByteBuffer   0    return value, 0
 *   usercall 1 to 15  as in Fortanix EDP
 *   ocall             1<<31|number  data or 0     length    *ByteBuffer   0    return value, 0
 *
 *   The ByteBuffer that R8 points to holds {0, 0}, and the callee puts its reply there, or leaves
 *   it. Of a call, the enclave got that memory by usercall alloc(length rounded up to 8, 8), and
 *   the host releases it. Of an ocall, the host allocated it, and the enclave releases it by
 *   usercall free(address, length, 1). Return values are those of the author's function, 32 bits,
 *   with the sign extended to 64.
 */
#ifndef BROCH_SGX_H
#define BROCH_SGX_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden) /* one image, no dynamic linker */

/* What the author writes: one of these. */

/* An executable enclave: int main(void) or int main(int argc, char **argv), where argv[0] is
 * "enclave"; 0 is success. Not declared here, for C has no declaration that is both. */

/* A library enclave (--library). Called for each call(number, data), by several threads at once if
 * the enclave has several. data is a copy in the enclave, 16-byte aligned, and gone after the
 * return; it is NULL if size is 0. The return value reaches the caller, and so does what
 * broch_reply was given. */
int32_t broch_call(uint32_t number, const void *data, size_t size);

/* What this call returns besides its number, copied out at once; the last one holds. Only in
 * broch_call. */
void broch_reply(const void *data, size_t size);


/* Text. printf knows d i u x X c s p %, with flags - and 0, a width, a precision for s, and sizes
 * hh h l ll z; an unknown conversion ends the enclave, and %n is not known. Output is lost if the
 * host loses it. */
void broch_print(const char *text);
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int snprintf(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *out, size_t size, const char *format, va_list arguments);
int puts(const char *text);


/* Streams: 0 is standard input, 1 output, 2 error. How many bytes were done (0: end), or a negative
 * error, -EDP_... */
int64_t broch_read(int64_t stream, void *out, size_t size);
int64_t broch_write(int64_t stream, const void *data, size_t size);
int64_t broch_connect(const char *address); /* TCP, "host:port"; a stream */
void broch_close(int64_t stream);


/* Ask the host. number is at most 0x7fffffff. The reply is copied into out; *out_size is its room,
 * and then its size; a larger reply is an error of the host's, and ends the enclave. Both may be
 * NULL. The return value is what the host's function returned. */
int32_t broch_ocall(uint32_t number, const void *data, size_t size, void *out, size_t *out_size);


/* Memory of the enclave's heap (--heap-size), 16-byte aligned; NULL if there is none left.
 * Releasing what was not allocated, or twice, ends the enclave. */
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *memory, size_t size);
void free(void *memory);

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);
bool broch_equal(const void *a, const void *b, size_t size); /* in constant time */
void broch_wipe(void *memory, size_t size); /* zeros that no compiler leaves out */


/* Addresses. All of size bytes outside the enclave: the host's; all inside: ours. Neither is true
 * of what lies across the edge or wraps around. */
bool broch_is_outside(const volatile void *memory, size_t size);
bool broch_is_inside(const volatile void *memory, size_t size);


/* Random bytes, of RDRAND. */
void broch_random(void *out, size_t size);

/* Nanoseconds since 1970 as the host tells them: it may tell anything. */
uint64_t broch_insecure_time(void);

/* End the enclave for good: with a code, or with a message that a debug enclave shows. */
__attribute__((noreturn)) void broch_exit(int code);
__attribute__((noreturn)) void broch_abort(const char *message);


/* Evidence. A REPORT (SDM 3D 37.15), for another enclave of this CPU to verify. target is the
 * TARGETINFO of that enclave, as it gave it: 512 bytes, or NULL for zeros, as a quoting service
 * takes it from nobody. */
#define BROCH_TARGETINFO_SIZE 512
#define BROCH_REPORT_SIZE 432
#define BROCH_REPORT_DATA_SIZE 64
void broch_report(const void *target, const uint8_t data[BROCH_REPORT_DATA_SIZE],
                  uint8_t out[BROCH_REPORT_SIZE]);
void broch_targetinfo(uint8_t out[BROCH_TARGETINFO_SIZE]); /* our own, to be given to others */

/* A DCAP quote of a report with this data, for anyone to verify: how many bytes it has, or a
 * negative error, -EDP_INVALID_DATA if there is no room. The host makes it (broch run does), and
 * may refuse to; it need not be believed, for who verifies the quote sees whether it is one. */
#define BROCH_QUOTE_ROOM 16384 /* enough for a quote with its certificates */
int64_t broch_quote(const uint8_t data[BROCH_REPORT_DATA_SIZE], void *out, size_t room);


/* Keys to seal data with: the same for the same CPU, binding, label and versions. Always bound to
 * ATTRIBUTES too, so a debug enclave has other keys. */
enum broch_binding {
    BROCH_SEAL_TO_CODE = 1,   /* MRENCLAVE: this exact enclave */
    BROCH_SEAL_TO_SIGNER = 2, /* MRSIGNER, ISVPRODID: its successors too, not its predecessors */
};
#define BROCH_SEAL_KEY_SIZE 16

/* What a key depends on besides. Keep it with what is sealed: it is no secret. */
struct broch_seal_version {
    uint8_t cpu_svn[16];
    uint16_t isv_svn;
};
void broch_seal_version_now(struct broch_seal_version *out);

/* The key; of version, or the current one if that is NULL. False: version is above our own. */
bool broch_seal_key(enum broch_binding binding, const uint8_t label[32],
                    const struct broch_seal_version *version, uint8_t out[BROCH_SEAL_KEY_SIZE]);


/* Results of usercalls (fortanix-sgx-abi, enum Result). */
enum {
    EDP_PERMISSION_DENIED = 1,
    EDP_NOT_FOUND = 2,
    EDP_INTERRUPTED = 4,
    EDP_WOULD_BLOCK = 0xb,
    EDP_ALREADY_EXISTS = 0x11,
    EDP_INVALID_INPUT = 0x16,
    EDP_BROKEN_PIPE = 0x20,
    EDP_ADDR_IN_USE = 0x62,
    EDP_ADDR_NOT_AVAILABLE = 0x63,
    EDP_CONNECTION_ABORTED = 0x67,
    EDP_CONNECTION_RESET = 0x68,
    EDP_NOT_CONNECTED = 0x6b,
    EDP_TIMED_OUT = 0x6e,
    EDP_CONNECTION_REFUSED = 0x6f,
    EDP_INVALID_DATA = 0x20000000,
    EDP_WRITE_ZERO = 0x20000001,
    EDP_UNEXPECTED_EOF = 0x20000002,
    EDP_OTHER = 0x3fffffff,
    EDP_USER = 0x40000000, /* to 0x7fffffff */
};

#pragma GCC visibility pop
#endif
