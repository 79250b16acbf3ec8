/* What the parts of the runtime know of each other. */
#ifndef BROCH_SGX_INTERNAL_H
#define BROCH_SGX_INTERNAL_H

#include "broch/sgx.h"

#pragma GCC visibility push(hidden)

#define PAGE 4096
#define NO_MAIN 1u /* struct thread, flags: not the main thread */

/* {address, length} in user memory. Read once, into one of these. */
struct byte_buffer {
    uint64_t address;
    uint64_t length;
};

/* A thread's own page; entry.S knows where the first fields are. */
struct thread {
    struct thread *self; /* also the top of the stack, which ends where this page begins */
    uint64_t flags;
    uint64_t waiting_rsp;
    uint64_t entered;
    uint64_t debug_buffer; /* as the host gave it */
    uint64_t canary;
    uint64_t user[8];
    uint64_t scratch;         /* user memory for usercalls, SCRATCH bytes; 0: none yet */
    struct byte_buffer reply; /* of the call that is being served */
};
_Static_assert(offsetof(struct thread, canary) == 0x28, "as in entry.S");
_Static_assert(offsetof(struct thread, scratch) == 0x70, "as in entry.S");

static inline struct thread *this_thread(void) {
    struct thread *thread;
    __asm__("mov %%gs:0, %0" : "=r"(thread));
    return thread;
}

/* entry.S */
struct broch_result {
    uint64_t first;  /* RSI */
    uint64_t second; /* RDX */
};
struct broch_result broch_usercall(uint64_t number, uint64_t p1, uint64_t p2, uint64_t p3,
                                   uint64_t p4);
extern const volatile uint64_t broch_at_heap_base, broch_at_heap_size;
extern const volatile uint64_t broch_at_rela, broch_at_relacount, broch_at_enclave_size;
extern const volatile uint8_t broch_at_debug;
extern const char __ehdr_start[]; /* the enclave's base; of the linker */

static inline uint64_t enclave_base(void) {
    return (uint64_t)__ehdr_start;
}

/* start.c */
int main(int argc, char **argv); /* of the author, who may leave the arguments out */
extern uint32_t broch_dead; /* 1: the enclave has ended */

/* heap.c */
void heap_begin(uint64_t start, uint64_t size);

/* user.c: memory of the host. What is not outside the enclave, or not aligned where it must be,
 * ends the enclave. */
static inline uint64_t round_up(uint64_t size) { /* to 8; size is at most 2^64 - 8 */
    return (size + 7) & ~(uint64_t)7;
}
void user_check(uint64_t address, uint64_t size);
void user_check_aligned(uint64_t address, uint64_t size); /* to 8 */
uint64_t user_alloc(uint64_t size);                       /* aligned, round_up(size) bytes */
void user_free(uint64_t address, uint64_t size, uint64_t align);
void user_write(uint64_t to, const void *from, uint64_t size); /* writes round_up(size) bytes */
void user_read(void *to, uint64_t from, uint64_t size);
struct byte_buffer user_read_buffer(uint64_t from);
void user_write_buffer(uint64_t to, struct byte_buffer buffer);

/* host.c: usercalls of the Fortanix SGX ABI, section 4.2 */
enum usercall {
    USERCALL_READ = 1,
    USERCALL_WRITE = 3,
    USERCALL_CLOSE = 5,
    USERCALL_CONNECT_STREAM = 8,
    USERCALL_EXIT = 10,
    USERCALL_INSECURE_TIME = 13,
    USERCALL_ALLOC = 14,
    USERCALL_FREE = 15,
};
#define USERCALL_USER 0x80000000u
int32_t usercall_result(uint64_t value); /* one of the known results, or the end */

#pragma GCC visibility pop
#endif
