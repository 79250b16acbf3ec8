/* What is asked of the host, and what of its answers can be true. */
#include "internal.h"

/* Bytes of user memory that a thread keeps, so that most calls need no alloc. */
#define SCRATCH 8192

static const int32_t KNOWN[] = {
    0,
    EDP_PERMISSION_DENIED,
    EDP_NOT_FOUND,
    EDP_INTERRUPTED,
    EDP_WOULD_BLOCK,
    EDP_ALREADY_EXISTS,
    EDP_INVALID_INPUT,
    EDP_BROKEN_PIPE,
    EDP_ADDR_IN_USE,
    EDP_ADDR_NOT_AVAILABLE,
    EDP_CONNECTION_ABORTED,
    EDP_CONNECTION_RESET,
    EDP_NOT_CONNECTED,
    EDP_TIMED_OUT,
    EDP_CONNECTION_REFUSED,
    EDP_INVALID_DATA,
    EDP_WRITE_ZERO,
    EDP_UNEXPECTED_EOF,
    EDP_OTHER,
};

int32_t usercall_result(uint64_t value) {
    if (value >= EDP_USER && value <= INT32_MAX)
        return (int32_t)value;
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (value == (uint64_t)KNOWN[i])
            return KNOWN[i];
    broch_abort("the host answered a usercall with a result that there is not");
}

static uint64_t scratch(void) {
    struct thread *thread = this_thread();
    if (thread->scratch == 0)
        thread->scratch = user_alloc(SCRATCH);
    return thread->scratch;
}

/* A count of bytes done, or a negative error. */
static int64_t count(struct broch_result answer, uint64_t most) {
    const int32_t error = usercall_result(answer.first);
    if (error != 0)
        return -(int64_t)error;
    if (answer.second > most)
        broch_abort("the host says that it did more than it was asked for");
    return (int64_t)answer.second;
}

int64_t broch_read(int64_t stream, void *out, size_t size) {
    const uint64_t from = scratch(), most = size < SCRATCH ? size : SCRATCH;
    const int64_t done =
        count(broch_usercall(USERCALL_READ, (uint64_t)stream, from, most, 0), most);
    if (done > 0)
        user_read(out, from, (uint64_t)done);
    return done;
}

int64_t broch_write(int64_t stream, const void *data, size_t size) {
    const uint8_t *bytes = data;
    size_t written = 0;
    while (written < size) {
        const uint64_t to = scratch();
        const uint64_t most = size - written < SCRATCH ? size - written : SCRATCH;
        user_write(to, bytes + written, most);
        const int64_t done =
            count(broch_usercall(USERCALL_WRITE, (uint64_t)stream, to, most, 0), most);
        if (done <= 0)
            return written > 0 ? (int64_t)written : done;
        written += (size_t)done;
    }
    return (int64_t)written;
}

int64_t broch_connect(const char *address) {
    const size_t size = strlen(address);
    if (size > SCRATCH)
        return -EDP_INVALID_INPUT;
    const uint64_t to = scratch();
    user_write(to, address, size);
    const struct broch_result answer = broch_usercall(USERCALL_CONNECT_STREAM, to, size, 0, 0);
    return count(answer, INT64_MAX); /* the second value is the stream */
}

void broch_close(int64_t stream) {
    broch_usercall(USERCALL_CLOSE, (uint64_t)stream, 0, 0, 0);
}

uint64_t broch_insecure_time(void) {
    return broch_usercall(USERCALL_INSECURE_TIME, 0, 0, 0, 0).first;
}

/* The reply of an ocall: its size, and it is released. */
static size_t take_reply(struct byte_buffer reply, void *out, size_t room) {
    if (reply.length == 0)
        return 0;
    user_check(reply.address, reply.length);
    if (out != NULL) {
        if (reply.length > room)
            broch_abort("the host replied to an ocall with more than there is room for");
        user_read(out, reply.address, reply.length);
    }
    user_free(reply.address, reply.length, 1);
    return reply.length;
}

int32_t broch_ocall(uint32_t number, const void *data, size_t size, void *out, size_t *out_size) {
    const uint64_t buffer = scratch(), inline_room = SCRATCH - sizeof(struct byte_buffer);
    if (number >= USERCALL_USER)
        broch_abort("the number of an ocall is above 0x7fffffff");
    uint64_t from = 0;
    if (size != 0) {
        from = size <= inline_room ? buffer + sizeof(struct byte_buffer) : user_alloc(size);
        user_write(from, data, size);
    }
    user_write_buffer(buffer, (struct byte_buffer){0, 0});
    const struct broch_result answer =
        broch_usercall(USERCALL_USER | number, from, size, buffer, 0);
    const struct byte_buffer reply = user_read_buffer(buffer);
    if (size > inline_room)
        user_free(from, round_up(size), 8);
    const size_t got = take_reply(reply, out, out_size == NULL ? 0 : *out_size);
    if (out_size != NULL)
        *out_size = got;
    if (answer.first != (uint64_t)(int64_t)(int32_t)answer.first)
        broch_abort("the host answered an ocall with more than 32 bits");
    return (int32_t)answer.first;
}
