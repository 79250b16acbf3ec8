/* From the first instruction in C to the author's function, and the end of the enclave. */
#include "internal.h"

#define MAX_ARGUMENTS 4096
#define DEBUG_BUFFER_SIZE 1024

enum { NEW, STARTING, READY };

uint32_t broch_dead;
static uint32_t state;

/* One entry of .rela.dyn. The converter has checked that all are R_X86_64_RELATIVE and lie in
 * writable segments. */
struct rela {
    uint64_t offset;
    uint64_t info;
    uint64_t addend;
};

/* Runs before anything that needs a relocation: it touches hidden symbols only. */
static void relocate(void) {
    const uint64_t base = enclave_base();
    const struct rela *rela = (const struct rela *)(base + broch_at_rela);
    const uint64_t count = broch_at_relacount;
    for (uint64_t i = 0; i < count; i++)
        *(uint64_t *)(base + rela[i].offset) = base + rela[i].addend;
}

static void begin_once(void) {
    uint32_t expected = NEW;
    if (__atomic_compare_exchange_n(&state, &expected, STARTING, false, __ATOMIC_ACQUIRE,
                                    __ATOMIC_ACQUIRE)) {
        relocate();
        heap_begin(enclave_base() + broch_at_heap_base, broch_at_heap_size);
        __atomic_store_n(&state, READY, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != READY) /* no usercall is made meanwhile */
        __builtin_ia32_pause();
}

__attribute__((noreturn)) static void end(bool panic) {
    __atomic_store_n(&broch_dead, 1, __ATOMIC_SEQ_CST);
    broch_usercall(USERCALL_EXIT, panic, 0, 0, 0);
    __builtin_trap(); /* entry.S lets nobody come back */
}

/* A debug enclave has no secrets, so it may say why it ended. */
static void show(const char *message) {
    char text[DEBUG_BUFFER_SIZE];
    const uint64_t to = this_thread()->debug_buffer;
    if (!broch_at_debug || to == 0 || to % 8 != 0 ||
        !broch_is_outside((const void *)to, sizeof text))
        return;
    size_t size = strlen(message);
    if (size > sizeof text - 1)
        size = sizeof text - 1;
    memset(text, 0, sizeof text);
    memcpy(text, message, size);
    user_write(to, text, sizeof text);
}

void broch_abort(const char *message) {
    show(message);
    end(true);
}

void broch_exit(int code) {
    if (code != 0) {
        char text[64];
        snprintf(text, sizeof text, "Exited with status code %d", code);
        show(text);
    }
    end(code != 0);
}

__attribute__((noreturn)) void __stack_chk_fail(void) {
    broch_abort("a function wrote past the end of its stack frame");
}

#ifdef BROCH_LIBRARY

struct broch_result broch_enter(uint64_t number, uint64_t data, uint64_t size, uint64_t reply,
                                uint64_t unused) {
    struct thread *thread = this_thread();
    void *copy = NULL;
    (void)unused;
    begin_once();
    if (number > UINT32_MAX)
        broch_abort("the host called a function whose number has more than 32 bits");
    if (size != 0) {
        user_check(data, size);
        copy = malloc(size);
        if (copy == NULL)
            broch_abort("the data of a call do not fit the heap: raise --heap-size");
        user_read(copy, data, size);
    }
    if (reply != 0)
        user_check_aligned(reply, sizeof(struct byte_buffer));
    thread->reply = (struct byte_buffer){0, 0};
    const int32_t value = broch_call((uint32_t)number, copy, size);
    free(copy);
    if (reply != 0)
        user_write_buffer(reply, thread->reply);
    else if (thread->reply.address != 0)
        user_free(thread->reply.address, round_up(thread->reply.length), 8);
    return (struct broch_result){(uint64_t)(int64_t)value, 0};
}

void broch_reply(const void *data, size_t size) {
    struct thread *thread = this_thread();
    struct byte_buffer made = {0, 0};
    if (size != 0) {
        made = (struct byte_buffer){user_alloc(size), size};
        user_write(made.address, data, size);
    }
    if (thread->reply.address != 0)
        user_free(thread->reply.address, round_up(thread->reply.length), 8);
    thread->reply = made;
}

#else

static char *copy_argument(struct byte_buffer buffer) {
    char *text = buffer.length < SIZE_MAX ? malloc(buffer.length + 1) : NULL;
    if (text == NULL)
        broch_abort("the arguments do not fit the heap: raise --heap-size");
    if (buffer.length != 0) {
        user_read(text, buffer.address, buffer.length);
        user_free(buffer.address, buffer.length, 1);
    }
    text[buffer.length] = 0;
    return text;
}

static char **copy_arguments(uint64_t from, uint64_t count) {
    if (count > MAX_ARGUMENTS)
        broch_abort("more than 4096 arguments");
    char **arguments = calloc(count + 1, sizeof *arguments);
    if (arguments == NULL)
        broch_abort("the arguments do not fit the heap: raise --heap-size");
    for (uint64_t i = 0; i < count; i++)
        arguments[i] = copy_argument(user_read_buffer(from + i * sizeof(struct byte_buffer)));
    if (count != 0)
        user_free(from, count * sizeof(struct byte_buffer), 8);
    return arguments;
}

struct broch_result broch_enter(uint64_t arguments, uint64_t count, uint64_t p3, uint64_t p4,
                                uint64_t p5) {
    static uint32_t started;
    (void)p3, (void)p4, (void)p5;
    if (this_thread()->flags & NO_MAIN)
        broch_abort("the host entered a thread that nobody asked for");
    begin_once();
    if (__atomic_exchange_n(&started, 1, __ATOMIC_SEQ_CST))
        broch_abort("the host entered main twice");
    broch_exit(main((int)count, copy_arguments(arguments, count)));
}

#endif
